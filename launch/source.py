"""The code that a run gets: what is committed, so that a revision says what ran."""

import pathlib

from agentbank_jax.errors import UserError
from launch.shell import Shell


def archive(source: str, target: pathlib.Path, shell: Shell) -> str:
  """Packs the committed state of the checkout `source` into `target`, a .tar.gz. Returns its revision.

  Raises:
    UserError: no checkout, or one with changes that are not committed.
  """
  git = ["git", "-C", source]
  changed = shell.run([*git, "status", "--porcelain", "--untracked-files=no"], "nothing may be uncommitted").out
  if changed.strip():
    raise UserError(f"{source} has {len(changed.splitlines())} files with uncommitted changes, which the machines "
                    "would not get: commit them first")
  revision = shell.run([*git, "rev-parse", "HEAD"], "the revision that goes").out.strip()
  shell.folder(target.parent)
  shell.run([*git, "archive", "--format=tar.gz", f"--output={target.absolute()}", "HEAD"], "pack it")
  return revision or "HEAD"
