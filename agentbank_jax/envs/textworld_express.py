"""TextWorldExpress (Jansen and Cote 2022, arXiv:2208.01174): its games, in its own simulator on Java.

All environments of a process share one Java machine, which ends with the last of them. Games in one machine do not
disturb each other, but for one case: of the game "sorting", two of the same seed share their objects. No two
episodes at once have the same seed; the expert, who plays the seed of an episode too, has a machine of its own.
"""

import json
from typing import Any

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.java_machine import JavaMachine, sendable
from agentbank_jax.errors import UserError

# A small heap, and one thread to clear it: the default takes a quarter of the memory.
_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def _find_jar() -> tuple[str, str]:
  from textworld_express.constants import BASEPATH, JAR_PATH
  return JAR_PATH, BASEPATH


_MACHINE = JavaMachine("textworld_express", _find_jar, _OPTIONS)  # of the environments
EXPERTS = JavaMachine("textworld_express", _find_jar, _OPTIONS)  # what experts look things up in


class Game:
  """A game in a simulator of its own."""

  def __init__(self, classes: Any, name: str, parameters: str):
    """Loads a game.

    Args:
      classes: of the Java machine that it runs in (`JavaMachine.enter`).
      name: "coin", "cookingworld", ...
      parameters: "numLocations=5,includeDoors=1"; "" for the game's own defaults.

    Raises:
      UserError: no such game, or parameters that it does not know.
    """
    self._simulator = classes.textworldexpress.runtime.PythonInterface()
    if message := self._simulator.load(name, parameters):
      raise UserError(f"textworld_express: {' '.join(message.split())}")

  def seeds(self, fold: str) -> list[int]:
    """Returns the seeds of "train", "dev" or "test"; no two folds share one."""
    return list(getattr(self._simulator, f"getSeeds{fold.capitalize()}")())

  def start(self, seed: int, fold: str) -> str:
    """Starts an episode and returns the first observation; the task first."""
    answer = json.loads(self._simulator.generateNewGameJSON(seed, fold, False))
    return f"{self._simulator.getTaskDescription()}\n\n{answer['observation']}"

  def gold_path(self, seed: int, fold: str) -> list[str]:
    """Returns actions that win an episode; the simulator draws its way through coin's and twc's rooms anew each time.

    What the game itself does not understand is left out: cookingworld's path opens a "kitchen cupboard".
    """
    self._simulator.generateNewGameJSON(seed, fold, True)
    path = list(self._simulator.getGoldActionSequence())
    return [action for action in path if not is_unknown(self.act(action))]

  def act(self, text: str) -> dict[str, Any]:
    """Returns the simulator's `observation`, `score` (0 to 1), `tasksuccess` and `taskfailure`."""
    return json.loads(self._simulator.stepJSON(text))


def is_unknown(answer: dict[str, Any]) -> bool:
  """Returns whether the game did not understand the action."""
  return answer["observation"].startswith("Unknown action")


class TextWorldExpressEnv:
  """`Instance.data`: `seed` and `fold` ("train" or "test").

  The reward is the game's score, from 0 to 1; it is 0 where a game that is lost says -1.
  """

  def __init__(self, name: str, parameters: str):
    """`name` and `parameters` are those of `Game`."""
    self._name, self._parameters = name, parameters
    self._classes: Any = None  # of the machine, from the first episode on
    self._game: Game | None = None

  def reset(self, instance: Instance) -> str:
    if self._classes is None:
      self._classes = _MACHINE.enter()
    if self._game is None:
      self._game = Game(self._classes, self._name, self._parameters)
    return self._game.start(instance.data["seed"], instance.data["fold"])

  def step(self, action: Action) -> Step:
    answer = self._game.act(sendable(action.text))
    score = min(1.0, max(0.0, float(answer["score"])))
    info: dict[str, Any] = {"progress": score, "invalid": is_unknown(answer)}
    over = answer["tasksuccess"] or answer["taskfailure"] or score >= 1
    if over:
      info["solved"] = answer["tasksuccess"] or score >= 1
    return Step(answer["observation"].strip(), score, over, False, info)

  def close(self) -> None:
    self._game = None
    if self._classes is not None:
      self._classes = None
      _MACHINE.leave()
