"""cuDNN's flash attention, NVIDIA's own kernel, over packed rows on a mesh.

JAX's public door to it (`jax.nn.dot_product_attention`) takes lengths or a mask of L x L; the door behind it takes the
segments of each row as well (arXiv:2205.14135's algorithm; jax-ml/jax#25812). Two things to know of that door in JAX
0.10: with fewer key heads than query heads it reads keys at the queries' stride, silently (jax-ml/jax#39521), so keys
are repeated here; and what lies outside all segments is left as it was in memory, so padding is blanked here, in the
results and in the gradients.

Letter key: B batch, L length, N query heads, K key/value heads, H head size, M segments a row may have.
"""

from collections.abc import Iterator
import contextlib
from functools import partial
import math
from unittest import mock

import jax
from jax._src.cudnn import fused_attention_stablehlo as cudnn
import jax.numpy as jnp

from agentbank_jax.errors import UserError
from agentbank_jax.models.execution import Execution


def cudnn_attention(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL, window: int | None, execution: Execution):
  """See `attention.attend`. A row of more than `execution.max_segments` segments becomes NaN, which stops training.

  Raises:
    UserError: a dtype or a head size that the kernel does not take, or rows cut along their length.
  """
  H = q_BLNH.shape[3]
  if q_BLNH.dtype not in (jnp.bfloat16, jnp.float16):
    raise UserError(f"execution.attention = cudnn computes in bfloat16, not in {q_BLNH.dtype}; set "
                    "execution.compute_dtype = bfloat16, or choose blocked")
  if execution.shards("length") > 1:
    raise UserError("execution.attention = cudnn cannot cut rows along their length; choose blocked, or "
                    "mesh.context = 1")
  if H % 8 or H > 256:
    raise UserError(f"execution.attention = cudnn takes heads of a multiple of 8 up to 256, not of {H}; choose blocked")

  def local(q, k, v, segments):
    most = execution.max_segments or segments.shape[1]
    lengths_BM, offsets_BM, fits_B = segment_table(segments, max(most, 2))  # of one segment JAX drops the table
    inside = (segments != 0)[:, :, None, None]
    k, v = (jnp.repeat(a, q.shape[2] // a.shape[2], axis=2) for a in (k, v))
    q, k, v = (jnp.where(inside, a, 0) for a in (q, k, v))  # so that padding's gradients are blank too
    o = cudnn.dot_product_attention(
        q, k, v, q_seqlen=lengths_BM, kv_seqlen=lengths_BM, q_offsets=offsets_BM, kv_offsets=offsets_BM,
        scale=1 / math.sqrt(H), mask_type=cudnn.MaskType.PADDING_CAUSAL, sliding_window_length=window)
    return jnp.where(fits_B[:, None, None, None], jnp.where(inside, o, 0), jnp.nan).astype(o.dtype)

  if execution.sharding is not None:
    spec = execution.sharding.spec
    queries, keys = spec(("batch", None, "act_heads", None)), spec(("batch", None, "act_kv_heads", None))
    local = partial(jax.shard_map, mesh=execution.sharding.mesh, out_specs=queries, check_vma=False,
                    in_specs=(queries, keys, keys, spec(("batch", None))))(local)
  return local(q_BLNH, k_BLKH, v_BLKH, segment_ids_BL)


def segment_table(segment_ids_BL, max_segments: int):
  """Returns where each row's segments lie, as the kernel wants it.

  A segment is a run of equal ids; id 0 is padding and none.

  Returns:
    lengths: int32 [B, M], -1 where a row has fewer.
    offsets: int32 [B, M + 1], of their first positions, -1 likewise.
    fits: bool [B], whether the row has no more than M.
  """
  before = jnp.pad(segment_ids_BL, ((0, 0), (1, 0)))[:, :-1]
  inside = segment_ids_BL != 0
  starts = inside & (segment_ids_BL != before)
  number_BL = jnp.cumsum(starts, axis=1) - 1
  of_BML = inside[:, None, :] & (number_BL[:, None, :] == jnp.arange(max_segments)[None, :, None])
  lengths = jnp.sum(of_BML, axis=2, dtype=jnp.int32)
  offsets = jnp.argmax(of_BML & starts[:, None, :], axis=2).astype(jnp.int32)
  there = lengths > 0
  offsets = jnp.pad(jnp.where(there, offsets, -1), ((0, 0), (0, 1)), constant_values=-1)
  return jnp.where(there, lengths, -1), offsets, jnp.sum(starts, axis=1) <= max_segments


@contextlib.contextmanager
def as_if_on(capability: tuple[int, int], version: int = 91000) -> Iterator[None]:
  """Within it, jax believes that a GPU of this compute capability is there, and cuDNN of this version.

  It asks the first GPU at hand what cuDNN can do, also when it only compiles for others.
  """
  at_least = lambda text: capability >= tuple(map(int, text.split(".")))
  equal = lambda text: capability == tuple(map(int, text.split(".")))
  with (mock.patch.object(cudnn, "check_compute_capability", at_least),
        mock.patch.object(cudnn, "is_cuda_compute_capability_equal", equal),
        mock.patch.object(cudnn, "check_cudnn_version", lambda: version)):
    yield
