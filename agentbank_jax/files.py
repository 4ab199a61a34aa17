"""Folders that appear whole or not at all."""

from collections.abc import Callable, Iterator
import contextlib
import pathlib
import shutil

from agentbank_jax.errors import UserError


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
    UserError: `target` is there and `overwrite` is False.
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
  finally:
    if lead:
      _remove(partial)


def _remove(path: pathlib.Path):
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
