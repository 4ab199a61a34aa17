"""IQUAD V1's questions (Gordon et al. 2018, arXiv:1712.03316), and rooms in which they have their published answers.

A question of IQUAD is about a kitchen that AI2-THOR fills from a seed. The simulator alone knows how, so here the
kitchen's real receptacles are filled anew, from the same seed, under one condition: the published answer is the true
one. The answer that counts is then read off the room.
"""

from collections.abc import Mapping
import csv
import random
from typing import Any

from agentbank_jax.envs import household_world as world
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, thor_rooms

SOURCE = "danielgordon10/thor-iqa-cvpr-2018 on GitHub (its folder questions, Apache-2.0)"
TYPES = ("existence", "counting", "contains")

# IQUAD's classes by their numbers: objects, and the containers that questions name.
OBJECTS = {1: "spoon", 2: "potato", 3: "fork", 4: "plate", 5: "egg", 6: "tomato", 7: "bowl", 8: "lettuce", 9: "apple",
           10: "knife", 11: "container", 12: "bread", 13: "mug"}
CONTAINERS = {17: "garbagecan", 18: "microwave", 19: "fridge", 20: "cabinet"}
MOST = 3  # objects of a kind in a room: IQUAD's highest count
_LIES_LIKE = {"container": "bowl"}  # AI2-THOR's "container" is none of the household's kinds

# Where files are: as they lie in the repository, of both its layouts, and under a plain name in one folder.
_PATTERNS = {
    "train": ("train*_{type}.csv", "questions/train/data_{type}/combined.csv"),
    "test": ("val_unseen_scenes*_{type}.csv", "test*_{type}.csv",
             "questions/val/unseen_scenes/data_{type}/combined.csv", "questions/test/data_{type}/combined.csv"),
}

Row = Mapping[str, Any]


def rows(split: str) -> list[tuple[str, Row]]:
  """Returns the questions of a split. Those of "test" are about kitchens 1 to 5, which training has not.

  Raises:
    UserError: a file is not to be had, or a row of it is none of IQUAD's.
  """
  found = []
  for kind in TYPES:
    patterns = [pattern.format(type=kind) for pattern in _PATTERNS.get(split, ("{type}.csv",))]
    path = published.find_first("iqa", patterns, SOURCE)
    number = 1
    try:
      with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
          found.append((f"{kind}-{number - 2:05d}", _read(kind, row)))
    except (ValueError, KeyError, TypeError, csv.Error) as e:
      raise UserError(f"{path}, line {number}: not a question of IQUAD ({e}); get it again from {SOURCE}") from None
  return found


def _read(kind: str, row: Mapping[str, str]) -> Row:
  if TYPES.index(kind) != int(row["question_type"]):
    raise ValueError(f"question_type {row['question_type']} in a file of {kind}")
  answer = str(int(row["answer"])) if kind == "counting" else {"True": "yes", "False": "no"}[row["answer"]]
  return {"scene": f"FloorPlan{int(row['scene_number'])}", "seed": int(row["seed"]), "type": kind,
          "question": row["question"], "published_answer": answer, "object": OBJECTS[int(row["object_id"])],
          "container": CONTAINERS[int(row["container_id"])] if kind == "contains" else ""}


def room(row: Row) -> dict[str, Any]:
  """Returns a question with a room for it, as `IqaEnv` takes it."""
  names = [place.name for place in thor_rooms.places(row["scene"])]
  if row["container"] and not any(world.kind(name) == row["container"] for name in names):
    names.append(f"{row['container']} 1")  # few layouts have the garbage can, and questions ask for it
  rng = random.Random(f"{row['scene']}/{row['seed']}/{row['question']}")
  inside = {name: [] for name in names}
  for kind in OBJECTS.values():
    homes = [name for name in names if world.can_hold(world.kind(name), _LIES_LIKE.get(kind, kind))]
    if kind == row["object"]:
      chosen = _place(rng, row, homes, names)
    else:
      chosen = [rng.choice(homes) for _ in range(rng.randint(0, MOST))]
    for number, name in enumerate(chosen, start=1):
      inside[name].append(f"{kind} {number}")
  for objects in inside.values():
    rng.shuffle(objects)
  data = {**row, "receptacles": [[name, objects] for name, objects in inside.items()]}
  return data | {"answer": answer(data)}


def _place(rng: random.Random, row: Row, homes: list[str], names: list[str]) -> list[str]:
  """Returns where the objects lie that the question asks for, so that it has its published answer."""
  said = row["published_answer"]
  match row["type"]:
    case "counting":
      return [rng.choice(homes) for _ in range(int(said))]
    case "existence":
      return [rng.choice(homes) for _ in range(rng.randint(1, MOST) if said == "yes" else 0)]
  within = [name for name in names if world.kind(name) == row["container"]]
  outside = [name for name in homes if world.kind(name) != row["container"]]
  count = rng.randint(0, MOST - 1)
  return [rng.choice(within)] * (said == "yes") + [rng.choice(outside) for _ in range(count)]


def answer(data: Mapping[str, Any]) -> str:
  """Returns the answer to a question, read off its room."""
  where = [name for name, objects in data["receptacles"] for thing in objects if world.kind(thing) == data["object"]]
  if data["type"] == "counting":
    return str(len(where))
  if data["type"] == "contains":
    where = [name for name in where if world.kind(name) == data["container"]]
  return "yes" if where else "no"
