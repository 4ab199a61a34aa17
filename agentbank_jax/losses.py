"""Masked cross-entropy whose logits never exist all at once.

Letter key: B batch, L length, C chunk of L, D hidden size, V vocabulary, M = B * C.

Where a mesh cuts rows along their length into `shards` stretches, a chunk takes C / shards positions of each, so that
all devices work on every chunk.
"""

from functools import partial

import jax
from jax import lax
import jax.numpy as jnp

from agentbank_jax.matmul import dot, weight_grad


def _chunks(x_BL, chunk: int, shards: int):
  """Cuts [B, L, ...] along L into [chunks, B, C, ...], padding the last chunk with zeros."""
  B, L, *rest = x_BL.shape
  part = max(chunk // shards, 1)
  x = x_BL.reshape(B, shards, L // shards, *rest)
  x = jnp.pad(x, [(0, 0), (0, 0), (0, -x.shape[2] % part)] + [(0, 0)] * len(rest))
  x = jnp.moveaxis(x.reshape(B, shards, -1, part, *rest), 2, 0)
  return x.reshape(x.shape[0], B, shards * part, *rest)


def _join(x_CHUNKS, L: int, shards: int):
  """Undoes `_chunks`."""
  chunks, B, C, *rest = x_CHUNKS.shape
  x = jnp.moveaxis(x_CHUNKS.reshape(chunks, B, shards, C // shards, *rest), 0, 2)
  return x.reshape(B, shards, -1, *rest)[:, :, :L // shards].reshape(B, L, *rest)


def _logits(x_BCD, head_DV):
  x_MD = x_BCD.reshape(-1, x_BCD.shape[-1])
  return dot(x_MD, head_DV, 1, 0)


def _nll(x_BCD, head_DV, targets_BC):
  """Returns (float32 -log p [M], its softmax's exponentials [M, V], their sums [M, 1], the one-hot targets)."""
  logits_MV = _logits(x_BCD, head_DV)
  top = logits_MV.max(-1, keepdims=True)
  exp_MV = jnp.exp(logits_MV - top)
  sum_M1 = exp_MV.sum(-1, keepdims=True)
  # One-hot and not take_along_axis: its sum fuses, and it partitions where the vocabulary is cut across devices.
  hot_MV = targets_BC.reshape(-1, 1) == lax.broadcasted_iota(targets_BC.dtype, logits_MV.shape, 1)
  picked_M = jnp.sum(jnp.where(hot_MV, logits_MV, 0.0), -1)
  return (jnp.log(sum_M1) + top)[:, 0] - picked_M, exp_MV, sum_M1, hot_MV


def token_nll(x_BLD, head_DV, targets_BL, chunk: int, shards: int = 1):
  """Returns -log p(target) of every position, float32 [B, L]; not differentiable."""
  def body(_, xs):
    x_BCD, targets_BC = xs
    return None, _nll(x_BCD, head_DV, targets_BC)[0].reshape(targets_BC.shape)

  _, nll = lax.scan(body, None, (_chunks(x_BLD, chunk, shards), _chunks(targets_BL, chunk, shards)))
  return _join(nll, targets_BL.shape[1], shards)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy_sum(x_BLD, head_DV, targets_BL, mask_BL, chunk: int, shards: int = 1):
  """Returns the sum of -log p(target) over the positions of the mask: a float32 scalar.

  A *sum*: dividing by the number of trained tokens is left to the caller, who alone knows that number over
  micro-batches, devices and hosts. The gradient is formed in the forward pass, one chunk of positions at a time,
  so no more than [B * chunk, V] logits exist.

  Args:
    x_BLD: last hidden states. head_DV: output projection, of the same dtype.
    targets_BL: int32. mask_BL: bool or 0/1.
    chunk: positions of each row in one piece.
    shards: stretches into which the mesh cuts rows; divides L.
  """
  nll_BL = token_nll(x_BLD, head_DV, targets_BL, chunk, shards)
  return jnp.sum(jnp.where(mask_BL, nll_BL, 0.0))


def _forward(x_BLD, head_DV, targets_BL, mask_BL, chunk, shards):
  B, L, D = x_BLD.shape

  def body(carry, xs):
    total, dhead = carry
    x_BCD, targets_BC, mask_BC = xs
    nll_M, exp_MV, sum_M1, hot_MV = _nll(x_BCD, head_DV, targets_BC)
    mask_M = mask_BC.reshape(-1).astype(jnp.float32)
    g_MV = ((exp_MV / sum_M1 - hot_MV) * mask_M[:, None]).astype(x_BLD.dtype)
    dx_BCD = dot(g_MV, head_DV, 1, 1).astype(x_BLD.dtype).reshape(x_BCD.shape)
    dhead += weight_grad(x_BCD.reshape(-1, D), g_MV)
    return (total + jnp.sum(nll_M * mask_M), dhead), dx_BCD

  start = (jnp.float32(0), jnp.zeros(head_DV.shape, jnp.float32))
  chunks = tuple(_chunks(a, chunk, shards) for a in (x_BLD, targets_BL, mask_BL.astype(jnp.float32)))
  (total, dhead), dx = lax.scan(body, start, chunks)
  return total, (_join(dx, L, shards), dhead.astype(head_DV.dtype))


def _backward(chunk, shards, saved, g):
  dx_BLD, dhead_DV = saved
  return (g * dx_BLD).astype(dx_BLD.dtype), (g * dhead_DV).astype(dhead_DV.dtype), None, None


cross_entropy_sum.defvjp(_forward, _backward)
