"""Rows of published files: JSON lines, JSON lists, CSV. Whatever is wrong with one is said with its place."""

from collections.abc import Iterator, Sequence
import csv
import json
import os
import pathlib
from typing import Any

from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published


def find_all(task: str, patterns: Sequence[str], source: str) -> list[pathlib.Path]:
  """Returns all files of `task`'s folder that are called like one of `patterns`, in order of name.

  Raises:
    UserError: the variable of `published` is not set, or there is none.
  """
  folder = pathlib.Path(os.environ.get(published.VARIABLE, ""), task)
  names = sorted({path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)})
  if published.VARIABLE not in os.environ or not names:
    return [published.find(task, patterns[0], f"{source} (also read: {', '.join(patterns[1:])})"
                           if len(patterns) > 1 else source)]
  return [published.find(task, name.replace("[", "[[]"), source) for name in names]


def read_rows(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields every row of a file with its place: "train.jsonl, line 3", "dev.json, row 0".

  Raises:
    UserError: the file is not of the form that its name says.
  """
  if path.suffix == ".jsonl":
    yield from _json_lines(path)
  elif path.suffix == ".csv":
    with path.open(encoding="utf-8", newline="") as file:
      yield from ((f"{path}, row {number}", row) for number, row in enumerate(csv.DictReader(file)))
  else:
    try:
      loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
      raise UserError(f"{path}: not JSON ({e}); get the file again") from None
    if isinstance(loaded, dict) and isinstance(loaded.get("Data"), list):
      loaded = loaded["Data"]  # TriviaQA's form
    if not isinstance(loaded, list):
      raise UserError(f"{path}: not a list of rows; get the file again")
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(loaded))


def _json_lines(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  with path.open(encoding="utf-8") as lines:
    for number, line in enumerate(lines, start=1):
      if line.strip():
        place = f"{path}, line {number}"
        try:
          row = json.loads(line)
        except ValueError as e:
          raise UserError(f"{place}: not JSON ({e}); get the file again") from None
        yield place, row


def unique(rows: Iterator[tuple[str, str, Any]]) -> list[tuple[str, Any]]:
  """Returns (key, value) of every (place, key, value).

  Raises:
    UserError: two rows have one key.
  """
  seen: dict[str, str] = {}
  kept = []
  for place, key, value in rows:
    if key in seen:
      raise UserError(f"{place}: row {key!r} is also {seen[key]}; keep one of the two files")
    seen[key] = place
    kept.append((key, value))
  return kept
