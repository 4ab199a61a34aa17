"""File systems as archives in memory, and what changed between two of them: what `git status` would say."""

from collections.abc import Mapping
import hashlib
import io
import tarfile
from typing import NamedTuple

# Names that InterCode's images tell git to ignore, at any depth (docker/docker.gitignore).
_IGNORED = frozenset("bin boot dev etc home lib media opt proc root run sbin srv sys usr var .dockerenv".split())
# Made by the sandbox for itself, wherever Ubuntu has them too.
_SYSTEM = frozenset("lib32 lib64 libx32".split())


class Entry(NamedTuple):
  """A file as git knows one: `executable`, and a digest of what is in it (of a link, where it leads)."""

  executable: bool
  digest: str


def read(archive: bytes) -> dict[str, Entry]:
  """Returns the files and links of an archive by path, those that InterCode ignores left out.

  It may have been made to harm its reader: what is compressed or sparse, and so larger than it is, is refused.

  Raises:
    tarfile.TarError: it is no archive.
  """
  try:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
      return _entries(tar)
  except tarfile.TarError:
    raise
  except Exception as e:  # whatever the reader stumbles over is what is in the archive
    raise tarfile.ReadError(f"{type(e).__name__}: {e}") from e


def _entries(tar: tarfile.TarFile) -> dict[str, Entry]:
  entries: dict[str, Entry] = {}
  for member in tar:
    if member.issparse():
      raise tarfile.ReadError(f"{member.name} is sparse")
    path = "/" + member.name.removeprefix(".").strip("/")
    if not _IGNORED.isdisjoint(path.split("/")) or path.split("/")[1] in _SYSTEM:
      continue
    executable = bool(member.mode & 0o100)
    if member.issym():
      entries[path] = Entry(False, f"link to {member.linkname}")
    elif member.islnk():  # another name of a file that came before
      target = "/" + member.linkname.removeprefix(".").strip("/")
      entries[path] = Entry(executable, entries[target].digest if target in entries else f"same as {target}")
    elif member.isfile():
      entries[path] = Entry(executable, hashlib.sha256(tar.extractfile(member).read()).hexdigest())
  return entries


def changes(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> dict[str, str]:
  """Returns each path that changed and how: "deleted <digest>", or "modified" or "added" with what it is now.

  A folder in which there was no file is one path, "/folder/", as for git. Times, owners and empty folders do not
  count, and of the permissions only whether a file can be executed.
  """
  known = {path[:i + 1] for path in before for i, c in enumerate(path) if c == "/"}  # folders that had files
  found: dict[str, str] = {path: "deleted" for path in before.keys() - after.keys()}
  inside: dict[str, list[str]] = {}
  for path, entry in after.items():
    if path not in before:
      folder = next((path[:i + 1] for i, c in enumerate(path) if c == "/" and path[:i + 1] not in known), None)
      if folder is None:
        found[path] = f"added {entry.digest}"
      else:
        inside.setdefault(folder, []).append(f"{path} {entry.digest}")
    elif entry != before[path]:
      found[path] = f"modified {entry.executable} {entry.digest}"
  return found | {folder: f"added {sorted(files)}" for folder, files in inside.items()}


class File(NamedTuple):
  """What to put into an archive: a file, or a link where `link` says where it leads.

  `time` is its last change, in seconds since 1970; None for the archive's.
  """

  content: bytes = b""
  mode: int = 0o644
  time: int | None = None
  link: str = ""


def pack(files: Mapping[str, File | None], time: int) -> bytes:
  """Returns an archive of files by absolute path; None is a folder. Folders above a file need not be named."""
  buffer = io.BytesIO()
  folders = {path[:i] for path in files for i, c in enumerate(path) if c == "/"}
  with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
    for path in sorted(folders | files.keys()):
      file = files.get(path)
      member = tarfile.TarInfo("." + path)
      member.mtime = time if file is None or file.time is None else file.time
      if file is None:
        member.type, member.mode = tarfile.DIRTYPE, 0o1777 if path == "/tmp" else 0o755
        tar.addfile(member)
      elif file.link:
        member.type, member.linkname = tarfile.SYMTYPE, file.link
        tar.addfile(member)
      else:
        member.size, member.mode = len(file.content), file.mode
        tar.addfile(member, io.BytesIO(file.content))
  return buffer.getvalue()


def settle(archive: bytes, latest: int) -> bytes:
  """Returns the archive with times no later than `latest`: what was made just now is as old on every day."""
  buffer = io.BytesIO()
  with (tarfile.open(fileobj=io.BytesIO(archive)) as old,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as new):
    for member in old:
      member.mtime = min(member.mtime, latest)
      member.pax_headers.pop("mtime", None)
      new.addfile(member, old.extractfile(member) if member.isfile() else None)
  return buffer.getvalue()
