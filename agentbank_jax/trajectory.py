"""The schema: what annotation writes, importers read, training eats and evaluation logs.

A `Trajectory` is a conversation between an agent and an environment. One row of a
`.jsonl` file is `Trajectory.to_json()`; a `.parquet` file has AgentBank's own layout
(see `agentbank_jax.trajectory_io`).
"""

from collections.abc import Mapping, Sequence
import dataclasses
import enum
import sys
from typing import Any, NamedTuple, Self

ROLES = ("system", "user", "assistant", "tool")


class TrajectoryError(ValueError):
  """A row that is not a valid trajectory. The message names the turn; readers add file and row."""


class Outcome(enum.StrEnum):
  """How an episode ended. The last two say nothing about the agent's skill: they are never scored."""

  SOLVED = "solved"
  FAILED = "failed"
  STEP_LIMIT = "step_limit"
  CONTEXT_LIMIT = "context_limit"
  INVALID_ACTION = "invalid_action"
  ENVIRONMENT_ERROR = "environment_error"
  AGENT_ERROR = "agent_error"

  @property
  def is_scored(self) -> bool:
    """False where the infrastructure failed: such an episode is excluded and counted."""
    return self not in (Outcome.ENVIRONMENT_ERROR, Outcome.AGENT_ERROR)


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
  """One message.

  Attributes:
    role: one of `ROLES`. Environment text is `user` (AgentBank's habit) or `tool`.
    content: the text, byte for byte as its source has it.
    train: whether the loss covers this turn. None, the default, means the stated rule:
      assistant turns train, all others do not. True on another role is an error.
  """

  role: str
  content: str
  train: bool | None = None

  def __post_init__(self):
    if self.role not in ROLES:
      raise TrajectoryError(f"unknown role {self.role!r} (known: {', '.join(ROLES)})")
    if not isinstance(self.content, str):
      raise TrajectoryError(f"content is {type(self.content).__name__}, expected text")
    if self.train is None:
      object.__setattr__(self, "train", self.role == "assistant")
    elif not isinstance(self.train, bool):
      raise TrajectoryError(f"train is {self.train!r}, expected true or false")
    elif self.train and self.role != "assistant":
      raise TrajectoryError(f"train is true on a {self.role} turn; only assistant turns can be trained")


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
  """Where a trajectory comes from. Every field may be None: not known."""

  source: str | None = None  # data set or environment, with its version
  technique: str | None = None  # expert, reformatting, answer_forcing, search, sampling, random, human
  teacher: str | None = None  # model or program that wrote the actions
  prompt_hash: str | None = None
  seed: int | None = None
  licence: str | None = None  # of the upstream instance

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value, kind = getattr(self, field.name), int if field.name == "seed" else str
      if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise TrajectoryError(f"provenance.{field.name} is {value!r}, expected {'text' if kind is str else 'a number'}")


@dataclasses.dataclass(frozen=True, slots=True)
class Trajectory:
  """A conversation, and what came of it.

  Attributes:
    id: unique within a data set.
    task: a name of `agentbank_jax.tasks`, or a source's own name for data outside the registry.
    turns: at least one.
    reward: the environment's last reward, or None where it is not known.
    outcome: how the episode ended, or None where it is not known.
    provenance: see `Provenance`.
    metadata: JSON values that the source carries and we keep (a game file, an instance's key).
  """

  id: str
  task: str
  turns: tuple[Turn, ...]
  reward: float | None = None
  outcome: Outcome | None = None
  provenance: Provenance = Provenance()
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name in ("id", "task"):
      value = getattr(self, name)
      if not isinstance(value, str) or not value:
        raise TrajectoryError(f"{name} is {value!r}, expected non-empty text")
    object.__setattr__(self, "turns", tuple(self.turns))
    if not self.turns:
      raise TrajectoryError("no turns")
    if self.reward is not None:
      if isinstance(self.reward, bool) or not isinstance(self.reward, int | float):
        raise TrajectoryError(f"reward is {self.reward!r}, expected a number")
      if not abs(self.reward) <= sys.float_info.max:  # NaN too
        raise TrajectoryError(f"reward is {self.reward}, expected a finite number")

  def to_json(self) -> dict[str, Any]:
    """Returns the row of a `.jsonl` file: plain values, fields that are unknown left out."""
    row: dict[str, Any] = {
        "id": self.id,
        "task": self.task,
        "turns": [{"role": t.role, "content": t.content, "train": t.train} for t in self.turns],
    }
    if self.reward is not None:
      row["reward"] = self.reward
    if self.outcome is not None:
      row["outcome"] = str(self.outcome)
    provenance = {k: v for k, v in dataclasses.asdict(self.provenance).items() if v is not None}
    if provenance:
      row["provenance"] = provenance
    if self.metadata:
      row["metadata"] = dict(self.metadata)
    return row

  @classmethod
  def from_json(cls, row: Mapping[str, Any]) -> Self:
    """Builds a trajectory from `to_json`'s row.

    Raises:
      TrajectoryError: a missing, unknown or ill-typed field; the message names field and turn.
    """
    _check_keys("row", row, _ROW)
    if not isinstance(row["turns"], Sequence) or isinstance(row["turns"], str):
      raise TrajectoryError(f"turns is {type(row['turns']).__name__}, expected a list")
    turns = []
    for i, turn in enumerate(row["turns"]):
      try:
        _check_keys("turn", turn, _TURN)
        turns.append(Turn(**turn))
      except TrajectoryError as e:
        raise TrajectoryError(f"turn {i}: {e}") from None
    provenance = {} if row.get("provenance") is None else row["provenance"]
    _check_keys("provenance", provenance, _PROVENANCE)
    try:
      outcome = None if row.get("outcome") is None else Outcome(row["outcome"])
    except ValueError:
      raise TrajectoryError(
          f"unknown outcome {row['outcome']!r} (known: {', '.join(Outcome)})") from None
    metadata = {} if row.get("metadata") is None else row["metadata"]
    if not isinstance(metadata, Mapping):
      raise TrajectoryError(f"metadata is {type(metadata).__name__}, expected an object")
    return cls(id=row["id"], task=row["task"], turns=tuple(turns), reward=row.get("reward"),
               outcome=outcome, provenance=Provenance(**provenance), metadata=dict(metadata))


class _Keys(NamedTuple):
  required: frozenset[str]
  known: dict[str, None]  # in the order in which messages name them


def _keys(required: str, optional: str) -> _Keys:
  return _Keys(frozenset(required.split()), dict.fromkeys(f"{required} {optional}".split()))


_ROW = _keys("id task turns", "reward outcome provenance metadata")
_TURN = _keys("role content", "train")
_PROVENANCE = _keys("", " ".join(f.name for f in dataclasses.fields(Provenance)))


def _check_keys(what: str, row: Any, keys: _Keys) -> None:
  if not isinstance(row, Mapping):
    raise TrajectoryError(f"{what} is {type(row).__name__}, expected an object")
  if not keys.required <= row.keys():
    raise TrajectoryError(f"{what} has no {next(k for k in keys.known if k in keys.required and k not in row)!r}")
  if not row.keys() <= keys.known.keys():
    unknown = next(k for k in row if k not in keys.known)
    raise TrajectoryError(f"{what} has an unknown field {unknown!r} (known: {', '.join(keys.known)})")
