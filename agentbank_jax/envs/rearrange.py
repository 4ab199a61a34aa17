"""RoomR's task (Weihs et al. 2021, arXiv:2103.16544) as a text room: see a room, and put back what was changed.

Two phases, as in RoomR: the agent walks through the room as it should be; then up to five things are elsewhere or
opened otherwise, and the agent restores them.

What the room keeps of AI2-THOR: its receptacles, where they are and where one stands before them; which objects there
are, each with its position at the start and in the goal, in metres; how far what can be opened is open; a reach of
1.5 metres. What it does not keep: images, walls and the way between two places, rotations, what hides what (a closed
door hides nothing), physics, and things that break. Objects rest where RoomR's data have one resting, and nowhere
else.
"""

from collections.abc import Iterable
import math
import re
from typing import Any

from agentbank_jax.envs.base import Action, Instance, Step

REACH = 1.5  # metres, horizontally: RoomR's
SAME_PLACE = 0.05  # metres: what separates the changed objects of RoomR's data from the others
SAME_OPENNESS = 0.2  # RoomR's
_SNAP = 0.5  # metres from where the agent puts an object to where it comes to rest

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_PUT = re.compile(rf"put (.+?) at \(?({_NUMBER}),? +({_NUMBER}),? +({_NUMBER})\)?")
_OPEN = re.compile(r"open (.+?) to (\d+(?:\.\d+)?) ?%?")

Point = tuple[float, float, float]  # x, y (height), z in metres


