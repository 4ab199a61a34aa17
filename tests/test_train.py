"""`agentbank train`, as its user meets it: what it writes, how it stops and goes on, and what each knob does."""

import json
import os
import pathlib
import re
import resource
import signal
import struct
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from training_samples import make_training, save_packed, write_training_config

from agentbank_jax import cli, control_tokens, data, metrics, train
from agentbank_jax.bundle import Bundle, write_bundle
from agentbank_jax.chat import load_renderer
from agentbank_jax.checkpoint import Checkpoints
from agentbank_jax.convert.numpy_reference import reference_logits
from agentbank_jax.convert.to_hf import export_hf
from agentbank_jax.decode.engine import Engine
from agentbank_jax.decode.player import make_engine_player
from agentbank_jax.decode.sampling import Sampling
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama
from agentbank_jax.models.config import RopeScaling
from agentbank_jax.models.execution import resolve
from agentbank_jax.state import abstract_state
from configs import evaluate
from configs.base import architecture

LONG = {"train.steps": 60, "train.eval_every": 30, "train.checkpoint_every": 5, "train.keep_every": 20,
        "train.peak_flops": 1e12}


pytestmark = pytest.mark.usefixtures("compile_cache")


@pytest.fixture(scope="module", autouse=True)
def one_device():
  """The simulated devices are for the test that asks for them."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "device_count", lambda: 1)
    yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  return save_packed(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(packed, tmp_path_factory):
  """A run of 60 steps that nothing disturbed: its workdir and what it returned."""
  workdir = tmp_path_factory.mktemp("unbroken")
  return workdir, train.run(make_training(packed, LONG), workdir)


def _lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _losses(workdir):
  return [line["loss"] for line in _lines(workdir) if "loss" in line]


def _steps(workdir):
  return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def _params(model):
  leaves = jax.tree.leaves_with_path(Bundle.open(model).load_params())
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _assert_bit_equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def _assert_same_run(workdir, unbroken):
  """The interrupted and resumed run is the unbroken one: data order, parameters, and one line for each step."""
  expected = unbroken[0]
  _assert_bit_equal(_params(workdir / "model"), _params(expected / "model"))
  steps = [line["step"] for line in _lines(workdir) if "loss" in line]
  assert steps == list(range(1, 61))
  assert _losses(workdir) == _losses(expected)
  evals = [line for line in _lines(workdir) if "eval/loss" in line]
  assert evals == [line for line in _lines(expected) if "eval/loss" in line]


# What a run writes.


def test_the_loss_falls_and_every_step_is_reported(unbroken):
  workdir, result = unbroken
  lines = _lines(workdir)
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
  assert _steps(unbroken[0]) == [20, 40, 55, 60]  # multiples of keep_every, and the last two


def test_the_numbers_are_those_of_the_data(unbroken, packed):
  dataset = data.PackedDataset.open(packed)
  config = make_training(packed)
  batches = data.batches(dataset, "train", config.data.batch_size, seed=config.seed)
  layers, hidden, mlp, heads, kv_heads, head, vocab = 2, 32, 64, 4, 2, 8, 300
  weights = layers * (2 * hidden * heads * head + 2 * hidden * kv_heads * head + 3 * hidden * mlp) + hidden * vocab
  lines = [line for line in _lines(unbroken[0]) if "loss" in line]
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
  rates = [line["learning_rate"] for line in _lines(unbroken[0]) if "loss" in line]
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
  stopped, = _steps(tmp_path / "run")[-1:]
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
  before = (workdir / "metrics.jsonl").read_bytes(), _steps(workdir)
  with pytest.raises(UserError, match=told):
    train.run(make_training(packed, LONG | change), workdir)
  assert ((workdir / "metrics.jsonl").read_bytes(), _steps(workdir)) == before


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
  assert _steps(tmp_path) == [1]
  with Checkpoints(tmp_path / "checkpoints", 2, None) as checkpoints:
    state, _ = checkpoints.restore(abstract_state(trainer.model, trainer.tx, trainer.execution))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def _write_model(path, packed, overrides=(), change=lambda params: params):
  model = train.Trainer(make_training(packed, overrides=overrides), path).model
  params = change(jax.tree.map(np.array, llama.init_params(model, 5)))
  write_bundle(path, model, params, packed / "tokenizer", "llama3")
  return path


def test_training_starts_from_the_weights_it_is_given(packed, tmp_path):
  model = _write_model(tmp_path / "start", packed)
  config = make_training(packed, {"model.preset": None, "model.init_from": str(model), "optim.learning_rate": 0.0,
                                  "train.steps": 1})
  config.model.overrides = architecture()
  train.run(config, tmp_path / "run")
  _assert_bit_equal(_params(tmp_path / "run/model"), _params(model))


def test_a_model_with_nan_is_refused_by_name(packed, tmp_path):
  def spoil(params):
    params["norm"]["scale"][3] = np.nan
    return params

  model = _write_model(tmp_path / "start", packed, change=spoil)
  config = make_training(packed, {"model.preset": None, "model.init_from": str(model)})
  with pytest.raises(UserError, match="norm.scale.*NaN"):
    train.run(config, tmp_path / "run")


def test_control_tokens_that_a_model_has_never_learned_are_told(packed, tmp_path, caplog):
  controls = load_renderer(packed / "tokenizer").control_ids
  untrained = [controls[t] for t in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")]

  def spoil(params):
    params["embed"]["embedding"][untrained[0]] = 0
    params["embed"]["embedding"][untrained[1]] = params["embed"]["embedding"][untrained[2]]
    return params

  model = _write_model(tmp_path / "start", packed, change=spoil)

  def start(choice, **changes):
    config = make_training(packed, {"model.preset": None, "model.init_from": str(model), "train.steps": 1,
                                    "optim.learning_rate": 0.0, "model.untrained_tokens": choice})
    config.model.overrides = architecture()
    train.run(config, tmp_path / choice)
    return _params(tmp_path / choice / "model")

  with pytest.raises(UserError) as error:
    start("error")
  told = str(error.value)
  assert f"{model} never learned control tokens of chat format 'llama3': " in told
  assert re.search(r"'<\|start_header_id\|>' \(id \d+\) has an embedding row near zero \(norm", told)
  assert re.search(r"'<\|end_header_id\|>' \(id \d+\) has an embedding row equal to that of '<\|eot_id\|>'", told)
  assert re.search(r"'<\|eot_id\|>' \(id \d+\) has an embedding row equal to that of '<\|end_header_id\|>'", told)
  assert told.count(" has an embedding row ") == 3 and "Set model.untrained_tokens to 'mean'" in told
  assert not (tmp_path / "error" / "model").exists()
  _assert_bit_equal(start("keep"), _params(model))
  assert "never learned control tokens" in caplog.text
  before, after = _params(model), start("mean")
  table = "['embed']['embedding']"
  assert sorted(np.flatnonzero((before[table] != after[table]).any(1))) == sorted(untrained)
  assert control_tokens.find_untrained(after[table], controls) == {}
  with pytest.raises(UserError, match="model.untrained_tokens is 'meen'; choose one of error, mean, keep"):
    start("meen")


def test_overrides_that_the_given_weights_do_not_have_are_refused(packed, tmp_path):
  model = _write_model(tmp_path / "start", packed)
  config = make_training(packed, {"model.preset": None, "model.init_from": str(model)}, {"intermediate_size": 96})
  with pytest.raises(UserError, match="model.overrides give the model other parameters"):
    train.run(config, tmp_path / "run")


def test_the_architecture_is_changed_from_the_command_line(packed, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # and a relative workdir serves, checkpoints included
  config = write_training_config(tmp_path / "config.py", packed, {"train.steps": 1})
  overrides = ("num_layers=1", "num_kv_heads=4", "tie_embeddings=True", "rope_theta=5e4", "rope_scaling.kind=llama3",
               "rope_scaling.factor=8", "rope_scaling.original_max_position=128", "max_positions=1024")
  args = [f"--config.model.overrides.{override}" for override in overrides]
  assert cli._main(["agentbank", "train", f"--config={config}", *args, "--workdir=run"]) == 0
  assert _steps(tmp_path / "run") == [1]
  model = Bundle.open(tmp_path / "run/model").config
  assert (model.num_layers, model.num_kv_heads, model.tie_embeddings, model.max_positions) == (1, 4, True, 1024)
  assert (model.rope_theta, model.rope_scaling) == (5e4, RopeScaling("llama3", 8.0, original_max_position=128))
  assert (model.hidden_size, model.norm_eps) == (32, 1e-5)  # of the file and of the preset


@pytest.mark.parametrize("changes, overrides, told", [
    ({}, {"vocab_size": 299}, "299 entries"),
    ({}, {"max_positions": 255}, "255 positions"),
    ({}, {"num_kv_heads": 3}, "model.overrides: num_heads = 4 is not a multiple of num_kv_heads = 3"),
    ({}, {"rope_scaling": {"factor": 2.0}}, "model.overrides: the model has no rope_scaling; give its kind"),
    ({"model.preset": None}, {}, "give model.preset"),
    ({"model.preset": "tiny_tset"}, {}, "did you mean 'tiny_test'"),
    ({"data.micro_batches": 3}, {}, "not a multiple"),
    ({"data.micro_batches": 0}, {}, "micro_batches"),
    ({"data.batch_size": 0}, {}, "batch_size"),
    ({"train.eval_batch_size": 0}, {}, "eval_batch_size"),
    ({"train.log_every": 0}, {}, "log_every"),
    ({"train.steps": -1}, {}, "no step to do"),
    ({"train.epochs": 1}, {}, "one of train.steps and train.epochs"),
    ({"train.write_model": "float16"}, {}, "write_model is 'float16'"),
    ({"train.peak_flops": -1.0}, {}, "peak_flops"),
    ({"optim.schedule": "cosin"}, {}, "schedule is 'cosin'"),
    ({"optim.decay": "some"}, {}, "decay is 'some'"),
    ({"optim.learning_rate": -1e-3}, {}, "learning_rate is -0.001; it must be 0 or more"),
    ({"optim.learning_rate": float("nan")}, {}, "learning_rate is nan; it must be 0 or more"),
    ({"optim.warmup_share": 1.0}, {}, "warmup_share is 1.0"),
    ({"optim.final_share": 2.0}, {}, "final_share is 2.0"),
    ({"optim.b1": 1.5}, {}, "b1 is 1.5; it must be in"),
    ({"optim.b2": -0.1}, {}, "b2 is -0.1; it must be in"),
    ({"optim.eps": 0.0}, {}, "eps is 0.0; it must be above 0"),
    ({"optim.weight_decay": -1.0}, {}, "weight_decay is -1.0"),
    ({"optim.clip_norm": 0.0}, {}, "clip_norm is 0.0; it must be above 0, or None"),
    ({"train.keep_every": 0}, {}, "keep_every is 0; it must be at least 1"),
    ({"seed": -1}, {}, "seed is -1; it must be at least 0"),
    ({"mesh.tensor": 4}, {}, "needs 4 devices or a multiple, there are 1"),  # one device is no reason to pass over it
    ({"rules.batch": "dta"}, {}, "did you mean 'data'"),
    ({"model.lora.rank": 2, "model.lora.alpha": 0.0}, {}, "lora.alpha is 0.0; it must be above 0"),
    ({}, {"initializer_range": -1.0}, "initializer_range is -1.0; it must be 0 or more"),
    ({}, {"norm_eps": -1.0}, "norm_eps is -1.0; it must be positive"),
    ({"execution.remat": "som"}, {}, "remat is 'som'"),
    ({"data.path": "nowhere"}, {}, "nowhere: no such directory"),
])
def test_what_cannot_be_is_said_before_a_step_is_done(packed, tmp_path, changes, overrides, told):
  config = make_training(packed)
  for key, value in changes.items():
    config.update_from_flattened_dict({key: value})
  config.model.overrides.update(overrides)
  with pytest.raises(UserError, match=told):
    train.Trainer(config, tmp_path)


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
  lines = _lines(tmp_path / "run")
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


# Every knob: what must change the outcome, and what must not.


@pytest.fixture(scope="module")
def outcome(packed, tmp_path_factory):
  """Runs four steps; returns losses, learning rates, and a digest of what was saved."""
  done = {}

  def run(**changes):
    key = json.dumps(changes)
    if key not in done:
      settings = {"train.write_model": "float32"} | {k.replace("__", "."): v for k, v in changes.items()}
      workdir = tmp_path_factory.mktemp("knob")
      train.run(make_training(packed, settings, {"num_layers": 1}), workdir)
      weights = {name: leaf.astype(np.float32) for name, leaf in _params(workdir / "model").items()}
      done[key] = _losses(workdir), [line["learning_rate"] for line in _lines(workdir) if "loss" in line], weights
    return done[key]

  return run


@pytest.mark.parametrize("key, value", [
    ("seed", 1),
    ("data.batch_size", 4),
    ("optim.learning_rate", 1e-3),
    pytest.param("optim.schedule", "linear", marks=pytest.mark.slow),
    pytest.param("optim.warmup_share", 0.5, marks=pytest.mark.slow),
    pytest.param("optim.final_share", 0.5, marks=pytest.mark.slow),
    pytest.param("optim.b1", 0.5, marks=pytest.mark.slow),
    pytest.param("optim.b2", 0.5, marks=pytest.mark.slow),
    pytest.param("optim.eps", 1e-2, marks=pytest.mark.slow),
    pytest.param("optim.weight_decay", 0.5, marks=pytest.mark.slow),
    pytest.param("optim.clip_norm", 0.01, marks=pytest.mark.slow),
    pytest.param("optim.mu_dtype", "bfloat16", marks=pytest.mark.slow),
    ("execution.compute_dtype", "bfloat16"),
])
def test_a_knob_that_changes_the_outcome(outcome, key, value):
  losses, _, weights = outcome()
  other_losses, _, other_weights = outcome(**{key.replace(".", "__"): value})
  assert other_losses != losses
  assert any((weights[name] != other_weights[name]).any() for name in weights)


@pytest.mark.slow
def test_decay_reaches_the_norms_only_where_asked_for(outcome):
  kernels = outcome(optim__weight_decay=0.5)
  everything = outcome(optim__weight_decay=0.5, optim__decay="all")
  norm = "['norm']['scale']"
  assert (kernels[2][norm] != everything[2][norm]).any()


@pytest.mark.parametrize("key, value", [
    ("execution.layers", "scan"),
    pytest.param("execution.attention", "full", marks=pytest.mark.slow),
    pytest.param("execution.matmul", "native", marks=pytest.mark.slow),
    pytest.param("execution.remat", "full", marks=pytest.mark.slow),
    ("execution.loss_chunk", 32),
    pytest.param("execution.query_block", 32, marks=pytest.mark.slow),
    ("data.micro_batches", 4),
])
def test_a_knob_that_does_not(outcome, key, value):
  losses, rates, _ = outcome()
  other_losses, other_rates, _ = outcome(**{key.replace(".", "__"): value})
  np.testing.assert_allclose(other_losses, losses, rtol=1e-4)
  assert other_rates == rates


def test_epochs_are_steps_over_all_rows(packed, tmp_path):
  rows = data.PackedDataset.open(packed).num_rows["train"]
  config = make_training(packed, {"train.steps": None, "train.epochs": 3})
  assert train.Trainer(config, tmp_path).total_steps == -(-3 * rows // 8)


def test_the_written_model_has_the_dtype_asked_for(packed, tmp_path):
  train.run(make_training(packed, {"train.write_model": "bfloat16", "train.steps": 1}), tmp_path)
  assert {str(dtype) for dtype in Bundle.open(tmp_path / "model").dtypes.values()} == {"bfloat16"}


def test_eight_devices_do_what_one_does(outcome, packed, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: len(jax.devices()))
  mesh = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "data.micro_batches": 2}
  result = train.run(make_training(packed, mesh, {"num_layers": 1}), tmp_path)
  np.testing.assert_allclose(_losses(tmp_path), outcome()[0], rtol=1e-4)
  assert np.isfinite(result["metrics"]["eval/loss"])


@pytest.mark.parametrize("key", ["data.batch_size", "train.eval_batch_size"])
def test_a_batch_that_the_mesh_does_not_divide(packed, tmp_path, monkeypatch, key):
  monkeypatch.setattr(jax, "device_count", lambda: len(jax.devices()))
  with pytest.raises(UserError, match=f"{key} = 12 is not a multiple"):
    train.Trainer(make_training(packed, {key: 12}), pathlib.Path(tmp_path))


@pytest.mark.parametrize("split, told", [
    ("eval", "train.eval_every is 30 and .* has no split 'eval': set it to 0, or pack"),
    ("train", "has no split 'train'; pack with a smaller eval_share")])
def test_a_split_that_is_asked_for_and_not_there(packed, tmp_path, monkeypatch, split, told):
  dataset = data.PackedDataset.open(packed)
  del dataset.num_rows[split]
  monkeypatch.setattr(data.PackedDataset, "open", lambda path: dataset)
  with pytest.raises(UserError, match=told):
    train.Trainer(make_training(packed, {"train.eval_every": 30}), tmp_path)
