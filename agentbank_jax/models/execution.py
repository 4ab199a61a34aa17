"""How a model is run: nothing here changes the function it computes, beyond rounding."""

import dataclasses

from agentbank_jax.errors import UserError
from agentbank_jax.sharding import Sharding

# What "auto" means on each platform. Scanning over stacked layers keeps a pod's compile time flat in depth
# but costs XLA:CPU half its speed (each layer's slice and its gradient are copied).
AUTO = {
    "cpu": {"layers": "unroll", "attention": "blocked", "matmul": "cpu"},
    "gpu": {"layers": "scan", "attention": "blocked", "matmul": "native"},
    "tpu": {"layers": "scan", "attention": "splash", "matmul": "native"},
}
CHOICES = {
    "layers": ("scan", "unroll"),
    "attention": ("full", "blocked", "splash", "splash_interpret", "triton", "triton_interpret"),
    "matmul": ("native", "cpu"),
    "remat": ("none", "dots", "attention", "full"),
    "compute_dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class Execution:
  """Choices of layout, kernels and precision. Hashable: it is static under `jax.jit`.

  Attributes:
    layers: "scan" over stacked layers (flat compile time) or "unroll" (separate arrays; fast on CPU).
      Checkpoints are the same for both.
    attention: see `agentbank_jax.attention.attend`.
    matmul: "native", or "cpu" with hand-written gradients that keep XLA:CPU on its fast kernels.
    remat: what the backward pass recomputes: "none", all but matrix products ("dots"), all but the attention kernel
      ("attention"), all ("full").
    compute_dtype: of weights and activations in products. Norms, softmax and loss are float32 always.
    loss_chunk: positions of a row, or of a device's stretch of it, whose logits exist at one time.
    query_block: rows of scores that "blocked" attention computes at one time.
    splash_block: queries, and keys, of one block of "splash" attention.
    sharding: mesh and rules, or None on one device.
  """

  layers: str
  attention: str
  matmul: str
  remat: str
  compute_dtype: str
  loss_chunk: int
  query_block: int
  splash_block: int
  sharding: Sharding | None = None

  def shards(self, axis: str) -> int:
    """Returns into how many parts a logical axis is cut; 1 on one device."""
    return 1 if self.sharding is None else self.sharding.shards(axis)


def resolve(config, platform: str, sharding: Sharding | None = None) -> Execution:
  """Returns the execution a config's section asks for, "auto" replaced by what suits `platform`.

  Args:
    config: mapping with every field of `Execution` but `sharding`.
    platform: "cpu", "gpu" or "tpu".

  Raises:
    UserError: a value that is not one of `CHOICES`.
  """
  values = {f.name: config[f.name] for f in dataclasses.fields(Execution) if f.name != "sharding"}
  for name, choices in CHOICES.items():
    if values[name] == "auto" and name in AUTO[platform]:
      values[name] = AUTO[platform][name]
    if values[name] not in choices:
      raise UserError(f"execution.{name} is {values[name]!r}; choose one of {', '.join(choices)}"
                      + (" or auto" if name in AUTO[platform] else ""))
  for name in ("loss_chunk", "query_block", "splash_block"):
    if values[name] < 1:
      raise UserError(f"execution.{name} is {values[name]}; it must be at least 1")
  return Execution(**values, sharding=sharding)
