"""From logits to the next token. A slot's draw depends on its own seed and token count, on nothing beside it.

Letter key: S slots, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp

from agentbank_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How tokens are drawn. Hashable: static under `jax.jit`.

  Attributes:
    temperature: 0 for greedy.
    top_p: draw among the likeliest tokens that together have this probability; 1 for all.
  """

  temperature: float
  top_p: float

  def __post_init__(self):
    if not 0 <= self.temperature < float("inf"):
      raise UserError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
    if not 0 < self.top_p <= 1:
      raise UserError(f"top_p is {self.top_p}; it must be in (0, 1]")


def sample(logits_SV, seeds_S, counts_S, sampling: Sampling):
  """Returns the next token of each slot, int32 [S].

  Args:
    logits_SV: float32.
    seeds_S, counts_S: uint32 and int32; the conversation's seed and how many tokens it drew so far.
  """
  if sampling.temperature == 0:
    return logits_SV.argmax(-1).astype(jnp.int32)
  logits_SV = logits_SV / sampling.temperature
  if sampling.top_p < 1:
    logits_SV = jnp.where(in_nucleus(logits_SV, sampling.top_p), logits_SV, -jnp.inf)
  draw = lambda logits, seed, count: jax.random.categorical(jax.random.fold_in(jax.random.key(seed), count), logits)
  return jax.vmap(draw)(logits_SV, seeds_S, counts_S).astype(jnp.int32)


def in_nucleus(logits_SV, top_p: float):
  """Returns bool [S, V]: the fewest likeliest tokens whose probabilities reach `top_p`; the likeliest always."""
  order_SV = jnp.argsort(-logits_SV, -1)
  sorted_SV = jax.nn.softmax(jnp.take_along_axis(logits_SV, order_SV, -1), -1)
  kept_SV = jnp.cumsum(sorted_SV, -1) - sorted_SV < top_p  # the mass before it
  return jnp.take_along_axis(kept_SV, jnp.argsort(order_SV, -1), -1)
