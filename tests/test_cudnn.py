"""cuDNN's attention without a GPU: what it is told of the rows, and what becomes of what it gives back.

The kernel itself is played by NumPy, to the letter of its documentation: it knows a row's segments by lengths and
offsets alone, wants as many key heads as query heads, and leaves everything outside the segments as it finds it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import TINY, execution, mesh

from agentbank_jax.attention import attend
from agentbank_jax.errors import UserError
from agentbank_jax.kernels import cudnn, parity
from agentbank_jax.models.execution import resolve
from configs.base import training

CUDNN = execution(attention="cudnn", compute_dtype="bfloat16", max_segments=4)
FULL = execution(attention="full")


def by_the_book(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, mask_type, sliding_window_length):
  """Plays the kernel, differentiable: garbage (NaN) outside segments, in the output and in what comes back for it."""
  assert mask_type == cudnn.cudnn.MaskType.PADDING_CAUSAL and q.dtype == jnp.bfloat16
  assert q.shape == k.shape == v.shape  # jax-ml/jax#39521
  assert q_seqlen.dtype == q_offsets.dtype == jnp.int32 and q_offsets.shape[1] == q_seqlen.shape[1] + 1
  np.testing.assert_array_equal(q_seqlen, kv_seqlen)
  np.testing.assert_array_equal(q_offsets, kv_offsets)
  B, L = q.shape[:2]
  number = np.zeros((B, L), int)
  for b in range(B):
    for m, (length, offset) in enumerate(zip(q_seqlen[b], q_offsets[b, :-1], strict=True)):
      assert (length > 0 and offset >= 0) or length == offset == -1
      if length > 0:
        number[b, offset:offset + length] = m + 1
  full = dataclasses.replace(FULL, sharding=None)
  out = attend(*(a.astype(jnp.float32) for a in (q, k, v)), jnp.asarray(number), sliding_window_length, full)
  return jnp.where((number != 0)[:, :, None, None], out * (scale * np.sqrt(q.shape[3])), jnp.nan).astype(q.dtype)


@pytest.fixture
def kernel(monkeypatch):
  monkeypatch.setattr(cudnn.cudnn, "dot_product_attention", by_the_book)


def make_rows(heads, groups, seed=0):
  rng = np.random.default_rng(seed)
  q, k, v = (jnp.asarray(rng.normal(size=(3, 24, n, 8)), jnp.bfloat16) for n in (heads, groups, groups))
  segments = np.zeros((3, 24), np.int32)
  segments[0, :7], segments[0, 7:8], segments[0, 8:20] = 1, 2, 3  # one of a single token; padding behind
  segments[1] = 1  # a full row; the third is padding alone
  return q, k, v, segments


def both(q, k, v, segments, window, run):
  weight = np.random.default_rng(9).normal(size=q.shape) * (segments != 0)[:, :, None, None]

  def total(q, k, v):
    out = attend(q, k, v, segments, window, run).astype(jnp.float32)
    return jnp.sum(out * weight), out

  (_, out), grads = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(q, k, v)
  return np.where((segments != 0)[:, :, None, None], out, 0), *grads


@pytest.mark.parametrize("heads, groups, window", [(2, 2, None), (4, 2, None), (2, 1, 5)],
                         ids=["all heads", "grouped", "window"])
def test_the_kernel_is_told_the_segments_and_padding_is_blanked(kernel, heads, groups, window):
  q, k, v, segments = make_rows(heads, groups)
  mine = both(q, k, v, segments, window, CUDNN)
  right = both(*(a.astype(jnp.float32) for a in (q, k, v)), segments, window, FULL)
  for a, b in zip(mine, right, strict=True):
    assert np.isfinite(a).all()  # the kernel's padding was NaN
    np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=0, atol=0.05)
  assert not np.asarray(attend(q, k, v, segments, window, CUDNN), np.float32)[segments == 0].any()


def test_segments_are_runs_wherever_they_lie():
  ids = jnp.asarray([[3, 3, 0, 0, 7, 7, 7, 9], [0, 0, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 0, 0, 0, 0]])
  lengths, offsets, fits = cudnn.segment_table(ids, 3)
  np.testing.assert_array_equal(lengths, [[2, 3, 1], [-1, -1, -1], [1, 1, 1]])
  np.testing.assert_array_equal(offsets, [[0, 4, 7, -1], [-1, -1, -1, -1], [0, 1, 2, -1]])
  np.testing.assert_array_equal(fits, [True, True, False])


def test_a_row_of_too_many_segments_is_no_number(kernel):
  q, k, v, segments = make_rows(2, 2)
  out = attend(q, k, v, segments, None, dataclasses.replace(CUDNN, max_segments=2))
  assert np.isnan(np.asarray(out, np.float32)).all(axis=(1, 2, 3)).tolist() == [True, False, False]
  unbounded = attend(q, k, v, segments, None, dataclasses.replace(CUDNN, max_segments=None))
  assert np.isfinite(np.asarray(unbounded, np.float32)).all()


@pytest.mark.parametrize("run, size, told", [
    (dict(compute_dtype="float32"), 8, "computes in bfloat16, not in float32"),
    (dict(sharding=dict(context=8)), 8, "cannot cut rows along their length"),
    ({}, 12, "a multiple of 8 up to 256, not of 12")])
def test_what_it_cannot_do_is_told(run, size, told):
  run = run | {"sharding": mesh(**run["sharding"])} if "sharding" in run else run
  run = dataclasses.replace(CUDNN, **run)
  x = jnp.zeros((1, 8, 2, size), run.compute_dtype)
  with pytest.raises(UserError, match=told):
    attend(x, x, x, jnp.ones((1, 8), jnp.int32), None, run)


@pytest.mark.parametrize("capability, dtype, shape, kind, reason", [
    ((9, 0), "bfloat16", None, "cudnn", ""), ((8, 0), "bfloat16", None, "blocked", "this GPU has 8.0"),
    ((9, 0), "float32", None, "blocked", "compute_dtype is float32"),
    ((10, 0), "bfloat16", dict(context=8), "blocked", "mesh.context cuts them")])
def test_auto_is_cudnn_where_it_can_carry_packed_rows(capability, dtype, shape, kind, reason, capsys):
  section = dict(training().execution, compute_dtype=dtype)
  run = resolve(section, "gpu", mesh(**shape) if shape else None, capability=capability)
  assert run.attention == kind
  said = capsys.readouterr().out
  assert reason in said and bool(reason) == bool(said)


# ---- the check before a run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run, model", [
    (execution(attention="splash_interpret", splash_block=128), dataclasses.replace(TINY, head_dim=128)),
    (execution(attention="splash_interpret", splash_block=128),
     dataclasses.replace(TINY, head_dim=128, sliding_window=50)),
    (execution(attention="triton_interpret", compute_dtype="bfloat16"), dataclasses.replace(TINY, head_dim=64))],
    ids=["splash", "splash, window", "triton, bfloat16"])
def test_right_kernels_pass_the_check(run, model):
  assert 0 < parity.check_kernel(run, model) < 0.02


def test_what_xla_compiles_is_not_checked():
  assert parity.check_kernel(execution(attention="blocked"), TINY) is None


@pytest.mark.parametrize("fault", ["neighbours", "future", "scale", "nan"])
def test_wrong_kernels_are_told(monkeypatch, fault):
  """A kernel that lets packed neighbours or later tokens in, or forgets the scale, stops the run before it starts."""
  from agentbank_jax.kernels import triton

  def wrong(q, k, v, segments, window, run):
    if fault == "future":
      flip = lambda a: a[:, ::-1]
      return flip(attend(*map(flip, (q, k, v, segments)), window, FULL))
    segments = jnp.ones_like(segments) if fault == "neighbours" else segments
    return attend(2 * q if fault == "scale" else q, k, v, segments, window, FULL) * (jnp.nan if fault == "nan" else 1)

  monkeypatch.setattr(triton, "triton_attention", wrong)
  with pytest.raises(UserError, match="triton_interpret is wrong on this machine .*choose blocked"):
    parity.check_kernel(execution(attention="triton_interpret"), TINY)
