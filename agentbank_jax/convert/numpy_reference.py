"""Llama, Mistral and Qwen2 in plain NumPy, straight from HF's tensors: the judge where PyTorch is absent.

It shares with the rest the reading of config.json and of tensor files, but no mapping table and no model.
Slow and simple on purpose: one layer's weights at a time, the whole attention matrix.

Letter key: B batch, T length, D hidden size, N query heads, K key/value heads, H head size, V vocabulary;
in einsum, t and s are positions and g is a query head of its k.
"""

import pathlib

import numpy as np

from agentbank_jax.convert.tensor_files import open_tensors
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.hf_config import read_hf_config


def reference_logits(folder: pathlib.Path, tokens_BT: np.ndarray, dtype=np.float32,
                     round_to: str = "float32") -> np.ndarray:
  """Runs the model of an HF folder.

  Args:
    folder: config.json and safetensors.
    tokens_BT: ids [B, T]; every row is one conversation from its first position on.
    dtype: of all arithmetic: np.float32 or np.float64.
    round_to: dtype that the weights are rounded to first; "float32" keeps them.

  Returns:
    Logits [B, T, V] in `dtype`.
  """
  config, tensors = read_hf_config(folder / "config.json"), open_tensors(folder)

  def weight(name):
    return tensors[name].read().astype(round_to).astype(dtype)

  def linear(x, name):
    y = x @ weight(f"{name}.weight").T
    return y + weight(f"{name}.bias") if f"{name}.bias" in tensors else y

  B, T = tokens_BT.shape
  N, K, H = config.num_heads, config.num_kv_heads, config.head_dim
  cos, sin = _rope_tables(config, T, dtype)
  unseen_TT = _mask(config, T)
  embedding = weight("model.embed_tokens.weight")
  x_BTD = embedding[tokens_BT]
  for i in range(config.num_layers):
    layer = f"model.layers.{i}"
    h = _rms_norm(x_BTD, weight(f"{layer}.input_layernorm.weight"), config.norm_eps)
    q = _rotate(linear(h, f"{layer}.self_attn.q_proj").reshape(B, T, N, H), cos, sin)
    k = _rotate(linear(h, f"{layer}.self_attn.k_proj").reshape(B, T, K, H), cos, sin)
    v = linear(h, f"{layer}.self_attn.v_proj").reshape(B, T, K, H)
    scores = np.einsum("btkgh,bskh->bkgts", q.reshape(B, T, K, N // K, H), k) / np.sqrt(dtype(H))
    scores = _softmax(np.where(unseen_TT, -np.inf, scores))
    o = np.einsum("bkgts,bskh->btkgh", scores, v).reshape(B, T, N * H)
    x_BTD = x_BTD + linear(o, f"{layer}.self_attn.o_proj")
    h = _rms_norm(x_BTD, weight(f"{layer}.post_attention_layernorm.weight"), config.norm_eps)
    gate = linear(h, f"{layer}.mlp.gate_proj")
    gated = gate / (1 + np.exp(-gate)) * linear(h, f"{layer}.mlp.up_proj")
    x_BTD = x_BTD + linear(gated, f"{layer}.mlp.down_proj")
  x_BTD = _rms_norm(x_BTD, weight("model.norm.weight"), config.norm_eps)
  return x_BTD @ (embedding if config.tie_embeddings else weight("lm_head.weight")).T


def _rms_norm(x, scale_D, eps: float):
  return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + x.dtype.type(eps)) * scale_D


def _softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def _mask(config: LlamaConfig, T: int) -> np.ndarray:
  """Returns which keys (columns) a query (row) must not see: the future, and what the window left behind."""
  back = np.arange(T)[:, None] - np.arange(T)[None, :]
  return (back < 0) | (back >= (config.sliding_window or T))


def _rope_tables(config: LlamaConfig, T: int, dtype):
  """Returns (cos, sin) [T, 1, H / 2]. Frequency i turns by theta^(-2i/H) per position (RoFormer, eq. 15)."""
  pairs = config.head_dim // 2
  frequencies = np.array([_frequency(config, i) for i in range(pairs)])
  angles = np.arange(T)[:, None, None] * frequencies
  return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def _frequency(config: LlamaConfig, i: int) -> float:
  """Returns radians per position of pair i, scaled as Llama 3.1's reference code does."""
  frequency = config.rope_theta ** (-2 * i / config.head_dim)
  scaling = config.rope_scaling
  if scaling is None:
    return frequency
  if scaling.kind == "linear":
    return frequency / scaling.factor
  turns = scaling.original_max_position * frequency / (2 * np.pi)  # over the length the model first saw
  if turns > scaling.high_freq_factor:
    return frequency
  if turns < scaling.low_freq_factor:
    return frequency / scaling.factor
  kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
  return frequency * (kept + (1 - kept) / scaling.factor)


def _rotate(x_BTNH, cos, sin):
  """Turns pairs (i, i + H/2): HF's layout of heads."""
  a, b = np.split(x_BTNH, 2, -1)
  return np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
