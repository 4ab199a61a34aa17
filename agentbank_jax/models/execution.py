"""How a model is run: nothing here changes the function it computes, beyond rounding."""

import dataclasses

import jax

from agentbank_jax.errors import UserError
from agentbank_jax.sharding import Sharding

# What "auto" means on each platform. Scanning over stacked layers keeps a pod's compile time flat in depth
# but costs XLA:CPU half its speed (each layer's slice and its gradient are copied). On a GPU that cuDNN's attention
# does not run on, attention is blocked instead, and the reason is printed.
AUTO = {
    "cpu": {"layers": "unroll", "attention": "blocked", "matmul": "cpu"},
    "gpu": {"layers": "scan", "attention": "cudnn", "matmul": "native"},
    "tpu": {"layers": "scan", "attention": "splash", "matmul": "native"},
}
CHOICES = {
    "layers": ("scan", "unroll"),
    "attention": ("full", "blocked", "splash", "splash_interpret", "cudnn", "triton", "triton_interpret"),
    "matmul": ("native", "cpu"),
    "remat": ("none", "dots", "attention", "full"),
    "compute_dtype": ("float32", "bfloat16"),
}

# Kernels that one platform alone has.
ONLY_ON = {"splash": "tpu", "cudnn": "gpu", "triton": "gpu"}


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
    max_segments: conversations that a row may hold, for the kernel that must know ("cudnn"); None: any number.
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
  max_segments: int | None = None

  def shards(self, axis: str) -> int:
    """Returns into how many parts a logical axis is cut; 1 on one device."""
    return 1 if self.sharding is None else self.sharding.shards(axis)


def resolve(config, platform: str, sharding: Sharding | None = None, *, max_segments: int | None = None,
            capability: tuple[int, int] | None = None) -> Execution:
  """Returns the execution a config's section asks for, "auto" replaced by what suits `platform`.

  Args:
    config: mapping with every field of `Execution` but `sharding` and `max_segments`.
    platform: "cpu", "gpu" or "tpu".
    capability: compute capability of the GPU, (9, 0); None: of the one at hand.

  Raises:
    UserError: a value that is not one of `CHOICES`, or a kernel that the platform lacks.
  """
  given = ("sharding", "max_segments")
  values = {f.name: config[f.name] for f in dataclasses.fields(Execution) if f.name not in given}
  automatic = values["attention"] == "auto"
  for name, choices in CHOICES.items():
    if values[name] == "auto" and name in AUTO[platform]:
      values[name] = AUTO[platform][name]
    if values[name] not in choices:
      raise UserError(f"execution.{name} is {values[name]!r}; choose one of {', '.join(choices)}"
                      + (" or auto" if name in AUTO[platform] else ""))
  if (owner := ONLY_ON.get(values["attention"], platform)) != platform:
    raise UserError(f"execution.attention = {values['attention']} runs on {owner.upper()}s alone, and this is for a "
                    f"{platform.upper()}; choose auto")
  for name in ("loss_chunk", "query_block", "splash_block"):
    if values[name] < 1:
      raise UserError(f"execution.{name} is {values[name]}; it must be at least 1")
  execution = Execution(**values, sharding=sharding, max_segments=max_segments)
  if automatic and platform == "gpu" and (reason := _keeps_from_cudnn(execution, capability)):
    if jax.process_index() == 0:
      print(f"execution.attention = auto is blocked here: {reason}", flush=True)
    execution = dataclasses.replace(execution, attention="blocked")
  return execution


def _keeps_from_cudnn(execution: Execution, capability: tuple[int, int] | None) -> str | None:
  """Returns why cuDNN's attention cannot be used, or None."""
  if capability is None:
    capability = tuple(map(int, jax.local_devices(backend="gpu")[0].compute_capability.split(".")))
  if capability < (9, 0):
    return (f"cuDNN's attention takes packed rows from compute capability 9.0 on, this GPU has "
            f"{'.'.join(map(str, capability))}")
  if execution.compute_dtype != "bfloat16":
    return f"cuDNN's attention computes in bfloat16, execution.compute_dtype is {execution.compute_dtype}"
  if execution.shards("length") > 1:
    return "cuDNN's attention takes whole rows, mesh.context cuts them"
  return None
