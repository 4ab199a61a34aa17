"""A household in text: ALFWorld's commands and observations on a world of our own.

Wording and physics follow ALFWorld 0.4 (Shridhar et al. 2021, arXiv:2010.03768): an agent stands before
one receptacle at a time, carries one object at a time, and reads "Nothing happens." for whatever cannot
be done. Heating and cooling work with the door shut, and a lamp once turned on stays on, as there.
"""

from collections.abc import Callable, Iterable
import functools
import re

from agentbank_jax.envs import household_world as world
from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.household_world import kind

NOTHING = "Nothing happens."
# ALFWorld before 0.4 said "put mug 1 in/on cabinet 1".
_PUT = re.compile(r"put (.+) (?:in/on|in|on) (.+)")


def current_command(command: str) -> str:
  """Returns a command as ALFWorld 0.4 words it: trajectories of before play again."""
  return _PUT.sub(r"move \1 to \2", command.strip(), count=1)


def _listing(names: Iterable[str]) -> str:
  """Returns "a mug 2, and a mug 1", or "nothing"."""
  articles = [f"a {name}" for name in names]
  if len(articles) > 1:
    articles[-1] = f"and {articles[-1]}"
  return ", ".join(articles) or "nothing"


class HouseholdEnv:
  """One house at a time. `Step.info` has "progress": the share of the goal's conditions that hold now."""

  def reset(self, instance: Instance) -> str:
    """Starts the world in `instance.data` (see `household_world`); every door is shut."""
    self._goal = instance.data
    self._furnish(instance.data["receptacles"])
    return f"{self._look()}\nYour task is to: {self._goal['goal']}"

  def _furnish(self, receptacles: Iterable[tuple[str, Iterable[str]]]) -> None:
    self._inside = {name: list(objects) for name, objects in receptacles}
    self._open: set[str] = set()
    self._lit: set[str] = set()
    self._states: dict[str, set[str]] = {}  # of objects: "clean", "hot", "cool", "sliced"
    self._at: str | None = None  # receptacle that the agent stands before; None: middle of the room
    self._hand: str | None = None

  def step(self, action: Action) -> Step:
    """Carries out a command of `admissible_commands()`, or says that nothing happens."""
    command = current_command(action.text)
    effect = self._commands().get(command) if action.kind == "act" else None
    observation = effect() if effect else NOTHING
    progress = self._progress()
    solved = progress == 1
    info = {"progress": progress, "invalid": effect is None}
    if solved:
      info["solved"] = True
    return Step(observation, float(solved), solved, False, info)

  def admissible_commands(self) -> list[str]:
    """Returns everything that can be done now; nothing else has an effect."""
    return list(self._commands())

  def close(self) -> None:
    """Nothing to release."""

  def _commands(self) -> dict[str, Callable[[], str]]:
    """The physics: each command whose preconditions hold, with its effect."""
    do = functools.partial
    commands = {"look": self._look, "inventory": self._inventory}
    commands |= {f"go to {r}": do(self._go, r) for r in self._inside if r != self._at}
    hand, at = self._hand, self._at
    if hand:
      commands[f"examine {hand}"] = do(self._examine, hand)
    if not at:
      return commands
    commands[f"examine {at}"] = do(self._describe, at)
    if kind(at) in world.OPENABLE:
      if at in self._open:
        commands[f"close {at}"] = do(self._close, at)
      else:
        commands[f"open {at}"] = do(self._open_up, at)
    reachable = self._is_reachable(at)
    for thing in self._inside[at] if reachable else ():
      commands[f"examine {thing}"] = do(self._examine, thing)
      if kind(thing) == world.LAMP:
        commands[f"use {thing}"] = do(self._use, thing)
      elif not hand:
        commands[f"take {thing} from {at}"] = do(self._take, thing)
      elif kind(hand) in world.KNIVES and kind(thing) in world.SLICEABLE:
        commands[f"slice {thing} with {hand}"] = do(self._slice, thing)
    if hand and reachable and world.can_hold(kind(at), kind(hand)):
      commands[f"move {hand} to {at}"] = self._move
    tool = world.TOOLS.get(kind(at))
    if hand and tool and kind(hand) in tool.objects:
      commands[f"{tool.verb} {hand} with {at}"] = do(self._treat, tool)
    return commands

  def _is_reachable(self, receptacle: str) -> bool:
    return kind(receptacle) not in world.OPENABLE or receptacle in self._open

  def _look(self) -> str:
    if self._at:
      return f"You are facing the {self._at}. Next to it, you see nothing."
    return ("You are in the middle of a room. Looking quickly around you, you see "
            f"{_listing(self._inside)}.")

  def _inventory(self) -> str:
    return f"You are carrying: {_listing([self._hand])}." if self._hand else "You are not carrying anything."

  def _describe(self, receptacle: str) -> str:
    if not self._is_reachable(receptacle):
      return f"The {receptacle} is closed."
    seen = _listing(self._inside[receptacle])
    if receptacle in self._open:
      return f"The {receptacle} is open. In it, you see {seen}."
    return f"On the {receptacle}, you see {seen}."

  def _examine(self, thing: str) -> str:
    if kind(thing) == world.LAMP:
      return f"This {thing} is {'on' if thing in self._lit else 'off'}."
    states = self._states.get(thing, ())
    if not states:
      return f"There's nothing special about {thing}."
    adjectives = " and ".join(state for state in ("hot", "cool", "clean") if state in states)
    if states == {"cool"}:
      adjectives = "cold"  # ALFWorld's word, when there is nothing else to say
    return f"This is a {' '.join(filter(None, [adjectives, 'sliced' * ('sliced' in states), thing]))}."

  def _go(self, receptacle: str) -> str:
    self._at = receptacle
    return f"You arrive at {receptacle}. {self._describe(receptacle)}"

  def _open_up(self, receptacle: str) -> str:
    self._open.add(receptacle)
    return f"You open the {receptacle}. {self._describe(receptacle)}"

  def _close(self, receptacle: str) -> str:
    self._open.remove(receptacle)
    return f"You close the {receptacle}."

  def _take(self, thing: str) -> str:
    self._inside[self._at].remove(thing)
    self._hand = thing
    return f"You pick up the {thing} from the {self._at}."

  def _move(self) -> str:
    thing, self._hand = self._hand, None
    self._inside[self._at].append(thing)
    return f"You move the {thing} to the {self._at}."

  def _use(self, lamp: str) -> str:
    self._lit.add(lamp)
    return f"You turn on the {lamp}."

  def _slice(self, thing: str) -> str:
    self._states.setdefault(thing, set()).add("sliced")
    return f"You sliced the {thing} with the {self._hand}."

  def _treat(self, tool: world.Tool) -> str:
    states = self._states.setdefault(self._hand, set())
    states.discard(tool.undoes)
    states.add(tool.state)
    return f"You {tool.verb} the {self._hand} using the {self._at}."

  def _progress(self) -> float:
    """Share of the goal's conditions that hold; the task is solved when all do.

    The conditions are those of ALFWorld's goals: the object in the hand and a lamp on where the agent
    stands; two objects in one receptacle; else one object that is in place and, where the goal says so,
    clean, hot or cool.
    """
    wanted, target, task_type = self._goal["object"], self._goal["target"], self._goal["task_type"]
    if task_type == world.LOOK:
      holds = self._hand is not None and kind(self._hand) == wanted
      return (holds + any(thing in self._lit for thing in self._inside.get(self._at, ()))) / 2
    placed = [[thing for thing in inside if kind(thing) == wanted]
              for receptacle, inside in self._inside.items() if kind(receptacle) == target]
    if task_type == world.PICK_TWO:
      return min(max(map(len, placed)), 2) / 2
    in_place = {thing for things in placed for thing in things}
    if task_type not in world.TOOL_OF:
      return float(bool(in_place))
    state = world.TOOLS[world.TOOL_OF[task_type]].state
    treated = {thing for thing, states in self._states.items() if kind(thing) == wanted and state in states}
    return 1.0 if treated & in_place else (0.5 if treated or in_place else 0.0)
