"""ScienceWorld (Wang et al. 2022, arXiv:2203.07540): its own simulator, on Java.

The simulator is driven through the package's jar and not through its Python class, which spends nine tenths of a
step on a list of all valid actions, and a second or more of every reset on work that `load` has done.

All environments of a process share one Java machine. Simulators in it do not disturb each other. `hashCode=2`
gives all Java objects one hash: the simulator lists things in the order of their hashes, which otherwise are other
ones in every run, and so is the text.
"""

from typing import Any

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.java_machine import JavaMachine, sendable

# The default heap is a quarter of the memory, and is used.
_OPTIONS = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
_UNKNOWN = "No known action matches that input."
_RESET = "reset task"
_SIMPLIFICATIONS = ""  # none: the full task


def _find_jar() -> tuple[str, str]:
  from scienceworld.constants import BASEPATH, JAR_PATH
  return JAR_PATH, BASEPATH


MACHINE = JavaMachine("scienceworld", _find_jar, _OPTIONS)


class ScienceWorldEnv:
  """One variation of a task at a time. `Instance.data`: `task` (the simulator's name) and `variation`.

  The reward is the simulator's score, from 0 to 1; a score below 0, which the simulator gives for an act that spoils
  the task, ends the episode and counts 0. "reset task" is refused. An ambiguous command is answered with a numbered
  list, and the next action is a number.
  """

  def __init__(self):
    self._simulator: Any = None

  def reset(self, instance: Instance) -> str:
    if self._simulator is None:
      self._simulator = new_simulator()
    self._simulator.load(instance.data["task"], instance.data["variation"], _SIMPLIFICATIONS, False)
    return f"{self._simulator.getTaskDescription()}\n\n{self._simulator.step('look around')}".strip()

  def step(self, action: Action) -> Step:
    command = action.text.strip()
    if command.lower() == _RESET:
      return Step(f"'{_RESET}' is not possible here.", self._reward(), False, False,
                  {"progress": self._reward(), "invalid": True})
    observation = self._simulator.step(sendable(command))
    reward = self._reward()
    info: dict[str, Any] = {"progress": reward, "invalid": observation.startswith(_UNKNOWN)}
    over = bool(self._simulator.getCompleted()) or self._simulator.getScore() < 0
    if over:
      info["solved"] = reward == 1.0
    return Step(observation.strip(), reward, over, False, info)

  def close(self) -> None:
    if self._simulator is not None:
      self._simulator = None
      MACHINE.leave()

  def _reward(self) -> float:
    return max(0.0, round(100 * self._simulator.getScore()) / 100)  # the package's score is a whole number of 100


def new_simulator() -> Any:
  """Returns a simulator in this process's Java machine; whoever asks leaves `MACHINE` at the end."""
  return MACHINE.enter().scienceworld.runtime.pythonapi.PythonInterface()


def gold_path(simulator: Any, task: str, variation: int) -> list[str]:
  """Returns the simulator's own commands to a score of 100. Takes from a tenth of a second to many."""
  simulator.load(task, variation, _SIMPLIFICATIONS, True)
  return list(simulator.getGoldActionSequence())
