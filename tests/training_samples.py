"""A small packed data set and training configs for the tests of what a user runs."""

import dataclasses
import json

from flax import traverse_util
import jax
import numpy as np
from packing_samples import make_config, trajectories, write_rows

from agentbank_jax.bundle import Bundle, write_bundle
from agentbank_jax.chat import make_renderer
from agentbank_jax.chat_template import FORMATS
from agentbank_jax.models.config import param_shapes
from agentbank_jax.models.presets import preset
from agentbank_jax.tokenizer import train_tokenizer
from configs.base import training
from data_prep import pack

SETTINGS = {
    "model.preset": "tiny_test", "data.batch_size": 8, "optim.learning_rate": 3e-3, "train.log_every": 1,
    "train.eval_batch_size": 8, "train.checkpoint_every": 0,
}
OVERRIDES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 4,
             "num_kv_heads": 2, "head_dim": 8}


def save_packed(folder, count=160, **changes):
  """Trains a tokenizer on synthetic trajectories and packs them into rows of 256. Returns the data set's path."""
  rows = trajectories(count)
  source = write_rows(folder / "source.jsonl", rows)
  texts = (turn["content"] for row in rows for turn in row["turns"])
  tokenizer = train_tokenizer(texts, 300, FORMATS["llama3"].control_tokens)
  make_renderer(tokenizer, "llama3").save(folder / "tokenizer")
  pack.run(make_config(folder / "tokenizer", source, **({"seq_len": 256, "eval_share": 0.1} | changes)), folder)
  return folder / "packed"


def save_model(path, packed, spoil=0.0):
  """Saves a random model of the runs' architecture with one weight set to `spoil`. Returns its folder."""
  config = dataclasses.replace(preset("tiny_test"), **OVERRIDES)
  rng = np.random.default_rng(0)
  params = {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in param_shapes(config).items()}
  params["layers.mlp.up.kernel"][1, 2, 3] = spoil
  params = traverse_util.unflatten_dict(params, sep=".")
  write_bundle(path, config, params, packed / "tokenizer", "llama3")
  return path


def make_training(packed, changes=(), overrides=()):
  """Returns the config of a run of four steps of a two-layer model; `changes` by dotted key."""
  config = training()
  settings = SETTINGS | {"data.path": str(packed), "train.steps": 4} | dict(changes)
  config.update_from_flattened_dict(settings)
  config.model.overrides.update(OVERRIDES | dict(overrides))
  return config


def write_training_config(path, packed, changes=(), overrides=()):
  """Writes a config file that gives the same as `make_training`."""
  path.write_text(f'''"""A test's."""
from configs.base import training


def get_config():
  config = training()
  config.update_from_flattened_dict({SETTINGS | {"data.path": str(packed), "train.steps": 4} | dict(changes)!r})
  config.model.overrides.update({OVERRIDES | dict(overrides)!r})
  return config
''')
  return path


def metrics_lines(workdir):
  """Returns the lines of a run's metrics.jsonl."""
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses_of(workdir):
  """Returns a run's training losses."""
  return [line["loss"] for line in metrics_lines(workdir) if "loss" in line]


def saved_steps(workdir):
  """Returns the steps of a run's checkpoints."""
  return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def model_params(model):
  """Returns a bundle's arrays by name."""
  leaves = jax.tree.leaves_with_path(Bundle.open(model).load_params())
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def assert_bit_equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
