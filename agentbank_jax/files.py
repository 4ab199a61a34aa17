"""Files, folders and lines that are written whole or not at all, and what is said where they cannot be."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import json
import os
import pathlib
import re
import tempfile
import time
from typing import Any

from agentbank_jax.errors import UserError
from agentbank_jax.paths import AnyPath, as_path, in_bucket, make_folder, remove

_FAILURES = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO))


def write_failure(error: BaseException) -> str | None:
  """Returns why a file could not be written ("No space left on device"), or None for an error of another kind.

  Libraries raise the system's errors as types of their own; the system's text is all that they have in common.
  """
  if re.search(r"\d+ requested and \d+ written", str(error)):  # NumPy's tofile gives no reason
    return os.strerror(errno.ENOSPC)
  return next((reason for reason in _FAILURES if reason in str(error)), None)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary sibling of `path`, renamed to `path` on success and removed on failure.

  Where `path` is in a bucket, a temporary file of this machine, uploaded on success.
  """
  path = as_path(path)
  if in_bucket(path):
    with tempfile.TemporaryDirectory() as folder:
      temporary = pathlib.Path(folder, path.name)
      yield temporary
      path.write_bytes(temporary.read_bytes())
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".partial.{path.name}")  # a fixed name: the next run clears a killed one's
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(target: AnyPath, overwrite: bool = False, *, lead: bool = True,
                 sync: Callable[[str], None] = lambda step: None) -> Iterator[AnyPath]:
  """Yields an empty folder that becomes `target` when the block ends, or vanishes if the block raises.

  Its name is fixed, so that what a killed run left behind is cleared by the next one. In a bucket, where no folder can
  be renamed, it is `target` itself: write last what the folder is opened by, so that a kill leaves nothing that opens.

  Args:
    target: where the folder shall appear.
    overwrite: whether it may replace what is there.
    lead: whether this process makes and renames the folder; one does, where several write into it.
    sync: waits for the other processes; gets the name of the step.

  Raises:
    UserError: `target` is there and `overwrite` is False; or the disk is full, or the like.
  """
  if target.exists() and not overwrite:
    raise UserError(f"{target} is already there; choose another target or set overwrite")
  partial, old = (target.with_name(f".{target.name}.{kind}") for kind in ("partial", "old"))
  if in_bucket(target):
    partial = target
  sync("every process has looked for the target")
  if lead:
    remove(partial)
    make_folder(partial)
  sync("the folder is there")
  try:
    yield partial
    sync("every process has written")
    if lead and partial != target:
      remove(old)
      if target.exists():
        target.rename(old)
      partial.rename(target)
      remove(old)
    sync("the target is there")
  except BaseException as e:
    if lead:
      remove(partial)
    if reason := write_failure(e):
      raise UserError(f"{target} was not written: {reason}; make room, or choose another place") from e
    raise


class LineFile:
  """A file that is appended to line by line; a line that does not fit on the disk leaves nothing of itself.

  What was appended survives the process; `sync` makes it survive the machine.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file = path.open("ab", buffering=0)

  def append(self, line: str) -> None:
    """Raises UserError where the line cannot be written."""
    end, rest = self._file.tell(), memoryview(line.encode() + b"\n")
    try:
      while rest:
        rest = rest[self._file.write(rest):]
    except OSError as e:
      self._file.truncate(end)
      raise UserError(f"{self._path}: {e.strerror}; what was written before is kept") from e

  def sync(self) -> None:
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()


class BucketLineFile:
  """The same in a bucket, where nothing can be appended to: the whole is written anew, at `sync` and at `close`.

  Between them a line does so that comes `_SECONDS` after the last time: a kill takes no older ones with it.
  """

  _SECONDS = 30.0

  def __init__(self, path: AnyPath):
    self._path = path
    self._content = path.read_bytes() if path.exists() else b""
    self._written = time.monotonic()

  def append(self, line: str) -> None:
    self._content += line.encode() + b"\n"
    if time.monotonic() - self._written > self._SECONDS:
      self.sync()

  def sync(self) -> None:
    self._path.write_bytes(self._content)
    self._written = time.monotonic()

  def close(self) -> None:
    self.sync()


def line_file(path: AnyPath) -> LineFile | BucketLineFile:
  """Opens a file for appending lines, wherever it is."""
  return BucketLineFile(path) if in_bucket(path) else LineFile(path)


def read_lines(path: AnyPath, what: str, *keys: str) -> list[dict[str, Any]]:
  """Returns the JSON objects of a `LineFile`, none where there is no file; without a last line that a kill has torn.

  Args:
    what: the lines are, for the message: "metrics".
    keys: that each line must have.

  Raises:
    UserError: a line of another kind.
  """
  lines = path.read_text().splitlines() if path.exists() else []
  found = []
  for number, line in enumerate(lines, 1):
    try:
      value = json.loads(line)
    except ValueError:
      if number == len(lines):
        break
      value = None
    if not (isinstance(value, dict) and value.keys() >= set(keys)):
      raise UserError(f"{path} line {number} is not a {what} line; move the file away")
    found.append(value)
  return found
