"""Whether a platform's attention kernel computes attention, on the very device that a run is about to use.

What tests elsewhere can only interpret or lower is tried here before a run: a wrong kernel, driver or library gives no
error, only a model that has learned from its neighbours in a row.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from agentbank_jax.attention import attend
from agentbank_jax.errors import UserError
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.execution import Execution

KERNELS = ("splash", "cudnn", "triton", "splash_interpret", "triton_interpret")
_TOLERANCE = {"bfloat16": 0.03, "float32": 0.02}  # of the largest value; TPUs multiply float32 in bfloat16 pieces
_SEGMENTS, _PADDING = 5, 3


def check_kernel(execution: Execution, model: LlamaConfig) -> float | None:
  """Compares the kernel with the full score matrix: one packed row, outputs and gradients, on this process's device.

  The row has five segments and padding, the model's head size, two groups of its heads, and a window where it has one.

  Returns:
    The largest difference, relative to the largest value, or None for what XLA compiles on every platform alike.

  Raises:
    UserError: it is too large, or not finite.
  """
  if execution.attention not in KERNELS:
    return None
  L = max(512, 2 * execution.splash_block) if execution.attention.startswith("splash") else 512
  window = None if model.sliding_window is None else min(model.sliding_window, 100)  # short enough to matter
  groups = min(2, model.num_kv_heads)
  heads = groups * (model.num_heads // model.num_kv_heads)
  rng = np.random.default_rng(0)
  array = lambda n: jnp.asarray(rng.normal(size=(1, L, n, model.head_dim)), execution.compute_dtype)
  q, k, v = array(heads), array(groups), array(groups)
  cuts = np.sort(rng.choice(np.arange(1, L - _PADDING), _SEGMENTS - 1, replace=False))
  segments = 1 + np.searchsorted(cuts, np.arange(L), side="right")[None]
  segments[:, L - _PADDING:] = 0
  inside = jnp.asarray(segments != 0)[:, :, None, None]
  weight = array(heads) * inside
  alone = dataclasses.replace(execution, sharding=None, max_segments=_SEGMENTS)

  def total(q, k, v, run, dtype):
    out = attend(*(a.astype(dtype) for a in (q, k, v)), jnp.asarray(segments, jnp.int32), window, run)
    out = jnp.where(inside, out.astype(jnp.float32), 0)
    return jnp.sum(out * weight), out

  step = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True), static_argnums=(3, 4))
  (_, out), grads = step(q, k, v, alone, execution.compute_dtype)
  full = dataclasses.replace(alone, attention="full")
  with jax.default_matmul_precision("highest"):
    (_, right), right_grads = step(q, k, v, full, "float32")
  worst = 0.0
  for mine, its in zip((out, *grads), (right, *right_grads), strict=True):
    mine, its = (np.asarray(a, np.float32) for a in (mine, its))
    worst = max(worst, float(np.max(np.abs(mine - its)) / np.max(np.abs(its))) if np.isfinite(mine).all() else np.inf)
  if worst > _TOLERANCE[execution.compute_dtype]:
    device = jax.local_devices()[0].device_kind
    raise UserError(f"execution.attention = {execution.attention} is wrong on this machine ({device}): it differs from "
                    f"the full score matrix by {worst:.2g} of the largest value; choose blocked, and report it with "
                    "the versions that `agentbank doctor` prints")
  return worst
