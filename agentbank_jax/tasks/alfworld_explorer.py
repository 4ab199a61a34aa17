"""An expert of ALFWorld that knows what it has read and what belongs where, and nothing of the game."""

from agentbank_jax.envs import household_world as world
from agentbank_jax.envs.household import NOTHING
from agentbank_jax.envs.household_world import kind
from agentbank_jax.tasks.catalog.household import Explorer, Turns


class AlfworldExplorer(Explorer):
  """The household's explorer, in houses where visiting every place takes longer than an episode may.

  It looks first where the wanted thing can lie (`household_world.HOLDS`), on what stands open before what must be
  opened. Some places cannot be gone to; it finds out.
  """

  def __init__(self, observation: str):
    super().__init__(observation)
    self._placed: set[str] = set()
    self._unreachable: set[str] = set()

  def go(self, place: str, thought: str) -> Turns:
    before = self.at
    yield from super().go(place, thought)
    if place not in self._unreachable:
      return
    # One cannot go to what is where one stands: the drawers of a desk.
    observation = yield from self.act(f"I cannot go to {place}. It may be here.", f"examine {place}")
    if observation == NOTHING:
      self.at = before
      return
    self._unreachable.remove(place)
    if "is closed." in observation:
      yield from self.act(f"I have to open {place}.", f"open {place}")

  def act(self, thought: str, command: str) -> Turns:
    observation = yield from super().act(thought, command)
    if observation == NOTHING and command.startswith("go to "):
      self._unreachable.add(command.removeprefix("go to "))
    return observation

  def recall(self, wanted: str) -> tuple[str, str] | None:
    """Returns (thing, place) of the first `wanted` seen that it has not put down itself."""
    return next(((thing, place) for place, things in self.seen.items() for thing in things
                 if kind(thing) == wanted and thing not in self._placed), None)

  def next_place(self, wanted: str) -> tuple[str, str] | None:
    unseen = [place for place in self.places if place not in self.seen and place not in self._unreachable]
    if not unseen:
      return None
    best = min(unseen, key=lambda place: _effort(kind(place), wanted))  # the first of the best, in the room's order
    likely = wanted in world.HOLDS.get(kind(best), ())
    return best, ". It can be at" if likely else ". I have not looked at"

  def place(self, thing: str, have: str) -> Turns:
    """Puts what it holds in the first receptacle of the target's kind that takes it."""
    for target in [place for place in self.places if kind(place) == self.target and place not in self._unreachable]:
      yield from self.go(target, f"{have} for {target}.")
      if self.at == target:
        observation = yield from self.act(f"{have} at {target}.", f"move {thing} to {target}")
        if observation != NOTHING:
          self._placed.add(thing)
          return


def _effort(place: str, wanted: str) -> tuple[bool, bool]:
  return wanted not in world.HOLDS.get(place, ()), place in world.OPENABLE
