"""An expert of the rearrangement rooms that knows what it has read, and nothing of the instance."""

from collections.abc import Generator
import re

_THING = re.compile(r"([a-z]+ \d+) at (-?\d+\.\d\d -?\d+\.\d\d -?\d+\.\d\d)")
_DOOR = re.compile(r"([a-z]+ \d+) (?:(closed)|(\d+)% open)")

Turns = Generator[str, str, str]
View = tuple[dict[str, str], dict[str, int]]  # what is within reach: things with where they are; doors in percent


class Rearranger:
  """Looks at everything, then at as little as tells what has changed, and puts that back."""

  def __init__(self, observation: str):
    self._places = re.findall(r"[a-z]+ \d+", observation.partition("You see ")[2])
    self._views: dict[str, View] = {}  # of the room as it should be, by place
    self._found: dict[str, tuple[str, str]] = {}  # changed things: where each is now, and from which place it is seen

  def solve(self) -> Turns:
    for place in self._places:
      observation = yield _turn("I must know how the room should be.", f"go to {place}")
      self._views[place] = _read(observation)
    yield _turn("I have seen the room.", "done")
    goal = {name: (where, place) for place, (things, _) in self._views.items() for name, where in things.items()}
    unsure = {name for things, doors in self._views.values() for name in (*things, *doors)}
    unseen = list(self._places)
    while unsure and unseen:
      # First where most is to be seen of what it is not sure of; when all that is missing was looked for in vain
      # where it should be, anywhere.
      place = max(unseen, key=lambda p: len(unsure & {*self._views[p][0], *self._views[p][1]}))
      unseen.remove(place)
      observation = yield _turn("I must see whether something has changed.", f"go to {place}")
      unsure -= yield from self._compare(place, _read(observation), goal)
    for name, (_, place) in self._found.items():
      where, goal_place = goal[name]
      yield _turn(f"The {name} should be at {where}.", f"go to {place}")
      yield _turn(f"The {name} is here.", f"take {name}")
      yield _turn(f"I carry {name}.", f"go to {goal_place}")
      yield _turn(f"The {name} should be at {where}.", f"put {name} at {where}")
    yield _turn("All is as it was.", "done")

  def _compare(self, place: str, view: View, goal: dict[str, tuple[str, str]]) -> Turns:
    """Sets doors right, notes things that are elsewhere; returns what it is sure of now."""
    things, doors = view
    for name, where in things.items():
      if where != goal[name][0]:
        self._found[name] = (where, place)
    for name, percent in doors.items():
      wanted = self._views[place][1][name]
      if percent != wanted:
        yield _turn(f"The {name} was {wanted}% open.", f"open {name} to {wanted}%")
    return {*things, *doors}


def _read(observation: str) -> View:
  things, _, doors = observation.partition("What can be opened:")
  return dict(_THING.findall(things)), {name: 0 if closed else int(percent)
                                        for name, closed, percent in _DOOR.findall(doors)}


def _turn(thought: str, command: str) -> str:
  return f"Thought: {thought}\nAction: {command}"
