"""Environments in worker processes: programs that hang, crash or leak are killed, restarted and replaced.

A few processes hold many environments, each process carrying out one call at a time. What `WorkerPool.make_env`
returns is an environment like any other; it stands for one in a process and talks to it through a pipe.

- A call that takes too long, or in which the process dies, is an error of the environment that made it. The
  process is killed, with everything it started.
- Environments that were in the same process did nothing wrong. Each is set up again in another process and
  plays the actions of its episode once more, before its next step; environments are deterministic, and one
  whose second answers differ from its first is an error. So no episode depends on its neighbours.
- A process that has begun a number of episodes takes no more, and ends when the last of them has.
- Each process has a temporary folder of its own, which goes when it goes.
- When this process ends, in whatever way, none of the workers lives on (`process_guard.py`).
"""

from collections.abc import Callable
import dataclasses
import itertools
import multiprocessing
from multiprocessing import connection as pipes
import os
import pickle
import shutil
import tempfile
import threading
import time
from typing import Any

from absl import logging

from agentbank_jax.envs.base import Action, Env, Instance, Step
from agentbank_jax.envs.process_guard import ProcessGuard, kill_session
from agentbank_jax.errors import UserError, describe

_MAKE_SECONDS = 120.0  # to start a process, and to make an environment in it (a Java machine, a browser)
_CLOSE_SECONDS = 5.0  # to close one environment, and for a process to end by itself
_MOVES = 20  # processes that may be lost under one environment between two of its answers


@dataclasses.dataclass(frozen=True)
class PoolSize:
  """How many processes, and for how long.

  Attributes:
    processes: how many hold the environments of a task.
    episodes: how many a process begins before another takes its place.
  """

  processes: int
  episodes: int

  def __post_init__(self):
    for name in ("processes", "episodes"):
      if getattr(self, name) < 1:
        raise UserError(f"workers.{name} is {getattr(self, name)}, expected 1 or more")


class WorkerError(Exception):
  """What went wrong in a worker process."""


class _Lost(Exception):
  """The process is gone, and not by the call that finds it so."""


class WorkerPool:
  """The processes of one task."""

  def __init__(self, name: str, make_env: Callable[[], Env], size: PoolSize | None, seconds: float):
    """Starts nothing yet.

    Args:
      name: of the task, for messages.
      make_env: is sent to the processes: a function of a module, or a partial of one.
      size: of the pool.
      seconds: what one reset or step may take, from when the process turns to it.

    Raises:
      ValueError: no `size`, or a `make_env` that cannot be sent.
    """
    if size is None:
      raise ValueError(f"task {name!r} runs in processes: say how many (`workers`)")
    try:
      self._make_env = pickle.dumps(make_env)
    except Exception as e:
      raise ValueError(f"task {name!r}: its make_env cannot be sent to a process ({e})") from None
    self._name, self._size, self._seconds = name, size, seconds
    self._lock = threading.Lock()
    self._workers: list[_Worker] = []
    self._numbers = itertools.count()
    self._guard: ProcessGuard | None = None
    self._closed = False

  def make_env(self) -> Env:
    """Returns an environment that lives in one of the processes."""
    return _RemoteEnv(self)

  def close(self) -> None:
    """Ends all processes, those too that do not want to. May be called twice."""
    with self._lock:
      self._closed = True
      workers, self._workers = self._workers, []
    asked = [worker.ask_to_end() for worker in workers]
    deadline = time.monotonic() + _CLOSE_SECONDS
    for worker, can_end in zip(workers, asked, strict=True):
      worker.end(max(0.0, deadline - time.monotonic()) if can_end else 0.0)
    if self._guard:
      self._guard.close()

  def lease(self, worker: "_Worker | None" = None) -> "_Lease":
    """Returns a place for one environment and one episode: where it is, if `worker` takes more, else elsewhere."""
    with self._lock:
      if self._closed:
        raise WorkerError("the pool of worker processes is closed")
      open_workers = [w for w in self._workers if self._accepts(w)]
      if worker not in open_workers:
        worker = min(open_workers, key=lambda w: len(w.environments), default=None)
        if worker is None or (worker.environments and len(open_workers) < self._size.processes):
          self._guard = self._guard or ProcessGuard()
          worker = _Worker(self._name, self._make_env, self._seconds, self._guard)
          self._workers.append(worker)
      worker.episodes += 1
      lease = _Lease(worker, next(self._numbers))
      worker.environments.add(lease.number)
      return lease

  def renew(self, lease: "_Lease") -> bool:
    """Counts another episode for the environment of `lease`. Returns False where its process takes no more."""
    with self._lock:
      if self._accepts(lease.worker):
        lease.worker.episodes += 1
        return True
      return False

  def give_back(self, lease: "_Lease") -> None:
    """The environment is closed. A process that takes no more episodes ends with its last environment."""
    with self._lock:
      worker = lease.worker
      worker.environments.discard(lease.number)
      done = not worker.environments and not self._accepts(worker) and worker in self._workers
      if done:
        self._workers.remove(worker)
    if done:
      worker.ask_to_end()
      worker.end(_CLOSE_SECONDS)

  def _accepts(self, worker: "_Worker") -> bool:
    return worker.is_alive and worker.episodes < self._size.episodes


