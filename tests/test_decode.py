"""Drawing tokens: the engine against the full forward pass, sampling against NumPy, the player against the renderer."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import TINY, execution, mesh, random_params

from agentbank_jax.agents import Reply
from agentbank_jax.chat import make_renderer
from agentbank_jax.chat_template import FORMATS
from agentbank_jax.decode.engine import Engine, Generation
from agentbank_jax.decode.player import EnginePlayer, _some_values, engine_player, make_engine_player, params_digest
from agentbank_jax.decode.sampling import Sampling, in_nucleus, sample
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama
from agentbank_jax.models.config import param_shapes
from agentbank_jax.models.presets import preset
from agentbank_jax.tokenizer import train_tokenizer
from agentbank_jax.trajectory import Turn
from configs import evaluate

GREEDY = Sampling(0.0, 1.0)
LENGTH = 330  # more than the smallest bound of a program's view of the cache
FULL = dataclasses.replace(TINY, qkv_bias=True)
WINDOW = dataclasses.replace(FULL, sliding_window=6)
SCAN, UNROLL = execution(), execution("unroll", "blocked", "cpu")
# Lengths around the sizes that prefill pads to, one token alone, and one beyond the smallest bound.
PROMPTS = [np.random.default_rng(n).integers(0, TINY.vocab_size, n).tolist() for n in (5, 18, 1, 65, 300)]
DRAWN = 15


@functools.cache
def placed_params(config, layers):
  return jax.tree.map(jnp.asarray, llama.to_layout(random_params(config), config.num_layers, layers))


def engine(config=FULL, run=UNROLL, *, slots=2, chunk=7, length=LENGTH, sampling=GREEDY, stop_ids=()):
  return Engine(placed_params(config, run.layers), config, run, slots=slots, length=length, chunk=chunk,
                sampling=sampling, stop_ids=stop_ids)


@functools.partial(jax.jit, static_argnums=0)
def next_token(config, params, tokens, at):
  """The likeliest token after position `at`, by a forward pass over the whole text."""
  model = llama.bind(config, params, SCAN)
  positions = jnp.arange(tokens.shape[0])[None]
  return model.logits(tokens[None], positions, jnp.ones_like(positions), SCAN)[0, at].argmax()


def greedy(config, prompt, count):
  """Returns what greedy decoding must give, without any cache."""
  ids = np.zeros(LENGTH + 30, np.int32)
  ids[:len(prompt)] = prompt
  for n in range(len(prompt), len(prompt) + count):
    ids[n] = next_token(config, placed_params(config, "scan"), ids, n - 1)
  return ids[len(prompt):len(prompt) + count].tolist()


@pytest.fixture(scope="module")
def truth():
  return {config: [greedy(config, p, DRAWN) for p in PROMPTS] for config in (FULL, WINDOW)}


def finish(engine):
  """Runs until no slot is drawing; returns {slot: Generation}."""
  done = {}
  while engine.busy:
    done |= {g.slot: g for g in engine.step()}
  return done


def serve(engine, prompts=PROMPTS, count=DRAWN, seeds=range(100)):
  """Plays all prompts, each in the first slot that is free; returns the generations in order."""
  waiting, where, done = list(range(len(prompts))), {}, {}
  while waiting or where:
    for slot in range(engine.slots):
      if slot not in where and waiting:
        where[slot] = waiting.pop(0)
        engine.open(slot, seeds[where[slot]])
        assert engine.request(slot, prompts[where[slot]], count)
    for generation in engine.step():
      done[where.pop(generation.slot)] = generation
  return [done[i] for i in range(len(prompts))]


# ---- the engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config, run, slots, chunk", [
  (FULL, SCAN, 2, 7), (FULL, UNROLL, 1, 7), (FULL, UNROLL, 5, 1), (WINDOW, SCAN, 5, 7), (WINDOW, UNROLL, 2, 1)],
  ids=["scan", "unroll, 1 slot", "unroll, chunk 1", "scan, window", "unroll, window, chunk 1"])
def test_greedy_is_the_full_forward_pass(config, run, slots, chunk, truth):
  generations = serve(engine(config, run, slots=slots, chunk=chunk))
  assert [g.tokens for g in generations] == truth[config]
  assert {g.finish for g in generations} == {"length"}
  assert len({tuple(t) for t in truth[config]}) == len(PROMPTS)  # they do not all say the same


@pytest.mark.parametrize("run", [SCAN, pytest.param(UNROLL, marks=pytest.mark.slow)], ids=["scan", "unroll"])
def test_greedy_on_a_mesh(run, truth):
  cut = mesh(data=2, fsdp=2, tensor=2)
  params = jax.device_put(random_params(FULL), llama.param_shardings(FULL, cut))
  run = dataclasses.replace(run, sharding=cut)
  on_mesh = Engine(llama.to_layout(params, FULL.num_layers, run.layers), FULL, run, slots=4, length=LENGTH, chunk=7,
                   sampling=GREEDY, stop_ids=())
  assert [g.tokens for g in serve(on_mesh)] == truth[FULL]


@pytest.mark.parametrize("config", [FULL, WINDOW], ids=["full", "window"])
def test_turns_keep_the_cache(config, truth):
  two = engine(config)
  two.open(0, 0)
  two.open(1, 0)
  two.request(0, PROMPTS[1], DRAWN)
  two.request(1, PROMPTS[3], DRAWN)
  finish(two)
  assert two.ids(0) == PROMPTS[1] + truth[config][1]
  kept = PROMPTS[1] + truth[config][1][:6]
  two.truncate(0, len(kept))  # as where a reply is cut off
  two.request(0, PROMPTS[0], DRAWN)
  two.request(1, PROMPTS[2], DRAWN)  # and as where it is kept whole
  done = finish(two)
  assert done[0].tokens == greedy(config, kept + PROMPTS[0], DRAWN)
  assert done[1].tokens == greedy(config, PROMPTS[3] + truth[config][3] + PROMPTS[2], DRAWN)
  two.open(0, 0)  # and nothing is left of it
  two.request(0, PROMPTS[0], DRAWN)
  assert finish(two)[0].tokens == truth[config][0]


def test_stop_ids_end_a_turn(truth):
  expected = truth[FULL][0]
  stop = expected[4]
  cut = expected.index(stop)
  one = engine(slots=1, stop_ids=(stop, 95))
  generation, = serve(one, PROMPTS[:1])
  assert generation.tokens == expected[:cut] and generation.finish == "stop"
  assert one.ids(0) == PROMPTS[0] + expected[:cut + 1]  # the stop token is part of the conversation
  one.request(0, PROMPTS[2], 1)  # and the next turn sees it
  after = greedy(FULL, PROMPTS[0] + expected[:cut + 1] + PROMPTS[2], 1)
  assert finish(one)[0].tokens == ([] if after[0] in (stop, 95) else after)


def test_limits(truth):
  one = engine(slots=1, length=5 + DRAWN)
  one.open(0, 0)
  one.request(0, PROMPTS[0], 3)
  assert finish(one)[0] == (0, truth[FULL][0][:3], "length")
  one.open(0, 0)
  one.request(0, PROMPTS[0], DRAWN)  # exactly what there is room for
  assert finish(one)[0] == (0, truth[FULL][0], "length")
  one.open(0, 0)
  one.request(0, PROMPTS[0], DRAWN + 1)
  assert finish(one)[0] == (0, truth[FULL][0], "context")
  assert not one.request(0, [1], 1) and not one.busy and one.step() == []
  one.open(0, 0)
  assert not one.request(0, PROMPTS[3], 1) and not one.busy


def test_wrong_settings_are_told():
  with pytest.raises(UserError, match="a conversation of 513 tokens is beyond the model's 512 positions"):
    engine(length=513)
  for changes in (dict(slots=0), dict(chunk=0), dict(length=1)):
    with pytest.raises(UserError, match="must be at least 1"):
      engine(**changes)
  with pytest.raises(UserError, match="decode.slots = 6 is not a multiple of the mesh's 4 batch shards"):
    engine(run=execution(sharding=mesh(data=4, tensor=2)), slots=6)
  for temperature, top_p, message in [(-1, 1, "temperature is -1"), (math.nan, 1, "temperature is nan"),
                                      (1, 0, "top_p is 0"), (1, 1.1, "top_p is 1.1")]:
    with pytest.raises(UserError, match=message):
      Sampling(temperature, top_p)


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_draws_depend_on_the_seed_alone():
  tokens = lambda engine, **kwargs: [g.tokens for g in serve(engine, **kwargs)]
  two, five = (engine(slots=slots, chunk=chunk, sampling=Sampling(1.0, 0.95)) for slots, chunk in ((2, 7), (5, 4)))
  base = tokens(two)
  assert tokens(five) == base
  assert tokens(two, prompts=PROMPTS[::-1], seeds=range(4, -1, -1)) == base[::-1]
  other = tokens(two, seeds=range(50, 55))
  assert all(a != b for a, b in zip(base, other, strict=True))
  same_prompt = tokens(two, prompts=[PROMPTS[0]] * 3, seeds=[8, 9, 8])
  assert same_prompt[0] == same_prompt[2] != same_prompt[1]


def numpy_nucleus(logits, top_p):
  p = np.exp(logits - logits.max())
  p /= p.sum()
  kept, mass = np.zeros(len(p), bool), 0.0
  for i in np.argsort(-p, kind="stable"):
    kept[i] = True
    mass += p[i]
    if mass >= top_p:
      break
  return kept


def test_the_nucleus_is_the_fewest_likeliest_tokens():
  logits = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32) * 2
  for top_p in (1e-6, 0.3, 0.9, 0.999):
    expected = np.stack([numpy_nucleus(row, top_p) for row in logits])
    np.testing.assert_array_equal(in_nucleus(jnp.asarray(logits), top_p), expected)


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (2.0, 0.8)])
def test_draws_follow_their_distribution(temperature, top_p):
  logits, draws = np.array([2.0, 1.0, 0.5, -1.0, 1.5], np.float32), 20_000
  scaled = logits / temperature
  expected = np.exp(scaled) * numpy_nucleus(scaled, top_p)
  expected /= expected.sum()
  # Half the draws differ by seed, half by their place in one conversation.
  numbers, zeros = np.arange(draws // 2), np.zeros(draws // 2)
  rows = jnp.tile(logits, (draws, 1))
  tokens = sample(rows, jnp.asarray(np.r_[numbers, zeros], jnp.uint32), jnp.asarray(np.r_[zeros, numbers], jnp.int32),
                  Sampling(temperature, top_p))
  assert tokens.dtype == jnp.int32
  for half in (tokens[:draws // 2], tokens[draws // 2:]):
    shares = np.bincount(half, minlength=5) / len(half)
    deviation = np.sqrt(expected * (1 - expected) / len(half))
    assert (np.abs(shares - expected) <= 5 * deviation).all(), (shares, expected)


def test_greedy_takes_the_likeliest():
  logits = jnp.array([[0.0, 3.0, 1.0], [5.0, 4.0, 4.9]])
  assert sample(logits, jnp.zeros(2, jnp.uint32), jnp.zeros(2, jnp.int32), Sampling(0.0, 0.5)).tolist() == [1, 0]


# ---- the player ------------------------------------------------------------------------------------------------------

TEXT = ["You act in a house. Go to the table 1, take the mug and put it into the sink.",
        "Thought: I need to find the mug.\nAction: go to table 1", "Observation: You see a mug.\n\nUser: "]


class Script:
  """Stands in for an engine: draws what it is told, so that a player's book-keeping can be followed."""

  def __init__(self, replies, stop_ids, length=10_000):
    self.slots, self.length = 1, length
    self._replies, self._stop_ids = list(replies), stop_ids
    self._ids, self._asked = [], None

  def open(self, slot, seed):
    self._ids = []

  def ids(self, slot):
    return list(self._ids)

  def truncate(self, slot, length):
    del self._ids[length:]

  def request(self, slot, tokens, max_tokens):
    self._ids += tokens
    self._asked = max_tokens
    return len(self._ids) < self.length

  def step(self):
    drawn = self._replies.pop(0)
    self._ids += drawn
    stopped = drawn[-1] in self._stop_ids
    return [Generation(0, drawn[:-1] if stopped else drawn, "stop" if stopped else "length")]


