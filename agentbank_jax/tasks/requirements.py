"""Whether what a task's environment needs is installed: its packages and programs, looked for and not run."""

import importlib.metadata
import shutil

from agentbank_jax.errors import UserError
from agentbank_jax.tasks.task import Task


def missing(task: Task) -> list[str]:
  """Returns what is not installed, each with how to get it."""
  lines = []
  if packages := [name for name in task.packages if not _is_installed(name)]:
    lines.append(f"needs {', '.join(packages)}: pip install 'agentbank-jax[envs]'")
  lines += [f"needs {program}: {how}" for program, how in task.programs.items() if not shutil.which(program)]
  return lines


def check(task: Task) -> None:
  """Raises UserError where something is not installed."""
  if lines := missing(task):
    raise UserError(f"{task.name}: {'; '.join(lines)}")


def _is_installed(distribution: str) -> bool:
  try:
    importlib.metadata.version(distribution)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True
