"""`agentbank compile`: does it fit? The real compiler, on any machine, for a pod or GPUs nobody has at hand."""

from collections.abc import Iterator
import contextlib
import dataclasses
import math
import pathlib
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from agentbank_jax import flops, step
from agentbank_jax.decode import cache as kv
from agentbank_jax.decode.programs import Slots, decode
from agentbank_jax.decode.sampling import Sampling
from agentbank_jax.errors import UserError
from agentbank_jax.gpus import Gpus
from agentbank_jax.hlo import SLICES, Traffic, collectives
from agentbank_jax.models import execution as execution_lib
from agentbank_jax.models import llama
from agentbank_jax.models.config import LlamaConfig, num_params
from agentbank_jax.models.execution import Execution
from agentbank_jax.optim import make_optimizer, make_schedule
from agentbank_jax.report.tables import Table, print_table
from agentbank_jax.savers import OutOfMemory, as_flags, changed, nearest_that_fits
from agentbank_jax.sharding import make_sharding
from agentbank_jax.starting_model import architecture
from agentbank_jax.state import abstract_state
from agentbank_jax.topologies import Topology, parse_topology

GIB = 2**30
_LOWERED = ("the mesh divides every array; every operation has a CUDA lowering; size of the arguments (parameters, "
            "optimizer state, batch)")
_NOT_LOWERED = ("temporaries, and so whether it fits; kernels; collectives: install jax's CUDA plugin to compile "
                "(pip install 'agentbank-jax[gpu]'; no GPU is needed)")
_GPU_NOT_CHECKED = ("what only a GPU at hand tells: working memory of cuDNN, cuBLAS and NCCL, which kernels autotuning "
                    "chooses, what the allocator loses between blocks")
_OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|exceeds? available|[Oo]ut of memory|Ran out of memory")


@dataclasses.dataclass(frozen=True)
class Program:
  """What the compiler says of a program, per chip.

  Attributes:
    peak_gib: most memory in use at one time.
    parts_gib: arguments (parameters, optimizer state, batch), temporaries, code; outputs lie in the arguments' place.
    traffic: collectives by kind.
    seconds: that compiling took.
  """

  peak_gib: float
  parts_gib: dict[str, float]
  traffic: dict[str, Traffic]
  seconds: float


