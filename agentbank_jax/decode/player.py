"""The model as a player: conversations rendered as in training, run on the engine."""

from collections.abc import Hashable, Sequence
import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentbank_jax.agents import Reply
from agentbank_jax.bundle import Bundle
from agentbank_jax.chat import ChatError, Renderer, make_renderer
from agentbank_jax.decode.engine import Engine, Generation
from agentbank_jax.decode.sampling import Sampling
from agentbank_jax.errors import UserError
from agentbank_jax.models import execution as execution_lib
from agentbank_jax.models import llama
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.sharding import run_sharding
from agentbank_jax.tokenizer import load_tokenizer
from agentbank_jax.trajectory import Turn


@dataclasses.dataclass
class _Open:
  """A conversation that has a slot."""

  slot: int
  turns: list[Turn]
  begin: int = 0  # where in the slot's tokens the last reply starts
  stopped_by: int | None = None  # the stop token that ended it, which is in the slot's tokens


class EnginePlayer:
  """Plays with a model: implements `agents.Player`.

  The tokens of a conversation are those of training: `Renderer.prompt` for the opening, what was drawn, and
  `Renderer.continuation` for what comes between two replies. Only new tokens are run.

  Attributes:
    name: of the model, for the episode log.
    slots: conversations at once.
  """

  def __init__(self, name: str, engine: Engine, renderer: Renderer, turn_tokens: int):
    """Args:
      turn_tokens: a reply is cut there.

    Raises:
      UserError: `turn_tokens` below 1.
    """
    if turn_tokens < 1:
      raise UserError(f"sampling.turn_tokens is {turn_tokens}; it must be at least 1")
    self.name, self.slots = name, engine.slots
    self._engine, self._renderer, self._turn_tokens = engine, renderer, turn_tokens
    self._free = list(range(engine.slots - 1, -1, -1))
    self._open: dict[Hashable, _Open] = {}
    self._ready: list[tuple[Hashable, Reply]] = []

  def send(self, conversation: Hashable, turns: Sequence[Turn], seed: int) -> None:
    """Adds turns and asks for a reply; the first call's seed is the conversation's."""
    state = self._open.get(conversation)
    if state is None:
      if not self._free:
        raise ValueError(f"all {self.slots} slots are taken; end a conversation first")
      state = self._open[conversation] = _Open(self._free.pop(), [])
      self._engine.open(state.slot, seed)
    try:
      tokens = self._new_tokens(state, turns)
    except ChatError as e:
      self._ready.append((conversation, Reply("", 0, "error", str(e))))
      return
    state.turns += turns
    if not self._engine.request(state.slot, tokens, self._turn_tokens):
      self._ready.append((conversation, Reply("", 0, "context")))
    else:
      state.begin = len(self._engine.ids(state.slot))

  def _new_tokens(self, state: _Open, turns: Sequence[Turn]) -> list[int]:
    if not state.turns:
      return self._renderer.prompt(turns)
    tokens = self._renderer.continuation([*state.turns, *turns], len(state.turns) - 1)
    if state.stopped_by == tokens[0]:
      return tokens[1:]  # the model wrote the terminator itself
    if state.stopped_by is not None:  # it ended its turn with another token than the format does
      self._engine.truncate(state.slot, len(self._engine.ids(state.slot)) - 1)
    return tokens

  def poll(self) -> list[tuple[Hashable, Reply]]:
    """Draws one chunk of tokens, and returns the replies that are ready."""
    ready, self._ready = self._ready, []
    of_slot = {state.slot: key for key, state in self._open.items()}
    for generation in self._engine.step():
      key = of_slot[generation.slot]
      ready.append((key, self._reply(self._open[key], generation)))
    return ready

  def _reply(self, state: _Open, generation: Generation) -> Reply:
    tokens, finish = generation.tokens, generation.finish
    state.stopped_by = self._engine.ids(state.slot)[-1] if finish == "stop" else None
    text = self._renderer.tokenizer.decode(tokens)
    cut = min((at for s in self._renderer.stop_strings if (at := text.find(s)) >= 0), default=None)
    if cut is not None:
      tokens, finish, state.stopped_by = self._keep(tokens, text[:cut]), "stop", None
      self._engine.truncate(state.slot, state.begin + len(tokens))
    elif finish == "context":
      return Reply("", len(tokens), "context")
    content = self._renderer.parse(text)
    state.turns.append(Turn("assistant", content))
    return Reply(content, len(generation.tokens), finish)

  def _keep(self, tokens: list[int], text: str) -> list[int]:
    """Returns the first of `tokens`, as many as stay within `text`."""
    decode = self._renderer.tokenizer.decode
    count = len(tokens)
    while count and not text.startswith(decode(tokens[:count])):
      count -= 1
    return tokens[:count]

  def end(self, conversation: Hashable) -> None:
    """Frees the conversation's slot."""
    state = self._open.pop(conversation, None)
    if state is not None:
      self._engine.open(state.slot, 0)
      self._free.append(state.slot)


