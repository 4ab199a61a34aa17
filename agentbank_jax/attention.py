"""Attention over packed rows. One door, several kernels, one meaning.

A query sees the keys of its own segment that are not after it, the last `window` of them where a window is set.

Letter key: B batch, L length, N query heads, K key/value heads, G = N // K, H head size, T keys.
"""

import math

import jax
import jax.numpy as jnp

from agentbank_jax.kernels.blocked import blocked_attention
from agentbank_jax.kernels.masks import MASKED, causal_mask
from agentbank_jax.kernels.splash import splash_attention
from agentbank_jax.models.execution import Execution

ATTENTION = "attention"  # name of its results, for `Execution.remat`


def attend(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window: int | None, execution: Execution):
  """Returns the attention output, [B, L, N, H], in q's dtype; softmax in float32.

  Kernels (`execution.attention`):
    full: the whole L x L score matrix; simple, for small L and as the reference.
    blocked: blocks of queries against the keys they may see, scores recomputed in the backward pass. Runs anywhere.
    splash: JAX's Pallas kernel for TPUs; rows may be cut along their length (see `kernels.splash`).
    cudnn: NVIDIA's kernel for GPUs from compute capability 9.0 on (see `kernels.cudnn`).
    triton: JAX's Pallas kernel for GPUs (see `kernels.triton`).
    splash_interpret, triton_interpret: the same kernels, interpreted step by step on any platform: for tests.
  """
  kind = execution.attention
  if kind == "full":
    return _full(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window)
  if kind == "blocked":
    return blocked_attention(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window, execution.query_block)
  if kind == "cudnn":
    from agentbank_jax.kernels.cudnn import cudnn_attention
    return cudnn_attention(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window, execution)
  if kind in ("triton", "triton_interpret"):
    from agentbank_jax.kernels.triton import triton_attention
    return triton_attention(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window, execution)
  return splash_attention(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window, execution, ATTENTION)


def _full(q_BLNH, k_BLKH, v_BLKH, seg_BL, window):
  B, L, N, H = q_BLNH.shape
  K = k_BLKH.shape[2]
  q_BLKGH = q_BLNH.reshape(B, L, K, N // K, H)
  s_BKGLT = jnp.einsum("blkgh,btkh->bkglt", q_BLKGH, k_BLKH, preferred_element_type=jnp.float32) / math.sqrt(H)
  visible_BLT = (seg_BL[:, :, None] == seg_BL[:, None, :]) & causal_mask(jnp.arange(L), jnp.arange(L), window)
  p_BKGLT = jax.nn.softmax(jnp.where(visible_BLT[:, None, None], s_BKGLT, MASKED), -1).astype(v_BLKH.dtype)
  return jnp.einsum("bkglt,btkh->blkgh", p_BKGLT, v_BLKH).reshape(B, L, N, H).astype(q_BLNH.dtype)