@dataclasses.dataclass(frozen=True)
class _Lease:
  """The place of one environment: its process, and its number there."""

  worker: "_Worker"
  number: int


class _RemoteEnv:
  """An environment in a process of the pool. Used by one thread at a time, as every environment is."""

  def __init__(self, pool: WorkerPool):
    self._pool = pool
    self._lease: _Lease | None = None
    self._played: list[tuple[str, Any, Any]] = []  # method, argument and answer of every call of the episode

  def reset(self, instance: Instance) -> str:
    self._played.clear()
    if self._lease and not self._pool.renew(self._lease):
      self.close()
    if not self._lease:
      self._lease = self._pool.lease()
    return self._call("reset", instance)

  def step(self, action: Action) -> Step:
    return self._call("step", action)

  def close(self) -> None:
    lease, self._lease = self._lease, None
    if lease:
      try:
        lease.worker.call(lease.number, "close", None, _CLOSE_SECONDS)
      except _Lost:
        pass  # with its process
      finally:
        self._pool.give_back(lease)

  def _call(self, method: str, argument: Any) -> Any:
    """Returns the environment's answer; moves it to another process where it has lost its own."""
    for _ in range(_MOVES):
      try:
        answer = self._lease.worker.call(self._lease.number, method, argument)
      except _Lost:
        self._move()
      else:
        self._played.append((method, argument, answer))
        return answer
    raise WorkerError(f"{_MOVES} processes were lost under this environment")

  def _move(self) -> None:
    """Sets the episode up in another process, up to where it was, unless that is lost too."""
    self._pool.give_back(self._lease)
    self._lease = self._pool.lease()
    for method, argument, answer in self._played:
      try:
        again = self._lease.worker.call(self._lease.number, method, argument)
      except _Lost:
        return  # the next call finds out
      if again != answer:
        raise WorkerError("another environment's process was lost with this one, and played again, "
                          f"its {method} gives {_short(again)} and not {_short(answer)}: it is not deterministic")


