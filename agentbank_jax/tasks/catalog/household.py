"""The household: find things in a room, heat, cool, clean or light them, and put them where they belong.

An embedded stand-in for ALFWorld: the same commands, observations and six task types, on generated
worlds. Scores on it are not ALFWorld scores.
"""

from collections.abc import Generator, Iterator
import dataclasses
import functools
import itertools
import math
import random
import re
from typing import Any

from agentbank_jax.envs import household_world as world
from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.household import HouseholdEnv
from agentbank_jax.envs.household_world import kind
from agentbank_jax.tasks import splits
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

INSTRUCTIONS = """\
You are in a house. Each turn, think, then act:
Thought: ...
Action: go to PLACE, open PLACE, close PLACE, take THING from PLACE, move THING to PLACE, \
clean or heat or cool THING with PLACE, use THING, slice THING with THING, examine THING, look or inventory"""

_ADJECTIVE = {task_type: "a" for task_type in world.TASK_TYPES} | {world.PICK_TWO: "two"} | {
    task_type: f"a {world.TOOLS[tool].state}" for task_type, tool in world.TOOL_OF.items()}

# An expert's turns: sent observations, yields text, returns what it found out.
Turns = Generator[str, str, str | None]


def _draw(rng: random.Random, task_type: str, size: world.HouseSize) -> tuple[str, dict[str, Any]]:
  data = world.generate(rng, task_type, size)
  return world.content(data), data


def _instances(split: str, count: int, seed: int, name: str, size: world.HouseSize) -> Iterator[Instance]:
  """Yields different worlds, the six task types in turn; see `splits.generate`."""
  each = math.ceil(count / len(world.TASK_TYPES))
  streams = [splits.generate(f"{name}/{task_type}", functools.partial(_draw, task_type=task_type, size=size),
                             split, each, seed) for task_type in world.TASK_TYPES]
  for i, stream in zip(range(count), itertools.cycle(streams), strict=False):
    yield dataclasses.replace(next(stream), id=f"{split}-{seed}-{i:06d}")


class Explorer:
  """What one can know of a house from what one has read, and the turns it leads to.

  The thoughts are made for a small model: each begins with "I need" or "I have", as the last one did unless
  something was taken or put down since, and says whatever the action rests on. What comes behind the name of the
  wanted thing is what came behind it when it was last read: its number where it is in view, else "not here".
  """

  def __init__(self, observation: str):
    room, _, goal = observation.partition("\nYour task is to: ")
    self.places = re.findall(r"\ba (\w+ \d+)", room)
    self.task_type, self.wanted, self.target = _read_goal(goal)
    self.need = f"I need for {self.target} {_ADJECTIVE[self.task_type]} {self.wanted}"
    self.seen: dict[str, list[str]] = {}  # by place, in the order of the visits
    self.at: str | None = None
    self.last: str | None = None  # where the search has come to

  def act(self, thought: str, command: str) -> Turns:
    """Says and does one thing, and reads what comes of it."""
    observation = yield f"Thought: {thought}\nAction: {command}"
    view = re.search(r"(?:On the|The) (\w+ \d+)(?:, you see| is open\. In it, you see) (.*)\.", observation)
    if view:
      self.seen[view[1]] = re.findall(r"\ba (\w+ \d+)", view[2])
    return observation

  def go(self, place: str, thought: str) -> Turns:
    """Goes to `place` and looks into it, unless it is already there."""
    if place == self.at:
      return
    self.at = place
    observation = yield from self.act(thought, f"go to {place}")
    if "is closed." in observation:
      yield from self.act(f"{thought[:6]} to open {place}.", f"open {place}")  # "I need to", "I have to"

  def recall(self, wanted: str) -> tuple[str, str] | None:
    """Returns (thing, place) of the first `wanted` seen, where it is not already in its target."""
    return next(((thing, place) for place, things in self.seen.items() if kind(place) != self.target
                 for thing in things if kind(thing) == wanted), None)

  def find(self, wanted: str, thought: str) -> Turns:
    """Goes where a `wanted` is: where one was seen, else on through the room's list.

    Returns:
      its name, or None where the list ends without it.
    """
    if known := self.recall(wanted):
      thing, place = known
      yield from self.go(place, f"{thought} {_number(thing)}, seen at {place}.")
      return thing
    while not (known := self.recall(wanted)):
      ahead = self.next_place(wanted)
      if not ahead:
        return None
      self.last, route = ahead
      yield from self.go(self.last, f"{thought}{route} {self.last}.")
    return known[0]

  def next_place(self, wanted: str) -> tuple[str, str] | None:
    """Returns where to look for a `wanted` now, and the words that say why there; None where the list ends."""
    del wanted  # all places are alike here
    ahead = self.places[self.places.index(self.last) + 1:] if self.last else self.places
    route = f", not here. After {self.last} comes" if self.last else ". First is"
    for place in ahead:
      if place not in self.seen:
        return place, route
      route += f" {place}, already seen. After {place} comes"
    return None

  def take(self) -> Turns:
    """Finds an object that the goal names and picks it up; returns its name, or None."""
    thing = yield from self.find(self.wanted, self.need)
    if thing:
      yield from self.act(f"{self.need} {_number(thing)}, here.", f"take {thing} from {self.at}")
      self.seen[self.at].remove(thing)
    return thing

  def place(self, thing: str, have: str) -> Turns:
    """Puts what it holds in the first receptacle of the target's kind."""
    target = next(place for place in self.places if kind(place) == self.target)
    yield from self.go(target, f"{have} for {target}.")
    yield from self.act(f"{have} at {target}.", f"move {thing} to {target}")

  def treat(self, thing: str) -> Turns:
    """Cleans, heats or cools what it holds."""
    tool = world.TOOLS[world.TOOL_OF[self.task_type]]
    where = next(place for place in self.places if kind(place) == world.TOOL_OF[self.task_type])
    if where != self.at:
      self.at = where
      yield from self.act(f"I have {thing} for {where}.", f"go to {where}")
    yield from self.act(f"I have {thing} at {where}.", f"{tool.verb} {thing} with {where}")

  def solve(self) -> Turns:
    """Plays the task to its end."""
    for _ in range(2 if self.task_type == world.PICK_TWO else 1):
      thing = yield from self.take()
      if not thing:
        return
      have = f"I have {thing}"
      if self.task_type == world.LOOK:
        lamp = yield from self.find(self.target, f"{have} for {self.target}")
        if lamp:
          yield from self.act(f"{have} for {lamp}, here.", f"use {lamp}")
        return
      if self.task_type in world.TOOL_OF:
        yield from self.treat(thing)
        have = f"I have {world.TOOLS[world.TOOL_OF[self.task_type]].state} {thing}"
      yield from self.place(thing, have)


