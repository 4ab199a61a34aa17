"""A tiny model, ways to run it, and packed batches whose truth is known: one conversation per row."""

import jax
import numpy as np

from agentbank_jax.models import llama
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.execution import Execution
from agentbank_jax.sharding import make_sharding
from configs.base import training

# Weights large enough that every knob shows in the output.
TINY = LlamaConfig("llama", vocab_size=96, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4,
                   num_kv_heads=2, head_dim=8, max_positions=512, rope_theta=1e4, norm_eps=1e-5, initializer_range=0.25)
FIELDS = ("tokens", "targets", "loss_mask", "segment_ids", "positions")


def execution(layers="scan", attention="full", matmul="native", remat="none", compute_dtype="float32", loss_chunk=64,
              query_block=16, splash_block=128, sharding=None, max_segments=None):
  return Execution(layers, attention, matmul, remat, compute_dtype, loss_chunk, query_block, splash_block,
                   sharding, max_segments)


def mesh(**shape):
  """Returns the default rules on a mesh of all eight devices."""
  return make_sharding(shape, training().rules)


def conversations(count, longest, seed=0, vocab=TINY.vocab_size):
  """Returns (ids, train) pairs of 2 to `longest` ids, about half of them trained."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(2, longest + 1, count)
  return [(rng.integers(0, vocab, n), rng.random(n) < 0.5) for n in lengths]


def pack(rows, length, pad=7):
  """Packs lists of conversations into rows: the batch of the data contract. Padding is `pad`, not zero.

  Returns:
    Dict of arrays [len(rows), length].
  """
  batch = {name: np.zeros((len(rows), length), bool if name == "loss_mask" else np.int32) for name in FIELDS}
  batch["tokens"][:] = batch["targets"][:] = pad
  for b, row in enumerate(rows):
    at = 0
    for segment, (ids, train) in enumerate(row, start=1):
      here = np.s_[b, at:at + len(ids) - 1]
      values = (ids[:-1], ids[1:], train[1:], segment, np.arange(len(ids) - 1))
      for name, value in zip(FIELDS, values, strict=True):
        batch[name][here] = value
      at += len(ids) - 1
    assert at <= length
  return batch


def random_params(config, seed=0):
  """Returns canonical parameters in NumPy, biases and scales random too."""
  rng = np.random.default_rng(seed)
  params = jax.tree.map(lambda s: 0.25 * rng.normal(size=s.shape).astype(np.float32), llama.abstract_params(config))
  return jax.tree.map_with_path(lambda path, a: a + 1 if path[-1].key == "scale" else a, params)