class RearrangeEnv:
  """One room at a time.

  `Instance.data`, all of it JSON values:

    places    [[name, [x, y, z], [x, z] of where one stands before it], ...], as the room lists them
    objects   [[name, its position at the start, in the goal], ...]
    openness  {name of a place that can be opened: [at the start, in the goal]}, from 0 (closed) to 1

  The reward is RoomR's "% fixed strict" of the room as it is. `Step.info` has "progress" (the share fixed, whatever
  else was moved) and RoomR's counts "misplaced" and "newly_misplaced".
  """

  def reset(self, instance: Instance) -> str:
    data = instance.data
    self._places = {name: (tuple(position), tuple(stand)) for name, position, stand in data["places"]}
    self._start = {name: tuple(start) for name, start, _ in data["objects"]}
    self._goal = {name: tuple(goal) for name, _, goal in data["objects"]}
    self._openness = {name: goal for name, (_, goal) in data["openness"].items()}
    self._open_start = {name: start for name, (start, _) in data["openness"].items()}
    self._open_goal = dict(self._openness)
    self._resting = sorted({*self._start.values(), *self._goal.values()})
    self._objects: dict[str, Point] = dict(self._goal)  # what is in the hand is not here
    self._hand: str | None = None
    self._at: str | None = None
    self._walkthrough = True
    self._changed = self._misplaced(self._start, self._open_start)
    return f"This is how the room should be. {self._look()}"

  def step(self, action: Action) -> Step:
    command = " ".join(action.text.split())
    if command == "done":
      if self._walkthrough:
        return self._step(self._shuffle())
      return self._step("The room is left as it is.", done=True)
    observation = self._carry_out(command)
    return self._step(observation or self._refuse(command), invalid=observation is None)

  def close(self) -> None:
    """Nothing to release."""

  def _step(self, observation: str, done: bool = False, invalid: bool = False) -> Step:
    now = set() if self._walkthrough else self._misplaced(self._objects, self._openness)
    fixed = 0.0 if self._walkthrough else len(self._changed - now) / len(self._changed)
    new = now - self._changed
    info: dict[str, Any] = {"progress": fixed, "invalid": invalid, "misplaced": len(now), "newly_misplaced": len(new)}
    if done:
      info["solved"] = not now
    return Step(observation, 0.0 if new else fixed, done, False, info)

  def _misplaced(self, objects: dict[str, Point], openness: dict[str, float]) -> set[str]:
    """Returns what is not as in the goal; what is in the hand is not either."""
    moved = {name for name, goal in self._goal.items()
             if name not in objects or math.dist(objects[name], goal) > SAME_PLACE}
    return moved | {name for name, goal in self._open_goal.items() if abs(openness[name] - goal) > SAME_OPENNESS}

  def _shuffle(self) -> str:
    self._walkthrough = False
    self._objects, self._openness = dict(self._start), dict(self._open_start)
    self._at = None
    return f"The room has been changed. Put back what has changed. {self._look()}"

  def _carry_out(self, command: str) -> str | None:
    """Returns what comes of a command, or None where it cannot be carried out."""
    verb, _, name = command.partition(" ")
    if command == "look":
      return self._look()
    if command == "inventory":
      return f"You are carrying {self._hand}." if self._hand else "You are not carrying anything."
    if command.startswith("go to ") and (place := command.removeprefix("go to ")) in self._places:
      self._at = place
      return self._look()
    if self._walkthrough:
      return None
    if verb == "take" and not self._hand and name in self._objects and self._is_in_reach(self._objects[name]):
      self._hand = name
      del self._objects[name]
      return f"You take {name}."
    if match := _PUT.fullmatch(command):
      return self._put(match[1], (float(match[2]), float(match[3]), float(match[4])))
    if verb == "close":
      return self._open(name, 0.0)
    if (match := _OPEN.fullmatch(command)) and float(match[2]) <= 100:
      return self._open(match[1], float(match[2]) / 100)
    return None

  def _refuse(self, command: str) -> str:
    """Says why nothing came of a command."""
    verb = command.partition(" ")[0]
    if self._walkthrough and verb in ("take", "put", "open", "close"):
      return "You only look now. When you know the room: done."
    if verb == "take":
      return "You are carrying something already." if self._hand else "There is no such thing within reach."
    if verb == "put":
      return "You cannot put that there: carry it, be within reach of the point, and name one where things can rest."
    if verb in ("open", "close"):
      return "There is no such thing within reach that can be opened that far."
    return "Nothing happens."

  def _put(self, name: str, point: Point) -> str | None:
    free = [rest for rest in self._resting
            if rest not in self._objects.values() and math.dist(rest, point) <= _SNAP and self._is_in_reach(rest)]
    if name != self._hand or not free:
      return None
    rest = min(free, key=lambda candidate: math.dist(candidate, point))
    self._objects[name] = rest
    self._hand = None
    return f"You put {name} at {_show(rest)}."

  def _open(self, name: str, openness: float) -> str | None:
    if name not in self._openness or not self._is_in_reach(self._places[name][0]):
      return None
    self._openness[name] = openness
    return f"The {name} is {self._show_openness(name)}."

  def _is_in_reach(self, point: Point) -> bool:
    """Whether a point is within 1.5 m of where the agent stands, or there is no better place to stand for it."""
    if self._at is None:
      return False
    distances = {place: math.dist(stand, (point[0], point[2])) for place, (_, stand) in self._places.items()}
    return distances[self._at] <= max(REACH, min(distances.values()))

  def _look(self) -> str:
    if self._at is None:
      return f"You are in the middle of a room. You see {_listing(self._places)}."
    objects = [f"{name} at {_show(point)}" for name, point in self._objects.items() if self._is_in_reach(point)]
    doors = [f"{name} {self._show_openness(name)}" for name in self._openness
             if self._is_in_reach(self._places[name][0])]
    return (f"You are at {self._at}. Within reach: {'; '.join(objects) or 'nothing'}. "
            f"What can be opened: {', '.join(doors) or 'nothing'}.")

  def _show_openness(self, name: str) -> str:
    percent = round(100 * self._openness[name])
    return f"{percent}% open" if percent else "closed"


def _show(point: Point) -> str:
  return " ".join(f"{round(value, 2) + 0:.2f}" for value in point)  # no "-0.00"


def _listing(names: Iterable[str]) -> str:
  return ", ".join(names)