@pytest.fixture(scope="module", params=["llama3", "chatml", "plain"])
def renderer(request):
  return make_renderer(train_tokenizer(TEXT, 400, FORMATS[request.param].control_tokens), request.param)


@pytest.fixture(scope="module")
def plain():
  return make_renderer(train_tokenizer(TEXT, 400), "plain")


OPENING = (Turn("system", "You act."), Turn("user", "Find the mug."))
REPLIES = ["Thought: I look.\nAction: go to table 1", "Action: take mug", "Final Answer: done"]
OBSERVATIONS = [(Turn("user", "Observation: You see a mug."),), (Turn("user", "Observation: ok"),)]


@pytest.mark.parametrize("ends", ["terminator", "eos", "limit"])
def test_a_conversation_s_tokens_are_those_of_training(ends, renderer):
  """However a reply ended, the next turn's ids are the prompt's."""
  end = {"terminator": [renderer.stop_ids[0]], "eos": [renderer.stop_ids[-1]], "limit": []}[ends]
  script = Script([renderer.reply(r) + end for r in REPLIES], renderer.stop_ids)
  player = EnginePlayer("x", script, renderer, 50)
  turns = []
  for new, reply in zip([OPENING, *OBSERVATIONS], REPLIES, strict=True):
    turns += new
    player.send("k", new, 0)
    assert script.ids(0) == renderer.prompt(turns)
    assert player.poll() == [("k", Reply(reply, len(renderer.reply(reply)), "stop" if end else "length"))]
    turns.append(Turn("assistant", reply))
  player.end("k")
  assert script.ids(0) == []


