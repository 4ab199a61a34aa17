"""Llama, Mistral and Qwen2, in flax NNX.

Letter key: B batch, L length, D hidden size, F intermediate size, N query heads, K key/value heads, H head size,
V vocabulary, T cache length.

Parameters are a nested dict of float arrays. In *canonical* form, that of every checkpoint, `layers` holds arrays with
a leading layer axis; an execution with `layers="unroll"` runs on separate arrays per layer (`to_layout`):

  embed.embedding [V, D]          norm.scale [D]          head.kernel [D, V] (absent where tied)
  layers.attention_norm.scale [D]   layers.attention.{q,k,v,o}.kernel [in, out] (and .bias [out])
  layers.mlp_norm.scale [D]         layers.mlp.{gate,up,down}.kernel [in, out] (and .bias [out])

Kernels are HF's weights, transposed: RoPE is HF's half-split form, so nothing is permuted. With adapters
(`LlamaConfig.lora`) the linear maps of a layer have lora_a [in, rank] and lora_b [rank, out] too.
"""

from collections.abc import Callable
import functools
import math
from typing import Any, NamedTuple

from flax import nnx
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from agentbank_jax.attention import ATTENTION, attend
from agentbank_jax.matmul import kept_whole, matmul, scale_columns
from agentbank_jax.models.config import LlamaConfig, RopeScaling
from agentbank_jax.models.execution import Execution
from agentbank_jax.models.lora import quantize

Params = dict[str, Any]
# (q [B,L,N,H], k [B,L,K,H], v [B,L,K,H], layer) -> ([B,L,N,H], whatever the caller keeps of this layer)
Attend = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


def _dtype(config: LlamaConfig):
  """What weights are kept in that are no layer's kernel: float32, or what frozen weights are kept in."""
  return jnp.float32 if config.lora is None else jnp.bfloat16 if config.lora.base == "int8" else config.lora.base


class Linear(nnx.Module):
  """Holds kernel [in, out] and, where asked for, bias [out], and an adapter (see `LoraConfig`).

  `axes`: the kernel's logical axes. An int8 kernel has a scale [out].
  """

  def __init__(self, config: LlamaConfig, name: str, sizes, axes, *, bias: bool, rngs: nnx.Rngs):
    lora, dtype = config.lora, _dtype(config)
    kernel = nnx.initializers.normal(config.initializer_range)(rngs.params(), sizes, jnp.float32)
    quantized = quantize(kernel) if lora and lora.base == "int8" and name != "head" else None
    self.kernel = nnx.Param(quantized[0] if quantized else kernel.astype(dtype), axes=axes)
    self.kernel_scale = nnx.Param(quantized[1], axes=axes[1:]) if quantized else None
    self.bias = nnx.Param(jnp.zeros(sizes[1:], dtype), axes=axes[1:]) if bias else None
    adapter = lora is not None and name in lora.targets
    bound = 1 / math.sqrt(sizes[0])  # as PEFT's adapters start: A uniform, B zero
    self.lora_a = nnx.Param(jax.random.uniform(rngs.params(), (sizes[0], lora.rank), jnp.float32, -bound, bound),
                            axes=(axes[0], None)) if adapter else None
    self.lora_b = nnx.Param(jnp.zeros((lora.rank, sizes[1]), jnp.float32), axes=(None, axes[1])) if adapter else None


class Norm(nnx.Module):
  """Holds the scale [D] of an RMSNorm."""

  def __init__(self, config: LlamaConfig):
    self.scale = nnx.Param(jnp.ones((config.hidden_size,), _dtype(config)), axes=(None,))


class Embed(nnx.Module):
  """Holds the token embedding [V, D]."""

  def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
    init = nnx.initializers.normal(config.initializer_range)
    shape = (config.vocab_size, config.hidden_size)
    self.embedding = nnx.Param(init(rngs.params(), shape, jnp.float32).astype(_dtype(config)), axes=("vocab", "embed"))


