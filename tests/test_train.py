"""`agentbank train`, as its user meets it: what it writes, how it stops and how it goes on."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from training_samples import (
  assert_bit_equal,
  losses_of,
  make_training,
  metrics_lines,
  model_params,
  save_packed,
  saved_steps,
  write_training_config,
)

from agentbank_jax import cli, data, metrics, train
from agentbank_jax.bundle import Bundle
from agentbank_jax.checkpoint import Checkpoints
from agentbank_jax.convert.numpy_reference import reference_logits
from agentbank_jax.convert.to_hf import export_hf
from agentbank_jax.decode.engine import Engine
from agentbank_jax.decode.player import make_engine_player
from agentbank_jax.decode.sampling import Sampling
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama
from agentbank_jax.models.execution import resolve
from agentbank_jax.state import abstract_state
from configs import evaluate

LONG = {"train.steps": 60, "train.eval_every": 30, "train.checkpoint_every": 5, "train.keep_every": 20,
        "train.peak_flops": 1e12}


pytestmark = pytest.mark.usefixtures("compile_cache", "one_device")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  return save_packed(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(packed, tmp_path_factory):
  """A run of 60 steps that nothing disturbed: its workdir and what it returned."""
  workdir = tmp_path_factory.mktemp("unbroken")
  return workdir, train.run(make_training(packed, LONG), workdir)


def _assert_same_run(workdir, unbroken):
  """The interrupted and resumed run is the unbroken one: data order, parameters, and one line for each step."""
  expected = unbroken[0]
  assert_bit_equal(model_params(workdir / "model"), model_params(expected / "model"))
  steps = [line["step"] for line in metrics_lines(workdir) if "loss" in line]
  assert steps == list(range(1, 61))
  assert losses_of(workdir) == losses_of(expected)
  evals = [line for line in metrics_lines(workdir) if "eval/loss" in line]
  assert evals == [line for line in metrics_lines(expected) if "eval/loss" in line]


# What a run writes.


def test_the_loss_falls_and_every_step_is_reported(unbroken):
  workdir, result = unbroken
  lines = metrics_lines(workdir)
  trained = [line for line in lines if "loss" in line]
  assert [line["step"] for line in trained] == list(range(1, 61))
  assert trained[-1]["loss"] < trained[0]["loss"] - 2
  for line in trained:
    assert line.keys() == {"step", "loss", "grad_norm", "learning_rate", "tokens", "trained_tokens",
                           "tokens_per_second", "trained_tokens_per_second", "padding_share", "mfu"}
  evals = [line for line in lines if "eval/loss" in line]
  assert [line["step"] for line in evals] == [30, 60]
  for line in evals:
    assert line.keys() == {"step", "eval/loss", "eval/task/embodied_sim", "eval/task/sums", "eval/skill/unregistered"}
  assert evals[1]["eval/loss"] < evals[0]["eval/loss"]
  assert result["steps"] == 60
  assert result["resumed_from"] is None
  assert result["metrics"]["loss"] == trained[-1]["loss"]
  assert result["metrics"]["eval/loss"] == evals[-1]["eval/loss"]


def test_checkpoints_kept(unbroken):
  assert saved_steps(unbroken[0]) == [20, 40, 55, 60]  # multiples of keep_every, and the last two


def test_the_numbers_are_those_of_the_data(unbroken, packed):
  dataset = data.PackedDataset.open(packed)
  config = make_training(packed)
  batches = data.batches(dataset, "train", config.data.batch_size, seed=config.seed)
  layers, hidden, mlp, heads, kv_heads, head, vocab = 2, 32, 64, 4, 2, 8, 300
  weights = layers * (2 * hidden * heads * head + 2 * hidden * kv_heads * head + 3 * hidden * mlp) + hidden * vocab
  lines = [line for line in metrics_lines(unbroken[0]) if "loss" in line]
  for line, batch in zip(lines[:8], batches, strict=False):
    real = batch["segment_ids"] != 0
    keys = 0  # what each token attends to: those before it in its segment, and itself
    for row in batch["segment_ids"]:
      for segment in range(1, row.max() + 1):
        n = int((row == segment).sum())
        keys += n * (n + 1) // 2
    tokens, trained = int(real.sum()), int(batch["loss_mask"].sum())
    seconds = tokens / line["tokens_per_second"]
    assert (line["tokens"], line["trained_tokens"]) == (tokens, trained)
    assert line["trained_tokens_per_second"] == pytest.approx(trained / seconds)
    assert line["padding_share"] == pytest.approx(1 - tokens / real.size)
    assert line["mfu"] == pytest.approx((6 * weights * tokens + 12 * layers * heads * head * keys) / (seconds * 1e12))


def test_the_schedule(unbroken):
  rates = [line["learning_rate"] for line in metrics_lines(unbroken[0]) if "loss" in line]
  cosine = [3e-3 * (1 + np.cos(np.pi * t / 58)) / 2 for t in range(58)]  # warm-up takes 3% of 60 steps: two
  np.testing.assert_allclose(rates, [1.5e-3, 3e-3, *cosine], rtol=1e-4)


def test_eval_losses_are_those_of_each_conversation_alone(unbroken, packed, tmp_path):
  """Against the written model, exported, and NumPy; every conversation for itself."""
  workdir, result = unbroken
  export_hf(workdir / "model", tmp_path / "hf")
  dataset = data.PackedDataset.open(packed)
  sums = {}
  for row in dataset.source("eval"):
    for segment in range(1, row["segment_ids"].max() + 1):
      here = row["segment_ids"] == segment
      tokens, targets, trained = row["tokens"][here], row["targets"][here], row["loss_mask"][here]
      logits = reference_logits(tmp_path / "hf", tokens[None])[0].astype(np.float64)
      log_probs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) \
          - logits.max(-1, keepdims=True)
      nll = -log_probs[np.arange(len(targets)), targets][trained]
      sums.setdefault(dataset.tasks[row["segment_tasks"][segment - 1]], []).extend(nll)
  for task, nll in sums.items():
    assert result["metrics"][f"eval/task/{task}"] == pytest.approx(np.mean(nll), rel=1e-4)
  assert result["metrics"]["eval/loss"] == pytest.approx(np.mean(np.concatenate(list(sums.values()))), rel=1e-4)


def test_the_trained_model_is_the_same_to_transformers(unbroken, packed, tmp_path):
  """Exported and opened with PyTorch: the logits, and what is said greedily, ours drawn by the engine."""
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  export_hf(unbroken[0] / "model", tmp_path / "hf")
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager")
  bundle = Bundle.open(unbroken[0] / "model")
  config, params = bundle.config, bundle.load_params()
  run = resolve(make_training(packed).execution, "cpu")
  rows = [row["tokens"][row["segment_ids"] == 1][:48] for row in data.PackedDataset.open(packed).source("eval")][:4]
  tokens = np.stack([row for row in rows if len(row) == 48])
  placed = llama.to_layout(jax.tree.map(jax.numpy.asarray, params), config.num_layers, run.layers)
  positions = np.broadcast_to(np.arange(48), tokens.shape)
  ours = llama.bind(config, placed, run).logits(tokens, positions, np.ones_like(tokens), run)
  with torch.no_grad():
    expected = theirs(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
  assert np.abs(expected).max() > 1  # a difference of 1e-4 means something
  np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)

  engine = Engine(placed, config, run, slots=len(tokens), length=96, chunk=8, sampling=Sampling(0.0, 1.0),
                  stop_ids=config.eos_ids)
  drawn = {}
  for slot, row in enumerate(tokens):
    engine.open(slot, 0)
    engine.request(slot, row.tolist(), 24)
  while engine.busy:
    drawn |= {g.slot: g.tokens for g in engine.step()}
  for slot, row in enumerate(tokens):
    said = theirs.generate(torch.tensor(row[None], dtype=torch.long), attention_mask=torch.ones(1, 48),
                           max_new_tokens=24, do_sample=False)[0, 48:].tolist()
    ends = [i for i, token in enumerate(said) if token in config.eos_ids]
    assert drawn[slot] == said[:ends[0] if ends else None]


# Stopping and going on.


def test_a_conversation_longer_than_the_model_s_positions_is_refused_by_its_key(unbroken):
  config = evaluate.get_config()
  config.engine.model = str(unbroken[0] / "model")
  with pytest.raises(UserError, match="set --config.sampling.context=512 or less"):
    make_engine_player(config)


def test_killed_in_the_middle_it_goes_on_bit_for_bit(unbroken, packed, tmp_path, compile_cache):
  config = write_training_config(tmp_path / "config.py", packed, LONG)
  workdir = tmp_path / "run"
  args = ["agentbank", "train", f"--config={config}", f"--workdir={workdir}"]
  # As here: XLA cuts its work by the number of simulated devices, and another cut rounds differently.
  program = "import sys, jax; jax.device_count = lambda: 1; from agentbank_jax import cli; cli.main(sys.argv[1:])"
  environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": compile_cache,
                              "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  victim = subprocess.Popen([sys.executable, "-c", program, *args], env=environment,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  log = workdir / "metrics.jsonl"
  while victim.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 23):
    time.sleep(0.002)
  victim.kill()
  assert victim.wait() == -signal.SIGKILL, "the run ended before it could be killed"
  done = log.read_bytes().count(b'"loss"')  # a step's line, whole or not
  assert cli._main(args) == 0
  summary = json.loads((workdir / "summary.json").read_text())
  assert 5 <= summary["resumed_from"] < 60
  _assert_same_run(workdir, unbroken)
  spent = summary["goodput"]
  assert spent["starts"] == 2 and spent["goodput"] == spent["shares"]["step"]
  assert spent["steps_redone"] in (done - summary["resumed_from"], done - 1 - summary["resumed_from"])
  assert (spent["shares"]["redone"] > 0) == (spent["steps_redone"] > 0)
  assert sum(spent["shares"].values()) == pytest.approx(1) and min(spent["shares"].values()) >= 0


def test_sigterm_saves_and_exits_with_75(unbroken, packed, tmp_path, monkeypatch, capfd):
  config = write_training_config(tmp_path / "config.py", packed, LONG)
  args = ["agentbank", "train", f"--config={config}", f"--workdir={tmp_path / 'run'}"]
  write = metrics.MetricsLog.write

  def write_and_terminate(log, step, values):
    write(log, step, values)
    if step == 17:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(metrics.MetricsLog, "write", write_and_terminate)
    assert cli._main(args) == 75
  told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("agentbank:")]
  stopped, = saved_steps(tmp_path / "run")[-1:]
  assert told == [f"agentbank: stopped at step {stopped} of 60; saved. Run the same command to go on"]
  assert stopped in (18, 19)  # the step that was on its way is finished
  assert not (tmp_path / "run/model").exists()
  assert cli._main(args) == 0
  assert json.loads((tmp_path / "run/summary.json").read_text())["resumed_from"] == stopped
  _assert_same_run(tmp_path / "run", unbroken)


@pytest.mark.parametrize("change, told", [
    ({"seed": 1}, "seed = 0, the config now gives 1"),
    ({"data.batch_size": 4}, "batch_size = 8, the config now gives 4"),
    ({"train.steps": 70}, "total_steps = 60, the config now gives 70"),
    ({"data.path": "other"}, "data_fingerprint|rows = "),
], ids=["seed", "batch_size", "steps", "data"])
def test_a_resumed_run_refuses_another_data_order(unbroken, packed, tmp_path, change, told):
  workdir = unbroken[0]
  if "data.path" in change:
    change = {"data.path": str(save_packed(tmp_path, count=200))}
  before = (workdir / "metrics.jsonl").read_bytes(), saved_steps(workdir)
  with pytest.raises(UserError, match=told):
    train.run(make_training(packed, LONG | change), workdir)
  assert ((workdir / "metrics.jsonl").read_bytes(), saved_steps(workdir)) == before


def test_a_resumed_run_refuses_another_model(unbroken, packed):
  with pytest.raises(UserError, match="shape"):
    train.run(make_training(packed, LONG, {"intermediate_size": 128}), unbroken[0])


# What goes wrong.


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(packed, tmp_path):
  config = make_training(packed, {"optim.learning_rate": 1e30, "optim.schedule": "constant",
                                  "train.checkpoint_every": 1})
  with pytest.raises(UserError, match="at step 2: not finite") as caught:
    train.run(config, tmp_path)
  assert "\n" not in str(caught.value)
  saved = np.load(tmp_path / "not_finite_step_2.npz")
  batch = next(data.batches(data.PackedDataset.open(packed), "train", 8, seed=0, start_step=1))
  for name in batch:
    np.testing.assert_array_equal(saved[name], batch[name])
  assert not (tmp_path / "model").exists()
  trainer = train.Trainer(config, tmp_path)
  assert saved_steps(tmp_path) == [1]
  with Checkpoints(tmp_path / "checkpoints", 2, None) as checkpoints:
    state, _ = checkpoints.restore(abstract_state(trainer.model, trainer.tx, trainer.execution))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_tensorboard_without_its_package(packed, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  with pytest.raises(UserError, match="pip install tensorboardX"):
    train.run(make_training(packed, {"train.tensorboard": True}), tmp_path)


def _scalars(folder):
  """Reads TensorBoard's event files, which are TFRecords: {(tag, step): value}, what was purged left out."""
  from tensorboardX.proto.event_pb2 import Event
  found = {}
  for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
    content, at = path.read_bytes(), 0
    while at < len(content):
      size, = struct.unpack_from("<Q", content, at)
      event = Event.FromString(content[at + 12:at + 12 + size])
      at += 12 + size + 4
      if event.HasField("session_log"):
        found = {(tag, step): value for (tag, step), value in found.items() if step < event.step}
      found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
  return found


