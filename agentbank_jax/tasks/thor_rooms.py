"""The layouts of AI2-THOR's 120 rooms, as the package alfworld ships them (from ALFRED, Shridhar et al. 2020)."""

import collections
import dataclasses
import functools
import importlib.util
import json
import pathlib

from agentbank_jax.errors import UserError

PACKAGES = ("alfworld",)


@dataclasses.dataclass(frozen=True)
class Place:
  """A receptacle of a room.

  Attributes:
    name: its kind and number: "cabinet 1".
    thor_id: AI2-THOR's name for it: "Cabinet|+00.68|+00.50|-02.20".
    position: x, y (height) and z in metres.
    stand: x and z of where an agent stands before it.
  """

  name: str
  thor_id: str
  position: tuple[float, float, float]
  stand: tuple[float, float]


@functools.cache
def places(scene: str) -> tuple[Place, ...]:
  """Returns the receptacles of a scene ("FloorPlan1"), by kind, numbered in the order of their ids.

  Raises:
    UserError: the package is not installed, or it has no such scene.
  """
  path = _layouts() / f"{scene}-openable.json"
  if not path.is_file():
    raise UserError(f"{path}: the package alfworld has no layout of {scene}")
  numbers = collections.Counter()
  found = []
  for thor_id, (x, z, *_) in sorted(json.loads(path.read_text()).items()):
    kind = kind_of(thor_id)
    numbers[kind] += 1
    found.append(Place(f"{kind} {numbers[kind]}", thor_id, position_of(thor_id), (x, z)))
  return tuple(sorted(found, key=lambda place: place.name.partition(" ")[0]))


def kind_of(thor_id: str) -> str:
  """Returns "cabinet" of "Cabinet|+00.68|+00.50|-02.20", and "sinkbasin" of "Sink|...|SinkBasin"."""
  parts = thor_id.split("|")
  return (parts[4] if len(parts) > 4 else parts[0]).lower()


def position_of(thor_id: str) -> tuple[float, float, float]:
  x, y, z = map(float, thor_id.split("|")[1:4])
  return x, y, z


def _layouts() -> pathlib.Path:
  package = importlib.util.find_spec("alfworld")  # found, and not imported: that takes seconds
  if package is None or package.origin is None:
    raise UserError("the rooms are in the package alfworld, which is not installed: pip install 'agentbank-jax[envs]'")
  return pathlib.Path(package.origin).parent / "gen" / "layouts"
