"""Attention by blocks of queries against the keys they may see: half the products of the full matrix, memory linear
in length, on any platform.

Scores are recomputed in the backward pass from the saved log-sum-exp, transposed ([keys, queries]), so that the two
large products contract the last dimension: the only form for which XLA:CPU has a fast bfloat16 kernel.

Letter key: B batch, L length, K key/value heads, G query heads of each, H head size, S query block, T keys.
"""

from functools import partial
import math

import jax
from jax import lax
import jax.numpy as jnp

from agentbank_jax.kernels.masks import MASKED, causal_mask


def blocked_attention(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window: int | None, block: int):
  """See `attention.attend`; `block`: queries whose scores exist at one time."""
  B, L, N, H = q_BLNH.shape
  K = k_BLKH.shape[2]
  q_BKGLH = q_BLNH.reshape(B, L, K, N // K, H).transpose(0, 2, 3, 1, 4)
  o_BKGLH = _blocked(q_BKGLH, k_BLKH.transpose(0, 2, 1, 3), v_BLKH.transpose(0, 2, 1, 3), segment_ids_BL,
                     window, min(block, L))
  return o_BKGLH.transpose(0, 3, 1, 2, 4).reshape(B, L, N, H)


def _bdot(a, b, dim_a, dim_b):
  """Contracts dim_a of a with dim_b of b (both 4-D), batched over the first two dimensions, into float32."""
  return lax.dot_general(a, b, (((dim_a,), (dim_b,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


def _key_range(start, stop, window):
  """The keys [lo, stop) that queries [start, stop) can see."""
  return 0 if window is None else max(0, start - window + 1)


def _visible(seg_BL, start, stop, low, window):
  """[B, S, T] for queries [start, stop) and keys [low, stop)."""
  same = seg_BL[:, start:stop, None] == seg_BL[:, None, low:stop]
  return same & causal_mask(jnp.arange(start, stop), jnp.arange(low, stop), window)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _blocked(q_BKGLH, k_BKLH, v_BKLH, seg_BL, window, block):
  return _blocked_fwd(q_BKGLH, k_BKLH, v_BKLH, seg_BL, window, block)[0]


def _blocked_fwd(q_BKGLH, k_BKLH, v_BKLH, seg_BL, window, block):
  B, K, G, L, H = q_BKGLH.shape
  scale = 1 / math.sqrt(H)
  out, lse = [], []
  for start in range(0, L, block):
    stop = min(start + block, L)
    low, S = _key_range(start, stop, window), stop - start
    q = q_BKGLH[:, :, :, start:stop].reshape(B, K, G * S, H)
    s = _bdot(q, k_BKLH[:, :, low:stop], 3, 3).reshape(B, K, G, S, stop - low) * scale
    s = jnp.where(_visible(seg_BL, start, stop, low, window)[:, None, None], s, MASKED)
    m = s.max(-1, keepdims=True)
    p = jnp.exp(s - m)
    z = p.sum(-1, keepdims=True)
    o = _bdot(p.astype(v_BKLH.dtype).reshape(B, K, G * S, stop - low), v_BKLH[:, :, low:stop], 3, 2)
    out.append((o.reshape(B, K, G, S, H) / z).astype(q_BKGLH.dtype))
    lse.append((m + jnp.log(z))[..., 0])
  out, lse = jnp.concatenate(out, 3), jnp.concatenate(lse, 3)
  return out, (q_BKGLH, k_BKLH, v_BKLH, seg_BL, out, lse)


def _blocked_bwd(window, block, saved, g_BKGLH):
  q_BKGLH, k_BKLH, v_BKLH, seg_BL, out, lse = saved
  B, K, G, L, H = q_BKGLH.shape
  dtype, scale = q_BKGLH.dtype, 1 / math.sqrt(H)
  pad = 8 if dtype == jnp.bfloat16 else 0  # see matmul.weight_grad
  zero = jnp.zeros((), dtype)
  delta = jnp.sum(out.astype(jnp.float32) * g_BKGLH.astype(jnp.float32), -1)
  dq, dk, dv = [], jnp.zeros(k_BKLH.shape, jnp.float32), jnp.zeros(v_BKLH.shape, jnp.float32)
  for start in range(0, L, block):
    stop = min(start + block, L)
    low, S = _key_range(start, stop, window), stop - start
    T = stop - low
    q = q_BKGLH[:, :, :, start:stop].reshape(B, K, G * S, H)
    g = g_BKGLH[:, :, :, start:stop].reshape(B, K, G * S, H)
    k, v = k_BKLH[:, :, low:stop], v_BKLH[:, :, low:stop]
    s = _bdot(k, q, 3, 3).reshape(B, K, T, G, S) * scale
    visible = _visible(seg_BL, start, stop, low, window).transpose(0, 2, 1)[:, None, :, None]
    p = jnp.exp(jnp.where(visible, s, MASKED) - lse[:, :, None, :, start:stop])
    dp = _bdot(v, g, 3, 3).reshape(B, K, T, G, S)
    ds = (p * (dp - delta[:, :, None, :, start:stop]) * scale).astype(dtype).reshape(B, K, T, G * S)
    dv = dv.at[:, :, low:stop].add(_bdot(p.astype(dtype).reshape(B, K, T, G * S), g, 3, 2))
    if pad:
      ds = lax.pad(ds, zero, ((0, 0, 0), (0, 0, 0), (0, pad, 0), (0, 0, 0)))
      kt = lax.pad(k.swapaxes(2, 3), zero, ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, pad, 0)))
      # [H, G*S]: transposed only after the blocks are joined, because XLA would fold a transpose here into the
      # product, and there is no bfloat16 kernel for that form at all.
      dq.append(_bdot(kt, ds, 3, 2).reshape(B, K, H, G, S))
    else:
      dq.append(_bdot(ds, k, 2, 2).reshape(B, K, G, S, H))
    dk = dk.at[:, :, low:stop].add(_bdot(ds, q, 3, 2)[:, :, :T])
  dq = jnp.concatenate(dq, 4).transpose(0, 1, 3, 4, 2) if pad else jnp.concatenate(dq, 3)
  return dq.astype(dtype), dk.astype(k_BKLH.dtype), dv.astype(v_BKLH.dtype), None


_blocked.defvjp(_blocked_fwd, _blocked_bwd)
