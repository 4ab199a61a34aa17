"""Matrix products whose gradients stay on XLA:CPU's fast kernels.

Letter key: M rows, I inputs, O outputs.
"""

import jax
from jax import lax
import jax.numpy as jnp


def dot(a, b, dim_a: int, dim_b: int):
  """Contracts `dim_a` of a with `dim_b` of b, accumulating in float32."""
  return lax.dot_general(a, b, (((dim_a,), (dim_b,)), ((), ())), preferred_element_type=jnp.float32)


def weight_grad(x, g, kind: str):
  """Returns x^T g in float32, [I, O], summed over all leading dimensions of x [..., I] and g [..., O].

  "native" leaves those as they are: joined, they could no longer be cut across devices.

  XLA:CPU folds a transpose into a bfloat16 product and then has no fast kernel for it; padding the contraction
  with zeros keeps the two apart. In float32 the product is written out because the form that automatic
  differentiation makes has XLA copy g transposed first.
  """
  if kind == "native":
    leading = tuple(range(x.ndim - 1))
    return lax.dot_general(x, g, ((leading, leading), ((), ())), preferred_element_type=jnp.float32)
  x_MI, g_MO = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
  if x.dtype == jnp.bfloat16:
    zero = jnp.zeros((), x_MI.dtype)
    return dot(lax.pad(x_MI.T, zero, ((0, 0, 0), (0, 8, 0))), lax.pad(g_MO, zero, ((0, 8, 0), (0, 0, 0))), 1, 0)
  return dot(x_MI, g_MO, 0, 0)


@jax.custom_vjp
def _matmul_cpu(x_MI, w_IO):
  return dot(x_MI, w_IO, 1, 0).astype(x_MI.dtype)


def _matmul_cpu_bwd(saved, g_MO):
  x_MI, w_IO = saved
  return dot(g_MO, w_IO, 1, 1).astype(x_MI.dtype), weight_grad(x_MI, g_MO, "cpu").astype(w_IO.dtype)


_matmul_cpu.defvjp(lambda x, w: (_matmul_cpu(x, w), (x, w)), _matmul_cpu_bwd)


def matmul(x, w_IO, kind: str):
  """Returns x @ w in x's dtype, accumulated in float32.

  Args:
    x: [..., I].
    w_IO: [I, O], of x's dtype.
    kind: "native" or "cpu", see `Execution.matmul`.
  """
  if kind == "cpu":
    return _matmul_cpu(x.reshape(-1, x.shape[-1]), w_IO).reshape(*x.shape[:-1], w_IO.shape[1])
  return jnp.matmul(x, w_IO, preferred_element_type=x.dtype)


@jax.custom_vjp
def _scale_columns_cpu(x, scale_D):
  return x * scale_D.astype(x.dtype)


def _scale_columns_cpu_bwd(saved, g):
  x, scale_D = saved
  product_MD = (x.astype(jnp.float32) * g.astype(jnp.float32)).reshape(-1, len(scale_D))
  summed_1D = dot(jnp.ones((1, len(product_MD)), jnp.float32), product_MD, 1, 0)
  return g * scale_D.astype(g.dtype), summed_1D[0].astype(scale_D.dtype)


_scale_columns_cpu.defvjp(lambda x, scale: (_scale_columns_cpu(x, scale), (x, scale)), _scale_columns_cpu_bwd)


def scale_columns(x, scale_D, kind: str):
  """Returns x * scale in x's dtype. On CPU the scale's gradient is a product: XLA's sum over rows is slower.

  Args:
    x: [..., D].
    scale_D: [D].
    kind: "native" or "cpu", see `Execution.matmul`.
  """
  return _scale_columns_cpu(x, scale_D) if kind == "cpu" else x * scale_D.astype(x.dtype)


def kept_whole(x, kind: str):
  """Returns float32 x [..., D]. On CPU its values are computed once, not anew in every fusion that uses them.

  XLA:CPU takes barriers away before it fuses; a product (here with the identity, which is exact) is never fused.
  """
  if kind != "cpu":
    return x
  return dot(x.reshape(-1, x.shape[-1]), jnp.eye(x.shape[-1], dtype=x.dtype), 1, 0).reshape(x.shape)
