"""Where tasks and environments keep what they have computed or unpacked, and can make again."""

import functools
import hashlib
import os
import pathlib
import time

VARIABLE = "AGENTBANK_CACHE"
_LARGE = 64 << 20  # bytes


def folder(name: str) -> pathlib.Path:
  """Returns the folder `name` of the cache, made where it is not there.

  It is in the folder that AGENTBANK_CACHE names; else in `agentbank` of the user's cache (XDG_CACHE_HOME,
  `~/.cache`). It can be deleted whenever no run is under way.
  """
  base = os.environ.get(VARIABLE) or pathlib.Path(
      os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "agentbank")
  path = pathlib.Path(base, name)
  path.mkdir(parents=True, exist_ok=True)
  return path


def file_checksum(path: pathlib.Path) -> str:
  """Returns the sha256 of a file.

  One that has its time and size of before is not read again: by this process, and where it is large by no other.
  """
  stat = path.stat()
  return _checksum(path.resolve(), stat.st_mtime_ns, stat.st_size)


@functools.cache
def _checksum(path: pathlib.Path, mtime_ns: int, size: int) -> str:
  if size < _LARGE:
    return _read(path)
  state = hashlib.sha256(f"{path} {mtime_ns} {size}".encode(errors="surrogateescape")).hexdigest()
  note = folder("checksums") / state
  try:
    return note.read_text()
  except FileNotFoundError:
    partial = note.with_name(f".{state}.{os.getpid()}.{time.monotonic_ns()}")
    partial.write_text(_read(path))
    return partial.replace(note).read_text()


def _read(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
