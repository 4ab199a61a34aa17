"""The platform kernels against the full score matrix: outputs and gradients, on one device and cut over a mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import execution, mesh

from agentbank_jax.attention import attend
from agentbank_jax.errors import UserError

SPLASH = execution(attention="splash_interpret", splash_block=128)
TRITON = execution(attention="triton_interpret")


def rows(B, L, N, K, H, seed=0):
  """Returns q, k, v and segment ids: three segments of unequal length and padding behind them."""
  rng = np.random.default_rng(seed)
  q, k, v = (rng.normal(size=(B, L, heads, H)).astype(np.float32) for heads in (N, K, K))
  cuts = np.sort(rng.integers(1, L - 5, (B, 2)), axis=1)
  segments = 1 + (np.arange(L) >= cuts[:, :1]) + (np.arange(L) >= cuts[:, 1:])
  segments[:, L - 5:] = 0
  return q, k, v, segments.astype(np.int32)


def both(q, k, v, segments, window, run):
  """Returns the output, and the gradients of a weighted sum of it, where there is something to see."""
  weight = np.random.default_rng(9).normal(size=q.shape) * (segments != 0)[:, :, None, None]

  def total(q, k, v):
    out = attend(q, k, v, segments, window, run)
    return jnp.sum(out * weight), out

  (_, out), grads = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(q, k, v)
  return np.where((segments != 0)[:, :, None, None], out, 0), grads


def assert_same(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=3e-5), a, b)


@pytest.mark.parametrize("heads, size, window", [((4, 4), 128, None), ((4, 2), 64, None), ((4, 1), 128, 70)],
                         ids=["all heads", "grouped, small head", "window"])
def test_splash_is_full_attention(heads, size, window):
  q, k, v, segments = rows(2, 256, *heads, size)
  assert_same(both(q, k, v, segments, window, SPLASH), both(q, k, v, segments, window, execution(attention="full")))


@pytest.mark.parametrize("heads, size", [((4, 4), 64), ((4, 2), 64)], ids=["all heads", "grouped"])
def test_triton_is_full_attention(heads, size):
  q, k, v, segments = rows(2, 256, *heads, size)
  assert_same(both(q, k, v, segments, None, TRITON), both(q, k, v, segments, None, execution(attention="full")))


@pytest.mark.parametrize("length, window, shape, told", [
    (256, 64, {}, "no sliding window"), (200, None, {}, "a multiple of 128 positions, not 200"),
    (256, None, dict(context=8), "cannot cut rows along their length")])
def test_what_triton_cannot_do_is_told(length, window, shape, told):
  run = dataclasses.replace(TRITON, sharding=mesh(**shape)) if shape else TRITON
  with pytest.raises(UserError, match=told):
    both(*rows(2, length, 2, 2, 64), window, run)


def test_triton_over_a_mesh():
  q, k, v, segments = rows(4, 128, 4, 2, 64)
  run = dataclasses.replace(TRITON, sharding=mesh(data=2, fsdp=2, tensor=2))
  assert_same(both(q, k, v, segments, None, run), both(q, k, v, segments, None, execution(attention="full")))


@pytest.mark.parametrize("shape", [dict(data=2, tensor=2, context=2), dict(context=4, fsdp=2)], ids=str)
@pytest.mark.parametrize("attention", ["splash_interpret", "blocked"])
def test_a_mesh_changes_nothing(attention, shape):
  """Rows, heads and the length of rows cut over the devices."""
  q, k, v, segments = rows(2, 512, 4, 2, 128)
  run = dataclasses.replace(SPLASH, attention=attention, sharding=mesh(**shape))
  assert_same(both(q, k, v, segments, None, run), both(q, k, v, segments, None, execution(attention="full")))


def test_a_window_over_a_mesh():
  q, k, v, segments = rows(2, 512, 2, 2, 128)
  run = dataclasses.replace(SPLASH, sharding=mesh(context=4, fsdp=2))
  assert_same(both(q, k, v, segments, 200, run), both(q, k, v, segments, 200, execution(attention="full")))


def test_rows_that_blocks_do_not_divide_are_told():
  q, k, v, segments = rows(1, 192, 2, 2, 128)
  with pytest.raises(UserError, match="rows of 192 positions in 1 stretches cannot be cut into blocks of 128"):
    attend(q, k, v, segments, None, SPLASH)