class Attention(nnx.Module):
  """Holds the four projections of an attention layer."""

  def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
    c = config
    D, NH, KH = c.hidden_size, c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    self.q = Linear(c, "q", (D, NH), ("embed", "heads"), bias=c.qkv_bias, rngs=rngs)
    self.k = Linear(c, "k", (D, KH), ("embed", "kv_heads"), bias=c.qkv_bias, rngs=rngs)
    self.v = Linear(c, "v", (D, KH), ("embed", "kv_heads"), bias=c.qkv_bias, rngs=rngs)
    self.o = Linear(c, "o", (NH, D), ("heads", "embed"), bias=c.out_bias, rngs=rngs)


class MLP(nnx.Module):
  """Holds the three projections of a gated MLP."""

  def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
    D, F, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
    self.gate = Linear(config, "gate", (D, F), ("embed", "mlp"), bias=bias, rngs=rngs)
    self.up = Linear(config, "up", (D, F), ("embed", "mlp"), bias=bias, rngs=rngs)
    self.down = Linear(config, "down", (F, D), ("mlp", "embed"), bias=bias, rngs=rngs)


class Product(NamedTuple):
  """What a linear map multiplies with, in the compute dtype: see `Linear`. Absent parts are None."""

  kernel: jax.Array
  bias: jax.Array | None = None
  scale: jax.Array | None = None
  lora: tuple[jax.Array, jax.Array] | None = None


class Weights(NamedTuple):
  """One layer's weights as the products want them, joined where that saves a product."""

  attention_norm: jax.Array
  qkv: tuple[Product, ...]
  o: Product
  mlp_norm: jax.Array
  gate_up: tuple[Product, ...]
  down: Product


class Block(nnx.Module):
  """One decoder layer."""

  def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
    self.attention_norm = Norm(config)
    self.attention = Attention(config, rngs=rngs)
    self.mlp_norm = Norm(config)
    self.mlp = MLP(config, rngs=rngs)

  def weights(self, execution: Execution) -> Weights:
    """Casts, and joins q, k, v and gate, up into one product each where no mesh axis cuts their outputs."""
    a, m, dtype = self.attention, self.mlp, execution.compute_dtype

    def cast(linear):
      value = lambda p: None if p is None else p[...].astype(dtype)
      lora = None if linear.lora_a is None else (value(linear.lora_a), value(linear.lora_b))
      return Product(value(linear.kernel), value(linear.bias), value(linear.kernel_scale), lora)

    def join(*linears):
      parts = tuple(cast(linear) for linear in linears)
      if execution.sharding is not None or any(p.lora or p.scale is not None for p in parts):
        return parts
      bias = None if parts[0].bias is None else jnp.concatenate([p.bias for p in parts])
      return (Product(jnp.concatenate([p.kernel for p in parts], 1), bias),)

    return Weights(self.attention_norm.scale[...], join(a.q, a.k, a.v), cast(a.o),
                   self.mlp_norm.scale[...], join(m.gate, m.up), cast(m.down))


