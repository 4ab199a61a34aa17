"""Where published data is: in the folder that AGENTBANK_DATA names, one folder a task."""

import os
import pathlib

from agentbank_jax.errors import UserError

VARIABLE = "AGENTBANK_DATA"


def find_all(task: str, pattern: str) -> list[pathlib.Path]:
  """Returns the files and folders `pattern` of `task`'s folder, which may be none, by name."""
  return sorted(pathlib.Path(os.environ[VARIABLE], task).glob(pattern)) if VARIABLE in os.environ else []


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
  return found[0]
