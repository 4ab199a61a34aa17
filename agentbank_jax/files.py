"""Folders and lines that are written whole or not at all, and what is said where they cannot be."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import os
import pathlib
import re
import shutil

from agentbank_jax.errors import UserError

_FAILURES = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO))


def write_failure(error: BaseException) -> str | None:
  """Returns why a file could not be written ("No space left on device"), or None for an error of another kind.

  Libraries raise the system's errors as types of their own; the system's text is all that they have in common.
  """
  if re.search(r"\d+ requested and \d+ written", str(error)):  # NumPy's tofile gives no reason
    return os.strerror(errno.ENOSPC)
  return next((reason for reason in _FAILURES if reason in str(error)), None)


@contextlib.contextmanager
def whole_folder(target: pathlib.Path, overwrite: bool = False, *, lead: bool = True,
                 sync: Callable[[str], None] = lambda step: None) -> Iterator[pathlib.Path]:
  """Yields an empty folder that becomes `target` when the block ends, or vanishes if the block raises.

  Its name is fixed, so that what a killed run left behind is cleared by the next one.

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
  sync("every process has looked for the target")
  if lead:
    _remove(partial)
    partial.mkdir(parents=True)
  sync("the folder is there")
  try:
    yield partial
    sync("every process has written")
    if lead:
      _remove(old)
      if target.exists():
        target.rename(old)
      partial.rename(target)
      _remove(old)
    sync("the target is there")
  except Exception as e:
    if reason := write_failure(e):
      raise UserError(f"{target} was not written: {reason}; make room, or choose another place") from e
    raise
  finally:
    if lead:
      _remove(partial)


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


def _remove(path: pathlib.Path):
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
