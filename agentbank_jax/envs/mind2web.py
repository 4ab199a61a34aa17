"""Mind2Web's offline evaluation (Deng et al. 2023, arXiv:2306.06070): choose the element and the operation.

One step for every annotated action. The next step is always shown as the annotator left the page, whatever the agent
chose: steps are judged alone, as published (section 4.1; src/action_prediction/metric.py of OSU-NLP-Group/Mind2Web).
"""

from collections.abc import Sequence
import re

from agentbank_jax.envs.base import Action, Instance, Step

OPERATIONS = ("CLICK", "TYPE", "SELECT")
PREVIOUS = 5  # actions that the agent is reminded of, as published

_ACTION = re.compile(r"(CLICK|TYPE|SELECT)\s*\[(\d+)\](.*)", re.DOTALL)


class Mind2WebEnv:
  """Actions are `CLICK [number]`, `TYPE [number] text` and `SELECT [number] option`.

  `Instance.data`: `task`, `website` and `steps`. A step has `candidates`, texts; `targets`, the numbers of those that
  are right (none where the annotated element is not among them: no answer is right then); `operation` and `value`;
  and `action`, the annotated action as later steps show it.

  The reward is the share of the task's steps that are right so far: at the end, its step success rate. `Step.info`
  has "progress", which is the same, and `element_accuracy` and `operation_f1`, means over the steps so far.
  """

  def reset(self, instance: Instance) -> str:
    self._data, self._done = instance.data, 0
    self._elements: list[bool] = []
    self._f1: list[float] = []
    return f"Website: {self._data['website']}\nTask: {self._data['task']}\n{self._show()}"

  def step(self, action: Action) -> Step:
    step = self._data["steps"][self._done]
    match = _ACTION.fullmatch(action.text)
    number = int(match[2][:9]) if match else -1
    if not 0 <= number < len(step["candidates"]):
      why = (f"There is no element [{number}] here." if match else
             "An action is CLICK [number], TYPE [number] text or SELECT [number] option.")
      return Step(f"Error: {why}", self._reward(), False, False, self._info() | {"invalid": True})
    self._elements.append(number in step["targets"])
    # The published code counts no words for a step whose element the page does not have.
    self._f1.append(operation_f1(f"{match[1]} {match[3]}", f"{step['operation']} {step['value']}")
                    if step["targets"] else 0.0)
    self._done += 1
    if self._done < len(self._data["steps"]):
      return Step(self._show(), self._reward(), False, False, self._info())
    info = self._info()
    text = (f"The task has ended. Steps: {self._reward():.3f}, elements: {info['element_accuracy']:.3f}, "
            f"operation F1: {info['operation_f1']:.3f}.")
    return Step(text, self._reward(), True, False, info | {"solved": self._reward() == 1.0})

  def close(self) -> None:
    """Nothing to release."""

  def _reward(self) -> float:
    right = sum(element and f1 == 1 for element, f1 in zip(self._elements, self._f1, strict=True))
    return right / len(self._data["steps"])

  def _info(self) -> dict[str, float]:
    return {"progress": self._reward(), "element_accuracy": _mean(self._elements), "operation_f1": _mean(self._f1)}

  def _show(self) -> str:
    steps = self._data["steps"]
    before = [step["action"] for step in steps[:self._done]][-PREVIOUS:] or ["None"]
    elements = (f"[{n}] {text}" for n, text in enumerate(steps[self._done]["candidates"]))
    return "\n".join(["Previous actions:", *before, "Elements:", *elements])


def operation_f1(said: str, gold: str) -> float:
  """Returns the F1 of the sets of words of two operations ("TYPE new york"); case counts, as published."""
  ours, theirs = set(said.split()), set(gold.split())
  if not ours or not theirs:
    return float(ours == theirs)
  common = len(ours & theirs)
  return 2 * common / (len(ours) + len(theirs))


def _mean(values: Sequence[float]) -> float:
  return sum(values) / len(values) if values else 0.0
