"""Several processes on this machine: started, watched, ended together, started again."""

from concurrent import futures
import contextlib
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import threading

from agentbank_jax.errors import EXIT_INTERRUPTED
from launch.outcome import describe, judge
from launch.render import check, command_of
from launch.shell import Shell, last_line, new_attempt

_CLOSE_SECONDS = 1.0  # what ends so soon after the first failure has ended by itself


def run(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Runs the command in `config.processes` processes, again after a loss; returns 0 or the exit code that decided.

  Raises:
    UserError: there is no command, or a number that cannot be.
  """
  check(config)
  command = command_of(config)
  if shell.dry_run:
    return _print(config, command, workdir, shell)
  with _Stop() as stop:
    for attempt in range(config.max_restarts + 1):
      logs = new_attempt(workdir)
      shell.folder(logs)
      shell.say(f"{config.processes} processes, logs in {logs}")
      codes, brought_down = _attempt(config, command, logs, stop)
      for name, code in codes.items():
        words = last_line(_tail(logs / f"{name}.log"))
        shell.say(f"  {name}: " + ("done" if not code else "brought down" if name in brought_down
                                   else f"{describe(code)}; last words: {words}"))
      outcome = judge({name: code for name, code in codes.items() if name not in brought_down})
      if outcome.kind == "done":
        return 0
      if stop.requested:
        return EXIT_INTERRUPTED
      if outcome.kind == "failed":
        shell.say(f"{outcome.why}: another start would not help")
        return outcome.code
      if attempt < config.max_restarts:
        shell.say(f"{outcome.why}: starting again ({attempt + 1} of {config.max_restarts})")
  shell.say(f"{outcome.why}; max_restarts = {config.max_restarts} is used up")
  return outcome.code


VERBS = {"run": run}


class _Stop:
  """SIGTERM and Ctrl-C to the launcher go on to the processes, which save and end."""

  requested = False
  processes: tuple[subprocess.Popen, ...] = ()

  def __enter__(self):
    self._old = {}
    if threading.current_thread() is threading.main_thread():
      self._old = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def _note(self, number, frame):
    self.requested = True
    _signal_all(self.processes, signal.SIGTERM)

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)


def _attempt(config, command: str, logs: pathlib.Path, stop: _Stop) -> tuple[dict[str, int], set[str]]:
  """Returns the exit code of each process, as shells give it, and which were ended by us for another's sake."""
  processes, brought_down = {}, set()
  environments = _environments(config, _free_port())
  with contextlib.ExitStack() as files:
    try:
      for number, environment in enumerate(environments):
        log = files.enter_context((logs / f"process-{number}.log").open("wb"))
        # A session of its own: Ctrl-C reaches the launcher alone, and what a process starts ends with it.
        processes[f"process-{number}"] = subprocess.Popen(
            ["bash", "-c", command], env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True)
      stop.processes = tuple(processes.values())
      if stop.requested:  # between two attempts
        _signal_all(stop.processes, signal.SIGTERM)
      with futures.ThreadPoolExecutor(len(processes)) as pool:
        ends = {pool.submit(process.wait): name for name, process in processes.items()}
        failed = any(end.result() for end in _until_failure(ends))
        if failed:
          futures.wait(ends, timeout=_CLOSE_SECONDS)
          running = {name for end, name in ends.items() if not end.done()}
          # Those that were stopped end by themselves together; else the others wait for one that will not come.
          if not any(end.done() and end.result() == EXIT_INTERRUPTED for end in ends):
            brought_down = running
            _signal_all(processes.values(), signal.SIGTERM)
          futures.wait(ends, timeout=config.grace_seconds)
          brought_down |= {name for end, name in ends.items() if not end.done()}
          _signal_all(processes.values(), signal.SIGKILL)
    finally:
      _signal_all(processes.values(), signal.SIGKILL)
      stop.processes = ()
  return {name: _shell_code(process.wait()) for name, process in processes.items()}, brought_down


def _until_failure(ends):
  """Yields futures as they are done, up to the first whose process failed."""
  for end in futures.as_completed(ends):
    yield end
    if end.result():
      return


def _environments(config, port: int) -> list[dict[str, str]]:
  return [{"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(config.devices),
           "JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": str(config.processes),
           "JAX_PROCESS_ID": str(number)} for number in range(config.processes)]


def _print(config, command: str, workdir: pathlib.Path, shell: Shell) -> int:
  logs = new_attempt(workdir)
  shell.folder(logs)
  for number, environment in enumerate(_environments(config, _free_port())):
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    log = shlex.quote(str(logs / f"process-{number}.log"))
    print(f"{variables} bash -c {shlex.quote(command)} > {log} 2>&1 &")
  print("wait")
  return 0


def _signal_all(processes, number: int) -> None:
  """Signals whole process groups: the command may be a shell that has started the program."""
  for process in processes:
    if process.poll() is None:
      with contextlib.suppress(ProcessLookupError):  # it ended just now
        os.killpg(process.pid, number)


def _shell_code(code: int) -> int:
  return 128 - code if code < 0 else code


def _free_port() -> int:
  with socket.create_server(("localhost", 0)) as server:
    return server.getsockname()[1]


def _tail(path: pathlib.Path) -> str:
  """Returns the end of a log; a progress bar's updates are lines."""
  with path.open("rb") as file:
    file.seek(max(path.stat().st_size - 4096, 0))
    return file.read().decode(errors="replace").replace("\r", "\n")
