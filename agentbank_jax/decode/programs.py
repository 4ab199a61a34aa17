"""The two compiled programs of the engine: take in new tokens, and draw tokens.

Letter key: S slots, G slots of one prefill, C new positions, n steps of a chunk, D hidden size, V vocabulary.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from agentbank_jax.decode import cache as kv
from agentbank_jax.decode.sampling import Sampling, sample
from agentbank_jax.models import llama
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.execution import Execution


class Slots(NamedTuple):
  """The state of all slots that a chunk of steps starts from; arrays [S].

  Attributes:
    tokens: int32, the last token of each conversation, not yet in the cache.
    lengths: int32, positions in the cache.
    budgets: int32, how many tokens may still be drawn; 0 for a slot that waits.
    seeds: uint32.
    counts: int32, tokens drawn so far in this conversation.
  """

  tokens: jax.Array
  lengths: jax.Array
  budgets: jax.Array
  seeds: jax.Array
  counts: jax.Array


def prefill(params, cache, tokens_GC, slots_G, starts_G, *, bound: int, config: LlamaConfig, execution: Execution):
  """Returns the cache with C new positions in each of G slots; see `cache.extend`.

  Rows may repeat: they write the same.
  """
  model = llama.bind(config, params, execution)
  positions_GC = starts_G[:, None] + jnp.arange(tokens_GC.shape[1])

  def attend(q, k, v, layer_cache):
    return kv.extend(q, k, v, layer_cache, slots_G, starts_G, bound, config.sliding_window)

  x_GCD = model.embed_tokens(tokens_GC, execution)
  _, cache = model.run_layers(x_GCD, positions_GC, attend, execution, cache)
  return cache


def decode(params, cache, slots: Slots, stop_ids, *, steps: int, bound: int, refill: int, sampling: Sampling,
           config: LlamaConfig, execution: Execution):
  """Draws up to `steps` tokens in every slot that has a budget.

  Stops early once `refill` slots have finished (their places can then be given to others), or all have.

  Args:
    stop_ids: int32, tokens that end a turn; a slot draws none after one of them.
    bound: static; no position of the cache at or beyond it is looked at.

  Returns:
    (cache, tokens int32 [S, steps], drawn int32 [S]: how many of them count).
  """
  model = llama.bind(config, params, execution)
  if execution.layers == "unroll":  # cast and join the weights once, not at every step
    weights = [block.weights(execution) for block in model.layers]
  head_DV = model.head_kernel(execution)
  cut = (lambda a: a) if _length(cache) == bound else (lambda a: a[..., :bound, :])
  held = jax.tree.map(cut, cache)
  S = slots.tokens.shape[0]
  recent = kv.zeros(config, execution, S, steps)

  def body(carry):
    i, tokens_S, out, drawn, done, recent = carry
    positions = (slots.lengths + i)[:, None]

    def attend(q, k, v, layer):
      return kv.attend_one(q, k, v, *layer, slots.lengths, i, config.sliding_window)

    x = model.embed_tokens(tokens_S[:, None], execution)
    if execution.layers == "unroll":
      rope, new = llama.rope_tables(positions, config, execution.matmul), []
      for w, h, r in zip(weights, held, recent, strict=True):
        x, kept = llama.apply_block(x, w, rope, lambda q, k, v, h=h, r=r: attend(q, k, v, (h, r)), config, execution)
        new.append(kept)
      recent = new
    else:
      x, recent = model.run_layers(x, positions, attend, execution, (held, recent))
    x_SD = llama.rms_norm(x[:, 0], model.norm.scale[...], config.norm_eps, execution.matmul)
    logits_SV = jnp.matmul(x_SD, head_DV, preferred_element_type=jnp.float32)
    tokens_S = sample(logits_SV, slots.seeds, slots.counts + i, sampling)
    drawn += ~done
    out = lax.dynamic_update_slice(out, tokens_S[:, None], (0, i))
    done |= jnp.isin(tokens_S, stop_ids) | (drawn >= slots.budgets)
    return i + 1, tokens_S, out, drawn, done, recent

  def more(carry):
    i, _, _, _, done, _ = carry
    finished = jnp.sum(done & (slots.budgets > 0))
    return (i < steps) & ~done.all() & (finished < refill)

  out, drawn = jnp.zeros((S, steps), jnp.int32), jnp.zeros(S, jnp.int32)
  start = (jnp.int32(0), slots.tokens, out, drawn, slots.budgets <= 0, recent)
  _, _, out, drawn, _, recent = lax.while_loop(more, body, start)
  merge = lambda held, new: kv.merge(held, new, slots.lengths)
  if execution.layers == "unroll":
    cache = [merge(c, r) for c, r in zip(cache, recent, strict=True)]
  else:
    cache = jax.vmap(merge)(cache, recent)
  return cache, out, drawn


def _length(cache) -> int:
  return jax.tree.leaves(cache)[0].shape[-2]
