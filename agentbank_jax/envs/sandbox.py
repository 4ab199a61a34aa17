"""Runs programs nobody has read: Linux namespaces (bubblewrap), a system call filter (libseccomp), limits.

What a program finds: a read-only /usr, a Python with its standard library, its own empty /tmp, /proc with its own
processes, no network but a loopback of its own, no variable of ours, no file of the project or of its data, no
capability. As root we give every sandbox a user of its own and drop to it before anything else happens.

What is guaranteed, and tested in `tests/test_sandbox.py`:
- Whatever it does, `run` comes back, soon after `Limits.wall_seconds` at the latest, and says what stopped it.
- When `run` has come back no process of it lives, and no file of it exists anywhere. Where we are killed before that,
  the kernel kills it (but for the first milliseconds of a sandbox, in which bubblewrap has not yet asked for that).
- `Limits` hold for all its processes together, except `cpu_seconds`, which each of them may use. Memory counts what
  processes hold and what lies in the sandbox's own file systems; a single process is refused more than the limit, and
  the sum is looked at every `_TICK` seconds, so many processes can be over it for that long.
- No silent substitute: where a sandbox of this kind cannot be had, `missing` says why and `run` raises.

What is not: a bug of the kernel is not contained (rent a virtual machine for programs written against you); what a
program prints, and its exit status, are *its* words. So a verdict is never taken from them. Whoever judges a program
compares outside of its sandbox, and lets no expected answer into it: see `envs/code_judge.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

from agentbank_jax.envs import sandbox_filter, sandbox_view
from agentbank_jax.errors import UserError

HOME = "/tmp"  # in the sandbox: where programs start, and the one place where they can write
OUT_OF_CPU = 128 + signal.SIGXCPU
_BWRAP = (0, 8)  # the first version with --disable-userns and --size
_TICK = 0.03  # seconds between two looks at a program's memory and the clock
_INODE = 1024  # bytes of kernel memory behind a file, however small it is
_GONE_SECONDS = 10.0  # in which the kernel ends what was killed
_USERS = range(60706, 61184)  # users of nobody's (systemd's table UIDS-GIDS), 16 bits: containers often map no more
_LOCKS = pathlib.Path("/run/agentbank-sandbox")  # a file for every user above; locked while the user is in use

# So many at once in this process: more would only wait for each other, with their clocks running.
_turns = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))


class SandboxError(RuntimeError):
  """The sandbox itself failed, not the program in it."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a program may use.

  Attributes:
    cpu_seconds: processor time of each process. The limit to judge programs by: it does not depend on other load.
    wall_seconds: from start to end, for those that wait.
    memory_mib: of all processes, and of files, which lie in memory.
    processes: at once, threads included.
    output_bytes: of standard output and standard error together.
    file_mib: of each file, and of all in one file system of the sandbox.
  """

  cpu_seconds: int = 10
  wall_seconds: float = 40.0
  memory_mib: int = 1024
  processes: int = 64
  output_bytes: int = 1_000_000
  file_mib: int = 64

  def __post_init__(self):
    for name, value in vars(self).items():
      if not value > 0:
        raise ValueError(f"{name} is {value}, expected more than 0")


class Finished(NamedTuple):
  """What came of a program.

  `returncode` is 128 + n where signal n ended it, and None where we stopped it. `stopped` is "" or the limit it
  met: "time", "memory" or "output".
  """

  stdout: bytes
  stderr: bytes
  returncode: int | None
  stopped: str


class Sandbox:
  """A recipe for sandboxes: every `run` and `start` has one of its own, and nothing is kept between two."""

  def __init__(self, limits: Limits = Limits(), *, view: Sequence[str] | None = None, packages: Sequence[str] = (),
               root: bool = False, variables: Mapping[str, str] | None = None):
    """Makes a recipe.

    Args:
      limits: of every run.
      view: bubblewrap's options that say which files there are; None for `sandbox_view.system`.
      packages: import names of Python packages of this environment that programs can import, where `view` is None;
        their dependencies must be named too.
      root: whether the program sees itself as user 0. It has no more rights by it.
      variables: of the environment, beside a few fixed ones.
    """
    self.limits = limits
    self._view, self._packages = view, packages
    self._user = "0" if root else "1000"
    self._variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME, "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        **({"PYTHONPATH": sandbox_view.PACKAGES} if packages else {}), **(variables or {})}

  def run(self, argv: Sequence[str], stdin: bytes = b"", files: Mapping[str, bytes] | None = None) -> Finished:
    """Runs a program to its end.

    Args:
      argv: the program, by its path or name in the sandbox, and its arguments.
      stdin: what it can read.
      files: by path, relative to `HOME`; it can write to them, and they are gone with the sandbox.

    Raises:
      UserError: this machine has no sandbox.
      SandboxError: the program was not started, or not ended.
    """
    with turn(), self.start(argv, files, capture_stdout=True) as program:
      program.write(stdin)
      program.close_stdin()
      return program.wait()

  def python(self, code: str, stdin: bytes = b"", files: Mapping[str, bytes] | None = None) -> Finished:
    """Runs Python source as a program, `main.py`: `run` with the Python that sandboxes have."""
    files = {**(files or {}), "main.py": code.encode("utf-8", "replace")}
    return self.run([*python_command(), "main.py"], stdin, files)

  def start(self, argv: Sequence[str], files: Mapping[str, bytes] | None = None, *,
            capture_stdout: bool = False) -> "Program":
    """Starts a program to talk with; use it in a `with` statement, inside of `turn()`. Arguments as of `run`."""
    require()
    return self._start(argv, files or {}, capture_stdout)

  def _start(self, argv: Sequence[str], files: Mapping[str, bytes], capture_stdout: bool) -> "Program":
    with contextlib.ExitStack() as stack:
      user = stack.enter_context(_own_user()) if os.geteuid() == 0 else None
      report, report_end = os.pipe()
      stack.callback(os.close, report)
      descriptors = [report_end]
      try:
        command = self._command(user, report_end, descriptors, argv, files)
        process = subprocess.Popen(
            command, env={}, cwd="/", pass_fds=descriptors, start_new_session=True, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
      finally:
        for descriptor in descriptors:
          os.close(descriptor)
      return Program(process, self.limits, report, capture_stdout, stack.pop_all())

  def _command(self, user: int | None, report: int, descriptors: list[int], argv: Sequence[str],
               files: Mapping[str, bytes]) -> list[str]:
    """Returns the whole command line; adds the files that it needs open to `descriptors`."""

    def given(content: bytes) -> str:
      descriptor = os.memfd_create("agentbank")
      descriptors.append(descriptor)
      with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
      os.lseek(descriptor, 0, os.SEEK_SET)
      return str(descriptor)

    limits, size = self.limits, str(self.limits.file_mib << 20)
    command = ["choom", "-n", "1000", "--"]  # should the machine run out of memory, this goes first
    if user is not None:
      command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", "--"]
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session",
               "--hostname", "sandbox", "--uid", self._user, "--gid", self._user, "--clearenv",
               "--json-status-fd", str(report), "--seccomp", given(sandbox_filter.compiled())]
    for name, value in self._variables.items():
      options += ["--setenv", name, value]
    options += sandbox_view.system(size, self._packages) if self._view is None else self._view
    for path, content in files.items():
      options += ["--perms", "0644", "--file", given(content), os.path.join(HOME, path)]
    options += ["--chdir", HOME]
    command += ["bwrap", "--args", given("\0".join(options).encode()), "--"]
    # Inside: limits set out here would be bubblewrap's too, and processes are counted by user namespace.
    command += ["/usr/bin/prlimit", f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}",
                f"--as={limits.memory_mib << 20}", f"--nproc={limits.processes}", f"--fsize={size}",
                "--nofile=256", "--core=0", "--memlock=0", "--msgqueue=0", "--", *argv]
    return command


class Program:
  """A program that runs in its sandbox, until it ends, meets a limit, or is closed.

  A thread watches its limits and takes in what it prints on standard error (and standard output, where that is
  captured), so whoever talks with it can wait for it without a clock: it will end.
  """

  def __init__(self, process: subprocess.Popen, limits: Limits, report: int, capture_stdout: bool,
               resources: contextlib.ExitStack):
    self._process, self._limits, self._report, self._resources = process, limits, report, resources
    self._deadline = time.monotonic() + limits.wall_seconds
    self._started = self._ended = time.monotonic()
    self._stopped = ""
    self._output = 0  # bytes so far
    self._lock = threading.Lock()  # of `_output` and `_stopped`
    self._line = b""  # begun
    self._fact = b""  # begun
    self._facts: dict[str, int] = {}  # what bubblewrap reports: child-pid, exit-code
    self._child: int | None = None  # pidfd of the sandbox's first process: with it all others end
    self._error: Exception | None = None
    self._stdout, self._stderr = process.stdout.fileno(), process.stderr.fileno()
    self._captured = {self._stderr: bytearray()} | ({self._stdout: bytearray()} if capture_stdout else {})
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()

  def __enter__(self) -> "Program":
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def write(self, data: bytes) -> bool:
    """Hands data to its standard input; returns whether it took all."""
    try:
      view = memoryview(data)
      while view:
        view = view[os.write(self._process.stdin.fileno(), view):]
    except BrokenPipeError:
      return False
    return True

  def close_stdin(self) -> None:
    self._process.stdin.close()

  def read_line(self) -> bytes | None:
    """Returns the next whole line of its standard output, without the newline, or None: there will be none."""
    while b"\n" not in self._line:
      data = os.read(self._stdout, 65536)
      if not data:
        return None
      self._line += self._count(data)
    line, _, self._line = self._line.partition(b"\n")
    return line

  @property
  def stderr(self) -> bytes:
    """What it has printed on standard error so far."""
    return bytes(self._captured[self._stderr])

  def wait(self) -> Finished:
    """Waits until it has ended.

    Raises:
      SandboxError: it was not started, or could not be ended.
    """
    self._thread.join()
    if self._error:
      raise self._error
    code, stopped, stderr = self._facts.get("exit-code"), self._stopped, self.stderr
    if not stopped and code is None:
      raise SandboxError(f"the sandbox did not start its program: {stderr.decode(errors='replace').strip()}")
    if code == OUT_OF_CPU or (code == 128 + signal.SIGKILL and self._ended - self._started >= self._limits.cpu_seconds):
      stopped = "time"
    return Finished(bytes(self._captured.get(self._stdout, b"")), stderr,
                    None if stopped else code, stopped)

  def close(self) -> None:
    """Ends it, with all its processes, and releases everything. May be called twice."""
    if self._process.stdout.closed:
      return
    self._kill()
    self._thread.join()
    for file in (self._process.stdin, self._process.stdout, self._process.stderr):
      file.close()
    if self._child is not None:
      os.close(self._child)
    self._resources.close()
    if self._error:
      raise self._error

  def _watch(self) -> None:
    try:
      self._watch_until_it_ends()
    except Exception as e:  # it is the caller's, who is in another thread
      self._error = e
      self._kill()
    finally:
      self._ended = time.monotonic()

  def _watch_until_it_ends(self) -> None:
    ended = os.pidfd_open(self._process.pid)
    try:
      open_files = set(self._captured)
      poll = select.poll()
      for descriptor in (ended, *open_files):
        poll.register(descriptor, select.POLLIN)
      alive = True
      while alive:
        for descriptor, _ in poll.poll(_TICK * 1000):
          if descriptor == ended:
            alive = False
          elif not self._take(descriptor):
            poll.unregister(descriptor)
            open_files.remove(descriptor)
        if alive:
          self._check()
      self._process.wait()
    finally:
      os.close(ended)
    self._read_report()
    if self._child is not None:  # bubblewrap may be gone a moment before the last of its sandbox
      self._kill_child()
      gone = select.poll()
      gone.register(self._child, select.POLLIN)
      if not gone.poll(_GONE_SECONDS * 1000):
        raise SandboxError(f"a sandbox that was killed is still there after {_GONE_SECONDS:g} seconds")
    for descriptor in open_files:
      more = True
      while more:
        if not select.select([descriptor], [], [], _GONE_SECONDS)[0]:
          raise SandboxError(f"the output of a sandbox that has ended is still held after {_GONE_SECONDS:g} seconds")
        more = self._take(descriptor)

  def _take(self, descriptor: int) -> bool:
    """Takes in what is there to read; returns whether there may be more."""
    data = os.read(descriptor, 65536)
    self._captured[descriptor] += self._count(data)
    return bool(data)

  def _count(self, data: bytes) -> bytes:
    """Returns of `data` as much as is within the limit of output."""
    with self._lock:
      left = max(0, self._limits.output_bytes - self._output)
      self._output += len(data)
    if len(data) > left:
      self._stop("output")
    return data[:left]

  def _check(self) -> None:
    self._read_report()
    if time.monotonic() > self._deadline:
      self._stop("time")
    elif self._child is not None and sandbox_view.memory(self._facts["child-pid"], _INODE) > (
        self._limits.memory_mib << 20):
      self._stop("memory")

  def _read_report(self) -> None:
    while select.select([self._report], [], [], 0)[0] and (data := os.read(self._report, 4096)):
      *facts, self._fact = (self._fact + data).split(b"\n")  # a line comes in several writes
      for fact in facts:
        self._facts |= json.loads(fact)
    if self._child is None and "child-pid" in self._facts:
      with contextlib.suppress(ProcessLookupError):  # it has ended
        self._child = os.pidfd_open(self._facts["child-pid"])

  def _stop(self, why: str) -> None:
    with self._lock:
      self._stopped = self._stopped or why
    self._kill()

  def _kill(self) -> None:
    self._kill_child()
    if self._process.returncode is None:
      # With its group: a child that bubblewrap has just made and not told us of waits in it, for bubblewrap, for ever.
      with contextlib.suppress(ProcessLookupError):
        os.killpg(self._process.pid, signal.SIGKILL)

  def _kill_child(self) -> None:
    if self._child is not None:
      with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(self._child, signal.SIGKILL)


@contextlib.contextmanager
def turn() -> Iterator[None]:
  """Waits until this process may run another program. For `Sandbox.start`; `Sandbox.run` does it itself."""
  with _turns:
    yield


@functools.cache
def python_command() -> tuple[str, ...]:
  """Returns the Python of sandboxes: this one's, where a sandbox's user can read it, else the system's."""
  return (sandbox_view.python()[0], "-s")  # and not -E: PYTHONHASHSEED is ours, and so is every other variable