class Llama(nnx.Module):
  """The whole model. `layers` is one stacked Block ("scan") or a list of Blocks ("unroll")."""

  def __init__(self, config: LlamaConfig, layers: str, *, rngs: nnx.Rngs):
    self.config = config
    self.embed = Embed(config, rngs=rngs)
    if layers == "scan":
      self.layers = nnx.vmap(lambda r: Block(config, rngs=r), in_axes=0, out_axes=0)(rngs.split(config.num_layers))
    else:
      self.layers = nnx.List([Block(config, rngs=rngs) for _ in range(config.num_layers)])
    self.norm = Norm(config)
    if not config.tie_embeddings:
      self.head = Linear(config, "head", (config.hidden_size, config.vocab_size), ("embed", "vocab"), bias=False,
                         rngs=rngs)

  def hidden(self, tokens_BL, positions_BL, segment_ids_BL, execution: Execution):
    """Returns the last hidden states [B, L, D] of packed rows, in the compute dtype: `head`'s input.

    Args:
      tokens_BL, positions_BL, segment_ids_BL: int32; positions count within a segment, segment 0 is padding.
    """
    def packed(q, k, v, _):
      return attend(q, k, v, segment_ids_BL, self.config.sliding_window, execution), None

    x_BLD = self.embed_tokens(tokens_BL, execution)
    x_BLD, _ = self.run_layers(x_BLD, positions_BL, packed, execution, per_layer=None)
    return rms_norm(x_BLD, self.norm.scale[...], self.config.norm_eps, execution.matmul)

  def embed_tokens(self, tokens_BL, execution: Execution):
    """Returns [B, L, D] in the compute dtype."""
    table_VD, sharding = self.embed.embedding[...].astype(execution.compute_dtype), execution.sharding
    if sharding is None:
      return table_VD[tokens_BL]
    # Each device looks up the tokens of all devices in its own part of D, and then they exchange: no device ever holds
    # the whole table, nor its gradient.
    embed = sharding.axes("embed")
    apart = lambda name: tuple(axis for axis in sharding.axes(name) if axis not in embed) or None
    cut = lambda x, *more: jax.lax.with_sharding_constraint(
        x, jax.NamedSharding(sharding.mesh, jax.P(apart("batch"), apart("length"), *more)))
    x_BLD = cut(table_VD[cut(tokens_BL)], embed or None)
    return constrain(x_BLD, execution, "batch", "length", "act_embed")

  def head_kernel(self, execution: Execution):
    """Returns the output projection [D, V] in the compute dtype."""
    kernel = self.embed.embedding[...].T if self.config.tie_embeddings else self.head.kernel[...]
    return kernel.astype(execution.compute_dtype)

  def run_layers(self, x_BLD, positions_BL, attend_layer: Attend, execution: Execution, per_layer):
    """Runs all layers.

    Args:
      x_BLD: embedded tokens.
      positions_BL: int32.
      attend_layer: the attention, see `Attend`.
      per_layer: what `attend_layer` gets as its last argument: stacked arrays ("scan"), a list ("unroll"), or None.

    Returns:
      ([B, L, D], what the layers' attention kept: stacked or a list).
    """
    rope = rope_tables(positions_BL, self.config, execution.matmul)

    def layer(x, block, extra):
      weights = block if isinstance(block, Weights) else block.weights(execution)
      return apply_block(x, weights, rope, lambda q, k, v: attend_layer(q, k, v, extra), self.config, execution)

    if execution.remat != "none":
      layer = jax.checkpoint(layer, policy=_SAVED[execution.remat])
    if isinstance(self.layers, Block):
      return jax.lax.scan(lambda x, xs: layer(x, *xs), x_BLD, (self.layers, per_layer))
    kept = []
    for i, block in enumerate(self.layers):
      x_BLD, keep = layer(x_BLD, block, None if per_layer is None else per_layer[i])
      kept.append(keep)
    return x_BLD, kept

  def logits(self, tokens_BL, positions_BL, segment_ids_BL, execution: Execution):
    """Returns float32 logits [B, L, V]: for checks and small models; training never makes them all at once."""
    x_BLD = self.hidden(tokens_BL, positions_BL, segment_ids_BL, execution)
    return jnp.matmul(x_BLD, self.head_kernel(execution), preferred_element_type=jnp.float32)


# What the backward pass finds saved, by `Execution.remat`.
_SAVED = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION),
    "full": None,
}


