"""Masked cross-entropy whose logits never exist all at once.

Letter key: B batch, L length, C chunk of L, D hidden size, V vocabulary, M = B * C.
"""

from functools import partial

import jax
from jax import lax
import jax.numpy as jnp

from agentbank_jax.matmul import dot, weight_grad


def _chunks(x_BL, chunk: int):
  """Cuts [B, L, ...] along L into [chunks, B, C, ...], padding the last chunk with zeros."""
  B, L = x_BL.shape[:2]
  padded = jnp.pad(x_BL, [(0, 0), (0, -L % chunk)] + [(0, 0)] * (x_BL.ndim - 2))
  return jnp.moveaxis(padded.reshape(B, -1, chunk, *x_BL.shape[2:]), 1, 0)


def _join(x_CHUNKS, L: int):
  """Undoes `_chunks`."""
  x = jnp.moveaxis(x_CHUNKS, 0, 1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :L]


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


def token_nll(x_BLD, head_DV, targets_BL, chunk: int):
  """Returns -log p(target) of every position, float32 [B, L]; not differentiable."""
  def body(_, xs):
    x_BCD, targets_BC = xs
    return None, _nll(x_BCD, head_DV, targets_BC)[0].reshape(targets_BC.shape)

  _, nll = lax.scan(body, None, (_chunks(x_BLD, chunk), _chunks(targets_BL, chunk)))
  return _join(nll, targets_BL.shape[1])


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy_sum(x_BLD, head_DV, targets_BL, mask_BL, chunk: int):
  """Returns the sum of -log p(target) over the positions of the mask: a float32 scalar.

  A *sum*: dividing by the number of trained tokens is left to the caller, who alone knows that number over
  micro-batches, devices and hosts. The gradient is formed in the forward pass, one chunk of positions at a time,
  so no more than [B * chunk, V] logits exist.

  Args:
    x_BLD: last hidden states. head_DV: output projection, of the same dtype.
    targets_BL: int32. mask_BL: bool or 0/1.
    chunk: positions of each row in one piece.
  """
  nll_BL = token_nll(x_BLD, head_DV, targets_BL, chunk)
  return jnp.sum(jnp.where(mask_BL, nll_BL, 0.0))


def _forward(x_BLD, head_DV, targets_BL, mask_BL, chunk):
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
  chunks = tuple(_chunks(a, chunk) for a in (x_BLD, targets_BL, mask_BL.astype(jnp.float32)))
  (total, dhead), dx = lax.scan(body, start, chunks)
  return total, (_join(dx, L), dhead.astype(head_DV.dtype))


def _backward(chunk, saved, g):
  dx_BLD, dhead_DV = saved
  return (g * dx_BLD).astype(dx_BLD.dtype), (g * dhead_DV).astype(dhead_DV.dtype), None, None


cross_entropy_sum.defvjp(_forward, _backward)
