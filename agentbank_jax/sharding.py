"""The mesh, and which of its axes each logical axis of an array is cut along."""

from collections.abc import Mapping
import dataclasses
import functools
import math

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from agentbank_jax.errors import UserError, did_you_mean

MESH_AXES = ("data", "fsdp", "context", "tensor")

# Logical axes of parameters and activations; see `models.llama` for which array has which.
LOGICAL_AXES = ("batch", "length", "layers", "vocab", "embed", "heads", "kv_heads", "mlp",
                "act_embed", "act_heads", "act_kv_heads", "act_mlp")


@dataclasses.dataclass(frozen=True)
class Sharding:
  """A mesh with rules: logical axis -> mesh axes. Hashable, so it can be static under `jax.jit`."""

  mesh: Mesh
  rules: tuple[tuple[str, tuple[str, ...]], ...]

  @functools.cached_property
  def _rules(self) -> dict[str, tuple[str, ...]]:
    return dict(self.rules)

  def spec(self, axes: tuple[str | None, ...], shape: tuple[int, ...] | None = None,
           name: str = "array") -> PartitionSpec:
    """Returns the PartitionSpec of an array with these logical axes.

    Raises:
      UserError: two dimensions along one mesh axis, or (with `shape`) a dimension that the mesh does not divide.
    """
    entries, used = [], {}
    for dim, axis in enumerate(axes):
      mesh_axes = self.axes(axis) if axis else ()
      for m in mesh_axes:
        if m in used:
          raise UserError(f"sharding rules cut {name} twice along mesh axis {m!r}: "
                          f"logical axes {used[m]!r} and {axis!r}")
        used[m] = axis
      size = math.prod(self.mesh.shape[m] for m in mesh_axes)
      if shape is not None and shape[dim] % size:
        raise UserError(f"{name} has {axis} = {shape[dim]}, which mesh axes {mesh_axes} of {size} devices do not "
                        f"divide; choose another mesh or another rule for {axis!r}")
      entries.append(mesh_axes[0] if len(mesh_axes) == 1 else (mesh_axes or None))
    return PartitionSpec(*entries)

  def named(self, *axes: str | None) -> NamedSharding:
    return NamedSharding(self.mesh, self.spec(axes))

  @property
  def replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec())

  def axes(self, axis: str) -> tuple[str, ...]:
    """Returns the mesh axes along which a logical axis is cut."""
    return self._rules[axis]

  def shards(self, axis: str) -> int:
    """Returns into how many parts a logical axis is cut."""
    return math.prod(self.mesh.shape[m] for m in self.axes(axis))


def make_mesh(shape: Mapping[str, int], devices=None) -> Mesh:
  """Builds the mesh of `shape` (axis -> size; at most one -1 takes the devices that are left).

  Over several slices of a pod, joined by the data centre's slower network, `data` is cut over the slices first.

  Raises:
    UserError: unknown axes, or sizes that do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  for axis in shape:
    if axis not in MESH_AXES:
      raise UserError(f"unknown mesh axis {axis!r} (known: {', '.join(MESH_AXES)}){did_you_mean(axis, MESH_AXES)}")
  sizes = [shape.get(axis, 1) for axis in MESH_AXES]
  if sizes.count(-1) > 1 or any(s == 0 or s < -1 for s in sizes):
    raise UserError(f"mesh {dict(shape)}: sizes must be positive, with at most one -1")
  fixed = math.prod(s for s in sizes if s > 0)
  if -1 in sizes and len(devices) % fixed == 0:
    sizes[sizes.index(-1)] = len(devices) // fixed
  if -1 in sizes or math.prod(sizes) != len(devices):
    needed = f"{fixed} devices" + (" or a multiple" if -1 in sizes else "")
    raise UserError(f"mesh {dict(shape)} needs {needed}, there are {len(devices)}")
  axis_types = (AxisType.Auto,) * len(MESH_AXES)  # jax's own default is Explicit
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if slices > 1:
    data, *inside = sizes
    if data % slices:
      raise UserError(f"mesh {dict(shape)}: {slices} slices need a multiple of {slices} along 'data', which is {data}: "
                      "the other axes stay within a slice")
    grid = mesh_utils.create_hybrid_device_mesh((data // slices, *inside), (slices, 1, 1, 1), devices,
                                                allow_split_physical_axes=True)
    return Mesh(grid, MESH_AXES, axis_types=axis_types)
  try:
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=axis_types, devices=devices)
  except NotImplementedError:  # no axis of the pod's grid of chips is as long: one must be cut in two
    grid = mesh_utils.create_device_mesh(tuple(sizes), devices, allow_split_physical_axes=True)
    return Mesh(grid, MESH_AXES, axis_types=axis_types)


def make_sharding(mesh_shape: Mapping[str, int], rules: Mapping[str, str | tuple[str, ...] | None],
                  devices=None) -> Sharding:
  """Builds mesh and rules from a config's sections; every logical axis must have a rule, None included.

  Raises:
    UserError: unknown or missing logical axes, unknown mesh axes, a mesh that does not fit the devices.
  """
  for axis in rules:
    if axis not in LOGICAL_AXES:
      raise UserError(f"sharding rule for unknown logical axis {axis!r}{did_you_mean(axis, LOGICAL_AXES)}")
  missing = [axis for axis in LOGICAL_AXES if axis not in rules]
  if missing:
    raise UserError(f"no sharding rule for logical axis {missing[0]!r}; give one, None for replicated")
  normal = []
  for axis in LOGICAL_AXES:
    value = rules[axis]
    if not isinstance(value, str | list | tuple | None):
      raise UserError(f"sharding rule {axis!r} is {value!r}; expected a mesh axis, a tuple of them, or None")
    mesh_axes = () if value is None else (value,) if isinstance(value, str) else tuple(value)
    for m in mesh_axes:
      if m not in MESH_AXES:
        raise UserError(f"sharding rule {axis!r}: unknown mesh axis {m!r}{did_you_mean(m, MESH_AXES)}")
    normal.append((axis, mesh_axes))
  return Sharding(make_mesh(mesh_shape, devices), tuple(normal))


def run_sharding(mesh_shape: Mapping[str, int], rules: Mapping[str, str | tuple[str, ...] | None]) -> Sharding | None:
  """Returns the sharding of a run on all devices, or None on one; a mesh for several is an error there too.

  Raises:
    UserError: as `make_sharding`.
  """
  count = jax.device_count()
  sharding = make_sharding(mesh_shape, rules, jax.devices()[:count])
  return sharding if count > 1 else None


def global_batch(batch: Mapping[str, np.ndarray], sharding: Sharding | None, batch_size: int | None = None,
                 axes: tuple[str | None, ...] = ("batch", "length")) -> dict[str, jax.Array]:
  """Turns this process's rows into global arrays.

  Args:
    batch: arrays [local rows, ...], whole rows, also where the mesh cuts them along their length.
    batch_size: rows of the global batch; None where this process holds them all.
    axes: the arrays' logical axes.
  """
  if sharding is None:
    return {k: jax.device_put(v) for k, v in batch.items()}
  named = sharding.named(*axes)
  return {k: jax.make_array_from_process_local_data(named, v, (batch_size or len(v), *v.shape[1:]))
          for k, v in batch.items()}
