"""TextWorldExpress (Jansen and Cote 2022, arXiv:2208.01174): its games, in its own simulator on Java.

All environments of a process share one Java machine, which ends with the last of them. Games in one machine do not
disturb each other, but for one case: of the game "sorting", two of the same seed share their objects. No two
episodes at once have the same seed; the expert, who plays the seed of an episode too, has a machine of its own.
"""

import functools
import json
import subprocess
import threading
from typing import Any

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.errors import UserError

# A small heap, and one thread to clear it: the default takes a quarter of the memory.
_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_END_SECONDS = 5.0


class Java:
  """A Java machine with simulators in it."""

  def __init__(self):
    """Raises UserError where the package or Java is not installed."""
    try:
      from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
      from textworld_express.constants import BASEPATH, JAR_PATH
    except ImportError:
      raise UserError("textworld_express: pip install textworld-express") from None
    try:
      port, self._process = launch_gateway(classpath=JAR_PATH, cwd=BASEPATH, javaopts=list(_OPTIONS),
                                           die_on_exit=True, return_proc=True)
    except FileNotFoundError:
      raise UserError("textworld_express: no java; apt-get install default-jre-headless") from None
    self._gateway = JavaGateway(gateway_parameters=GatewayParameters(auto_field=True, port=port))

  def simulator(self) -> Any:
    return self._gateway.jvm.textworldexpress.runtime.PythonInterface()

  def close(self) -> None:
    """Ends it; what is not closed ends with this process."""
    self._gateway.shutdown()
    self._process.stdin.close()  # which it waits for (`die_on_exit`)
    try:
      self._process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()


@functools.cache
def expert_java() -> Java:
  """Returns the machine that the expert looks things up in; it lasts as long as this process."""
  return Java()


class _Shared:
  """The machine of this process's environments, and how many there are."""

  _lock = threading.Lock()
  _java: Java | None = None
  _users = 0

  @classmethod
  def borrow(cls) -> Java:
    with cls._lock:
      cls._java = cls._java or Java()
      cls._users += 1
      return cls._java

  @classmethod
  def give_back(cls) -> None:
    with cls._lock:
      cls._users -= 1
      if not cls._users:
        java, cls._java = cls._java, None
        java.close()


class Game:
  """A game in a simulator of its own."""

  def __init__(self, java: Java, name: str, parameters: str):
    """Loads a game.

    Args:
      java: where it runs.
      name: "coin", "cookingworld", ...
      parameters: "numLocations=5,includeDoors=1"; "" for the game's own defaults.

    Raises:
      UserError: no such game, or parameters that it does not know.
    """
    self._simulator = java.simulator()
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
    self._game: Game | None = None
    self._borrowed = False

  def reset(self, instance: Instance) -> str:
    if self._game is None:
      java = _Shared.borrow()
      self._borrowed = True
      self._game = Game(java, self._name, self._parameters)
    return self._game.start(instance.data["seed"], instance.data["fold"])

  def step(self, action: Action) -> Step:
    # Half a surrogate pair cannot be sent to Java.
    answer = self._game.act(action.text.encode(errors="replace").decode())
    score = min(1.0, max(0.0, float(answer["score"])))
    info: dict[str, Any] = {"progress": score, "invalid": is_unknown(answer)}
    over = answer["tasksuccess"] or answer["taskfailure"] or score >= 1
    if over:
      info["solved"] = answer["tasksuccess"] or score >= 1
    return Step(answer["observation"].strip(), score, over, False, info)

  def close(self) -> None:
    self._game = None
    if self._borrowed:
      self._borrowed = False
      _Shared.give_back()
