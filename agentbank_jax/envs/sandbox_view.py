"""Which files a sandbox shows, and how much memory one holds; the rest of the sandbox is `sandbox.py`."""

from collections.abc import Sequence
import contextlib
import functools
import importlib.util
import os
import pathlib
import sys

from agentbank_jax.errors import UserError

_DATA = "AGENTBANK_DATA"  # as in tasks/published.py, which knows environments and not the other way round
PACKAGES = "/packages"  # in the sandbox; where packages are that its Python finds by PYTHONPATH
_PAGE = os.sysconf("SC_PAGE_SIZE")


def system(size: str, packages: Sequence[str] = ()) -> list[str]:
  """Returns bubblewrap's options for a read-only system and a private /tmp.

  Args:
    size: bytes that /tmp may hold, as text.
    packages: import names of Python packages of this environment that lie in `PACKAGES`; give their dependencies as
      well.

  Raises:
    UserError: a package is absent, or lies where a sandbox's user cannot read it.
  """
  options = [*read_only(), *devices(size), "--size", size, "--perms", "0700", "--tmpfs", "/tmp"]
  for name in packages:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
      raise UserError(f"no Python package {name!r} for the sandbox; pip install {name}")
    folder = pathlib.Path(spec.submodule_search_locations[0])
    if not readable(folder):
      raise UserError(f"{folder} cannot be read by a sandbox's user; install the environment in a folder that "
                      "others may read")
    for part in (folder, folder.with_name(f"{name}.libs")):  # wheels have shared libraries there, beside them
      if part.is_dir():
        options += ["--ro-bind", str(part), f"{PACKAGES}/{part.name}"]
  return [*options, "--remount-ro", "/"]


def read_only() -> list[str]:
  """Returns bubblewrap's options for /usr and what belongs to it; of /etc, only what programs need to start.

  Packages of the host's Python, /usr/local and wherever this project or its data lie are hidden: what a program
  finds does not depend on what else the machine has.
  """
  executable, prefix = python()
  options = ["--ro-bind", "/usr", "/usr"]
  for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
    path = pathlib.Path("/", name)
    if path.is_symlink():
      options += ["--symlink", os.readlink(path).lstrip("/"), str(path)]
    elif path.is_dir():
      options += ["--ro-bind", str(path), str(path)]
  for path in ("/etc/alternatives", "/etc/ld.so.cache"):
    options += ["--ro-bind-try", path, path]
  if not prefix.is_relative_to("/usr"):
    options += ["--ro-bind", str(prefix), str(prefix)]
  shown = (pathlib.Path("/usr"), prefix)
  hidden = [] if prefix.is_relative_to("/usr/local") else [pathlib.Path("/usr/local")]
  hidden += [path for folder in {prefix / "lib", pathlib.Path("/usr/lib")} for path in (
      *folder.glob("python3*/site-packages"), *folder.glob("python3*/dist-packages"))]
  hidden += [pathlib.Path("/usr/src"), pathlib.Path(__file__).resolve().parents[2]]
  hidden += [pathlib.Path(os.environ[_DATA]).resolve()] if os.environ.get(_DATA) else []
  for path in hidden:
    if path.is_dir() and any(path.is_relative_to(folder) and path != folder for folder in shown):
      options += ["--size", "4096", "--tmpfs", str(path), "--remount-ro", str(path)]
  return options


def devices(size: str) -> list[str]:
  """Returns bubblewrap's options for /proc and /dev, read-only but for /dev/shm."""
  return ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--size", size, "--perms", "1777", "--tmpfs",
          "/dev/shm", "--remount-ro", "/dev"]


@functools.cache
def python() -> tuple[str, pathlib.Path]:
  """Returns the sandbox's Python and the folder that it needs.

  Raises:
    UserError: none can be read by a sandbox's user.
  """
  for executable, prefix in ((sys._base_executable, sys.base_prefix), ("/usr/bin/python3", "/usr")):
    path = pathlib.Path(executable).resolve()
    if path.is_relative_to(pathlib.Path(prefix).resolve()) and readable(path):
      return str(path), pathlib.Path(prefix).resolve()
  raise UserError(f"{sys._base_executable} cannot be read by a sandbox's user, and there is no /usr/bin/python3; "
                  "install one (apt-get install python3)")


def readable(path: pathlib.Path) -> bool:
  """Returns whether a sandbox's user, who is nobody in particular where we are root, can read `path`."""
  path = path.resolve()
  if not path.exists():
    return False
  if os.geteuid() != 0:
    return os.access(path, os.R_OK | os.X_OK)
  return path.stat().st_mode & 0o005 == 0o005 and all(parent.stat().st_mode & 0o001 for parent in path.parents)


def memory(first: int, inode: int) -> int:
  """Returns the bytes of memory that a sandbox holds, or 0 where it has just ended.

  Args:
    first: its first process, as this process numbers it. The sandbox's own /proc lists all others.
    inode: bytes to count for a file of /tmp and /dev/shm, beside what is in it.
  """
  root = f"/proc/{first}/root"
  try:
    if os.stat(f"{root}/proc/1/ns/pid") != os.stat(f"/proc/{first}/ns/pid"):
      return 0  # it is being set up, and what it sees is still our /proc
    files = sum((fs.f_blocks - fs.f_bfree) * fs.f_frsize + (fs.f_files - fs.f_ffree) * inode
                for fs in (os.statvfs(f"{root}/tmp"), os.statvfs(f"{root}/dev/shm")))
    numbers = [name for name in os.listdir(f"{root}/proc") if name.isdigit()]
  except (FileNotFoundError, ProcessLookupError, PermissionError):  # so does our first process not let us look
    return 0
  return files + sum(_held(f"{root}/proc/{number}") for number in numbers)


def _held(process: str) -> int:
  """Returns the bytes of one process; what it shares with others counts in part."""
  with contextlib.suppress(FileNotFoundError, ProcessLookupError):
    with open(f"{process}/statm") as file:
      resident = int(file.read().split()[1]) * _PAGE
    if resident < 2**24:
      return resident
    with open(f"{process}/smaps_rollup") as file:
      return next((int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:")), resident)
  return 0
