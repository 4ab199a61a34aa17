"""The Llama family's architecture, as data: what the weights are, not how they are run."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from agentbank_jax.errors import UserError, did_you_mean

MODEL_TYPES = ("llama", "mistral", "qwen2")
ROPE_SCALINGS = ("llama3", "linear")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Llama 3.1's frequency scaling (`rope_type: llama3` in HF), or plain `linear`.

  Attributes:
    kind: "llama3" or "linear".
    factor: by how much positions are stretched.
    low_freq_factor, high_freq_factor, original_max_position: of "llama3" alone.
  """

  kind: str
  factor: float
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_max_position: int = 8192

  def __post_init__(self):
    if self.kind not in ROPE_SCALINGS:
      raise UserError(f"rope_scaling.kind is {self.kind!r}; known: {', '.join(ROPE_SCALINGS)}"
                      + did_you_mean(self.kind, ROPE_SCALINGS))
    for name in ("factor", "low_freq_factor", "original_max_position"):
      if getattr(self, name) <= 0:
        raise UserError(f"rope_scaling.{name} is {getattr(self, name)}; it must be positive")
    if self.high_freq_factor <= self.low_freq_factor:
      raise UserError(f"rope_scaling.high_freq_factor = {self.high_freq_factor} is not above low_freq_factor = "
                      f"{self.low_freq_factor}")


LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
LORA_BASES = ("float32", "bfloat16", "int8")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): y = x W + alpha / rank * x A B, where only A and B train.

  Attributes:
    rank: columns of A, rows of B.
    alpha: scale, before it is divided by the rank.
    targets: which of `LINEARS` have adapters.
    base: what the frozen weights are kept in: "float32", "bfloat16", or "int8" (the layers' kernels, with one scale
      for each output; embeddings, head and norms stay bfloat16).
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]
  base: str = "bfloat16"

  def __post_init__(self):
    if self.rank < 1:
      raise UserError(f"lora.rank is {self.rank}; it must be at least 1")
    if not 0 < self.alpha < math.inf:
      raise UserError(f"lora.alpha is {self.alpha}; it must be above 0: it scales what the adapters add")
    if not self.targets:
      raise UserError(f"lora.targets is empty; name some of {', '.join(LINEARS)}")
    for name in self.targets:
      if name not in LINEARS:
        raise UserError(f"lora.targets has {name!r}; known: {', '.join(LINEARS)}{did_you_mean(name, LINEARS)}")
    if self.base not in LORA_BASES:
      raise UserError(f"lora.base is {self.base!r}; choose one of {', '.join(LORA_BASES)}")

  @property
  def scale(self) -> float:
    return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
  """Shapes and constants of one model; every field changes the function the model computes.

  Attributes:
    model_type: the HF family it is exported as: "llama", "mistral" or "qwen2".
    vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim: shapes.
    max_positions: longest sequence the model was made for (HF `max_position_embeddings`).
    rope_theta, rope_scaling: rotary embedding.
    norm_eps: of RMSNorm.
    tie_embeddings: whether the output head is the embedding, transposed.
    qkv_bias, out_bias, mlp_bias: as HF's Llama (`attention_bias` sets the first two) and Qwen2 (the first).
    sliding_window: attention reaches this many positions back, its own included; None for all.
    initializer_range: standard deviation of freshly drawn weights.
    bos_id, eos_ids, pad_id: of the tokenizer the model was made with; they go into HF's config alone.
    lora: adapters on frozen weights, or None.
  """

  model_type: str
  vocab_size: int
  hidden_size: int
  intermediate_size: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  max_positions: int
  rope_theta: float
  norm_eps: float
  rope_scaling: RopeScaling | None = None
  tie_embeddings: bool = False
  qkv_bias: bool = False
  out_bias: bool = False
  mlp_bias: bool = False
  sliding_window: int | None = None
  initializer_range: float = 0.02
  bos_id: int | None = None
  eos_ids: tuple[int, ...] = ()
  pad_id: int | None = None
  lora: LoraConfig | None = None

  def __post_init__(self):
    if self.model_type not in MODEL_TYPES:
      raise UserError(f"model_type is {self.model_type!r}; known: {', '.join(MODEL_TYPES)}"
                      + did_you_mean(self.model_type, MODEL_TYPES))
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads",
                 "head_dim", "max_positions"):
      if getattr(self, name) < 1:
        raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
    if self.num_heads % self.num_kv_heads:
      raise UserError(f"num_heads = {self.num_heads} is not a multiple of num_kv_heads = {self.num_kv_heads}")
    for name in ("rope_theta", "norm_eps"):
      if not getattr(self, name) > 0:
        raise UserError(f"{name} is {getattr(self, name)}; it must be positive")
    if not self.initializer_range >= 0:
      raise UserError(f"initializer_range is {self.initializer_range}; it must be 0 or more")
    if self.head_dim % 2:
      raise UserError(f"head_dim is {self.head_dim}; rotary embedding needs an even size")
    if self.sliding_window is not None and self.sliding_window < 1:
      raise UserError(f"sliding_window is {self.sliding_window}; it must be at least 1, or None")


