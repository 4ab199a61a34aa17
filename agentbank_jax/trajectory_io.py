"""Trajectories on disk: `.jsonl`, `.jsonl.gz` and `.parquet`, read row by row, written whole or not at all.

A `.jsonl` line is `Trajectory.to_json()`. A `.parquet` file has AgentBank's own columns, `id` and
`conversations` (a list of `{from, value}`), and ours beside them: `task`, `train` (one flag a turn),
`reward`, `outcome`, and `provenance` and `metadata` as JSON text. So `datasets.load_dataset("parquet",
data_files=...)` opens what we write. What AgentBank published names no task: `agentbank import` gives it one.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import gzip
import json
import os
import pathlib
from typing import Any
import zlib

from agentbank_jax.errors import UserError
from agentbank_jax.files import atomic_path
from agentbank_jax.paths import local_path
from agentbank_jax.trajectory import Trajectory, TrajectoryError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")

FROM_OF_ROLE = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}
ROLE_OF_FROM = {v: k for k, v in FROM_OF_ROLE.items()}

_BATCH = 256  # rows of a parquet file in memory at a time
_OUR_COLUMNS = ("id", "conversations", "task", "train", "reward", "outcome", "provenance", "metadata")


def read_trajectories(path: str | os.PathLike) -> Iterator[Trajectory]:
  """Yields the trajectories of a `.jsonl`, `.jsonl.gz` or `.parquet` file, in order.

  Memory does not grow with the text (only with the ids).

  Raises:
    UserError: no such file, a truncated or corrupt one, a row that is not a trajectory, a repeated
      id. The message names the file, the row (counted from 1), its id and the turn.
  """
  path = local_path(path)
  seen: set[str] = set()
  for number, row in enumerate(read_rows(path), start=1):
    try:
      if _kind(path) == ".parquet":
        row = _from_parquet(row)
      trajectory = Trajectory.from_json(row)
      _check_unicode(trajectory)
      if trajectory.id in seen:
        raise TrajectoryError("this id was used by an earlier row; ids must be unique")
    except TrajectoryError as e:
      raise UserError(f"{path} {row_name(number, row)}: {e}") from None
    seen.add(trajectory.id)
    yield trajectory


def write_trajectories(path: str | os.PathLike, rows: Iterable[Trajectory]) -> int:
  """Writes all `rows` and returns their number. The file appears when it is complete, or not at all.

  Raises:
    UserError: an unknown suffix, a repeated id, or a row that the format cannot hold.
  """
  path = pathlib.Path(path)
  write = _write_parquet if _kind(path) == ".parquet" else _write_jsonl
  with atomic_path(path) as temporary:
    return write(temporary, _checked(path, rows))


def read_rows(path: pathlib.Path) -> Iterator[Any]:
  """Yields the raw rows of a `.jsonl`, `.jsonl.gz` or `.parquet` file; blank lines are not rows.

  Raises:
    UserError: as `read_trajectories`.
  """
  if not path.is_file():
    raise UserError(f"{path}: no such file")
  yield from _read_parquet(path) if _kind(path) == ".parquet" else _read_jsonl(path)


def to_row(trajectory: Trajectory) -> dict[str, Any]:
  """Returns `trajectory.to_json()`, checked: UTF-8 text and finite JSON values throughout.

  Raises:
    TrajectoryError: it cannot be written; the message names the turn or field.
  """
  _check_unicode(trajectory)
  row = trajectory.to_json()
  for field, value in row.items():
    if field != "turns":
      try:
        _dump(value).encode()
      except (TypeError, ValueError, RecursionError) as e:
        raise TrajectoryError(f"{field}: {e}") from None
  return row


def row_name(number: int, row: Any) -> str:
  """Returns how messages call a row: "row 17 (id 'a3')"."""
  identity = row.get("id") if isinstance(row, Mapping) else None
  return f"row {number}" + ("" if identity is None else f" (id {identity!r})")


def parse_json(text: str | bytes, where: str) -> Any:
  """Returns the value of JSON text. Raises UserError, beginning with `where`."""
  try:
    return json.loads(text.decode() if isinstance(text, bytes) else text)
  except UnicodeDecodeError as e:
    raise UserError(f"{where}: not UTF-8 text ({e.reason} at byte {e.start})") from None
  except json.JSONDecodeError as e:
    raise UserError(f"{where}: not JSON ({e.msg} at character {e.pos}); is the file cut short?") from None
  except (RecursionError, ValueError) as e:  # nested too deeply; a number of thousands of digits
    raise UserError(f"{where}: not JSON we can read ({e})") from None


def _kind(path: pathlib.Path) -> str:
  for suffix in SUFFIXES:
    if path.name.endswith(suffix):
      return suffix
  raise UserError(f"{path}: unknown kind of file; its name must end in {', '.join(SUFFIXES)}")


def _check_unicode(trajectory: Trajectory) -> None:
  """JSON can hold half of a surrogate pair; UTF-8 files and tokenizers cannot."""
  texts = {"id": trajectory.id} | {f"turn {i}": turn.content for i, turn in enumerate(trajectory.turns)}
  for name, text in texts.items():
    try:
      text.encode()
    except UnicodeEncodeError as e:
      raise TrajectoryError(f"{name}: character {e.start} is half of a surrogate pair, not text") from None


def _checked(path: pathlib.Path, rows: Iterable[Trajectory]) -> Iterator[dict[str, Any]]:
  seen: set[str] = set()
  for number, trajectory in enumerate(rows, start=1):
    try:
      row = to_row(trajectory)
      if trajectory.id in seen:
        raise TrajectoryError("this id was used by an earlier row; ids must be unique")
    except TrajectoryError as e:
      raise UserError(f"{path} row {number} (id {trajectory.id!r}) cannot be written: {e}") from None
    seen.add(trajectory.id)
    yield row


def _dump(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _read_jsonl(path: pathlib.Path) -> Iterator[Any]:
  number = 0
  try:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
      for number, line in enumerate(file, start=1):
        if line.strip():
          yield parse_json(line, f"{path} row {number}")
  except (EOFError, gzip.BadGzipFile, zlib.error) as e:
    raise UserError(f"{path}: not a whole gzip file, it breaks after row {number} ({e})") from None


def _write_jsonl(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> int:
  count = 0
  # mtime=0 and no name: the same rows give the same bytes.
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(open(path, "wb"))
    if path.suffix == ".gz":
      file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
    for row in rows:
      file.write(_dump(row).encode() + b"\n")
      count += 1
  return count


def _read_parquet(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  import pyarrow as pa
  import pyarrow.parquet as pq
  try:
    with pq.ParquetFile(path) as file:
      for batch in file.iter_batches(batch_size=_BATCH):
        yield from batch.to_pylist()
  except (pa.ArrowException, OSError) as e:
    raise UserError(f"{path}: not a whole parquet file ({str(e).splitlines()[0]}); fetch it again") from None


def _from_parquet(row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `Trajectory.to_json`'s form of a parquet row; columns that are not ours go to the metadata."""
  for column in ("id", "conversations", "task"):
    if column not in row:
      raise TrajectoryError(f"no column {column!r} (there are: {', '.join(row)}); "
                            "files in a published form are read by `agentbank import`")
  if not isinstance(row["conversations"], list):
    raise TrajectoryError(f"conversations is {type(row['conversations']).__name__}, expected a list")
  flags = row.get("train")
  flags = [None] * len(row["conversations"]) if flags is None else flags
  if not isinstance(flags, list):
    raise TrajectoryError(f"train is {type(flags).__name__}, expected a list")
  if len(flags) != len(row["conversations"]):
    raise TrajectoryError(f"train has {len(flags)} flags for {len(row['conversations'])} turns")
  turns = []
  for i, (message, flag) in enumerate(zip(row["conversations"], flags, strict=True)):
    if not isinstance(message, Mapping) or set(message) != {"from", "value"}:
      raise TrajectoryError(f"turn {i}: expected the fields 'from' and 'value'")
    if message["from"] not in ROLE_OF_FROM:
      raise TrajectoryError(f"turn {i}: unknown role {message['from']!r} (known: {', '.join(ROLE_OF_FROM)})")
    turns.append({"role": ROLE_OF_FROM[message["from"]], "content": message["value"], "train": flag})
  extra = {k: v for k, v in row.items() if k not in _OUR_COLUMNS and v is not None}
  return {"id": row["id"], "task": row["task"], "turns": turns, "reward": row.get("reward"),
          "outcome": row.get("outcome"), "provenance": _json_column(row, "provenance"),
          "metadata": extra | _json_column(row, "metadata")}


