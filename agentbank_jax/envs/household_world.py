"""Houses for the household: what there is, what fits where, and worlds generated from it.

A reduced form of ALFWorld's text worlds (Shridhar et al. 2021, arXiv:2010.03768): its names, its six
task types, its goal sentences and its facts (what a receptacle can hold, what can be heated), with
rooms drawn by us. Left out: several receptacles at one place, and objects that hold objects.

A world is a dict of JSON values:

  task_type   one of `TASK_TYPES`
  object      kind of the object that the goal names ("mug")
  target      kind of the receptacle, or of the lamp, that the goal names ("cabinet")
  goal        the sentence that the agent reads ("put a clean mug in cabinet.")
  receptacles [[name, [names of the objects in it]], ...], in the order in which the room lists them
"""

import collections
from collections.abc import Iterable, Mapping
import dataclasses
import functools
import json
import random
from typing import Any

LOOK = "look_at_obj_in_light"
PICK_TWO = "pick_two_obj_and_place"

# Goal sentences by task type.
GOALS = {
    "pick_and_place_simple": ("put a {object} in {target}.", "put some {object} on {target}."),
    LOOK: ("look at {object} under the {target}.", "examine the {object} with the {target}."),
    "pick_clean_then_place_in_recep": (
        "put a clean {object} in {target}.", "clean some {object} and put it in {target}."),
    "pick_heat_then_place_in_recep": (
        "put a hot {object} in {target}.", "heat some {object} and put it in {target}."),
    "pick_cool_then_place_in_recep": (
        "put a cool {object} in {target}.", "cool some {object} and put it in {target}."),
    PICK_TWO: ("put two {object} in {target}.", "find two {object} and put them in {target}."),
}
TASK_TYPES = tuple(GOALS)


@dataclasses.dataclass(frozen=True)
class Tool:
  """A receptacle that changes what is held before it.

  Attributes:
    verb: the command, as in "heat apple 1 with microwave 1".
    state: what the object is afterwards.
    undoes: the state that it loses, or "".
    objects: kinds that it works on.
  """

  verb: str
  state: str
  undoes: str
  objects: frozenset[str]


def _kinds(text: str) -> frozenset[str]:
  return frozenset(text.split())


_FOOD = "apple bread egg lettuce potato tomato"
_CROCKERY = "bowl cup mug plate"
_CUTLERY = "butterknife fork knife spatula spoon"
_COOKWARE = "kettle pan pot"
_SHAKERS = "peppershaker saltshaker"
_TOILETRIES = "cloth dishsponge handtowel soapbar soapbottle spraybottle tissuebox toiletpaper"
_PAPER = "book newspaper"
_PENS = "pen pencil"
_POCKET = "cellphone creditcard keychain"
_DECORATION = "statue vase"
LAMP = "desklamp"

TOOLS = {
    "sinkbasin": Tool("clean", "clean", "", _kinds(
        f"apple egg lettuce potato tomato {_CROCKERY} {_CUTLERY} {_COOKWARE} cloth dishsponge ladle "
        "soapbar")),
    "microwave": Tool("heat", "hot", "cool", _kinds("apple bread egg potato tomato cup mug plate")),
    "fridge": Tool("cool", "cool", "hot", _kinds(f"{_FOOD} {_CROCKERY} pan pot winebottle")),
}
# The tool that a task type asks for; the others ask for none.
TOOL_OF = {
    "pick_clean_then_place_in_recep": "sinkbasin",
    "pick_heat_then_place_in_recep": "microwave",
    "pick_cool_then_place_in_recep": "fridge",
}
OPENABLE = _kinds("cabinet drawer fridge microwave safe")
SLICEABLE = _kinds(_FOOD)
KNIVES = _kinds("butterknife knife")