def apply_block(x_BLD, w: Weights, rope, attend_qkv, config: LlamaConfig, execution: Execution):
  """One decoder layer on prepared weights. Returns (x_BLD, what `attend_qkv` kept)."""
  B, L, _ = x_BLD.shape
  N, K, H, kind = config.num_heads, config.num_kv_heads, config.head_dim, execution.matmul

  def linear(x, w: Product):
    y = matmul(x, w.kernel, kind)
    y = y if w.scale is None else y * w.scale
    y = y if w.lora is None else y + config.lora.scale * matmul(matmul(x, w.lora[0], kind), w.lora[1], kind)
    return y if w.bias is None else y + w.bias

  def linears(x, parts, sizes):
    y = [linear(x, part) for part in parts]
    return y if len(y) > 1 else jnp.split(y[0], [sum(sizes[:i]) for i in range(1, len(sizes))], -1)

  h = rms_norm(x_BLD, w.attention_norm, config.norm_eps, kind)
  q, k, v = linears(h, w.qkv, (N * H, K * H, K * H))
  q = constrain(apply_rope(q.reshape(B, L, N, H), rope), execution, "batch", "length", "act_heads", None)
  k = constrain(apply_rope(k.reshape(B, L, K, H), rope), execution, "batch", "length", "act_kv_heads", None)
  o_BLNH, kept = attend_qkv(q, k, v.reshape(B, L, K, H))
  o_BLNH = checkpoint_name(o_BLNH, ATTENTION)
  x_BLD = x_BLD + linear(o_BLNH.reshape(B, L, N * H), w.o)
  h = rms_norm(x_BLD, w.mlp_norm, config.norm_eps, kind)
  gate, up = linears(h, w.gate_up, (config.intermediate_size,) * 2)
  h = constrain(jax.nn.silu(gate) * up, execution, "batch", "length", "act_mlp")
  return constrain(x_BLD + linear(h, w.down), execution, "batch", "length", "act_embed"), kept


def rms_norm(x, scale_D, eps: float, kind: str):
  """RMSNorm in float32, returned in x's dtype (as HF: the scale multiplies after the cast). `kind`: of `matmul`."""
  x32 = x.astype(jnp.float32)
  normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + eps)
  return scale_columns(normed.astype(x.dtype), scale_D, kind)


def rope_frequencies(config: LlamaConfig):
  """Returns inverse frequencies, float32 [H / 2], scaling applied (Llama 3.1: HF's `_compute_llama3_parameters`)."""
  H, scaling = config.head_dim, config.rope_scaling
  inverse = 1.0 / config.rope_theta ** (jnp.arange(0, H, 2, dtype=jnp.float32) / H)
  if scaling is None:
    return inverse
  if scaling.kind == "linear":
    return inverse / scaling.factor
  return _llama3_frequencies(inverse, scaling)