def make_engine_player(config) -> EnginePlayer:
  """Builds the player of `configs/evaluate.py`: opens the model, places it on the mesh, makes the engine.

  Raises:
    UserError: no model there, or settings that do not fit it or the machine.
  """
  engine, sampling = config.engine, config.sampling
  if not engine.model:
    raise UserError("engine.model is empty; give a model's folder: of agentbank train or convert, or Hugging Face's")
  bundle = Bundle.open(engine.model)
  format = engine.format or bundle.chat_format
  if format is None:
    raise UserError(f"{engine.model} does not say which chat format it was trained with; set engine.format")
  renderer = make_renderer(load_tokenizer(bundle.tokenizer), format)
  if sampling.context > bundle.config.max_positions:
    raise UserError(f"sampling.context is {sampling.context}, but {engine.model} has {bundle.config.max_positions} "
                    f"positions; set --config.sampling.context={bundle.config.max_positions} or less")
  rules = {**config.rules, "length": None}  # a turn's few new positions are not worth cutting
  sharding = run_sharding(config.mesh, rules)
  execution = execution_lib.resolve(config.execution, jax.default_backend(), sharding)
  dtype = "float32" if execution.compute_dtype == "float32" else None
  shardings = llama.param_shardings(bundle.config, sharding) if sharding else None
  params = jax.tree.map(jnp.asarray, bundle.load_params(shardings, dtype=dtype, check_finite=True))
  return engine_player(bundle.path.resolve().name, params, bundle.config, renderer, execution, slots=config.slots,
                       chunk=engine.chunk, context=sampling.context, turn_tokens=sampling.turn_tokens,
                       sampling=Sampling(sampling.temperature, sampling.top_p))


def engine_player(name: str, params, config: LlamaConfig, renderer: Renderer, execution: execution_lib.Execution, *,
                  slots: int, chunk: int, context: int, turn_tokens: int, sampling: Sampling) -> EnginePlayer:
  """Returns a player for canonical parameters.

  Its name gets a digest of all that its replies depend on, but for the settings in the episode log's fingerprint:
  parameters, architecture, chat format and tokenizer, compute dtype.

  Raises:
    UserError: the tokenizer has more tokens than the model.
  """
  if renderer.tokenizer.vocab_size > config.vocab_size:
    raise UserError(f"the tokenizer of {name} has {renderer.tokenizer.vocab_size} tokens, the model's vocabulary "
                    f"{config.vocab_size} entries; give the folder the tokenizer that the model was trained with")
  parts = params_digest(params), config, renderer.fingerprint, execution.compute_dtype
  digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
  engine = Engine(llama.to_layout(params, config.num_layers, execution.layers), config, execution, slots=slots,
                  length=context, chunk=chunk, sampling=sampling, stop_ids=renderer.stop_ids)
  return EnginePlayer(f"{name}@{digest}", engine, renderer, turn_tokens)


def params_digest(params: Any) -> str:
  """Returns 12 hex digits that tell two sets of weights apart: a hash of 64 values spread over each array."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree.leaves_with_path(params):
    digest.update(f"{jax.tree_util.keystr(path)}{leaf.shape}".encode())
    digest.update(np.asarray(_some_values(leaf)).tobytes())
  return digest.hexdigest()[:12]


@jax.jit
def _some_values(leaf):
  """Returns 64 values of an array, by indices along each axis: the stacked layers of 13B have more than 2^31 values."""
  flat = np.linspace(0, leaf.size - 1, 64).astype(np.int64)
  return leaf[tuple(index.astype(np.int32) for index in np.unravel_index(flat, leaf.shape))].astype(jnp.float32)
