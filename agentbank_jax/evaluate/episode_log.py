"""The episode log: what was played is never played again.

One `.jsonl` file, one episode per line, each a `Trajectory` as every other file of trajectories has
them: `trajectory_io.read_trajectories` reads a log, and it can be filtered, packed and trained on as it
is. The id of an episode says which it is (`rollout.episode_id`: task, instance, seed and model). Beside
the log, `X.fingerprint.json` says what its episodes were played with; episodes of two fingerprints
never share a file.
"""

from collections.abc import Collection, Mapping, Sequence
import hashlib
import json
import os
import pathlib
import platform
import time
from typing import Any, Self

from absl import logging

from agentbank_jax import __version__
from agentbank_jax.envs.base import Instance
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate.rollout import prompt_hash
from agentbank_jax.files import LineFile, atomic_path
from agentbank_jax.tasks import requirements
from agentbank_jax.tasks.task import Task
from agentbank_jax.trajectory import Trajectory
from agentbank_jax.trajectory_io import read_trajectories, write_trajectories

_SYNC_SECONDS = 1.0  # a process that dies loses no line; a machine that dies loses those of one second
_PACKAGES = ("jax", "flax", "numpy", "tokenizers")


def fingerprint(task: Task, instances: Sequence[Instance], files: Mapping[str, Any] | None = None,
                **settings: Any) -> dict[str, Any]:
  """Returns what a score of `task` depends on, apart from model and seed, as JSON values.

  Args:
    task: its name, prompt, `max_steps` and the versions of its packages and programs enter.
    instances: ids, splits and data enter, as a hash; their order does not.
    files: the published files they were made of, as `published.describe` has them.
    **settings: JSON values under their own names, such as the sampling settings.
  """
  rows = sorted(json.dumps([i.id, i.split, dict(i.data)], sort_keys=True) for i in instances)
  versions = {"agentbank-jax": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
  versions |= {name: requirements.package_version(name) for name in _PACKAGES} | requirements.versions(task)
  return {
      "task": task.name,
      "split": ",".join(sorted({i.split for i in instances})),
      "instances": len(instances),
      "instances_hash": hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16],
      "files": dict(files or {}),
      "prompt_hash": prompt_hash(task),
      "max_steps": task.max_steps,
      **settings,
      "versions": versions,
  }


def fingerprint_path(log: pathlib.Path) -> pathlib.Path:
  """Returns where the fingerprint of `log` is kept."""
  return log.with_suffix(".fingerprint.json")


def read_fingerprint(log: pathlib.Path) -> dict[str, Any]:
  """Returns the fingerprint of `log`. Raises UserError where it is missing or no JSON."""
  path = fingerprint_path(log)
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f"{path} is missing, so nothing says what {log} was played with; "
                    "restore it, or move the log away") from None
  except ValueError as e:
    raise UserError(f"{path} is not JSON ({e}); restore it, or move it and the log away") from None


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
  """Returns the first field in which two fingerprints differ, with both values, or ""."""
  for name in [*ours, *(k for k in theirs if k not in ours)]:
    a, b = ours.get(name), theirs.get(name)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
      if inner := difference(a, b):
        return f"{name}.{inner}"
    elif a != b:
      return f"{name} is {json.dumps(a)} here and {json.dumps(b)} there"
  return ""


class EpisodeLog:
  """A log that is open for appending; use it in a `with` statement.

  Attributes:
    episodes: what the log holds, by id.
  """

  def __init__(self, path: pathlib.Path, fingerprint: Mapping[str, Any]):
    """Opens or creates the log at `path`. A line that a killed run left torn is cut off, with a warning.

    Raises:
      UserError: the log was played with something else (the message names the first field that
        differs), or a line of it is no trajectory.
    """
    fingerprint = json.loads(json.dumps(fingerprint))  # tuples become lists, as in the file
    if _cut_torn_line(path):
      if differs := difference(fingerprint, read_fingerprint(path)):
        raise UserError(f"{path} was played with other settings: {differs}; "
                        "choose another --workdir, or go back to those settings")
    else:
      with atomic_path(fingerprint_path(path)) as temporary:
        temporary.write_text(json.dumps(fingerprint, indent=2) + "\n")
      path.touch()
    self.episodes: dict[str, Trajectory] = {e.id: e for e in read_trajectories(path)}
    self._path = path
    self._open()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused) -> None:
    self._sync()
    self._file.close()

  def append(self, episode: Trajectory) -> None:
    """Writes one line; it survives the process from here on, and the machine within a second.

    Raises:
      UserError: the disk is full, or the like.
    """
    if episode.id in self.episodes:
      raise ValueError(f"{self._path} holds {episode.id!r} already")
    self._file.append(json.dumps(episode.to_json(), ensure_ascii=False, allow_nan=False))
    self.episodes[episode.id] = episode
    if time.monotonic() - self._synced > _SYNC_SECONDS:
      self._sync()

  def forget(self, ids: Collection[str]) -> None:
    """Takes episodes out, so that they can be played again; the file is replaced as a whole."""
    for id_ in ids:
      del self.episodes[id_]
    self._file.close()
    write_trajectories(self._path, self.episodes.values())
    self._open()

  def _open(self) -> None:
    self._file = LineFile(self._path)
    self._synced = time.monotonic()

  def _sync(self) -> None:
    self._file.sync()
    self._synced = time.monotonic()


def _cut_torn_line(path: pathlib.Path) -> int:
  """Cuts off what follows the last newline, if anything does, and returns the size of the file."""
  if not path.exists():
    return 0
  data = path.read_bytes()
  whole = data.rfind(b"\n") + 1
  if whole < len(data):
    logging.warning("%s: the last line is torn (%d bytes); it is cut off and its episode played again", path,
                    len(data) - whole)
    os.truncate(path, whole)
  return whole
