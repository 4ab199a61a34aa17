"""Whether two mathematical expressions are the same, asked of a process that can be ended.

SymPy can be made to compute for hours (`9^{9^{9^9}}`) and to take all memory; a time limit by signals, as libraries
bring it, needs the main thread and does not interrupt big integers. So the question goes to `equivalence_worker`, one
process for all environments of this one: it is started at the first question, and again after one that ended it.
"""

import json
import select
import subprocess
import sys
import threading
from typing import Any

from absl import logging

from agentbank_jax.envs import equivalence_worker
from agentbank_jax.errors import UserError

CPU_SECONDS = 5  # for a reply; a hundred times what an answer of MATH takes
WALL_SECONDS = 60.0  # for a reply, on a machine with other work
_MODULE = equivalence_worker.__name__


class Equivalence:
  """The worker. Threads may share it: questions wait for each other."""

  def __init__(self, cpu_seconds: int = CPU_SECONDS):
    """`cpu_seconds` is what one question may take, and up to one more."""
    self._cpu_seconds = cpu_seconds
    self._lock = threading.Lock()
    self._users = 0
    self._process: subprocess.Popen[bytes] | None = None

  def open(self) -> "Equivalence":
    """Says that somebody more will ask; returns itself."""
    with self._lock:
      self._users += 1
    return self

  def close(self) -> None:
    """Says that one who has opened it will not ask again; after the last, the process ends."""
    with self._lock:
      self._users -= 1
      if self._users == 0:
        self._end()

  def equal(self, gold: str, answer: str) -> bool | None:
    """Returns whether two LaTeX expressions are the same, or None where that is not known within the limits."""
    return self._ask({"gold": gold, "answer": answer}).get("equal")

  def number(self, latex: str) -> float | None:
    """Returns the value of a LaTeX expression, or None where it is no real number, or not within the limits."""
    return self._ask({"number": latex}).get("value")

  def _ask(self, request: dict[str, str]) -> dict[str, Any]:
    with self._lock:
      if self._process is None:
        self._start()
      try:
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._line()
      except BrokenPipeError:
        line = b""
      if line:
        return json.loads(line)
      logging.info("a question took longer than %d s or %d MiB and is answered with no: %.200s",
                   self._cpu_seconds, equivalence_worker.MEMORY_BYTES >> 20, request)
      self._end()
      return {}

  def _start(self) -> None:
    try:
      import math_verify  # noqa: F401
    except ImportError:
      raise UserError("math-verify is not installed, which compares answers: pip install 'agentbank-jax[envs]'"
                      ) from None
    self._process = subprocess.Popen([sys.executable, "-m", _MODULE, str(self._cpu_seconds)], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

  def _line(self) -> bytes:
    """Returns the next line of the worker, or b"": it has ended, or takes too long."""
    ready, _, _ = select.select([self._process.stdout], [], [], WALL_SECONDS)
    return self._process.stdout.readline() if ready else b""

  def _end(self) -> None:
    if self._process is not None:
      self._process.kill()
      self._process.wait()
      self._process.stdin.close()
      self._process.stdout.close()
      self._process = None


SHARED = Equivalence()  # one process is enough for one question an episode
