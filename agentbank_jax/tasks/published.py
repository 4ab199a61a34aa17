"""Where published data is: in the folder that AGENTBANK_DATA names, one folder a task. And which files those are.

What an instance is made of is what `find` returned while it was made: `files_used` notes that, and the
fingerprint of a score has the checksums. What an environment reads on its own, `Task.instances` finds too.
"""

from collections.abc import Iterator, Sequence
import contextlib
import contextvars
import hashlib
import os
import pathlib
from typing import Any

from absl import logging

from agentbank_jax import cache
from agentbank_jax.errors import UserError
from agentbank_jax.tasks.task import Task

VARIABLE = "AGENTBANK_DATA"

_used: contextvars.ContextVar[set[pathlib.Path] | None] = contextvars.ContextVar("files_used", default=None)
_warned: set[str] = set()  # checksums of files that a warning was given for


def find_all(task: str, pattern: str) -> list[pathlib.Path]:
  """Returns the files and folders `pattern` of `task`'s folder, which may be none, by name."""
  found = sorted(pathlib.Path(os.environ[VARIABLE], task).glob(pattern)) if VARIABLE in os.environ else []
  if (used := _used.get()) is not None:
    used.update(found)
  return found


def find(task: str, pattern: str, source: str) -> pathlib.Path:
  """Returns the one file or folder `pattern` of `task`'s folder.

  Args:
    task: name of the task, and of its folder.
    pattern: name, with the wildcards of `pathlib.Path.glob`.
    source: where people get it, for the message.

  Raises:
    UserError: the variable is not set, or there is not exactly one.
  """
  if VARIABLE not in os.environ:
    raise UserError(f"{task}: set {VARIABLE} to a folder with {task}/{pattern}, from {source}")
  folder = pathlib.Path(os.environ[VARIABLE], task)
  found = sorted(folder.glob(pattern))
  if not found:
    raise UserError(f"{task}: no {folder / pattern}; get it from {source}")
  if len(found) > 1:
    names = ", ".join(path.name for path in found)
    raise UserError(f"{task}: {folder / pattern} is ambiguous: {names}; keep one")
  if (used := _used.get()) is not None:
    used.add(found[0])
  return found[0]


def find_first(task: str, patterns: Sequence[str], source: str) -> pathlib.Path:
  """Returns what `find` does for the first of `patterns` that something is called like, else for the first."""
  folder = pathlib.Path(os.environ.get(VARIABLE, os.devnull), task)
  there = [pattern for pattern in patterns if any(folder.glob(pattern))]
  return find(task, (there or patterns)[0], source)


@contextlib.contextmanager
def files_used() -> Iterator[set[pathlib.Path]]:
  """Yields the set of what `find` returns within the block, in this thread."""
  used: set[pathlib.Path] = set()
  token = _used.set(used)
  try:
    yield used
  finally:
    _used.reset(token)


def checksum(path: pathlib.Path) -> str:
  """Returns the sha256 of a file; of a folder, that of the lines `sha256sum` prints for its files, in order of name."""
  if not path.is_dir():
    return cache.file_checksum(path)
  lines = [f"{checksum(file)}  {file.relative_to(path).as_posix()}\n"
           for file in sorted(path.rglob("*")) if file.is_file()]
  return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe(task: Task, files: set[pathlib.Path]) -> dict[str, dict[str, Any]]:
  """Returns, by name in the folder of all data, each file's `sha256` and what it is `known_as`; None where it is not.

  A file that `Task.source` does not know is warned of, once.
  """
  described = {}
  for path in sorted(files):
    name = path.relative_to(os.environ[VARIABLE]).as_posix()
    sha256 = checksum(path)
    known_as = task.source.checksums.get(sha256)
    described[name] = {"sha256": sha256, "known_as": known_as}
    if known_as is None and sha256 not in _warned:
      _warned.add(sha256)
      logging.warning("%s: %s is none of the published files that this task knows (sha256 %s): its scores are of "
                      "these rows, and not of the benchmark unless you know better", task.name, path, sha256)
  return described
