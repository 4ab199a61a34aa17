"""`agentbank train` from given weights, and what of an architecture may be changed."""

import re

import jax
import numpy as np
import pytest
from training_samples import (
  assert_bit_equal,
  make_training,
  model_params,
  save_packed,
  saved_steps,
  write_training_config,
)

from agentbank_jax import cli, control_tokens, train
from agentbank_jax.bundle import Bundle, write_bundle
from agentbank_jax.chat import load_renderer
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama
from agentbank_jax.models.config import RopeScaling
from configs.base import architecture

pytestmark = pytest.mark.usefixtures("compile_cache", "one_device")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  return save_packed(tmp_path_factory.mktemp("data"))


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
  assert_bit_equal(model_params(tmp_path / "run/model"), model_params(model))


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
    return model_params(tmp_path / choice / "model")

  with pytest.raises(UserError) as error:
    start("error")
  told = str(error.value)
  assert f"{model} never learned control tokens of chat format 'llama3': " in told
  assert re.search(r"'<\|start_header_id\|>' \(id \d+\) has an embedding row near zero \(norm", told)
  assert re.search(r"'<\|end_header_id\|>' \(id \d+\) has an embedding row equal to that of '<\|eot_id\|>'", told)
  assert re.search(r"'<\|eot_id\|>' \(id \d+\) has an embedding row equal to that of '<\|end_header_id\|>'", told)
  assert told.count(" has an embedding row ") == 3 and "Set model.untrained_tokens to 'mean'" in told
  assert not (tmp_path / "error" / "model").exists()
  assert_bit_equal(start("keep"), model_params(model))
  assert "never learned control tokens" in caplog.text
  before, after = model_params(model), start("mean")
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
  assert saved_steps(tmp_path / "run") == [1]
  model = Bundle.open(tmp_path / "run/model").config
  assert (model.num_layers, model.num_kv_heads, model.tie_embeddings, model.max_positions) == (1, 4, True, 1024)
  assert (model.rope_theta, model.rope_scaling) == (5e4, RopeScaling("llama3", 8.0, original_max_position=128))
  assert (model.hidden_size, model.norm_eps) == (32, 1e-5)  # of the file and of the preset
