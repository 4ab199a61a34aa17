"""RoomR's rows (Weihs et al. 2021, arXiv:2103.16544): the published pickles, and the same rows as JSON lines."""

import collections
from collections.abc import Iterator, Mapping
import gzip
import json
import math
import pathlib
import pickle
from typing import Any

from agentbank_jax.envs import household_world as world
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, thor_rooms

SOURCE = "allenai/ai2thor-rearrangement on GitHub (data/2023/{train,val,test}.pkl.gz, Apache-2.0)"
_KEYS = {"scene", "index", "openable_data", "starting_poses", "target_poses"}
_SAME_DOOR = 0.3  # metres between AI2-THOR's versions: the layouts are older than RoomR 2023

Row = Mapping[str, Any]


def rows(split: str) -> list[tuple[str, Row]]:
  """Returns the rows of a split, as (scene and index, row).

  Raises:
    UserError: the file is not to be had, or a row of it is none of RoomR's.
  """
  path = published.find_first("roomr", (f"{split}*.jsonl", f"{split}.pkl.gz", f"**/2023/{split}.pkl.gz"), SOURCE)
  found = []
  try:
    for row in _read(path):
      if absent := _KEYS - row.keys():
        raise ValueError(f"it has no {', '.join(sorted(absent))}")
      found.append((f"{row['scene']}-{row['index']:03d}", row))
  except (ValueError, KeyError, TypeError, OSError, EOFError, pickle.UnpicklingError) as e:
    raise UserError(f"{path}, row {len(found) + 1}: not a row of RoomR ({e}); get it again from {SOURCE}") from None
  return found


def room(row: Row) -> dict[str, Any]:
  """Returns a row as `RearrangeEnv` takes it, in the layout of its scene."""
  places = [(place.name, place.position, place.stand, place.thor_id) for place in thor_rooms.places(row["scene"])]
  changed = {}
  for door in row["openable_data"]:
    changed[_find_door(door["objectId"], places)] = [door["start_openness"], door["target_openness"]]
  openable = [name for name, *_ in places if world.kind(name) in world.OPENABLE]
  numbers = collections.Counter()
  objects = []
  pairs = zip(row["starting_poses"], row["target_poses"], strict=True)
  for start, target in sorted(pairs, key=lambda pair: pair[0]["name"]):
    kind = start["name"].partition("_")[0].lower()
    numbers[kind] += 1
    objects.append([f"{kind} {numbers[kind]}", _point(start), _point(target)])
  return {"scene": row["scene"],
          "places": [[name, list(position), list(stand)] for name, position, stand, _ in places],
          "objects": objects,
          "openness": {name: changed.get(name, [0.0, 0.0]) for name in openable}}


def _point(pose: Mapping[str, Any]) -> list[float]:
  return [round(pose["position"][axis], 4) for axis in "xyz"]


def _find_door(thor_id: str, places: list[tuple]) -> str:
  """Returns the name of what is opened, added to `places` where the layout has nothing like it nearby."""
  kind, position = thor_rooms.kind_of(thor_id), thor_rooms.position_of(thor_id)
  alike = [place for place in places if world.kind(place[0]) == kind]
  nearest = min(alike, key=lambda place: math.dist(place[1], position), default=None)
  if nearest and math.dist(nearest[1], position) <= _SAME_DOOR:
    return nearest[0]
  stand = min((place[2] for place in places), key=lambda point: math.dist(point, (position[0], position[2])))
  name = f"{kind} {len(alike) + 1}"
  places.append((name, position, stand, thor_id))
  return name


def _read(path: pathlib.Path) -> Iterator[Row]:
  if path.suffix == ".jsonl":
    yield from map(json.loads, path.read_text().splitlines())
    return
  with gzip.open(path) as file:
    scenes = _Plain(file).load()
  for scene in sorted(scenes, key=lambda name: int(name.removeprefix("FloorPlan"))):
    for index, row in enumerate(scenes[scene]):
      yield {"index": index, **row, "scene": scene}


class _Plain(pickle.Unpickler):
  """Reads a pickle of plain values; RoomR's have nothing else, and others could run programs."""

  def find_class(self, module: str, name: str) -> Any:
    raise pickle.UnpicklingError(f"it holds {module}.{name}")
