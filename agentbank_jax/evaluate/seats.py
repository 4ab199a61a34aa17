"""Environments in threads of their own: calls that answer later, fail, or take too long."""

from collections.abc import Callable, Hashable
import dataclasses
import math
import queue
import threading
import time
from typing import Any

from absl import logging

from agentbank_jax.envs.base import Env
from agentbank_jax.errors import describe

_CLOSE_SECONDS = 5.0  # all environments together; whatever is still open then ends with the process


@dataclasses.dataclass(frozen=True)
class Failure:
  """A call that gave no answer: the exception it raised, or a `TimeoutError`."""

  error: BaseException

  def __str__(self) -> str:
    return describe(self.error)


class Seats:
  """Hands out environments; each is used by one owner at a time and lives in one thread.

  An environment that raised or ran out of time is not used again. Its thread closes it, as soon as the
  call comes back; one that never comes back is left behind (threads are daemons: they do not keep the
  process alive).
  """

  def __init__(self, make_env: Callable[[], Env], seconds: float):
    """`seconds` is what one call may take, making the environment included; `math.inf` for no limit."""
    self._make_env, self._seconds = make_env, seconds
    self._answers: queue.SimpleQueue[tuple[Hashable, _Seat, Any]] = queue.SimpleQueue()
    self._seat_of: dict[Hashable, _Seat] = {}
    self._free: list[_Seat] = []
    self._deadlines: dict[Hashable, float] = {}

  @property
  def busy(self) -> tuple[Hashable, ...]:
    """The owners that await an answer."""
    return tuple(self._deadlines)

  def call(self, owner: Hashable, function: Callable[[Env], Any]) -> None:
    """Starts `function(env)` on the owner's environment; its first call gives the owner one."""
    if owner not in self._seat_of:
      self._seat_of[owner] = self._free.pop() if self._free else _Seat(self._make_env, self._answers)
    self._deadlines[owner] = time.monotonic() + self._seconds
    self._seat_of[owner].calls.put((owner, function))

  def answers(self, wait: bool) -> list[tuple[Hashable, Any]]:
    """Returns the calls that are done: (owner, what the function returned, or a `Failure`).

    Args:
      wait: waits for the first answer or time-out where there is none yet.
    """
    answers = []
    block = wait and bool(self._deadlines)
    while True:
      try:
        timeout = None
        if block and (first := min(self._deadlines.values())) < math.inf:
          timeout = max(0.0, first - time.monotonic())
        owner, seat, value = self._answers.get(block, timeout)
      except queue.Empty:
        break
      block = False
      if self._seat_of.get(owner) is seat:  # else it is late: the owner was told of a time-out
        answers.append((owner, value))
        del self._deadlines[owner]
    now = time.monotonic()
    for owner in [o for o, deadline in self._deadlines.items() if deadline <= now]:
      answers.append((owner, Failure(TimeoutError(f"no answer within {self._seconds:g} s"))))
      del self._deadlines[owner]
    for owner, value in answers:
      if isinstance(value, Failure):
        self._seat_of.pop(owner).retire()
    return answers

  def leave(self, owner: Hashable) -> None:
    """The owner is done; its environment, if it still has one, serves the next."""
    if owner in self._seat_of:
      self._free.append(self._seat_of.pop(owner))

  def close(self) -> None:
    """Closes all environments; waits for them, but not for long."""
    seats = [*self._free, *self._seat_of.values()]
    for seat in seats:
      seat.retire()
    deadline = time.monotonic() + _CLOSE_SECONDS
    for seat in seats:
      seat.thread.join(max(0.0, deadline - time.monotonic()))
    if hung := sum(seat.thread.is_alive() for seat in seats):
      logging.warning("%d environments were not closed within %g s; they end with the process", hung,
                      _CLOSE_SECONDS)


class _Seat:
  """One environment and its thread."""

  def __init__(self, make_env: Callable[[], Env], answers: queue.SimpleQueue):
    self.calls: queue.SimpleQueue[tuple[Hashable, Callable[[Env], Any]] | None] = queue.SimpleQueue()
    self.thread = threading.Thread(target=self._serve, args=(make_env, answers), daemon=True)
    self.thread.start()

  def retire(self) -> None:
    self.calls.put(None)

  def _serve(self, make_env: Callable[[], Env], answers: queue.SimpleQueue) -> None:
    env = None
    while (call := self.calls.get()) is not None:
      owner, function = call
      try:
        if env is None:
          env = make_env()
        answers.put((owner, self, function(env)))
      except BaseException as e:  # also SystemExit and the like: the owner must hear of it
        answers.put((owner, self, Failure(e)))
    if env is not None:
      try:
        env.close()
      except Exception as e:
        logging.warning("an environment could not be closed: %s", Failure(e))
