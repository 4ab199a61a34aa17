"""Where tasks and environments keep what they have computed or unpacked, and can make again."""

import os
import pathlib

VARIABLE = "AGENTBANK_CACHE"


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
