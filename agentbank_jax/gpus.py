"""GPU machines that nobody has at hand, described well enough for XLA's GPU compiler."""

import contextlib
import dataclasses
import importlib.util
import os

from agentbank_jax.errors import UserError

# What jax takes of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
_FRACTION = 0.75
_PER_NODE = 8


@dataclasses.dataclass(frozen=True)
class Kind:
  """One kind of GPU; figures are NVIDIA's (data sheets, tuning guides), as XLA's own descriptions have them.

  Attributes:
    device_kind: as jax names it.
    capability: compute capability.
    cores: streaming multiprocessors.
    fpus: float32 units of each.
    shared_kib: shared memory of each, and what one block may have of it.
    l2_mib: second cache.
    clock_ghz: highest.
    memory_bytes: as the driver says.
    memory_gb_s: its bandwidth.
    nvlink_gb_s: bandwidth to the other GPUs of a machine, one way.
  """

  device_kind: str
  capability: tuple[int, int]
  cores: int
  fpus: int
  shared_kib: tuple[int, int]
  l2_mib: int
  clock_ghz: float
  memory_bytes: int
  memory_gb_s: float
  nvlink_gb_s: float

  def target(self) -> str:
    """Returns XLA's description of it (`GpuTargetConfigProto`, text); what all kinds share is written here."""
    major, minor = self.capability
    core, block = self.shared_kib
    return f"""gpu_device_info {{
      threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
      shared_memory_per_block: {48 * 1024} shared_memory_per_core: {core * 1024}
      shared_memory_per_block_optin: {block * 1024}
      core_count: {self.cores} fpus_per_core: {self.fpus}
      block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
      memory_bandwidth: {int(self.memory_gb_s * 1e9)} l2_cache_size: {self.l2_mib * 2**20}
      clock_rate_ghz: {self.clock_ghz} device_memory_size: {self.memory_bytes}
      cuda_compute_capability {{ major: {major} minor: {minor} }}
      registers_per_core_limit: 65536 registers_per_block_limit: 65536
    }}
    platform_name: "CUDA"
    dnn_version_info {{ major: 9 minor: 10 }}
    runtime_version {{ major: 12 minor: 8 }}
    device_description_str: "{self.device_kind}"
    """


KINDS = {
    "a100": Kind("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, (164, 163), 40, 1.41, 85_100_068_864, 2039.04, 300.0),
    "h100": Kind("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, (228, 227), 50, 1.98, 84_942_979_072, 3352.32, 450.0),
    "h200": Kind("NVIDIA H200", (9, 0), 132, 128, (228, 227), 50, 1.98, 151_397_597_184, 4800.0, 450.0),
}


@dataclasses.dataclass(frozen=True)
class Gpus:
  """GPUs of one kind, eight to a machine.

  Attributes:
    name: one of `KINDS`.
    chips: how many.
  """

  name: str
  chips: int
  platform = "gpu"

  @property
  def kind(self) -> Kind:
    return KINDS[self.name]

  @property
  def capability(self) -> tuple[int, int]:
    return self.kind.capability

  @property
  def device_kind(self) -> str:
    return self.kind.device_kind

  @property
  def hbm_gib(self) -> float:
    """What jax lets a program have of a GPU's memory.

    Raises:
      UserError: XLA_PYTHON_CLIENT_MEM_FRACTION is no number.
    """
    text = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", str(_FRACTION))
    try:
      fraction = float(text)
    except ValueError as e:
      raise UserError(f"XLA_PYTHON_CLIENT_MEM_FRACTION is {text!r}; it must be a number") from e
    return round(self.kind.memory_bytes * fraction / 2**30, 2)

  @property
  def link_gb_s(self) -> float | None:
    """Bandwidth between the GPUs; None between machines, where it is the network's."""
    return self.kind.nvlink_gb_s if self.chips <= _PER_NODE else None

  def __str__(self) -> str:
    return f"{self.name}-{self.chips}"

  @property
  def compilable(self) -> bool:
    """Whether jax's CUDA plugin is installed, and with it the compiler."""
    return any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))

  def devices(self) -> list:
    """Returns the devices to compile for; no GPU is needed. Without the plugin, simulated CPU devices to lower for.

    Raises:
      UserError: jax has started with fewer simulated devices; the plugin cannot be loaded.
    """
    if not self.compilable:
      return self._simulated()
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # it looks for a driver, and there is none
    from jax.experimental import topologies
    machines = -(-self.chips // _PER_NODE)
    if self.chips % machines:
      raise UserError(f"{self}: {self.chips} GPUs cannot be shared out evenly to machines of up to {_PER_NODE}")
    try:  # grid: partitions, processes of each, GPUs of each process
      grid = f"1x{machines}x{self.chips // machines}"
      return topologies.get_topology_desc(platform="cuda", topology=grid, target_config=self.kind.target()).devices
    except Exception as e:  # jax raises what the plugin does
      raise UserError(f"{self}: jax's CUDA plugin cannot compile here: {' '.join(str(e).split())[:200]}") from e

  def _simulated(self) -> list:
    import jax
    with contextlib.suppress(RuntimeError):  # jax has started: then what it has must do
      jax.config.update("jax_num_cpu_devices", self.chips)
    devices = jax.devices("cpu")[:self.chips]
    if len(devices) < self.chips:
      raise UserError(f"{self}: jax has started with {len(devices)} simulated devices")
    return devices