def override(config: LlamaConfig, changes: Mapping[str, Any]) -> LlamaConfig:
  """Returns `config` with some fields changed.

  Args:
    config: what to start from.
    changes: values by field; None keeps the field. `sliding_window` 0 takes the window away. `rope_scaling` is a
      mapping of its own fields, of the same kind, and its `kind` "none" takes the scaling away.

  Raises:
    UserError: a value that no model can have.
  """
  given = {name: value for name, value in changes.items() if value is not None and name != "rope_scaling"}
  if given.get("sliding_window") == 0:
    given["sliding_window"] = None
  rope = {name: value for name, value in changes["rope_scaling"].items() if value is not None}
  if rope:
    given["rope_scaling"] = _override_rope(config.rope_scaling, rope)
  return dataclasses.replace(config, **given)


def _override_rope(scaling: RopeScaling | None, given: Mapping[str, Any]) -> RopeScaling | None:
  kind = given.get("kind", scaling.kind if scaling else None)
  of_llama3 = [name for name in given if name not in ("kind", "factor")]
  if kind == "none" and len(given) > 1:
    raise UserError("rope_scaling.kind is 'none', so its other fields have no meaning; leave them out")
  if kind == "linear" and of_llama3:
    raise UserError(f"rope_scaling.{of_llama3[0]} has no meaning where kind is 'linear'; leave it out")
  if kind == "none":
    return None
  if scaling is None and not {"kind", "factor"} <= given.keys():
    raise UserError("the model has no rope_scaling; give its kind and its factor")
  return dataclasses.replace(scaling, **given) if scaling else RopeScaling(**given)


def param_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
  """Returns the shape of every canonical parameter by its dotted name, such as "layers.attention.q.kernel".

  Letter key: L layers, D hidden size, F intermediate size, V vocabulary, N query heads, K key/value heads,
  H head size.
  """
  c = config
  L, D, F, V = c.num_layers, c.hidden_size, c.intermediate_size, c.vocab_size
  NH, KH = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
  shapes = {"embed.embedding": (V, D), "layers.attention_norm.scale": (L, D)}
  linears = (
    ("attention.q", D, NH, c.qkv_bias), ("attention.k", D, KH, c.qkv_bias),
    ("attention.v", D, KH, c.qkv_bias), ("attention.o", NH, D, c.out_bias),
    ("mlp.gate", D, F, c.mlp_bias), ("mlp.up", D, F, c.mlp_bias), ("mlp.down", F, D, c.mlp_bias))
  for name, size_in, size_out, bias in linears:
    shapes[f"layers.{name}.kernel"] = (L, size_in, size_out)
    if bias:
      shapes[f"layers.{name}.bias"] = (L, size_out)
    if c.lora and c.lora.base == "int8":
      shapes[f"layers.{name}.kernel_scale"] = (L, size_out)
    if c.lora and name.rpartition(".")[2] in c.lora.targets:
      shapes[f"layers.{name}.lora_a"] = (L, size_in, c.lora.rank)
      shapes[f"layers.{name}.lora_b"] = (L, c.lora.rank, size_out)
  shapes |= {"layers.mlp_norm.scale": (L, D), "norm.scale": (D,)}
  if not c.tie_embeddings:
    shapes["head.kernel"] = (D, V)
  return shapes


def num_params(config: LlamaConfig) -> int:
  """Returns how many parameters the model has; a tied head counts once."""
  return sum(math.prod(shape) for shape in param_shapes(config).values())