def test_stop_strings_are_cut_and_rolled_back(plain):
  first = plain.reply("Action: look") + plain.tokenizer.encode("\n\nUser: you see\n\nAssistant: and so on")
  script = Script([first, plain.reply("Action: take mug") + [plain.stop_ids[0]]], plain.stop_ids)
  player = EnginePlayer("x", script, plain, 50)
  player.send("k", OPENING, 0)
  assert player.poll() == [("k", Reply("Action: look", len(first), "stop"))]
  kept = plain.tokenizer.decode(script.ids(0))
  assert kept.startswith(plain.tokenizer.decode(plain.prompt(OPENING))) and "you see" not in kept
  assert "\nUser:" not in kept.split("Assistant:")[1]
  player.send("k", OBSERVATIONS[0], 0)
  assert plain.tokenizer.decode(script.ids(0)).count("Observation") == 1
  assert player.poll()[0][1].text == "Action: take mug"


def test_errors_of_a_conversation_are_its_own(renderer):
  player = EnginePlayer("x", Script([], ()), renderer, 50)
  player.send("k", (Turn("user", "\ud800"),), 0)
  player._engine.step = lambda: []
  (key, reply), = player.poll()
  assert key == "k" and reply.finish == "error" and "not valid Unicode" in reply.error and reply.text == ""
  with pytest.raises(ValueError, match="all 1 slots are taken"):
    player.send("other", OPENING, 0)
  player.end("k")
  player.end("k")  # twice is once
  player.send("other", OPENING, 0)