def _number(thing: str) -> str:
  """Returns the "1" of "mug 1"."""
  return thing.rpartition(" ")[2]


def _read_goal(goal: str) -> tuple[str, str, str]:
  """Returns (task type, object, target) of a goal sentence."""
  for task_type, templates in world.GOALS.items():
    for template in templates:
      pattern = re.escape(template).replace(r"\{object\}", r"(\w+)").replace(r"\{target\}", r"(\w+)")
      if match := re.fullmatch(pattern, goal):
        return task_type, match[1], match[2]
  raise ValueError(f"not a goal of the household: {goal!r}")


def expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Explores: knows only what it has read, never the instance.

  It visits the receptacles in the order in which the room lists them and opens those that are shut; what
  it has seen on the way it remembers.
  """
  del instance
  yield from Explorer(observation).solve()


def random_turn(rng: random.Random, observation: str) -> str:
  """Writes a command on one or two of the things and places that it has just read of."""
  names = re.findall(r"\b[a-z]+ [0-9]+\b", observation)
  if not names:
    return f"Action: {rng.choice(('look', 'inventory'))}"
  one, other = rng.choice(names), rng.choice(names)
  command = rng.choice((
      f"go to {one}", f"go to {one}", f"open {one}", f"take {one} from {other}", f"move {one} to {other}",
      f"use {one}", f"examine {one}", "look"))
  return f"Action: {command}"


def make_task(name: str, size: world.HouseSize, max_steps: int) -> Task:
  return Task(
      name=name,
      skill="embodied",
      held_in=True,
      instructions=INSTRUCTIONS,
      grammar=Grammar(has_answer=False),
      max_steps=max_steps,
      metric=MetricCard(
          reward_range=(0.0, 1.0),
          success=f"The goal's conditions hold in the world within {max_steps} steps; reward 1 then, else 0.",
          definition="ALFWorld's success rate (Shridhar et al. 2021, arXiv:2010.03768), on generated worlds: "
                     "not comparable with scores on ALFWorld's own games."),
      make_env=HouseholdEnv,
      instances=functools.partial(_instances, name=name, size=size),
      expert=expert,
      random_turn=random_turn,
      source=Source(where="generated", licence="Apache-2.0"),
      progress="share of the goal's conditions that hold",
      runs="a text household with ALFWorld's commands and six task types",
      stands_in_for="alfworld",
      problem="")


# ALFWorld's limit in the literature is 50; a small house needs less.
TASK = make_task("household", world.SMALL, max_steps=30)
