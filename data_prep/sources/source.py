"""What all importers share: drop reasons, roles, loss flags, files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import enum
import json
import pathlib
import re
from typing import Any

from agentbank_jax.errors import UserError
from agentbank_jax.trajectory import Outcome, Provenance, Trajectory, Turn
from agentbank_jax.trajectory_io import SUFFIXES, parse_json, read_rows


class Reason(enum.StrEnum):
  """Why a row is not imported."""

  MALFORMED = "malformed_row"  # a field is missing or has the wrong type
  UNKNOWN_ROLE = "unknown_role"
  NO_TURNS = "no_turns"
  BAD_LOSS_FLAG = "bad_loss_flag"  # neither true nor false, contradictory, or true on an environment's turn
  UNSUPPORTED = "unsupported_content"  # images, audio
  UNEQUAL_COUNTS = "unequal_thoughts_actions_observations"
  EVALUATION_ID_ONLY = "evaluation_id_only"
  PART_OF_ANOTHER_ROW = "part_of_another_row"
  NO_ANNOTATION = "no_annotation"
  BAD_EXPRESSION = "bad_expression"
  WRONG_VALUE = "wrong_value"  # an annotation's value is not that of its expression
  ANSWER_NOT_COMPUTED = "answer_not_computed"
  DATABASE_ABSENT = "database_absent"
  QUERY_FAILED = "query_failed"

  @property
  def is_bad(self) -> bool:
    """Whether the row is broken; False where it is whole but holds nothing to train on here."""
    return self not in (Reason.EVALUATION_ID_ONLY, Reason.PART_OF_ANOTHER_ROW, Reason.NO_ANNOTATION,
                        Reason.ANSWER_NOT_COMPUTED, Reason.DATABASE_ABSENT)


class DropRow(Exception):
  """A row that is not imported. The message says what is wrong with it, and in which turn."""

  def __init__(self, reason: Reason, detail: str):
    super().__init__(detail)
    self.reason = reason


@dataclasses.dataclass(frozen=True)
class Context:
  """What a converter knows beside the row.

  Attributes:
    id: for a row that has none.
    task: of all rows of the file, or None where the row must say it.
    provenance: of all rows of the source.
    options: the format's own, from the config.
  """

  id: str
  task: str | None = None
  provenance: Provenance = Provenance()
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def task_or(self, other: str | None) -> str:
    """Returns the task, or `other`, what the row says. Raises UserError where neither is known."""
    if task := self.task or other:
      return task
    raise UserError("its rows do not say which task they are: set the source's `task`")


def files_at(path: pathlib.Path, options: Mapping[str, Any]) -> Iterator[tuple[pathlib.Path, str | None]]:
  """Yields the file at `path`, or those of the folder, in order, each with None for its task."""
  del options
  if path.is_dir():
    found = sorted(p for p in path.rglob("*") if p.name.endswith((*SUFFIXES, ".json")))
    if not found:
      raise UserError(f"{path}: no {', '.join((*SUFFIXES, '.json'))} file in this folder")
    yield from ((p, None) for p in found)
  else:
    yield path, None


@dataclasses.dataclass(frozen=True)
class Format:
  """One published format.

  Attributes:
    convert: raw row to trajectory; raises `DropRow`.
    options: names of the options that the config must give.
    files: `(path, options)` to the files to read, each with its task, or None.
    prepare: applied to the rows of a file, where one row cannot be judged without its neighbours.
    technique: how such trajectories were made, for the provenance; None where it is not known.
  """

  convert: Callable[[Mapping[str, Any], Context], Trajectory]
  options: tuple[str, ...] = ()
  files: Callable[[pathlib.Path, Mapping[str, Any]], Iterator[tuple[pathlib.Path, str | None]]] = files_at
  prepare: Callable[[Iterator[Any]], Iterator[Any]] = iter
  technique: str | None = None


def load_rows(path: pathlib.Path) -> Iterator[Any]:
  """Yields the raw rows of a file: JSON lines, parquet, or a `.json` list (or object of rows).

  Raises:
    UserError: no such file, or a file that cannot be read to its end.
  """
  if path.suffix != ".json":
    yield from read_rows(path)
    return
  if not path.is_file():
    raise UserError(f"{path}: no such file")
  rows = parse_json(path.read_bytes(), str(path))
  if isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values()):
    rows = list(rows.values())
  if not isinstance(rows, list):
    raise UserError(f"{path}: holds {type(rows).__name__}, expected a list of rows")
  yield from rows


ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "environment": "tool",
}
_ROLE_KEYS = ("from", "role")
_CONTENT_KEYS = ("value", "content")
_FLAG_KEYS = ("loss", "train", "loss_mask", "trainable", "weight")


def messages_of(row: Mapping[str, Any], *keys: str) -> list[Mapping[str, Any]]:
  """Returns the list of messages that lies under the first of `keys` that the row has."""
  key = next((k for k in keys if k in row), None)
  if key is None:
    raise DropRow(Reason.MALFORMED, f"no field {' or '.join(repr(k) for k in keys)}")
  messages = row[key]
  if not isinstance(messages, Sequence) or isinstance(messages, str):
    raise DropRow(Reason.MALFORMED, f"{key} is {type(messages).__name__}, expected a list")
  if not messages:
    raise DropRow(Reason.NO_TURNS, f"{key} is empty")
  for i, message in enumerate(messages):
    if not isinstance(message, Mapping):
      raise DropRow(Reason.MALFORMED, f"turn {i}: {type(message).__name__}, expected an object")
  return list(messages)


def role_of(message: Mapping[str, Any], i: int) -> str:
  """Returns the name that the message gives its role."""
  name = next((message[k] for k in _ROLE_KEYS if message.get(k) is not None), None)
  if not isinstance(name, str):
    raise DropRow(Reason.MALFORMED, f"turn {i}: no role")
  return name


def schema_role(name: str, i: int) -> str:
  """Returns the schema's role for the name a source gives it."""
  if name not in ROLES:
    raise DropRow(Reason.UNKNOWN_ROLE, f"turn {i}: unknown role {name!r}")
  return ROLES[name]


