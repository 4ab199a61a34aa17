"""Model FLOPs by a stated formula, and what share of a machine they use."""

from agentbank_jax.errors import UserError
from agentbank_jax.models.config import LlamaConfig

FORMULA = ("6 * matmul parameters + 12 * layers * heads * head size * mean visible keys, per token "
           "(causal attention counted as seen, not as a full square)")

# Peak dense bfloat16 FLOP/s of one chip, as published by its maker. `jax.Device.device_kind` -> FLOP/s.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def matmul_params(c: LlamaConfig) -> int:
  """Weights that take part in a matrix product: the embedding look-up left out, the head counted, tied or not."""
  attention = c.hidden_size * c.head_dim * 2 * (c.num_heads + c.num_kv_heads)
  return c.num_layers * (attention + 3 * c.hidden_size * c.intermediate_size) + c.hidden_size * c.vocab_size


def forward_flops_per_token(c: LlamaConfig, mean_keys: float) -> float:
  """FLOPs of the forward pass for one token that sees `mean_keys` keys."""
  return 2 * matmul_params(c) + 4 * c.num_layers * c.num_heads * c.head_dim * mean_keys


def train_flops_per_token(c: LlamaConfig, mean_keys: float) -> float:
  """FLOPs of forward and backward (three times the forward); recomputation is not counted."""
  return 3 * forward_flops_per_token(c, mean_keys)


def peak_flops(device_kind: str, override: float | None) -> float | None:
  """Returns a chip's peak FLOP/s, or None where it is not known: MFU is then not reported.

  Raises:
    UserError: an override that is not positive.
  """
  if override is not None:
    if override <= 0:
      raise UserError(f"train.peak_flops is {override}; give FLOP/s of one device, or None")
    return override
  return PEAK_FLOPS.get(device_kind)
