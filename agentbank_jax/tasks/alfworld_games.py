"""ALFWorld's games: where they are, which ones a split has, and the walkthrough that each brings."""

from collections.abc import Mapping
import json
import os
import pathlib
import tarfile
import tempfile
from typing import Any

from absl import logging

from agentbank_jax import cache
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published

FOLDER = "json_2.1.1"
_ARCHIVE = "*.tar.xz"
SOURCE = ("alfworld-download (alfworld 0.4, MIT): its folder json_2.1.1 with train, valid_seen and valid_unseen, or "
          "one .tar.xz of it")


def folder() -> pathlib.Path:
  """Returns the folder with "train", "valid_seen" and "valid_unseen".

  An archive is unpacked once, into the cache (`cache.py`); the name of the copy has the archive's checksum.

  Raises:
    UserError: there is neither folder nor archive, or the archive holds no games.
  """
  archive = published.find_first("alfworld", (FOLDER, _ARCHIVE), SOURCE)
  if archive.is_dir():
    return archive
  unpacked = cache.folder("alfworld") / published.checksum(archive)[:16]
  if not unpacked.is_dir():
    with tempfile.TemporaryDirectory(dir=unpacked.parent) as temporary:
      try:
        with tarfile.open(archive) as tar:
          tar.extractall(temporary, filter="data")
      except (tarfile.TarError, OSError, EOFError) as e:
        raise UserError(f"alfworld: {archive} cannot be unpacked into {unpacked.parent}: {e}") from None
      if not (pathlib.Path(temporary) / FOLDER).is_dir():
        raise UserError(f"alfworld: {archive} has no {FOLDER}; get it from {SOURCE}")
      try:
        os.rename(temporary, unpacked)
      except OSError:  # another process was faster
        if not unpacked.is_dir():
          raise
      else:
        os.mkdir(temporary)  # for the block to clear up
  return unpacked / FOLDER


def rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  """Returns the playable games of a split, by name: (game, `Instance.data`).

  Test games are those in rooms that training does not have (valid_unseen, 134), as the literature reports them.
  Where they are not to be had, the games in known rooms (valid_seen) stand in: a warning says so, and so does the
  id of every instance.
  """
  games = folder()
  name = split
  if split == "test":
    name = "valid_unseen"
    if not (games / name).is_dir():
      name = "valid_seen"
      logging.warning("alfworld: no valid_unseen in %s: the test games are valid_seen's, in rooms that training has "
                      "too", games)
  if not (games / name).is_dir():
    raise UserError(f"alfworld: no {name} in {games}; get it from {SOURCE}")
  found = []
  for path in sorted((games / name).glob("*/*/game.tw-pddl")):
    if "movable" in path.parts[-3] or "Sliced" in path.parts[-3]:  # the engine does not support them
      continue
    if _is_solvable(path):
      found.append((f"{name}-{path.parts[-3]}-{path.parts[-2]}",
                    {"game": path.parent.relative_to(games).as_posix(), "type": path.parts[-3].partition("-")[0]}))
  return found


def walkthrough(game: str) -> list[str]:
  """Returns the commands that win a game."""
  return _read(folder() / game / "game.tw-pddl")["walkthrough"]


def _is_solvable(path: pathlib.Path) -> bool:
  return bool(_read(path).get("solvable"))


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text())
  except ValueError as e:
    raise UserError(f"{path}: not a game of ALFWorld ({e}); get it again") from None
