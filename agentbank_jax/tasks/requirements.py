"""Whether what a task's environment needs is installed, its packages and programs, and in which versions."""

import contextlib
import functools
import importlib.metadata
import pathlib
import shutil
import subprocess

from agentbank_jax.envs import sandbox_view
from agentbank_jax.errors import UserError
from agentbank_jax.tasks.task import Task

# What every task with a sandbox (`envs/sandbox.py`) needs.
SANDBOX_PACKAGES = ("pyseccomp",)
SANDBOX_PROGRAMS = {"bwrap": "apt-get install bubblewrap"}
_ABSENT = "absent"
_SECONDS = 30  # for a program to say its version


def missing(task: Task) -> list[str]:
  """Returns what is not installed, each with how to get it. Nothing is run."""
  lines = []
  if packages := [name for name in task.packages if package_version(name) == _ABSENT]:
    lines.append(f"needs {', '.join(packages)}: pip install 'agentbank-jax[envs]'")
  lines += [f"needs {_name(names)}: {how}" for names, how in task.programs.items() if not _find(names)]
  return lines


def check(task: Task) -> None:
  """Raises UserError where something is not installed."""
  if lines := missing(task):
    raise UserError(f"{task.name}: {'; '.join(lines)}")


def versions(task: Task) -> dict[str, str]:
  """Returns the versions of a task's packages and programs, by name."""
  found = {name: package_version(name) for name in task.packages}
  for names in task.programs:
    path = _find(names)
    found[_name(names)] = _version_at(path) if path else _ABSENT
  if SANDBOX_PROGRAMS.keys() & task.programs.keys():
    with contextlib.suppress(UserError):  # there is none
      found["python in the sandbox"] = _version_at(sandbox_view.python()[0])
  return found


def package_version(distribution: str) -> str:
  """Returns the version of an installed distribution, or "absent"."""
  try:
    return importlib.metadata.version(distribution)
  except importlib.metadata.PackageNotFoundError:
    return _ABSENT


def _name(names: str) -> str:
  return pathlib.PurePath(names.split("|")[0]).name


def _find(names: str) -> str | None:
  return next((path for name in names.split("|") if (path := shutil.which(name))), None)


def _version_at(path: str) -> str:
  return _program_version(path, pathlib.Path(path).stat().st_mtime_ns)


@functools.cache
def _program_version(path: str, mtime_ns: int) -> str:
  """Returns the first line that a program says of its version; "unknown" of those that do not say."""
  del mtime_ns  # it tells one state of the file from another
  try:
    done = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", timeout=_SECONDS)
  except (OSError, subprocess.TimeoutExpired):
    return "unknown"
  said = (done.stdout.strip() or done.stderr.strip()) if done.returncode == 0 else ""
  return said.partition("\n")[0].strip() or "unknown"