def run(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
  """Compiles the step of a training config for a topology; see `configs/samoyed_7b.py`.

  Returns:
    The summary: fits, peak_hbm_gib, hbm_gib, parts, collectives, FLOPs, a roofline estimate; where it does not fit,
    the compiler's reason and the nearest change of the config that does. For GPUs without jax's CUDA plugin: what
    lowering alone can check.

  Raises:
    UserError: a topology or config that cannot be; no TPU compiler.
  """
  del workdir
  if not config.compile.topology:
    raise UserError("name a topology: --topology=v5e:4x4 (or v5p-16, 2xv6e:8x8, h100-8)")
  if config.data.seq_len is None:
    raise UserError("data.seq_len is None; compiling needs to know how long the rows are: --config.data.seq_len=4096")
  topology = parse_topology(config.compile.topology)
  if config.compile.step not in _STEPS:
    raise UserError(f"compile.step is {config.compile.step!r}; choose one of {', '.join(_STEPS)}")
  if not topology.compilable:
    return _only_lower(config, topology)
  model, rows = architecture(config.model), config.data.batch_size
  ordered = f"{topology.accelerator_type}, " if isinstance(topology, Topology) else ""
  print(f"compiling the {config.compile.step} step for {topology} ({ordered}{topology.chips} chips): some minutes",
        flush=True)
  result = {"topology": str(topology), "chips": topology.chips, "step": config.compile.step,
            "parameters": num_params(model), "hbm_gib": topology.hbm_gib}
  if isinstance(topology, Topology):
    result["accelerator_type"] = topology.accelerator_type
  else:
    result["not_checked"] = _GPU_NOT_CHECKED
  try:
    program = compile_step(config, topology)
  except OutOfMemory as e:
    result |= {"fits": False, "peak_hbm_gib": _needed(str(e)), "reason": str(e)}
    print(f"does not fit: {e}")
    changes, program = {}, None
    if config.compile.suggest:
      changes, program = nearest_that_fits(config, lambda changed: compile_step(changed, topology))
    result["suggestion"] = changes if program else None
    if program is None:
      print("nothing that was tried makes it fit: take more chips" if config.compile.suggest else "no change was tried")
      return result
    print(f"fits with {as_flags(changes)}")
    config = changed(config, changes)
    model, rows = architecture(config.model), config.data.batch_size
  else:
    result |= {"fits": True, "peak_hbm_gib": round(program.peak_gib, 2)}
  result |= {"peak_hbm_gib_as_suggested": round(program.peak_gib, 2)} if not result["fits"] else {}
  result |= {"parts_gib": {k: round(v, 2) for k, v in program.parts_gib.items()},
             "collectives": {k: dataclasses.asdict(v) for k, v in program.traffic.items()},
             "compile_seconds": round(program.seconds, 1)}
  if config.compile.step == "train":
    result["estimate"] = _estimate(config, model, topology, program, rows)
  _print(result, topology)
  return result


def compile_step(config: ConfigDict, topology: Topology | Gpus) -> Program:
  """Compiles a config's step.

  Raises:
    OutOfMemory: it does not fit.
    UserError: see `run`.
  """
  began = time.monotonic()
  compiled = compiled_step(config, topology)
  memory = compiled.memory_analysis()
  parts = {"arguments": memory.argument_size_in_bytes, "temporaries": memory.temp_size_in_bytes,
           "code": memory.generated_code_size_in_bytes}
  peak = memory.peak_memory_in_bytes / GIB
  if peak > topology.hbm_gib:  # the GPU compiler does not mind
    raise OutOfMemory(f"the program's {peak:.2f}G exceeds the {topology.hbm_gib} GiB that jax takes of a GPU "
                      "(XLA_PYTHON_CLIENT_MEM_FRACTION)")
  return Program(peak, {k: v / GIB for k, v in parts.items()}, collectives(compiled.as_text()),
                 time.monotonic() - began)


def compiled_step(config: ConfigDict, topology: Topology | Gpus) -> jax.stages.Compiled:
  """Returns a config's step, compiled; raises as `compile_step`."""
  lowered, _ = lowered_step(config, topology)
  with _memory_errors():
    return lowered.compile()


def lowered_step(config: ConfigDict, topology: Topology | Gpus) -> tuple[jax.stages.Lowered, Any]:
  """Returns a config's step, lowered for a topology, and the shapes of its arguments."""
  sharding = make_sharding(config.mesh, config.rules, topology.devices())
  execution = execution_lib.resolve(config.execution, topology.platform, sharding, capability=topology.capability,
                                    max_segments=config.compile.segments)
  jitted, arguments = _STEPS[config.compile.step](config, architecture(config.model), execution)
  if topology.platform == "tpu":
    return jitted.lower(*arguments), arguments
  from agentbank_jax.kernels.cudnn import as_if_on
  try:
    with as_if_on(topology.capability):
      return jitted.trace(*arguments).lower(lowering_platforms=("cuda",)), arguments
  except (ValueError, NotImplementedError) as e:  # what jax raises for what a platform lacks
    raise UserError(f"{topology}: the step cannot be lowered for CUDA with execution.attention = "
                    f"{execution.attention!r}: {' '.join(str(e).split())[:200]}") from e


def _only_lower(config: ConfigDict, gpus: Gpus) -> dict[str, Any]:
  """Lowers the step for CUDA on a mesh of simulated devices, and says what that does not tell."""
  _, arguments = lowered_step(config, gpus)
  per_gpu = lambda a: math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize
  arguments = sum(map(per_gpu, jax.tree.leaves(arguments))) / GIB
  fits = False if arguments > gpus.hbm_gib else None
  result = {"topology": str(gpus), "chips": gpus.chips, "step": config.compile.step,
            "parameters": num_params(architecture(config.model)), "hbm_gib": gpus.hbm_gib, "fits": fits,
            "parts_gib": {"arguments": round(arguments, 2)}, "checked": _LOWERED, "not_checked": _NOT_LOWERED}
  print_table(Table(f"{config.compile.step} step on {gpus}: lowered for CUDA, not compiled", ("per GPU", ""), [
      ["arguments", f"{arguments:.2f} GiB of {gpus.hbm_gib} GiB" + (": does not fit" if fits is False else "")],
      ["checked", _LOWERED], ["not checked", _NOT_LOWERED]], prose=True))
  return result


def _train(config: ConfigDict, model: LlamaConfig, execution: Execution):
  """Returns the jitted train step, and the shapes of its arguments."""
  step.check_batch(config.data.batch_size, config.data.micro_batches, execution)
  schedule = make_schedule(config.optim, total_steps=1000)  # any number: the program is the same
  tx = make_optimizer(config.optim, schedule)
  named = execution.sharding.named("batch", "length")
  shape = (config.data.batch_size, config.data.seq_len)
  types = {name: jnp.bool_ if name == "loss_mask" else jnp.int32 for name in step.MODEL_ARRAYS}
  batch = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=named) for name, dtype in types.items()}
  train_step = step.jit_train_step(model, execution, tx, schedule, config.data.micro_batches)
  return train_step, (abstract_state(model, tx, execution), batch)


