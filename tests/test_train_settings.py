"""`agentbank train`, setting by setting: what cannot be is told; what each knob changes, and what it does not."""

import json
import pathlib

import jax
import numpy as np
import pytest
from training_samples import losses_of, make_training, metrics_lines, model_params, save_packed

from agentbank_jax import data, train
from agentbank_jax.bundle import Bundle
from agentbank_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("compile_cache", "one_device")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  return save_packed(tmp_path_factory.mktemp("data"))


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
      weights = {name: leaf.astype(np.float32) for name, leaf in model_params(workdir / "model").items()}
      rates = [line["learning_rate"] for line in metrics_lines(workdir) if "loss" in line]
      done[key] = losses_of(workdir), rates, weights
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
  np.testing.assert_allclose(losses_of(tmp_path), outcome()[0], rtol=1e-4)
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