class _Worker:
  """A process, seen from this one. It carries out one call at a time; `_lock` is held meanwhile.

  Attributes:
    is_alive: False from when it is known to be gone.
    episodes: how many it has begun. The pool counts.
    environments: numbers of those in it. The pool counts.
  """

  def __init__(self, name: str, make_env: bytes, seconds: float, guard: ProcessGuard):
    context = multiprocessing.get_context("spawn")
    self._seconds = seconds
    self._guard = guard
    self._folder = tempfile.mkdtemp(prefix="agentbank-")
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, make_env, self._folder), name=f"{name} worker")
    self._process.start()
    theirs.close()
    guard.watch(self._process.pid, self._folder)
    self._lock, self._ending = threading.Lock(), threading.Lock()
    self._made: set[int] = set()
    self.is_alive = True
    self.episodes = 0
    self.environments: set[int] = set()

  def call(self, number: int, method: str, argument: Any, seconds: float | None = None) -> Any:
    """Returns what `method` of environment `number` returns; the first call of a number makes the environment.

    Raises:
      _Lost: the process was gone before.
      TimeoutError: it took longer than `seconds`, and was killed.
      UserError: the environment raised it.
      WorkerError: the environment raised something else, or the process died.
    """
    with self._lock:
      if number not in self._made and method != "close":
        self._exchange(number, "make", None, _MAKE_SECONDS)
        self._made.add(number)
      return self._exchange(number, method, argument, seconds or self._seconds)

  def _exchange(self, number: int, method: str, argument: Any, seconds: float) -> Any:
    if not self.is_alive or pipes.wait([self._process.sentinel], 0):
      self._abandon()
      raise _Lost
    try:
      self._pipe.send((number, method, argument))
      ready = pipes.wait([self._pipe, self._process.sentinel], seconds)
      if not ready:
        self._abandon()
        raise TimeoutError(f"no answer within {seconds:g} s; its process was killed")
      kind, value = self._pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
      self._abandon()
      raise WorkerError(f"the worker process died in {method}: {_how(self._process.exitcode)}") from None
    if kind:
      raise kind(value)
    return value

  def ask_to_end(self) -> bool:
    """Lets the process close its environments and end. Returns False where a call is under way."""
    if not self._lock.acquire(blocking=False):
      return False
    try:
      self._pipe.close()
    finally:
      self._lock.release()
    return True

  def end(self, seconds: float) -> None:
    """Waits that long for the process to end, then kills it; and clears up after it."""
    if self.is_alive:
      pipes.wait([self._process.sentinel], seconds)
    self._abandon()

  def _abandon(self) -> None:
    """Kills what is left of the process and of all that it started. May be called twice, by several threads."""
    with self._ending:
      if not self.is_alive:
        return
      self._process.kill()
      kill_session(self._process.pid)  # before it is waited for: until then nobody else can get its number
      self._process.join()
      self._guard.forget(self._process.pid)
      shutil.rmtree(self._folder, ignore_errors=True)  # a killed program can leave what cannot be removed
      self.is_alive = False


def _how(exitcode: int | None) -> str:
  return f"killed by signal {-exitcode}" if exitcode and exitcode < 0 else f"exit code {exitcode}"


def _short(answer: Any) -> str:
  text = repr(answer)
  return text if len(text) <= 200 else f"{text[:200]}..."


def _serve(pipe: pipes.Connection, make_env: bytes, folder: str) -> None:
  """What a worker process does: carries out calls until the pipe closes, then closes its environments."""
  os.setsid()
  os.environ["TMPDIR"] = tempfile.tempdir = folder
  envs: dict[int, Env] = {}
  while True:
    try:
      number, method, argument = pipe.recv()
    except EOFError:
      break
    try:
      value = _carry_out(envs, make_env, number, method, argument)
      reply = pickle.dumps((None, value))
    except UserError as e:
      reply = pickle.dumps((UserError, str(e)))
    except BaseException as e:  # also SystemExit and the like: the other side must hear of it
      reply = pickle.dumps((WorkerError, describe(e)))
    pipe.send_bytes(reply)
  for env in envs.values():
    try:
      env.close()
    except Exception as e:
      logging.warning("an environment could not be closed: %s", describe(e))


def _carry_out(envs: dict[int, Env], make_env: bytes, number: int, method: str, argument: Any) -> Any:
  match method:
    case "make":
      envs[number] = pickle.loads(make_env)()
    case "close":
      if number in envs:
        envs.pop(number).close()
    case _:
      return getattr(envs[number], method)(argument)
  return None