# What each kind of receptacle can hold.
HOLDS = {
    "armchair": _kinds(f"{_PAPER} {_POCKET} box laptop pillow remotecontrol"),
    "bathtubbasin": _kinds("cloth dishsponge handtowel soapbar"),
    "bed": _kinds("book cellphone laptop pillow"),
    "cabinet": _kinds(f"{_CROCKERY} {_COOKWARE} {_SHAKERS} {_TOILETRIES} candle ladle winebottle"),
    "cart": _kinds(f"{_TOILETRIES} candle"),
    "coffeemachine": _kinds("mug"),
    "coffeetable": _kinds(f"{_PAPER} {_DECORATION} {LAMP} box candle creditcard keychain laptop "
                          "remotecontrol tissuebox watch"),
    "countertop": _kinds(f"{_FOOD} {_CROCKERY} {_CUTLERY} {_COOKWARE} {_SHAKERS} {_TOILETRIES} candle ladle "
                         "winebottle"),
    "desk": _kinds(f"{_PENS} {_POCKET} {_DECORATION} {LAMP} alarmclock book bowl box cd laptop mug tissuebox "
                   "watch"),
    "diningtable": _kinds(f"{_FOOD} {_CROCKERY} {_CUTLERY} {_COOKWARE} {_SHAKERS} {_PAPER} {_DECORATION} box "
                          "candle creditcard keychain ladle laptop remotecontrol tissuebox watch winebottle"),
    "drawer": _kinds(f"{_CUTLERY} {_SHAKERS} {_TOILETRIES} {_PAPER} {_PENS} {_POCKET} candle cd ladle "
                     "remotecontrol watch"),
    "dresser": _kinds(f"{_PAPER} {_PENS} {_POCKET} {_DECORATION} {LAMP} alarmclock bowl box cd laptop mug "
                      "remotecontrol tissuebox watch"),
    "fridge": _kinds(f"{_FOOD} {_CROCKERY} pan pot winebottle"),
    "garbagecan": _kinds(f"{_FOOD} {_TOILETRIES} {_PENS} cd newspaper winebottle"),
    "handtowelholder": _kinds("handtowel"),
    "microwave": _kinds(f"apple bread egg potato tomato {_CROCKERY}"),
    "ottoman": _kinds(f"{_PAPER} {_POCKET} box laptop pillow remotecontrol"),
    "safe": _kinds(f"{_POCKET} {_DECORATION} cd"),
    "shelf": _kinds(f"{_CROCKERY} {_SHAKERS} {_TOILETRIES} {_PAPER} {_PENS} {_POCKET} {_DECORATION} {LAMP} "
                    "alarmclock box candle cd kettle pot remotecontrol watch winebottle"),
    "sidetable": _kinds(f"{_FOOD} {_CROCKERY} {_CUTLERY} {_SHAKERS} {_PAPER} {_PENS} {_POCKET} {_DECORATION} "
                        f"{LAMP} alarmclock box candle cd laptop pan pot remotecontrol tissuebox watch "
                        "winebottle"),
    "sinkbasin": _kinds(f"apple egg lettuce potato tomato {_CROCKERY} {_CUTLERY} {_COOKWARE} cloth "
                        "dishsponge handtowel ladle soapbar"),
    "sofa": _kinds(f"{_PAPER} {_POCKET} box laptop pillow remotecontrol"),
    "stoveburner": _kinds(_COOKWARE),
    "toilet": _kinds(f"{_TOILETRIES} candle"),
    "toiletpaperhanger": _kinds("toiletpaper"),
    "tvstand": _kinds("tissuebox"),
}


@dataclasses.dataclass(frozen=True)
class Room:
  """What a room may have in it.

  Attributes:
    receptacles: kinds, with the most of each that a room has.
    objects: kinds; a tuple, for draws must not depend on the order of a set.
  """

  receptacles: Mapping[str, int]
  objects: tuple[str, ...]


ROOMS = {
    "kitchen": Room(
        {"cabinet": 6, "coffeemachine": 1, "countertop": 3, "diningtable": 2, "drawer": 5, "fridge": 1,
         "garbagecan": 1, "microwave": 1, "shelf": 3, "sidetable": 1, "sinkbasin": 1, "stoveburner": 4},
        tuple(f"{_FOOD} {_CROCKERY} {_CUTLERY} {_COOKWARE} {_SHAKERS} dishsponge ladle soapbottle "
              "winebottle".split())),
    "bedroom": Room(
        {"armchair": 1, "bed": 2, "desk": 2, "drawer": 6, "dresser": 2, "garbagecan": 1, "safe": 1,
         "shelf": 6, "sidetable": 3},
        tuple(f"{_PENS} {_POCKET} {LAMP} alarmclock book bowl box cd laptop mug pillow".split())),
    "livingroom": Room(
        {"armchair": 2, "coffeetable": 2, "diningtable": 1, "drawer": 5, "dresser": 1, "garbagecan": 1,
         "ottoman": 1, "safe": 1, "shelf": 5, "sidetable": 3, "sofa": 2, "tvstand": 1},
        tuple(f"{_PAPER} {_DECORATION} {LAMP} box candle creditcard keychain laptop pillow remotecontrol "
              "tissuebox watch".split())),
    "bathroom": Room(
        {"bathtubbasin": 1, "cabinet": 4, "cart": 1, "countertop": 2, "drawer": 5, "garbagecan": 1,
         "handtowelholder": 2, "shelf": 4, "sinkbasin": 2, "toilet": 1, "toiletpaperhanger": 1},
        tuple(f"{_TOILETRIES} candle".split())),
    # Two rooms of few kinds: a model that learns from nothing meets each kind often.
    "kitchenette": Room(
        {"cabinet": 1, "countertop": 1, "diningtable": 1, "fridge": 1, "garbagecan": 1, "microwave": 1,
         "shelf": 1, "sinkbasin": 1},
        tuple("apple bowl bread cup egg knife mug plate potato spoon tomato".split())),
    "study": Room(
        {"bed": 1, "desk": 1, "drawer": 1, "garbagecan": 1, "shelf": 1, "sidetable": 1},
        tuple(f"book cd keychain laptop {LAMP} mug pen watch".split())),
}


