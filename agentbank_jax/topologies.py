"""Machines that nobody has at hand: TPU pods, described well enough for the TPU compiler, and (in `gpus`) GPUs.

Figures per chip are the maker's (cloud.google.com/tpu/docs, "system architecture"); memory is what the compiler lets a
program have, which is less than what is built in.
"""

import dataclasses
import importlib.util
import math
import os
import re

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.gpus import KINDS, Gpus


@dataclasses.dataclass(frozen=True)
class Generation:
  """One kind of TPU.

  Attributes:
    name: as in a topology, "v5e".
    accelerator: prefix of accelerator types, "v5litepod".
    dims: of the grid of chips.
    cores: how many count for a chip in an accelerator type's number ("v5p-16" are 8 chips).
    device_kind: as jax names the chip.
    hbm_gib: memory of a chip that a program may use.
    ici_gb_s: bandwidth to other chips, GB/s, all links of a chip together, one way.
  """

  name: str
  accelerator: str
  dims: int
  cores: int
  device_kind: str
  hbm_gib: float
  ici_gb_s: float


GENERATIONS = {g.name: g for g in (
    Generation("v4", "v4", 3, 2, "TPU v4", 30.75, 300.0),
    Generation("v5e", "v5litepod", 2, 1, "TPU v5 lite", 15.75, 200.0),
    Generation("v5p", "v5p", 3, 2, "TPU v5", 95.74, 600.0),
    Generation("v6e", "v6e", 2, 1, "TPU v6 lite", 31.25, 448.0),
)}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Slices of one kind.

  Attributes:
    generation: of the chips.
    shape: of the grid of one slice.
    slices: how many, joined by the data centre's network.
  """

  generation: Generation
  shape: tuple[int, ...]
  slices: int = 1
  platform = "tpu"
  capability = None  # of GPUs
  compilable = True

  @property
  def hbm_gib(self) -> float:
    return self.generation.hbm_gib

  @property
  def device_kind(self) -> str:
    return self.generation.device_kind

  @property
  def link_gb_s(self) -> float:
    return self.generation.ici_gb_s

  @property
  def chips(self) -> int:
    return math.prod(self.shape) * self.slices

  @property
  def accelerator_type(self) -> str:
    """What a slice is ordered as: "v5litepod-16", "v5p-16"."""
    return f"{self.generation.accelerator}-{math.prod(self.shape) * self.generation.cores}"

  def __str__(self) -> str:
    grid = f"{self.generation.name}:{'x'.join(map(str, self.shape))}"
    return grid if self.slices == 1 else f"{self.slices}x{grid}"

  def devices(self) -> list:
    """Returns the devices to compile for. Needs libtpu, and no TPU.

    Raises:
      UserError: libtpu is not installed, or it knows no such grid.
    """
    # libtpu asks a TPU VM's metadata server who it is unless told; there is none here. Of several processes it lets
    # only one in, because only one can have the chips; none of ours wants them.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
                   "TPU_ACCELERATOR_TYPE": self.accelerator_type, "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    from jax.experimental import topologies
    grid = f"{self.generation.name}:{'x'.join(map(str, self.shape))}"
    options = {"num_slices": self.slices} if self.slices > 1 else {}
    if self.generation.name == "v4":
      options["chip_config_name"] = "megacore"  # one device a chip, as a TPU VM has it
    try:
      return topologies.get_topology_desc(platform="tpu", topology_name=grid, **options).devices
    except Exception as e:  # jax raises what libtpu does
      if importlib.util.find_spec("libtpu") is None:
        raise UserError("the TPU compiler is not installed: pip install 'agentbank-jax[tpu]'") from e
      raise UserError(f"the TPU compiler knows no topology {self}: {' '.join(str(e).split())[:200]}") from e


def parse_topology(text: str) -> Topology | Gpus:
  """Reads "v5e:4x4", "v5e-16" (as ordered), "2xv5e:4x4" (two slices) or "h100-8" (GPUs).

  The number in the name of a v4 or v5p counts cores, two for a chip.

  Raises:
    UserError: no such topology, with an example of the right form.
  """
  if (match := re.fullmatch(rf"({'|'.join(KINDS)})-([1-9]\d*)", text)):
    return Gpus(match[1], int(match[2]))
  match = re.fullmatch(r"(?:(\d+)x)?(v\d+[a-z]*)(?::(\d+(?:x\d+)*)|-(\d+))", text)
  if not match:
    raise UserError(f"topology {text!r} is not of the form v5e:4x4, v5p-16, 2xv6e:4x4 or h100-8 "
                    f"(GPUs: {', '.join(KINDS)})")
  slices, name, grid, number = match.groups()
  if name not in GENERATIONS:
    raise UserError(f"unknown kind of TPU {name!r} in topology {text!r}{did_you_mean(name, GENERATIONS)} "
                    f"(known: {', '.join(GENERATIONS)})")
  generation = GENERATIONS[name]
  shape = tuple(map(int, grid.split("x"))) if grid else _grid(generation, int(number), text)
  if len(shape) != generation.dims:
    raise UserError(f"topology {text!r}: chips of a {name} form a grid of {generation.dims} dimensions")
  return Topology(generation, shape, int(slices or 1))


def _grid(generation: Generation, number: int, text: str) -> tuple[int, ...]:
  """Returns the usual grid of so many chips: powers of two, as square as can be."""
  chips = number // generation.cores
  if number % generation.cores or chips < 4 or chips & (chips - 1):
    raise UserError(f"topology {text!r}: slices have 4 chips or a larger power of two"
                    + (f", and the number is {generation.cores} times theirs" if generation.cores > 1 else ""))
  shape = [1] * generation.dims
  shape[:2] = 2, 2
  while math.prod(shape) < chips:
    shape[shape.index(min(shape))] *= 2
  return tuple(sorted(shape)) if generation.dims == 2 or min(shape) > 1 else tuple(shape)
