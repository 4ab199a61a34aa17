"""LoRA: which parameters train, how adapters are put on a model and merged into it.

A model with adapters is a model like any other: `LlamaConfig.lora` gives it more parameters, and training differs in
the parameter filter alone.
"""

import dataclasses
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp

from agentbank_jax.models.config import LlamaConfig

Params = dict[str, Any]
ADAPTERS = ("lora_a", "lora_b")
_BESIDE = (*ADAPTERS, "kernel_scale")  # what a kernel may have beside it


def split(params: Params, config: LlamaConfig) -> tuple[Params, Params]:
  """Returns (trainable, frozen) parameters: nested dicts, each without the other's leaves."""
  if config.lora is None:
    return params, {}
  flat = traverse_util.flatten_dict(params)
  pick = lambda wanted: traverse_util.unflatten_dict({k: v for k, v in flat.items() if (k[-1] in ADAPTERS) == wanted})
  return pick(True), pick(False)


def join(trainable: Params, frozen: Params) -> Params:
  """Undoes `split`; keeps the order of keys that `jax.tree` gives them."""
  if not frozen:
    return trainable
  return traverse_util.unflatten_dict(traverse_util.flatten_dict(frozen) | traverse_util.flatten_dict(trainable))


def quantize(kernel):
  """Returns (int8 kernel, float32 scale of each output): symmetric, the largest weight of an output is 127.

  Args:
    kernel: [..., in, out], floating point.
  """
  kernel = kernel.astype(jnp.float32)
  scale = jnp.maximum(jnp.abs(kernel).max(-2), 1e-12) / 127
  return jnp.round(kernel / scale[..., None, :]).astype(jnp.int8), scale


def dequantize(kernel, scale):
  """Returns the float32 kernel that `quantize` stored."""
  return kernel.astype(jnp.float32) * scale[..., None, :]


def attach(params: Params, config: LlamaConfig, fresh: Params) -> Params:
  """Puts freshly drawn adapters on a model's weights, which are cast or quantized as `config.lora.base` says.

  Args:
    params: canonical parameters of the model without adapters.
    config: with adapters.
    fresh: canonical parameters of `config`, of which only the adapters are taken.
  """
  flat, dtype = {}, jnp.bfloat16 if config.lora.base == "int8" else jnp.dtype(config.lora.base)
  for path, value in traverse_util.flatten_dict(params).items():
    if config.lora.base == "int8" and path[0] == "layers" and path[-1] == "kernel":
      flat[path], flat[*path[:-1], "kernel_scale"] = quantize(value)
    else:
      flat[path] = value.astype(dtype)
  adapters, _ = split(fresh, config)
  return traverse_util.unflatten_dict(flat | traverse_util.flatten_dict(adapters))


def merge(params: Params, config: LlamaConfig) -> tuple[Params, LlamaConfig]:
  """Returns canonical float32 parameters with the adapters added to their kernels, and the config without adapters."""
  flat, merged = traverse_util.flatten_dict(params), {}
  for path, value in flat.items():
    if path[-1] in _BESIDE:
      continue
    if path[-1] == "kernel":
      value = _merged_kernel({name: flat.get((*path[:-1], name)) for name in _BESIDE}, value, config)
    merged[path] = value.astype(jnp.float32)
  return traverse_util.unflatten_dict(merged), dataclasses.replace(config, lora=None)


def _merged_kernel(beside: dict[str, Any], kernel, config: LlamaConfig):
  if beside["kernel_scale"] is not None:
    kernel = dequantize(kernel, beside["kernel_scale"])
  if beside["lora_a"] is None:
    return kernel
  delta = jnp.matmul(beside["lora_a"], beside["lora_b"], precision=jax.lax.Precision.HIGHEST)
  return kernel.astype(jnp.float32) + config.lora.scale * delta