MODEL = dataclasses.replace(TINY, vocab_size=400, max_positions=256)


@pytest.fixture(scope="module")
def chat_params():
  return random_params(MODEL)


def make_player(renderer, params, **changes):
  settings = dict(slots=3, chunk=5, context=200, turn_tokens=12, sampling=Sampling(1.0, 1.0)) | changes
  return engine_player("tiny", params, MODEL, renderer, UNROLL, **settings)


def play(player, keys, turns=3):
  """Plays conversations side by side; returns their replies."""
  replies = {key: [] for key in keys}
  for key in keys:
    player.send(key, (Turn("user", f"Find mug {key}."),), key)
  while any(len(r) < turns for r in replies.values()):
    for key, reply in player.poll():
      replies[key].append(reply)
      if len(replies[key]) < turns:
        player.send(key, OBSERVATIONS[0], key)
      else:
        player.end(key)
  return replies


def test_the_engine_plays_many_conversations(plain, chat_params):
  together = play(make_player(plain, chat_params), [1, 2, 3])
  alone = make_player(plain, chat_params, slots=1)
  assert [play(alone, [key])[key] for key in (1, 2, 3)] == [together[key] for key in (1, 2, 3)]
  assert {r.finish for replies in together.values() for r in replies} <= {"stop", "length"}
  assert together[1] != together[2]


