"""Many conversations at once: slots, chunks of steps, and a cache that is kept across turns.

A conversation is a list of token ids of which the first `cached` have their keys and values in its slot. New text is
appended and only that is run; what was drawn but cut off again is simply forgotten, positions and all.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentbank_jax.decode import cache as kv
from agentbank_jax.decode import programs
from agentbank_jax.decode.sampling import Sampling
from agentbank_jax.errors import UserError
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.execution import Execution

PREFILL_LENGTHS = (16, 64, 256, 1024)  # a piece of new text is padded to one of these: few programs to compile
LARGEST_GROUP = 16  # conversations whose new text is run together
SMALLEST_BOUND = 256


class Generation(NamedTuple):
  """A finished draw.

  Attributes:
    slot: whose.
    tokens: what was drawn, the stop token left out.
    finish: "stop" (a stop token ended it), "length" (the limit of the call), "context" (the slot is full).
  """

  slot: int
  tokens: list[int]
  finish: str


@dataclasses.dataclass
class _Slot:
  ids: list[int] = dataclasses.field(default_factory=list)
  cached: int = 0
  seed: int = 0
  count: int = 0  # tokens drawn in this conversation
  budget: int = 0  # tokens that may still be drawn in this call; 0: not drawing
  begin: int = 0  # where in `ids` this call's tokens start
  fills: bool = False  # whether the budget ends because the slot is full


class Engine:
  """Draws tokens for up to `slots` conversations at once.

  Attributes:
    slots: how many.
    length: most tokens of one conversation.
  """

  def __init__(self, params, config: LlamaConfig, execution: Execution, *, slots: int, length: int, chunk: int,
               sampling: Sampling, stop_ids: Sequence[int]):
    """Args:
      params: in the execution's layout.
      slots: conversations at once.
      length: most tokens of a conversation.
      chunk: steps of one program call; between calls finished slots are refilled.
      stop_ids: tokens that end a turn.

    Raises:
      UserError: a length beyond what the model was made for, or sizes below 1.
    """
    if length > config.max_positions:
      raise UserError(f"a conversation of {length} tokens is beyond the model's {config.max_positions} positions")
    if slots < 1 or chunk < 1 or length < 2:
      raise UserError(f"decode: slots = {slots}, chunk = {chunk} must be at least 1, length = {length} at least 2")
    self.slots, self.length = slots, length
    self._params, self._chunk = params, chunk
    self._stop_ids = frozenset(stop_ids)
    self._stop_array = jnp.asarray(sorted(self._stop_ids) or [-1], jnp.int32)
    self._slots = [_Slot() for _ in range(slots)]
    # Beyond `length`, room for what a program writes past a row's end: padding of new text, or steps after a stop.
    self._room = length + max(_bucket(length), chunk)
    # On a mesh every program runs on all slots, each where it lies; else on as many as are waiting.
    self._aligned = execution.sharding is not None
    if self._aligned and slots % execution.sharding.shards("batch"):
      raise UserError(f"decode.slots = {slots} is not a multiple of the mesh's {execution.sharding.shards('batch')} "
                      "batch shards")
    self._cache = jax.jit(lambda: kv.zeros(config, execution, slots, self._room))()
    prefill = functools.partial(programs.prefill, config=config, execution=execution)
    decode = functools.partial(programs.decode, steps=chunk, refill=max(1, slots // 4), sampling=sampling,
                               config=config, execution=execution)
    self._prefill = jax.jit(prefill, static_argnames="bound", donate_argnums=1)
    self._decode = jax.jit(decode, static_argnames="bound", donate_argnums=1)

  def open(self, slot: int, seed: int) -> None:
    """Starts a conversation in a slot; what was there is gone."""
    self._slots[slot] = _Slot(seed=seed)

  def ids(self, slot: int) -> list[int]:
    """Returns the conversation's tokens so far."""
    return list(self._slots[slot].ids)

  def truncate(self, slot: int, length: int) -> None:
    """Forgets all tokens of a conversation from `length` on."""
    s = self._slots[slot]
    del s.ids[length:]
    s.cached = min(s.cached, length)

  def request(self, slot: int, tokens: Sequence[int], max_tokens: int) -> bool:
    """Appends `tokens` and asks for up to `max_tokens` more.

    Returns:
      False, and nothing is asked for, where there is no room for one more token.
    """
    s = self._slots[slot]
    s.ids.extend(tokens)
    room = self.length - len(s.ids)
    if room < 1:
      return False
    s.begin, s.budget, s.fills = len(s.ids), min(max_tokens, room), room < max_tokens
    return True

  @property
  def busy(self) -> bool:
    """Whether any slot is drawing."""
    return any(s.budget for s in self._slots)

  def step(self) -> list[Generation]:
    """Takes in waiting text, draws one chunk of tokens, and returns the draws that finished."""
    if not self.busy:
      return []
    self._take_in()
    return self._draw()

  def _take_in(self) -> None:
    """Runs all waiting tokens but each conversation's last: that one starts the draw."""
    while True:
      waiting = [(i, s) for i, s in enumerate(self._slots) if s.budget and len(s.ids) - s.cached > 1]
      if not waiting:
        return
      # How a text is cut into pieces depends on that text alone, whoever else is waiting.
      width = max(_bucket(len(s.ids) - 1 - s.cached) for _, s in waiting)
      group = [(i, s) for i, s in waiting if _bucket(len(s.ids) - 1 - s.cached) == width][:LARGEST_GROUP]
      if self._aligned:
        rows = [(i, s if (i, s) in group else None) for i, s in enumerate(self._slots)]
      else:
        rows = [group[row % len(group)] for row in range(_group_size(len(group), self.slots))]
      tokens, starts = np.zeros((len(rows), width), np.int32), np.zeros(len(rows), np.int32)
      for row, (i, s) in enumerate(rows):
        starts[row] = self._slots[i].cached  # a slot that is not of the group gets zeros where nothing counts yet
        if s is not None:
          piece = s.ids[s.cached:len(s.ids) - 1][:width]
          tokens[row, :len(piece)] = piece
      slots = None if self._aligned else np.array([i for i, _ in rows], np.int32)
      bound = self._bound(int(starts.max()) + width)
      self._cache = self._prefill(self._params, self._cache, tokens, slots, starts, bound=bound)
      for _, s in group:
        s.cached = min(s.cached + width, len(s.ids) - 1)

  def _draw(self) -> list[Generation]:
    column = lambda f, dtype: np.array([f(s) for s in self._slots], dtype)
    slots = programs.Slots(
        tokens=column(lambda s: s.ids[s.cached] if s.budget else 0, np.int32),
        lengths=column(lambda s: s.cached, np.int32),
        budgets=column(lambda s: s.budget, np.int32),
        seeds=column(lambda s: s.seed % 2**32, np.uint32),
        counts=column(lambda s: s.count, np.int32))
    bound = self._bound(max(s.cached for s in self._slots if s.budget))
    self._cache, out, drawn = self._decode(self._params, self._cache, slots, self._stop_array, bound=bound)
    out, drawn = jax.device_get((out, drawn))
    finished = []
    for i, s in enumerate(self._slots):
      if not s.budget:
        continue
      new = out[i, :drawn[i]].tolist()
      s.ids += new
      s.cached, s.count, s.budget = s.cached + len(new), s.count + len(new), s.budget - len(new)
      stopped = bool(new) and new[-1] in self._stop_ids
      if stopped or not s.budget:
        tokens = s.ids[s.begin:-1] if stopped else s.ids[s.begin:]
        s.budget = 0
        finished.append(Generation(i, tokens, "stop" if stopped else "context" if s.fills else "length"))
    return finished

  def _bound(self, needed: int) -> int:
    """Returns how much of the cache a program looks at: a power of two, so that few programs are compiled."""
    bound = SMALLEST_BOUND
    while bound < needed:
      bound *= 2
    return min(bound, self._room)


def _bucket(length: int) -> int:
  return next((b for b in PREFILL_LENGTHS if b >= length), PREFILL_LENGTHS[-1])


def _group_size(waiting: int, slots: int) -> int:
  """Returns how many rows a prefill has for this many that wait: 1, 4 or 16, but no more than all slots."""
  return min(next(g for g in (1, 4, LARGEST_GROUP) if g >= waiting), slots)
