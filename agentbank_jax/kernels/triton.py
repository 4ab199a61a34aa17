"""JAX's flash attention for GPUs, a Pallas kernel by way of Triton, over packed rows on a mesh.

It takes segment ids, and runs on GPUs that are too old for cuDNN's packed rows (`kernels.cudnn`). It has no sliding
window and wants keys for every query head: a window is refused, grouped heads' keys are repeated.

Letter key: B batch, L length, N query heads, K key/value heads, H head size.
"""

from functools import partial
import math

import jax
from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha
import jax.numpy as jnp

from agentbank_jax.errors import UserError
from agentbank_jax.models.execution import Execution

_BLOCKS = BlockSizes.get_default()


def triton_attention(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window: int | None, execution: Execution):
  """See `attention.attend`.

  Raises:
    UserError: a sliding window, rows cut along their length, or rows that the kernel's blocks do not divide.
  """
  L, H = q_BLNH.shape[1], q_BLNH.shape[3]
  if window is not None:
    raise UserError("execution.attention = triton has no sliding window, which this model has; choose blocked")
  if execution.shards("length") > 1:
    raise UserError("execution.attention = triton cannot cut rows along their length; choose blocked, or "
                    "mesh.context = 1")
  if L % _BLOCKS.block_q:
    raise UserError(f"execution.attention = triton wants rows of a multiple of {_BLOCKS.block_q} positions, not {L}; "
                    "choose blocked, or pack again")

  def local(q, k, v, segments):
    k, v = (jnp.repeat(a, q.shape[2] // a.shape[2], axis=2) for a in (k, v))
    return mha(q, k, v, segments, sm_scale=1 / math.sqrt(H), causal=True, block_sizes=_BLOCKS,
               interpret=execution.attention == "triton_interpret")

  if execution.sharding is not None:
    spec = execution.sharding.spec
    queries, keys = spec(("batch", None, "act_heads", None)), spec(("batch", None, "act_kv_heads", None))
    local = partial(jax.shard_map, mesh=execution.sharding.mesh, out_specs=queries, check_vma=False,
                    in_specs=(queries, keys, keys, spec(("batch", None))))(local)
  return local(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL).astype(q_BLNH.dtype)