def test_a_full_context_is_told(plain, chat_params):
  player = make_player(plain, chat_params, context=40, sampling=GREEDY)
  player.send("k", OPENING, 0)
  finishes = []
  while "context" not in finishes:
    for _, reply in player.poll():
      finishes.append(reply.finish)
      assert reply.text == "" or reply.finish != "context"
      if reply.finish != "context":
        player.send("k", OBSERVATIONS[0], 0)
    assert len(finishes) < 10
  player.send("long", (Turn("user", "mug " * 100),), 0)  # does not even fit to begin with
  assert player.poll() == [("long", Reply("", 0, "context"))]


def test_the_name_tells_weights_apart(plain, chat_params):
  name = make_player(plain, chat_params).name
  assert name.startswith("tiny@") and name == make_player(plain, chat_params).name
  other = jax.tree.map(np.copy, chat_params)
  other["layers"]["mlp"]["up"]["kernel"] *= 1.01
  assert params_digest(other) != params_digest(chat_params)
  assert make_player(plain, other).name != name


def test_the_name_tells_what_else_makes_other_replies(plain, chat_params):
  """Episodes are kept by it: another name is played anew."""
  def name(renderer=plain, config=MODEL, run=UNROLL):
    return engine_player("tiny", chat_params, config, renderer, run, slots=1, chunk=5, context=200, turn_tokens=12,
                         sampling=GREEDY).name

  others = [name(renderer=make_renderer(plain.tokenizer, "llama2")),
            name(config=dataclasses.replace(MODEL, rope_theta=77.0)),
            name(run=dataclasses.replace(UNROLL, compute_dtype="bfloat16"))]
  assert len({name(), *others}) == 4


def test_a_tokenizer_that_is_not_the_model_s_is_told(plain, chat_params):
  model = dataclasses.replace(MODEL, vocab_size=plain.tokenizer.vocab_size - 1)
  with pytest.raises(UserError, match=f"has {plain.tokenizer.vocab_size} tokens, the model's vocabulary"):
    engine_player("tiny", chat_params, model, plain, UNROLL, slots=1, chunk=5, context=200, turn_tokens=12,
                  sampling=GREEDY)


@pytest.mark.parametrize("tokens", [0, -1])
def test_a_turn_of_no_tokens_is_told(plain, chat_params, tokens):
  with pytest.raises(UserError, match="sampling.turn_tokens is"):  # a reply would be waited for without end
    make_player(plain, chat_params, turn_tokens=tokens)


def test_arrays_of_more_than_2_to_the_31_values_have_a_digest():
  """The gate of samoyed_13b; traced alone, for want of memory."""
  gate = jax.ShapeDtypeStruct(param_shapes(preset("llama2_13b"))["layers.mlp.gate.kernel"], jnp.bfloat16)
  assert gate.size > 2**31
  assert jax.eval_shape(_some_values, gate).shape == (64,)
  few = np.arange(2 * 3 * 40, dtype=np.float32).reshape(2, 3, 40)
  assert _some_values(few).tolist() == np.linspace(0, few.size - 1, 64).astype(int).tolist()


def test_settings_without_a_model_are_told(tmp_path):
  config = evaluate.get_config()
  config.engine.model = ""
  with pytest.raises(UserError, match="engine.model is empty"):
    make_engine_player(config)
  config.engine.model = str(tmp_path / "none")
  with pytest.raises(UserError, match="no such folder"):
    make_engine_player(config)