def test_tensorboard_has_what_the_log_has(packed, tmp_path):
  """Over a resumption too: what is beyond the step that is gone back to does not show twice."""
  pytest.importorskip("tensorboardX")
  log = metrics.MetricsLog(tmp_path, 0, tensorboard=True)
  for step in (1, 2, 3):
    log.write(step, {"loss": 10.0 + step})
  log.close()
  log = metrics.MetricsLog(tmp_path, 1, tensorboard=True)
  log.write(2, {"loss": 2.0})
  log.close()
  assert _scalars(tmp_path / "tensorboard") == {("loss", 1): 11.0, ("loss", 2): 2.0}
  train.run(make_training(packed, {"train.tensorboard": True, "train.steps": 2}), tmp_path / "run")
  lines = metrics_lines(tmp_path / "run")
  logged = {(tag, line["step"]): value for line in lines for tag, value in line.items() if tag != "step"}
  shown = _scalars(tmp_path / "run/tensorboard")
  assert shown.keys() == logged.keys() and ("eval/loss", 2) in shown
  for key, value in logged.items():
    assert shown[key] == pytest.approx(value, rel=1e-6)


def test_a_full_disk_is_an_error_in_one_line_and_the_same_command_goes_on(unbroken, packed, tmp_path, capfd):
  """A limit on the size of files stands in for the full disk."""
  args = ["agentbank", "train", f"--config={write_training_config(tmp_path / 'config.py', packed, LONG)}",
          f"--workdir={tmp_path / 'run'}"]
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
  try:
    assert cli._main(args) == 2
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  err = capfd.readouterr().err
  assert err.count("agentbank: error:") == 1
  assert "Traceback" not in err
  assert "cannot write a checkpoint" in err
  assert cli._main(args) == 0
  _assert_same_run(tmp_path / "run", unbroken)