def _decode(config: ConfigDict, model: LlamaConfig, execution: Execution):
  """Returns the chunk of steps that the engine runs, jitted, and the shapes of its arguments.

  Parameters are in the compute dtype, as the engine loads them.
  """
  c, sharding = config.compile, execution.sharding
  shards = sharding.shards("batch")
  if c.slots < 1 or c.slots % shards:
    raise UserError(f"compile.slots = {c.slots} is not a multiple of {shards} batch shards of the mesh")
  shardings = llama.param_shardings(model, sharding)
  params = jax.tree.map(lambda p, s: jax.ShapeDtypeStruct(p.shape, execution.compute_dtype, sharding=s),
                        llama.abstract_params(model), shardings)
  cache = jax.eval_shape(lambda: kv.zeros(model, execution, c.slots, c.context + c.chunk))
  cut = sharding.named("layers", "batch", "act_kv_heads", None, None)
  cache = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=cut), cache)
  column = lambda dtype: jax.ShapeDtypeStruct((c.slots,), dtype, sharding=sharding.named("batch"))
  slots = Slots(*map(column, (jnp.int32, jnp.int32, jnp.int32, jnp.uint32, jnp.int32)))
  stop_ids = jax.ShapeDtypeStruct((2,), jnp.int32, sharding=sharding.replicated)

  def chunk(params, cache, slots, stop_ids):
    return decode(params, cache, slots, stop_ids, steps=c.chunk, bound=c.context + c.chunk, refill=c.slots,
                  sampling=Sampling(0.0, 1.0), config=model, execution=execution)

  return jax.jit(chunk, donate_argnums=1), (params, cache, slots, stop_ids)


_STEPS = {"train": _train, "decode": _decode}


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
  try:
    yield
  except jax.errors.JaxRuntimeError as e:
    if not _OUT_OF_MEMORY.search(str(e)):
      raise
    raise OutOfMemory(" ".join(str(e).split())[:500]) from e


def _needed(reason: str) -> float | None:
  """Returns the GiB that the compiler says it needs."""
  match = re.search(r"Used ([\d.]+)G of", reason) or re.search(r"([\d.]+)G\)? exceeds", reason)
  return float(match[1]) if match else None


def _estimate(config: ConfigDict, model: LlamaConfig, topology: Topology | Gpus, program: Program,
              rows: int) -> dict[str, Any]:
  """A roofline: what the chips' peak and their links allow at best. No such speed was measured."""
  length = config.data.seq_len
  keys = (length + 1) / 2 if model.sliding_window is None else min((length + 1) / 2, model.sliding_window)
  per_token = flops.train_flops_per_token(model, keys)
  peak = flops.PEAK_FLOPS[topology.device_kind]
  compute = rows * length * per_token / (topology.chips * peak)
  within = sum(t.bytes for kind, t in program.traffic.items() if not kind.endswith(SLICES))
  links = within / (topology.link_gb_s * 1e9) if topology.link_gb_s else 0.0
  seconds = max(compute, links)
  return {"note": "a roofline, not a measurement: compute at the chips' peak, collectives at the links' full rate, "
                  "overlapping wholly, the network between slices or machines left out; rows full of one trajectory",
          "model_flops_per_token": per_token, "compute_seconds": compute, "link_seconds": links,
          "step_seconds_at_least": seconds, "tokens_per_second_per_chip_at_most":
            rows * length / seconds / topology.chips, "formula": flops.FORMULA}


def _print(result: dict[str, Any], topology: Topology | Gpus) -> None:
  peak = result["peak_hbm_gib"] if result["fits"] else result["peak_hbm_gib_as_suggested"]
  rows = [["peak memory", f"{peak:.2f} GiB of {topology.hbm_gib} GiB per chip, "
                          f"{topology.hbm_gib - peak:.2f} to spare"]]
  rows += [[name, f"{gib:.2f} GiB"] for name, gib in result["parts_gib"].items()]
  each = "in all" if result["step"] == "train" else "for each token"  # how often decoding turns, the data decide
  rows += [[kind, f"{t['count']:,} of {t['bytes'] / GIB:.2f} GiB {each}"] for kind, t in result["collectives"].items()]
  if "estimate" in result:
    e = result["estimate"]
    rows.append(["estimate (roofline)", f"at least {e['step_seconds_at_least']:.2f} s a step "
                 f"(compute {e['compute_seconds']:.2f}, links {e['link_seconds']:.2f}), at most "
                 f"{math.floor(e['tokens_per_second_per_chip_at_most']):,} tokens/s per chip"])
  rows.append(["compiled in", f"{result['compile_seconds']:.0f} s"])
  rows += [["not checked", result["not_checked"]]] if "not_checked" in result else []
  print_table(Table(f"{result['step']} step on {topology}", ("per chip", ""), rows, prose=True))
