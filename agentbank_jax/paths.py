"""Where a path leads: to this machine's disk, or into a bucket (gs://BUCKET/...).

Both kinds are used alike, by pathlib's methods: a bucket's are those of `etils.epath`, over gcsfs. The arrays of Orbax
and the records of ArrayRecord go to and from buckets by their own libraries. A bucket has objects and no folders: an
object appears whole or not at all, none can be appended to, and no folder can be renamed at once.
"""

from collections.abc import Iterator
import contextlib
import importlib.util
import os
import pathlib
import re
import tempfile
from typing import TypeAlias

from etils import epath

from agentbank_jax.errors import UserError

AnyPath: TypeAlias = pathlib.Path | epath.Path

_SCHEME = "gs://"


def as_path(path: str | os.PathLike) -> AnyPath:
  """Returns a path of this machine as pathlib's, one into a bucket as epath's; looks at neither.

  Raises:
    UserError: another kind of URL, no bucket's name, or gcsfs is not installed.
  """
  text = os.fspath(path)
  if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:/", text):
    return pathlib.Path(text)
  if not re.match(r"gs://[^/]", text):
    raise UserError(f"{text}: expected a path of this machine, or gs://BUCKET/...")
  if not (importlib.util.find_spec("gcsfs") and importlib.util.find_spec("google.cloud.storage")):
    raise UserError(f"{text}: buckets need gcsfs and google-cloud-storage: pip install 'agentbank-jax[gcs]'")
  import fsspec
  # gcsfs remembers listings for good; here other processes, and other libraries of this one, write too.
  fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
  return epath.Path(text)


def in_bucket(path: str | os.PathLike) -> bool:
  """Whether a path leads into a bucket."""
  return os.fspath(path).startswith(_SCHEME)


def local_path(path: str | os.PathLike) -> pathlib.Path:
  """Returns a path of this machine, for what reads local files alone; does not look at it.

  Raises:
    UserError: a bucket's path, or another URL.
  """
  if in_bucket(path):
    raise UserError(f"{os.fspath(path)}: this is read from local files alone; copy it to this machine first: gcloud "
                    f"storage cp -r {os.fspath(path)} .")
  return as_path(path)


def absolute(path: AnyPath) -> AnyPath:
  """Returns the same place as a path that does not depend on the current folder. (epath's own takes a bucket's for a
  local one.)"""
  return path if in_bucket(path) else path.absolute()


def make_folder(path: AnyPath) -> None:
  """Makes a folder where there is none, and those above it. In a bucket there is nothing to make.

  Raises:
    UserError: no such bucket, or one that cannot be reached. (Nothing here ever makes a bucket.)
  """
  if not in_bucket(path):
    path.mkdir(parents=True, exist_ok=True)
    return
  bucket = epath.Path(_SCHEME + os.fspath(path).removeprefix(_SCHEME).partition("/")[0])
  try:
    found, why = bucket.exists(), "there is none of that name"
  except Exception as e:  # gcsfs, aiohttp and google.auth raise kinds of their own
    found, why = False, " ".join(str(e).split()) or type(e).__name__
  if not found:
    raise UserError(f"{path}: the bucket cannot be used ({why}): see `gcloud storage ls {bucket}` and `gcloud auth "
                    "application-default login`")


def remove(path: AnyPath) -> None:
  """Removes a file, or a folder with all in it, where there is one."""
  if path.is_dir():
    epath.Path(path).rmtree()
  else:
    path.unlink(missing_ok=True)


def copy(source: AnyPath, target: AnyPath) -> None:
  """Copies a file, or a folder with all in it, wherever each of the two is. For small files: each is read whole."""
  if source.is_dir():
    make_folder(target)
    for path in source.iterdir():
      copy(path, target / path.name)
  else:
    target.write_bytes(source.read_bytes())


@contextlib.contextmanager
def local_copy(path: AnyPath) -> Iterator[pathlib.Path]:
  """Yields a path of this machine with what is at `path`, for libraries that open local files alone.

  What is in a bucket is copied; an error of the user's names the bucket's path all the same.
  """
  if not in_bucket(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder, path.name)
    if path.exists():
      copy(path, local)
    try:
      yield local
    except UserError as e:
      raise UserError(str(e).replace(str(local), str(path))) from e
