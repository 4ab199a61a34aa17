"""JAX's splash attention, a Pallas kernel for TPUs, over packed rows on a mesh.

Every device runs the kernel on its own rows, heads and stretch of queries (`jax.shard_map`). Where the mesh cuts rows
along their length, each device holds the keys and values of the whole row while it attends: they are gathered over
that axis, which costs less than passing them round as long as a row's keys fit (context parallelism by all-gather, as
in Llama 3, Dubey et al. 2024, arXiv:2407.21783, section 3.3.2). A later stretch sees more keys than an earlier one, so
its device works longer: with c stretches the slowest does up to 2 - 1/c times the mean.

Letter key: B batch, L length, N query heads, K key/value heads, H head size.
"""

from functools import partial
import math

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
import jax.numpy as jnp
from jax.sharding import NamedSharding

from agentbank_jax.errors import UserError
from agentbank_jax.models.execution import Execution

LANES = 128  # head sizes and blocks are multiples of a TPU's vector lanes


def splash_attention(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window: int | None, execution: Execution, name: str):
  """See `attention.attend`; `name` is what the kernel's results are called for `jax.checkpoint`.

  Raises:
    UserError: rows that the kernel's blocks do not divide.
  """
  B, L, N, H = q_BLNH.shape
  sharding = execution.sharding
  heads, length = execution.shards("act_heads"), execution.shards("length")
  block = min(execution.splash_block, L // length)
  if L % (block * length) or block % LANES:
    raise UserError(f"rows of {L} positions in {length} stretches cannot be cut into blocks of {block}: "
                    f"execution.splash_block must be a multiple of {LANES} that divides a stretch")
  kernel = _make_kernel(L, N, window, heads, length, block, execution.attention == "splash_interpret",
                        name)
  pad = [(0, 0)] * 3 + [(0, -H % LANES)]
  q, k, v = (jnp.pad(a, pad).transpose(0, 2, 1, 3) for a in (q_BLNH / math.sqrt(H), k_BLKH, v_BLKH))

  def local(kernel, q, k, v, queries, keys):
    one_row = lambda q, k, v, a, b: kernel(q, k, v, segment_ids=kernels.SegmentIds(q=a, kv=b))
    return jax.vmap(one_row)(q, k, v, queries, keys)

  if sharding is not None:
    spec = sharding.spec
    queries, keys = spec(("batch", "act_heads", "length", None)), spec(("batch", "act_kv_heads", None, None))
    kernel_spec = kernel.manual_sharding_spec(NamedSharding(sharding.mesh, spec(("act_heads", "length"))))
    local = partial(jax.shard_map, mesh=sharding.mesh, out_specs=queries, check_vma=False, in_specs=(
        kernel_spec, queries, keys, keys, spec(("batch", "length")), spec(("batch", None))))(local)
  o_BNLH = local(kernel, q, k, v, segment_ids_BL, segment_ids_BL)
  return o_BNLH.transpose(0, 2, 1, 3)[..., :H].astype(q_BLNH.dtype)


def _make_kernel(L: int, N: int, window: int | None, heads: int, length: int, block: int, interpret: bool, name: str):
  mask = masks.CausalMask((L, L), shard_count=length)
  if window is not None:
    mask = masks.LocalMask((L, L), (window - 1, 0), 0, shard_count=length)
  sizes = kernels.BlockSizes(
      block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block, block_kv_dkv=block,
      block_kv_dkv_compute=block, block_q_dq=block, block_kv_dq=block)
  return kernels.make_splash_mha(masks.MultiHeadMask([mask] * N), block_sizes=sizes, head_shards=heads,
                                 q_seq_shards=length, interpret=interpret, residual_checkpoint_name=name)
