"""TextWorldExpress (Jansen and Cote 2022, arXiv:2208.01174): its games, in its own simulator on Java.

All environments of a process share one Java machine, which ends with the last of them.
"""

import contextlib
import json
import threading
from typing import Any

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.errors import UserError

# A small heap, and one thread to clear it: the default takes a quarter of the machine.
_JAVA = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class _Java:
  """The Java machine, and how many use it."""

  _lock = threading.Lock()
  _users = 0
  _gateway: Any = None

  @classmethod
  def simulator(cls) -> Any:
    """Returns a simulator of its own for one user, who calls `leave` at the end."""
    try:
      from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
      from textworld_express.constants import BASEPATH, JAR_PATH
    except ImportError:
      raise UserError("textworld_express: pip install textworld-express") from None
    with cls._lock:
      if cls._gateway is None:
        try:
          port, process = launch_gateway(classpath=JAR_PATH, cwd=BASEPATH, javaopts=list(_JAVA), die_on_exit=True,
                                         return_proc=True)
        except FileNotFoundError:
          raise UserError("textworld_express: no java; apt-get install default-jre-headless") from None
        cls._gateway = JavaGateway(gateway_parameters=GatewayParameters(auto_field=True, port=port),
                                   java_process=process)
      cls._users += 1
      return cls._gateway.jvm.textworldexpress.runtime.PythonInterface()

  @classmethod
  def leave(cls) -> None:
    with cls._lock:
      cls._users -= 1
      if not cls._users:
        gateway, cls._gateway = cls._gateway, None
        gateway.shutdown()
        process = gateway.java_process
        with contextlib.suppress(BrokenPipeError):
          process.communicate(b"\n", timeout=5)  # it waits for a line (`die_on_exit`)


class Game:
  """A game of the simulator. Use it in a `with` statement, or close it."""

  def __init__(self, name: str, parameters: str):
    """Loads a game.

    Args:
      name: "coin", "cookingworld", ...
      parameters: "numLocations=5,includeDoors=1"; "" for the game's own defaults.

    Raises:
      UserError: no such game, or parameters that it does not know.
    """
    self._simulator = _Java.simulator()
    # Its messages begin with ERROR or name what is wrong; there is none where all is well.
    if message := self._simulator.load(name, parameters):
      self.close()
      raise UserError(f"textworld_express: {' '.join(message.split())}")

  def __enter__(self) -> "Game":
    return self

  def __exit__(self, *unused) -> None:
    self.close()

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

  def close(self) -> None:
    """May be called twice."""
    if self._simulator is not None:
      self._simulator = None
      _Java.leave()


def is_unknown(answer: dict[str, Any]) -> bool:
  """Returns whether the game did not understand the action."""
  return answer["observation"].startswith("Unknown action")


class TextWorldExpressEnv:
  """`Instance.data`: `seed` and `fold` ("train" or "test"). The reward is the game's score."""

  def __init__(self, name: str, parameters: str):
    self._name, self._parameters = name, parameters
    self._game: Game | None = None

  def reset(self, instance: Instance) -> str:
    self._game = self._game or Game(self._name, self._parameters)
    return self._game.start(instance.data["seed"], instance.data["fold"])

  def step(self, action: Action) -> Step:
    # Java's strings are not Python's: half a surrogate pair cannot be sent.
    answer = self._game.act(action.text.encode(errors="replace").decode())
    score = float(answer["score"])
    info: dict[str, Any] = {"progress": min(1.0, max(0.0, score)), "invalid": is_unknown(answer)}
    over = answer["tasksuccess"] or answer["taskfailure"] or score >= 1
    if over:
      info["solved"] = answer["tasksuccess"] or score >= 1
    return Step(answer["observation"].strip(), score, over, False, info)

  def close(self) -> None:
    if self._game:
      self._game.close()
      self._game = None