def text_of(message: Mapping[str, Any], i: int) -> str | None:
  """Returns the text of a message; parts of text are joined as they are; None for none."""
  content = next((message[k] for k in _CONTENT_KEYS if message.get(k) is not None), None)
  if isinstance(content, Sequence) and not isinstance(content, str):
    for part in content:
      if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        raise DropRow(Reason.UNSUPPORTED, f"turn {i}: a part of kind {kind!r}; only text can be imported")
      if loss_flag(part, i) is not None:
        raise DropRow(Reason.BAD_LOSS_FLAG, f"turn {i}: a loss flag on a part; flags are per turn here")
    return "".join(part["text"] for part in content)
  if content is not None and not isinstance(content, str):
    raise DropRow(Reason.MALFORMED, f"turn {i}: content is {type(content).__name__}, expected text")
  return content


def loss_flag(message: Mapping[str, Any], i: int) -> bool | None:
  """Returns the message's own loss flag, or None where it has none. 0 and 1 count as flags."""
  if message.get("train_detail") is not None:
    raise DropRow(Reason.BAD_LOSS_FLAG, f"turn {i}: train_detail; flags are per turn here")
  values = [message[k] for k in _FLAG_KEYS if message.get(k) is not None]
  if any(not isinstance(v, bool | int | float) or v not in (0, 1) for v in values) or len(set(values)) > 1:
    raise DropRow(Reason.BAD_LOSS_FLAG, f"turn {i}: the loss flag is {values}, expected true or false")
  return bool(values[0]) if values else None


def outcome_of(row: Mapping[str, Any], key: str) -> Outcome | None:
  """Returns the outcome by the row's own true or false (or 1 or 0), or None where it says nothing."""
  value = row.get(key)
  if value is None:
    return None
  if not isinstance(value, bool | int | float) or value not in (0, 1):
    raise DropRow(Reason.MALFORMED, f"{key} is {value!r}, expected true or false")
  return Outcome.SOLVED if value else Outcome.FAILED


def make_turn(role: str, content: str | None, train: bool | None, i: int) -> Turn:
  """Returns a turn; raises `DropRow` where it has no text, or is trained and not the agent's."""
  if content is None:
    raise DropRow(Reason.MALFORMED, f"turn {i}: no content")
  if train and role != "assistant":
    raise DropRow(Reason.BAD_LOSS_FLAG, f"turn {i}: loss on a {role} turn")
  return Turn(role, content, train)


def read_turns(messages: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
  """Returns the turns of messages in `{from, value}` or `{role, content}` form, their loss flags honoured."""
  return tuple(make_turn(schema_role(role_of(m, i), i), text_of(m, i), loss_flag(m, i), i)
               for i, m in enumerate(messages))


def message_fields(message: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a message holds beside role, content and loss flag."""
  known = (*_ROLE_KEYS, *_CONTENT_KEYS, *_FLAG_KEYS)
  return {k: v for k, v in message.items() if k not in known and v is not None}


def identity(row: Mapping[str, Any], context: Context, key: str = "id") -> str:
  """Returns the row's id as text, or the context's where the row has none."""
  value = row.get(key)
  if value is None or value == "":
    return context.id
  if isinstance(value, bool) or not isinstance(value, str | int):
    raise DropRow(Reason.MALFORMED, f"{key} is {value!r}, expected text")
  return str(value)


def rest_of(row: Mapping[str, Any], *known: str) -> dict[str, Any]:
  """Returns the fields of a row that are not `known`, as JSON values, for the metadata."""
  rest = {k: v for k, v in row.items() if k not in known and v is not None}
  try:
    return json.loads(json.dumps(rest, allow_nan=False, default=str))  # str: dates and decimals of parquet
  except ValueError:
    raise DropRow(Reason.MALFORMED, "a number that is not finite") from None


_REACT = re.compile(r"(thought|think|action|act|answer):", re.IGNORECASE)
_ACKNOWLEDGEMENT = re.compile(r"\s*(ok|okay|sure|understood|yes|got it)\b[^\n]{0,160}\s*", re.IGNORECASE)


def mask_acknowledgement(trajectory: Trajectory) -> Trajectory:
  """Returns `trajectory` without loss on a first agent turn that only agrees ("OK. I'll follow ...").

  It is one where the agent's first turn is a single short line, begins with OK or the like, holds no
  thought and no action, and is not the last turn.
  """
  turns = list(trajectory.turns)
  first = next((i for i, turn in enumerate(turns) if turn.role == "assistant"), None)
  if first is None or first + 1 == len(turns):
    return trajectory
  text = turns[first].content
  if not _ACKNOWLEDGEMENT.fullmatch(text) or _REACT.search(text):
    return trajectory
  turns[first] = dataclasses.replace(turns[first], train=False)
  return dataclasses.replace(trajectory, turns=tuple(turns))