@dataclasses.dataclass(frozen=True)
class HouseSize:
  """How large, and so how hard, a house is.

  Attributes:
    rooms: names in `ROOMS`.
    receptacles: fewest and most in a room.
    copies: the most receptacles of one kind, and the most further objects of one kind. With 1,
      "the cabinet" is never ambiguous.
    others: fewest and most objects that the goal does not ask for.
    wordings: how many of a task type's sentences in `GOALS` are used.
  """

  rooms: tuple[str, ...]
  receptacles: tuple[int, int]
  copies: int
  others: tuple[int, int]
  wordings: int


SMALL = HouseSize(("kitchenette", "study"), receptacles=(4, 4), copies=1, others=(1, 2), wordings=1)
FULL = HouseSize(("kitchen", "bedroom", "livingroom", "bathroom"), receptacles=(20, 24), copies=6,
                 others=(12, 24), wordings=2)  # as large as ALFWorld's, which have 23 receptacles on average


def kind(name: str) -> str:
  """Returns the kind of a numbered thing: "mug" of "mug 1"."""
  return name.partition(" ")[0]


def can_hold(receptacle: str, thing: str) -> bool:
  """Whether a kind of receptacle can hold a kind of object."""
  return thing in HOLDS[receptacle]


def _homes(receptacles: Iterable[str], thing: str, target: str) -> list[str]:
  """Returns those of `receptacles` (kinds or names) where `thing` may lie at the start: not in the target."""
  return [r for r in receptacles if can_hold(kind(r), thing) and kind(r) != target]


@functools.cache
def _goals(task_type: str, rooms: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
  """Returns every (room, object, target) that makes a goal of `task_type`."""
  tool = TOOL_OF.get(task_type)
  goals = []
  for name in rooms:
    room = ROOMS[name]
    if (tool and tool not in room.receptacles) or (task_type == LOOK and LAMP not in room.objects):
      continue
    for thing in room.objects:
      if thing == LAMP or (tool and thing not in TOOLS[tool].objects):
        continue
      targets = [LAMP] if task_type == LOOK else [
          r for r in room.receptacles if r != tool and can_hold(r, thing)]
      goals += [(name, thing, target) for target in targets if _homes(room.receptacles, thing, target)]
  return tuple(goals)


def _furnish(rng: random.Random, room: Room, needed: list[str], size: HouseSize) -> list[str]:
  """Returns receptacle names, at least one of each kind in `needed`, in ALFWorld's order: by kind, numbers
  falling."""
  count = dict.fromkeys(needed, 1)
  free = [r for r, most in room.receptacles.items() for _ in range(min(most, size.copies) - count.get(r, 0))]
  for drawn in rng.sample(free, rng.randint(*size.receptacles) - len(count)):
    count[drawn] = count.get(drawn, 0) + 1
  return [f"{r} {number}" for r in sorted(count) for number in range(count[r], 0, -1)]


def generate(rng: random.Random, task_type: str, size: HouseSize) -> dict[str, Any]:
  """Returns a world in which a goal of `task_type` can be reached and is not reached yet."""
  room_name, thing, target = rng.choice(_goals(task_type, size.rooms))
  room = ROOMS[room_name]
  required = {LOOK: [thing, LAMP], PICK_TWO: [thing, thing]}.get(task_type, [thing])
  needed = [rng.choice(_homes(room.receptacles, o, target)) for o in required]
  needed += [r for r in (target, TOOL_OF.get(task_type)) if r in room.receptacles]
  inside = {name: [] for name in _furnish(rng, room, needed, size)}

  spare = [o for o in room.objects if o not in required for _ in range(size.copies)]
  for o in required + rng.sample(spare, rng.randint(*size.others)):
    if homes := _homes(inside, o, target if o == thing else ""):
      inside[rng.choice(homes)].append(o)

  numbers = collections.Counter()
  for objects in inside.values():
    rng.shuffle(objects)
    for i, o in enumerate(objects):
      numbers[o] += 1
      objects[i] = f"{o} {numbers[o]}"
  sentence = rng.choice(GOALS[task_type][:size.wordings]).format(object=thing, target=target)
  return {"task_type": task_type, "object": thing, "target": target, "goal": sentence,
          "receptacles": [[name, objects] for name, objects in inside.items()]}


def content(world: Mapping[str, Any]) -> str:
  """Returns the problem that a world sets.

  It is equal for worlds that differ only in the order of a listing, in how objects of a kind are
  numbered, or in how the goal is worded.
  """
  return json.dumps([world["task_type"], world["object"], world["target"],
                     sorted([name, sorted(map(kind, objects))] for name, objects in world["receptacles"])])
