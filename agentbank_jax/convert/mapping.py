"""Which HF tensor is which canonical parameter: one table, read in both directions."""

import dataclasses
import re

from agentbank_jax.models.config import LlamaConfig, param_shapes


@dataclasses.dataclass(frozen=True)
class Entry:
  """One canonical parameter and the HF tensors it is made of.

  Attributes:
    name: canonical, dotted.
    hf: HF's name; "{}" stands for the layer, where the parameter stacks one tensor per layer.
    transposed: HF's [out, in] is the canonical [in, out].
    shape: canonical.
  """

  name: str
  hf: str
  transposed: bool
  shape: tuple[int, ...] = ()

  @property
  def hf_names(self) -> list[str]:
    """HF's tensors, in the order of layers."""
    return [self.hf.format(layer) for layer in range(self.shape[0])] if self.stacked else [self.hf]

  @property
  def stacked(self) -> bool:
    return "{}" in self.hf

  @property
  def hf_shape(self) -> tuple[int, ...]:
    """Shape of each of HF's tensors."""
    shape = self.shape[1:] if self.stacked else self.shape
    return shape[::-1] if self.transposed else shape


def _linear(name: str, hf: str) -> tuple[Entry, Entry]:
  kernel = Entry(f"{name}.kernel", f"{hf}.weight", transposed=True)
  return kernel, Entry(f"{name}.bias", f"{hf}.bias", transposed=False)


TABLE = (
  Entry("embed.embedding", "model.embed_tokens.weight", transposed=False),
  Entry("layers.attention_norm.scale", "model.layers.{}.input_layernorm.weight", transposed=False),
  *_linear("layers.attention.q", "model.layers.{}.self_attn.q_proj"),
  *_linear("layers.attention.k", "model.layers.{}.self_attn.k_proj"),
  *_linear("layers.attention.v", "model.layers.{}.self_attn.v_proj"),
  *_linear("layers.attention.o", "model.layers.{}.self_attn.o_proj"),
  Entry("layers.mlp_norm.scale", "model.layers.{}.post_attention_layernorm.weight", transposed=False),
  *_linear("layers.mlp.gate", "model.layers.{}.mlp.gate_proj"),
  *_linear("layers.mlp.up", "model.layers.{}.mlp.up_proj"),
  *_linear("layers.mlp.down", "model.layers.{}.mlp.down_proj"),
  Entry("norm.scale", "model.norm.weight", transposed=False),
  Entry("head.kernel", "lm_head.weight", transposed=True),
)

# Constants that old checkpoints carry; every reader computes them from the config.
HARMLESS = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


def entries(config: LlamaConfig) -> list[Entry]:
  """Returns the rows of the table that this model has, with their shapes."""
  shapes = param_shapes(config)
  return [dataclasses.replace(entry, shape=shapes[entry.name]) for entry in TABLE if entry.name in shapes]
