"""Masked cross-entropy whose logits never exist all at once.

Letter key: B batch, L length, C chunk of L, D hidden size, V vocabulary.

On a mesh every device works on its own stretch of its own rows (`jax.shard_map`): the output projection is gathered
once, not for every chunk, and its gradient is summed over the devices once. Left to itself XLA does both in each chunk.
"""

from functools import partial

import jax
from jax import lax
import jax.numpy as jnp

from agentbank_jax.matmul import dot, weight_grad
from agentbank_jax.sharding import Sharding


def _chunks(x_BL, chunk: int):
  """Cuts [B, L, ...] along L into [chunks, B, C, ...], padding the last chunk with zeros."""
  B, L, *rest = x_BL.shape
  x = jnp.pad(x_BL, [(0, 0), (0, -L % chunk)] + [(0, 0)] * len(rest))
  return jnp.moveaxis(x.reshape(B, -1, chunk, *rest), 1, 0)


def _join(x_CHUNKS, L: int):
  """Undoes `_chunks`."""
  chunks, B, C, *rest = x_CHUNKS.shape
  return jnp.moveaxis(x_CHUNKS, 0, 1).reshape(B, chunks * C, *rest)[:, :L]


def _nll(x_BCD, head_DV, targets_BC):
  """Returns (float32 -log p [B, C], its softmax's exponentials [B, C, V], their sums [B, C, 1], one-hot targets)."""
  logits_BCV = dot(x_BCD, head_DV, 2, 0)
  top = logits_BCV.max(-1, keepdims=True)
  exp_BCV = jnp.exp(logits_BCV - top)
  sum_BC1 = exp_BCV.sum(-1, keepdims=True)
  # One-hot and not take_along_axis: its sum fuses, and it partitions where the vocabulary is cut across devices.
  hot_BCV = targets_BC[..., None] == lax.broadcasted_iota(targets_BC.dtype, logits_BCV.shape, 2)
  picked_BC = jnp.sum(jnp.where(hot_BCV, logits_BCV, 0.0), -1)
  return (jnp.log(sum_BC1) + top)[..., 0] - picked_BC, exp_BCV, sum_BC1, hot_BCV


def token_nll(x_BLD, head_DV, targets_BL, chunk: int, sharding: Sharding | None = None):
  """Returns -log p(target) of every position, float32 [B, L]; not differentiable. Arguments: `cross_entropy_sum`."""
  def local(x_BLD, head_DV, targets_BL):
    def body(_, xs):
      x_BCD, targets_BC = xs
      return None, _nll(x_BCD, head_DV, targets_BC)[0]

    _, nll = lax.scan(body, None, (_chunks(x_BLD, chunk), _chunks(targets_BL, chunk)))
    return _join(nll, targets_BL.shape[1])

  if sharding is None:
    return local(x_BLD, head_DV, targets_BL)
  own, _ = _head_axes(sharding)
  gathered = lambda x, head, targets: local(x, lax.all_gather(head, own, axis=0, tiled=True), targets)
  rows = sharding.spec(("batch", "length"))
  return _on_devices(gathered, sharding, (rows, jax.P(own), rows), rows)(x_BLD, head_DV, targets_BL)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy_sum(x_BLD, head_DV, targets_BL, mask_BL, chunk: int, matmul: str = "native",
                      sharding: Sharding | None = None):
  """Returns the sum of -log p(target) over the positions of the mask: a float32 scalar.

  A *sum*: dividing by the number of trained tokens is left to the caller, who alone knows that number over
  micro-batches, devices and hosts. The gradient is formed in the forward pass, one chunk of positions at a time,
  so no more than [B * chunk, V] logits exist.

  Args:
    x_BLD: last hidden states. head_DV: output projection, of the same dtype.
    targets_BL: int32. mask_BL: bool or 0/1.
    chunk: positions of each row, or of a device's stretch of it, in one piece.
    matmul: see `Execution.matmul`.
    sharding: the mesh, which must divide rows and their length; None on one device.
  """
  nll_BL = token_nll(x_BLD, head_DV, targets_BL, chunk, sharding)
  return jnp.sum(jnp.where(mask_BL, nll_BL, 0.0))


def _forward(x_BLD, head_DV, targets_BL, mask_BL, chunk, matmul, sharding):
  local = partial(_sum_and_grads, chunk=chunk, matmul=matmul)
  mask_BL = mask_BL.astype(jnp.float32)
  if sharding is not None:
    local = _summed_over_devices(local, sharding)
  total, dx_BLD, dhead_DV = local(x_BLD, head_DV, targets_BL, mask_BL)
  # The barrier has the gradient summed over the devices before the layers' backward pass, which else would find no room
  # beside the unsummed one.
  return total, lax.optimization_barrier((dx_BLD, dhead_DV.astype(head_DV.dtype)))


def _sum_and_grads(x_BLD, head_DV, targets_BL, mask_BL, chunk: int, matmul: str):
  """Returns (the sum, its gradient for x, its gradient for head in float32)."""
  def body(carry, xs):
    total, dhead = carry
    x_BCD, targets_BC, mask_BC = xs
    nll_BC, exp_BCV, sum_BC1, hot_BCV = _nll(x_BCD, head_DV, targets_BC)
    g_BCV = ((exp_BCV / sum_BC1 - hot_BCV) * mask_BC[..., None]).astype(x_BLD.dtype)
    dx_BCD = dot(g_BCV, head_DV, 2, 1).astype(x_BLD.dtype)
    return (total + jnp.sum(nll_BC * mask_BC), dhead + weight_grad(x_BCD, g_BCV, matmul)), dx_BCD

  start = (jnp.float32(0), jnp.zeros(head_DV.shape, jnp.float32))
  (total, dhead), dx = lax.scan(body, start, tuple(_chunks(a, chunk) for a in (x_BLD, targets_BL, mask_BL)))
  return total, _join(dx, x_BLD.shape[1]), dhead


def _head_axes(sharding: Sharding) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Of the mesh axes that cut rows: (those that cut the output projection's D too, the others)."""
  cut = sharding.axes("batch") + sharding.axes("length")
  own = tuple(axis for axis in sharding.axes("embed") if axis in cut)
  return own, tuple(axis for axis in cut if axis not in own)


def _summed_over_devices(local, sharding: Sharding):
  own, others = _head_axes(sharding)

  def summed(x_BLD, head_DV, targets_BL, mask_BL):
    head_DV = lax.all_gather(head_DV, own, axis=0, tiled=True)
    total, dx_BLD, dhead_DV = local(x_BLD, head_DV, targets_BL, mask_BL)
    dhead_DV = lax.psum_scatter(dhead_DV, own, scatter_dimension=0, tiled=True)
    return lax.psum(total, own + others), dx_BLD, lax.psum(dhead_DV, others)

  rows = sharding.spec(("batch", "length"))
  return _on_devices(summed, sharding, (rows, jax.P(own), rows, rows), (jax.P(), rows, jax.P(own)))


def _on_devices(f, sharding: Sharding, in_specs, out_specs):
  """Runs `f` on every device's own rows; axes that cut no rows (the vocabulary's) are left to XLA."""
  own, others = _head_axes(sharding)
  return jax.shard_map(f, mesh=sharding.mesh, axis_names={*own, *others}, in_specs=in_specs, out_specs=out_specs,
                       check_vma=False)


def _backward(chunk, matmul, sharding, saved, g):
  dx_BLD, dhead_DV = saved
  return (g * dx_BLD).astype(dx_BLD.dtype), (g * dhead_DV).astype(dhead_DV.dtype), None, None


cross_entropy_sum.defvjp(_forward, _backward)