def _llama3_frequencies(inverse, s: RopeScaling):
  wavelength = 2 * math.pi / inverse
  low, high = s.original_max_position / s.low_freq_factor, s.original_max_position / s.high_freq_factor
  smooth = (s.original_max_position / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
  between = (1 - smooth) * inverse / s.factor + smooth * inverse
  return jnp.where(wavelength > low, inverse / s.factor, jnp.where(wavelength < high, inverse, between))


def rope_tables(positions_BL, config: LlamaConfig, kind: str):
  """Returns (cos, sin), float32 [B, L, 1, H / 2]. `kind`: of `matmul`."""
  angles = positions_BL[..., None, None].astype(jnp.float32) * rope_frequencies(config)
  return kept_whole(jnp.cos(angles), kind), kept_whole(jnp.sin(angles), kind)


def apply_rope(x_BLNH, rope):
  """Rotates halves, HF's `rotate_half` form; products in float32."""
  cos, sin = rope
  a, b = jnp.split(x_BLNH.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BLNH.dtype)


def constrain(x, execution: Execution, *axes: str | None):
  """Tells XLA how an activation is cut; nothing on one device."""
  if execution.sharding is None:
    return x
  return jax.lax.with_sharding_constraint(x, execution.sharding.named(*axes))


# ---- parameters as plain dicts ---------------------------------------------------------------------------------------


@functools.cache
def _skeleton(config: LlamaConfig, layers: str):
  model = nnx.eval_shape(lambda: Llama(config, layers, rngs=nnx.Rngs(0)))
  return nnx.split(model, nnx.Param)


def bind(config: LlamaConfig, params: Params, execution: Execution) -> Llama:
  """Returns the model with these parameters, which must be in the execution's layout."""
  graphdef, state = _skeleton(config, execution.layers)
  leaves, treedef = jax.tree.flatten(state)
  values = jax.tree.leaves(params)
  assert len(values) == len(leaves), (len(values), len(leaves))
  return nnx.merge(graphdef, jax.tree.unflatten(treedef, values))


def init_params(config: LlamaConfig, seed, sharding=None) -> Params:
  """Draws canonical parameters; with a sharding, each device makes only its own part.

  Raises:
    UserError: the mesh does not divide a parameter.
  """
  shardings = None if sharding is None else param_shardings(config, sharding)
  return jax.jit(draw_params, static_argnums=0, out_shardings=shardings)(config, jax.random.key(seed))


def draw_params(config: LlamaConfig, key) -> Params:
  """Draws canonical parameters: `init_params`, to be jitted."""
  return nnx.to_pure_dict(nnx.split(Llama(config, "scan", rngs=nnx.Rngs(key)), nnx.Param)[1])


def abstract_params(config: LlamaConfig) -> Params:
  """Returns the canonical parameters' shapes: a nested dict of ShapeDtypeStructs."""
  return nnx.to_pure_dict(_skeleton(config, "scan")[1])


def param_axes(config: LlamaConfig) -> Params:
  """Returns the logical axes of each canonical parameter: a nested dict of tuples."""
  state = _skeleton(config, "scan")[1]
  axes = jax.tree.map(lambda p: p.get_metadata()["axes"], state, is_leaf=lambda p: isinstance(p, nnx.Variable))
  axes = nnx.to_pure_dict(axes) if isinstance(axes, nnx.State) else axes
  is_axes = lambda a: isinstance(a, tuple)
  return dict(axes, layers=jax.tree.map(lambda a: ("layers", *a), axes["layers"], is_leaf=is_axes))


def param_shardings(config: LlamaConfig, sharding) -> Params:
  """Returns the NamedSharding of each canonical parameter."""
  def named(path, shape, axes):
    name = ".".join(str(k.key) for k in path)
    return jax.NamedSharding(sharding.mesh, sharding.spec(axes, shape.shape, name))

  return jax.tree.map_with_path(named, abstract_params(config), param_axes(config))


def to_layout(tree, num_layers: int, layers: str):
  """Takes any tree of canonical parameters (an optimizer state too) to an execution's layout."""
  if layers == "scan":
    return tree
  layer = lambda stacked, i: jax.tree.map(lambda a: _index(a, i), stacked)
  return _map_layers(tree, lambda stacked: {i: layer(stacked, i) for i in range(num_layers)})


def to_canonical(tree, layers: str):
  """Undoes `to_layout`."""
  if layers == "scan":
    return tree
  return _map_layers(tree, lambda split: jax.tree.map(lambda *a: jnp.stack(a), *(split[i] for i in sorted(split))))


def _index(array, i):
  """Takes layer `i` out of a stacked array, or out of its shape or sharding."""
  if isinstance(array, jax.NamedSharding):
    return jax.NamedSharding(array.mesh, jax.P(*array.spec[1:]))
  if isinstance(array, jax.ShapeDtypeStruct):
    return jax.ShapeDtypeStruct(array.shape[1:], array.dtype)
  return array[i]


def _map_layers(tree, f):
  has_layers = lambda node: isinstance(node, dict) and "layers" in node
  return jax.tree.map(lambda node: dict(node, layers=f(node["layers"])) if has_layers(node) else node,
                      tree, is_leaf=has_layers)
