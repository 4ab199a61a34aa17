"""The key/value cache, and attention against it.

Letter key: S slots, G slots of one prefill, K key/value heads, R = query heads per key/value head, H head size,
T positions of the cache, C new positions, J positions of the recent buffer.
"""

import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from agentbank_jax.kernels.masks import MASKED, causal_mask
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.execution import Execution
from agentbank_jax.models.llama import constrain

# (keys, values) of all layers: a list of pairs of [S, K, T, H] ("unroll"), or one pair of [L, S, K, T, H] ("scan").
Cache = Any


def zeros(config: LlamaConfig, execution: Execution, slots: int, length: int) -> Cache:
  """Returns an empty cache of `slots` rows of `length` positions, in the compute dtype, cut as its axes say."""
  scan = execution.layers == "scan"
  shape = (slots, config.num_kv_heads, length, config.head_dim)
  if scan:
    shape = (config.num_layers, *shape)
  axes = ("layers",) * scan + ("batch", "act_kv_heads", None, None)
  make = lambda: tuple(constrain(jnp.zeros(shape, execution.compute_dtype), execution, *axes) for _ in range(2))
  return make() if scan else [make() for _ in range(config.num_layers)]


def extend(q_GCNH, k_GCKH, v_GCKH, layer_cache, slots_G, starts_G, bound: int, window: int | None):
  """Writes C new positions into slots and attends from them to all that the slots hold.

  Args:
    layer_cache: (keys, values), [S, K, T, H].
    slots_G: int32, the slot of each row; None where row i is slot i (the form that partitions over a mesh).
    starts_G: int32, how many positions of the slot come before the new ones.
    bound: static; no position at or beyond it is looked at.

  Returns:
    ([G, C, N, H], (keys, values) updated).
  """
  G, C, N, H = q_GCNH.shape
  new = k_GCKH.transpose(0, 2, 1, 3), v_GCKH.transpose(0, 2, 1, 3)
  if slots_G is None:
    layer_cache = merge(layer_cache, new, starts_G)
    k_GKTH, v_GKTH = (a[:, :, :bound] for a in layer_cache)
  else:
    write = lambda a, rows, g: lax.dynamic_update_slice(a, rows[g:g + 1], (slots_G[g], 0, starts_G[g], 0))
    read = lambda a, g: lax.dynamic_slice(a, (slots_G[g], 0, 0, 0), (1, a.shape[1], bound, H))
    for g in range(G):  # G is small, and XLA does each of these in place
      layer_cache = tuple(write(a, rows, g) for a, rows in zip(layer_cache, new, strict=True))
    k_GKTH, v_GKTH = (jnp.concatenate([read(a, g) for g in range(G)]) for a in layer_cache)
  K = k_GKTH.shape[1]
  q_GKRCH = q_GCNH.reshape(G, C, K, N // K, H).transpose(0, 2, 3, 1, 4)
  s_GKRCT = jnp.einsum("gkrch,gkth->gkrct", q_GKRCH, k_GKTH, preferred_element_type=jnp.float32) / math.sqrt(H)
  visible_GCT = causal_mask(starts_G[:, None] + jnp.arange(C), jnp.arange(bound), window)
  p_GKRCT = jax.nn.softmax(jnp.where(visible_GCT[:, None, None], s_GKRCT, MASKED), -1).astype(v_GKTH.dtype)
  o_GKRCH = jnp.einsum("gkrct,gkth->gkrch", p_GKRCT, v_GKTH, preferred_element_type=jnp.float32)
  return o_GKRCH.transpose(0, 3, 1, 2, 4).reshape(G, C, N, H).astype(q_GCNH.dtype), layer_cache


def attend_one(q_S1NH, k_S1KH, v_S1KH, held, recent, lengths_S, i, window: int | None):
  """Attends from one new position of every slot, position `lengths + i`.

  What a slot held before the chunk of steps began is only read; the chunk's own positions are in a small buffer that
  all slots write at the same index. So the large cache is never copied or scattered into inside the loop.

  Args:
    held: (keys, values) [S, K, T, H] of which the first `lengths` positions of each slot count.
    recent: (keys, values) [S, K, J, H] of which the first `i` positions count.

  Returns:
    ([S, 1, N, H], recent with position `i` written).
  """
  S, _, N, H = q_S1NH.shape
  keys, values = held
  K, T = keys.shape[1:3]
  put = lambda buffer, new: lax.dynamic_update_slice(buffer, new.transpose(0, 2, 1, 3), (0, 0, i, 0))
  recent = put(recent[0], k_S1KH), put(recent[1], v_S1KH)
  J = recent[0].shape[2]
  q_SKRH = q_S1NH.reshape(S, K, N // K, H)
  scores = lambda k: jnp.einsum("skrh,skth->skrt", q_SKRH, k, preferred_element_type=jnp.float32)
  s_SKRT = jnp.concatenate([scores(keys), scores(recent[0])], -1) / math.sqrt(H)
  held_at, recent_at = jnp.arange(T), jnp.arange(J)
  visible_ST = held_at < lengths_S[:, None]
  visible_J = recent_at <= i
  if window is not None:
    visible_ST &= held_at > lengths_S[:, None] + i - window
    visible_J &= recent_at > i - window
  visible = jnp.concatenate([visible_ST, jnp.broadcast_to(visible_J, (S, J))], -1)
  p_SKRT = jax.nn.softmax(jnp.where(visible[:, None, None], s_SKRT, MASKED), -1).astype(values.dtype)
  mix = lambda p, v: jnp.einsum("skrt,skth->skrh", p, v, preferred_element_type=jnp.float32)
  o_SKRH = mix(p_SKRT[..., :T], values) + mix(p_SKRT[..., T:], recent[1])
  return o_SKRH.reshape(S, 1, N, H).astype(q_S1NH.dtype), recent


def merge(layer_cache, new, lengths_S):
  """Writes new positions, (keys, values) [S, K, C, H], of every slot behind what it holds; there must be room."""
  row = lambda held, new, at: lax.dynamic_update_slice(held, new, (0, at, 0))
  return tuple(jax.vmap(row)(*pair, lengths_S) for pair in zip(layer_cache, new, strict=True))
