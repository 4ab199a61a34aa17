"""Published architectures, and small ones for tests; values as in the hub's config.json files."""

import dataclasses

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.models.config import LlamaConfig, RopeScaling

_LLAMA2_7B = LlamaConfig(
  model_type="llama", vocab_size=32_000, hidden_size=4096, intermediate_size=11_008, num_layers=32,
  num_heads=32, num_kv_heads=32, head_dim=128, max_positions=4096, rope_theta=1e4, norm_eps=1e-5,
  bos_id=1, eos_ids=(2,))
_LLAMA2_13B = dataclasses.replace(
  _LLAMA2_7B, hidden_size=5120, intermediate_size=13_824, num_layers=40, num_heads=40, num_kv_heads=40)
_LLAMA2_70B = dataclasses.replace(
  _LLAMA2_7B, hidden_size=8192, intermediate_size=28_672, num_layers=80, num_heads=64, num_kv_heads=8)

_CODELLAMA = dict(vocab_size=32_016, max_positions=16_384, rope_theta=1e6)

_LLAMA3 = dict(
  vocab_size=128_256, num_kv_heads=8, max_positions=8192, rope_theta=5e5, bos_id=128_000, eos_ids=(128_001,))
_LLAMA3_8B = dataclasses.replace(_LLAMA2_7B, intermediate_size=14_336, **_LLAMA3)
_LLAMA3_70B = dataclasses.replace(_LLAMA2_70B, **_LLAMA3)
_LLAMA31 = dict(max_positions=131_072, rope_scaling=RopeScaling("llama3", factor=8.0))
_LLAMA32 = dict(max_positions=131_072, rope_scaling=RopeScaling("llama3", factor=32.0), tie_embeddings=True)

_MISTRAL_7B = LlamaConfig(
  model_type="mistral", vocab_size=32_000, hidden_size=4096, intermediate_size=14_336, num_layers=32,
  num_heads=32, num_kv_heads=8, head_dim=128, max_positions=32_768, rope_theta=1e4, norm_eps=1e-5,
  sliding_window=4096, bos_id=1, eos_ids=(2,))

_QWEN25_7B = LlamaConfig(
  model_type="qwen2", vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_layers=28,
  num_heads=28, num_kv_heads=4, head_dim=128, max_positions=131_072, rope_theta=1e6, norm_eps=1e-6,
  qkv_bias=True, bos_id=151_643, eos_ids=(151_643,))

_TINY = LlamaConfig(
  model_type="llama", vocab_size=512, hidden_size=256, intermediate_size=688, num_layers=4, num_heads=4,
  num_kv_heads=4, head_dim=64, max_positions=2048, rope_theta=1e4, norm_eps=1e-5)

PRESETS = {
  "llama2_7b": _LLAMA2_7B,
  "llama2_13b": _LLAMA2_13B,
  "llama2_70b": _LLAMA2_70B,
  "codellama_7b": dataclasses.replace(_LLAMA2_7B, **_CODELLAMA),
  "codellama_13b": dataclasses.replace(_LLAMA2_13B, **_CODELLAMA),
  "llama3_8b": _LLAMA3_8B,
  "llama3_70b": _LLAMA3_70B,
  "llama3.1_8b": dataclasses.replace(_LLAMA3_8B, **_LLAMA31),
  "llama3.1_70b": dataclasses.replace(_LLAMA3_70B, **_LLAMA31),
  "llama3.2_1b": dataclasses.replace(
    _LLAMA3_8B, hidden_size=2048, intermediate_size=8192, num_layers=16, head_dim=64, **_LLAMA32),
  "llama3.2_3b": dataclasses.replace(
    _LLAMA3_8B, hidden_size=3072, intermediate_size=8192, num_layers=28, num_heads=24, **_LLAMA32),
  "mistral_7b": _MISTRAL_7B,  # v0.1
  "mistral_7b_v0.3": dataclasses.replace(_MISTRAL_7B, vocab_size=32_768, rope_theta=1e6, sliding_window=None),
  "qwen2.5_0.5b": dataclasses.replace(
    _QWEN25_7B, vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14,
    num_kv_heads=2, head_dim=64, max_positions=32_768, tie_embeddings=True),
  "qwen2.5_7b": _QWEN25_7B,
  "tiny_test": dataclasses.replace(
    _TINY, hidden_size=64, intermediate_size=176, num_layers=2, num_kv_heads=2, head_dim=16,
    max_positions=512),
  "tiny": _TINY,
  # Two wide layers find the copying circuit (look back, repeat what followed) in fewer tokens than four narrow ones,
  # and a tied head can use it at once.
  "quickstart": dataclasses.replace(
    _TINY, vocab_size=2048, hidden_size=192, intermediate_size=528, num_layers=2, num_heads=6, num_kv_heads=6,
    head_dim=32, rope_theta=1e3, tie_embeddings=True, initializer_range=0.06),
  "small": dataclasses.replace(
    _TINY, vocab_size=8192, hidden_size=768, intermediate_size=2048, num_layers=12, num_heads=12,
    num_kv_heads=12),
}


def preset(name: str) -> LlamaConfig:
  """Returns a named architecture.

  Raises:
    UserError: no preset has this name.
  """
  if name not in PRESETS:
    raise UserError(f"unknown preset {name!r}{did_you_mean(name, PRESETS)} (known: {', '.join(PRESETS)})")
  return PRESETS[name]
