"""What an environment is: text in, text out, in gymnasium's order."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple, Protocol


@dataclasses.dataclass(frozen=True)
class Instance:
  """One problem of a task.

  Attributes:
    id: unique within the task, the same on every machine ("test-000017").
    split: "train" or "test".
    data: whatever the environment needs to set the problem up, gold answer included. JSON values.
  """

  id: str
  split: str
  data: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Action:
  """What the agent decided, parsed from its turn.

  Attributes:
    kind: "act" for `Action: ...`, "answer" for `Final Answer: ...`.
    text: what follows the marker, stripped.
  """

  kind: str
  text: str


class Step(NamedTuple):
  """gymnasium's five values, with text for the observation.

  `terminated`: the episode reached an end of its own (solved, or answered wrongly).
  `info["solved"]` is set when `terminated` is. `info["invalid"]` is true where the environment
  could not carry the action out: the observation says why, and the episode goes on. `info["progress"]`,
  from 0 to 1, is in every step of a task with subgoals (`Task.progress`), and in none of the others.
  """

  observation: str
  reward: float
  terminated: bool
  truncated: bool
  info: dict[str, Any]


class Env(Protocol):
  """One episode at a time; state belongs to the object, never to the module."""

  def reset(self, instance: Instance) -> str:
    """Starts `instance` and returns the first observation, the problem statement included."""

  def step(self, action: Action) -> Step:
    """Carries `action` out. Never raises for anything an agent can write."""

  def close(self) -> None:
    """Releases everything (files, databases, processes). May be called twice."""
