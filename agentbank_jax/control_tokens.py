"""Control tokens that a base model has never learned: found by their embedding rows, and given a start.

Base models reserve rows for the tokens of a chat format and leave them at zero, or all alike: a header cannot be told
from a terminator then, and a row of zeros has an unbounded gradient behind an RMSNorm.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from agentbank_jax.errors import UserError

CHOICES = ("error", "mean", "keep")  # of model.untrained_tokens

_NOISE = 0.1  # of the other rows' spread


def find_untrained(embedding: np.ndarray, ids: Mapping[str, int]) -> dict[str, str]:
  """Returns what is wrong with the rows of control tokens, by token; empty where all is well.

  Args:
    embedding: [V, D] input embeddings.
    ids: the control tokens to look at, `Renderer.control_ids`.

  Raises:
    UserError: a token lies outside the embedding.
  """
  names = list(ids)
  for token, i in ids.items():
    if i >= len(embedding):
      raise UserError(f"{token!r} (id {i}) lies outside the {len(embedding)} embedding rows; resize the embedding")
  rows = np.asarray(embedding[list(ids.values())], np.float32)
  sample = np.asarray(embedding[::len(embedding) // 4096 + 1], np.float32)
  typical = float(np.median(np.linalg.norm(sample, axis=1)))
  norms = np.linalg.norm(rows, axis=1)
  found = {token: f"near zero (norm {norm:.2g}, typical {typical:.2g})"
           for token, norm in zip(names, norms, strict=True) if norm < 0.01 * typical}
  for i, token in enumerate(names):
    distance = np.linalg.norm(rows - rows[i], axis=1)
    same = [names[j] for j in np.flatnonzero(distance < 0.01 * norms[i]) if j != i and names[j] not in found]
    if same and token not in found:
      found |= {name: f"equal to that of {token!r}" for name in same} | {token: f"equal to that of {same[0]!r}"}
  return found


def start_from_mean(params: Mapping, ids: Sequence[int], seed: int) -> dict:
  """Returns canonical parameters whose rows `ids` start afresh, in the embedding and in the output head.

  They become the mean of the other rows, which keeps a new token from taking the others' probability (Hewitt, 2021:
  "Initializing New Word Embeddings for Pretrained Language Models"), with a little noise that keeps them apart.
  """
  def fill(table_VD, key):
    others_V1 = jnp.ones((len(table_VD), 1)).at[jnp.array(ids)].set(0)
    mean_D = jnp.sum(table_VD * others_V1, 0) / others_V1.sum()
    spread_D = jnp.sqrt(jnp.sum((table_VD - mean_D) ** 2 * others_V1, 0) / others_V1.sum())
    noise = jax.random.normal(key, (len(ids), table_VD.shape[1]), table_VD.dtype)
    return table_VD.at[jnp.array(ids)].set(mean_D + _NOISE * spread_D * noise)

  keys = jax.random.split(jax.random.key(seed))
  place = lambda array: getattr(array, "sharding", None)
  table, filled = params["embed"]["embedding"], dict(params)
  filled["embed"] = {"embedding": jax.jit(fill, out_shardings=place(table))(table, keys[0])}
  if "head" in params:
    kernel = params["head"]["kernel"]
    filled["head"] = {"kernel": jax.jit(lambda k, key: fill(k.T, key).T, out_shardings=place(kernel))(kernel, keys[1])}
  return filled