def _json_column(row: Mapping[str, Any], column: str) -> dict[str, Any]:
  try:
    value = json.loads(row.get(column) or "{}")
  except (TypeError, ValueError):
    value = None
  if not isinstance(value, dict):
    raise TrajectoryError(f"column {column!r} is not the text of a JSON object")
  return value


def _write_parquet(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> int:
  import pyarrow as pa
  import pyarrow.parquet as pq
  message = pa.struct([("from", pa.string()), ("value", pa.string())])
  schema = pa.schema([
      ("id", pa.string()), ("conversations", pa.list_(message)), ("task", pa.string()),
      ("train", pa.list_(pa.bool_())), ("reward", pa.float64()), ("outcome", pa.string()),
      ("provenance", pa.string()), ("metadata", pa.string())])
  count = 0
  with pq.ParquetWriter(path, schema) as writer:
    batch: list[dict[str, Any]] = []
    for row in rows:
      batch.append(_to_parquet(row))
      if len(batch) == _BATCH:
        writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
        count, batch = count + len(batch), []
    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
  return count + len(batch)


def _to_parquet(row: Mapping[str, Any]) -> dict[str, Any]:
  return {
      "id": row["id"],
      "conversations": [{"from": FROM_OF_ROLE[t["role"]], "value": t["content"]} for t in row["turns"]],
      "task": row["task"],
      "train": [t["train"] for t in row["turns"]],
      "reward": row.get("reward"),
      "outcome": row.get("outcome"),
      "provenance": _dump(row["provenance"]) if "provenance" in row else None,
      "metadata": _dump(row["metadata"]) if "metadata" in row else None,
  }