def require() -> None:
  """Raises a `UserError` that says what is missing where this machine has no sandbox."""
  if why := missing():
    raise UserError(f"programs cannot be run safely here: {why}")


@functools.cache
def missing() -> str:
  """Returns why this machine has no sandbox and what to do about it, or "". It is found out by using one."""
  if not sys.platform.startswith("linux"):
    return "the sandbox needs Linux"
  for name, package in (("bwrap", "bubblewrap"), ("prlimit", "util-linux"), ("choom", "util-linux"),
                        *([("setpriv", "util-linux")] if os.geteuid() == 0 else [])):
    if shutil.which(name) is None:
      return f"no {name!r}; install it (apt-get install {package})"
  version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout
  if tuple(map(int, re.findall(r"\d+", version)[:2])) < _BWRAP:
    return f"{version.strip()} is too old; install bubblewrap {'.'.join(map(str, _BWRAP))} or newer"
  try:
    sandbox_filter.compiled()
  except (ImportError, RuntimeError, OSError) as e:
    return f"no system call filter ({e}); pip install pyseccomp, and apt-get install libseccomp2"
  try:
    limits = Limits(cpu_seconds=5, wall_seconds=20)
    with Sandbox(limits)._start([*python_command(), "-c", "print(6 * 7)"], {}, True) as program:
      finished = program.wait()
  except (SandboxError, OSError) as e:
    return (f"bubblewrap does not work ({e}); allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0; in Docker --security-opt seccomp=unconfined "
            "--security-opt systempaths=unconfined)")
  except UserError as e:
    return str(e)
  if finished.stdout != b"42\n":
    return f"a program that prints 42 did not: {finished}"
  return ""


@contextlib.contextmanager
def _own_user() -> Iterator[int]:
  """Yields the number of a user that no other process of this machine has been given.

  The kernel counts processes, and allows signals, by user: two sandboxes with one would be in each other's way.
  """
  import fcntl
  _LOCKS.mkdir(mode=0o700, exist_ok=True)
  for user in _USERS:
    descriptor = os.open(_LOCKS / str(user), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      os.close(descriptor)
      continue
    try:
      yield user
    finally:
      os.close(descriptor)
    return
  raise SandboxError(f"all {len(_USERS)} users of sandboxes are in use")
