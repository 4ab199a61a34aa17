"""Ours: the train step of `agentbank train` and the engine of `agentbank evaluate`, with their own defaults."""

from agentbank_jax import runtime

runtime.prepare()  # before jax, as the command does

import jax  # noqa: E402
import numpy as np  # noqa: E402
from sizes import ACTION, LENGTH, NEW, OBSERVATION, PROMPT, SIZES, TURNS  # noqa: E402

from agentbank_jax import optim, state, step  # noqa: E402
from agentbank_jax.decode.engine import Engine  # noqa: E402
from agentbank_jax.decode.sampling import Sampling  # noqa: E402
from agentbank_jax.models import execution as execution_lib  # noqa: E402
from agentbank_jax.models import llama  # noqa: E402
from agentbank_jax.models.presets import preset  # noqa: E402
from configs.base import training  # noqa: E402


def setup(case: dict):
  """Returns (a function that runs the case once, tokens of a run)."""
  config = training()
  config.execution.compute_dtype = case["dtype"]
  if case["kind"] == "train_published":
    config.execution.update(attention=case["attention"], remat="full" if case["remat"] else "none", loss_chunk=512)
  execution = execution_lib.resolve(config.execution, jax.default_backend(), max_segments=1)
  if case["kind"] == "train_published":
    return _train_step(preset(case["preset"]), config, execution, case["batch"], case["length"])
  return {"train": _train, "generate": _generate, "episode": _episode}[case["kind"]](case, config, execution)


def _train(case: dict, config, execution):
  return _train_step(preset(case["size"]), config, execution, SIZES[case["size"]]["batch"], LENGTH)


def _train_step(model, config, execution, batch: int, length: int):
  schedule = optim.make_schedule(config.optim, 1000)
  tx = optim.make_optimizer(config.optim, schedule)
  train_step = jax.jit(step.make_train_step(model, execution, tx, schedule, 1), donate_argnums=0)
  ids = np.random.default_rng(0).integers(0, model.vocab_size, (batch, length + 1)).astype(np.int32)
  rows = {"tokens": ids[:, :-1], "targets": ids[:, 1:], "loss_mask": np.ones((batch, length), bool),
          "segment_ids": np.ones((batch, length), np.int32),
          "positions": np.broadcast_to(np.arange(length, dtype=np.int32), (batch, length))}
  now = [state.init_state(model, tx, execution, 0)]

  def run():
    now[0], metrics = train_step(now[0], rows)
    return float(metrics["loss"])

  return run, batch * length


def _engine(case: dict, execution, length: int, chunk: int) -> tuple[Engine, np.random.Generator, int]:
  model = preset(case["size"])
  params = llama.to_layout(llama.init_params(model, 0), model.num_layers, execution.layers)
  engine = Engine(params, model, execution, slots=case["batch"], length=length, chunk=chunk,
                  sampling=Sampling(0.0, 1.0), stop_ids=())
  return engine, np.random.default_rng(1), model.vocab_size


def _generate(case: dict, config, execution):
  engine, rng, vocab = _engine(case, execution, PROMPT + NEW, NEW)
  prompts = rng.integers(3, vocab, (case["batch"], PROMPT)).tolist()

  def run():
    for slot, prompt in enumerate(prompts):
      engine.open(slot, seed=0)
      engine.request(slot, prompt, NEW)
    _finish(engine, case["batch"], NEW)

  return run, case["batch"] * NEW


def _episode(case: dict, config, execution):
  engine, rng, vocab = _engine(case, execution, TURNS * (OBSERVATION + ACTION), ACTION)
  observations = rng.integers(3, vocab, (TURNS, case["batch"], OBSERVATION)).tolist()

  def run():
    for slot in range(case["batch"]):
      engine.open(slot, seed=0)
    for observation in observations:
      for slot, tokens in enumerate(observation):
        engine.request(slot, tokens, ACTION)
      _finish(engine, case["batch"], ACTION)

  return run, case["batch"] * TURNS * ACTION


def _finish(engine: Engine, count: int, tokens: int) -> None:
  done = []
  while engine.busy:
    done += engine.step()
  assert len(done) == count and all(len(g.tokens) == tokens for g in done)
