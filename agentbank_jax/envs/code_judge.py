"""Judges Python that nobody has read. The verdict is made where the judged program is not.

**Functions** (`run_tests`). The tests of HumanEval and MBPP are programs that call the judged function and compare.
They run in one sandbox, the judged code in another: a call goes from the tests through this process to the code, as
plain data, and what it returned goes back (`inside/wire.py`). So the judged code never has an expected value, or the
text of a test, in its process or its files; it can print, fork, kill, replace built-in functions, raise or define
`__eq__` as it likes: all it can do about the verdict is to return a value, and the value is compared elsewhere.

**Programs** (`run_program`) get their input, and their output is compared here, one process for every test.

How this differs from running code and tests in one process, as the benchmarks do: what a function changes in its
arguments is not seen by the test; a value that is no plain data passes no test; a subclass counts as its base. The
canonical solutions pass all the same (`tests/test_code_tasks.py`), as far as real rows were at hand.
"""

from collections.abc import Mapping, Sequence
import contextlib
import importlib.resources
import json
from typing import NamedTuple

from agentbank_jax.envs import sandbox
from agentbank_jax.envs.inside import wire
from agentbank_jax.envs.sandbox import Limits, Program, Sandbox

Example = tuple[str, str]  # an expression, and what Python shows for it
MAX_PRINTED = 2_000  # characters of what code prints that its writer is shown
# Of judged code. On the clock there is room for a machine that does much else: processor time decides.
LIMITS = Limits(cpu_seconds=10, wall_seconds=100, memory_mib=1024, processes=32, output_bytes=16_000_000)
_TESTS = Limits(cpu_seconds=30, wall_seconds=120, memory_mib=1024, processes=16, output_bytes=64_000_000)
TOOK_TOO_LONG = "it took too long"
NOT_RUN = "not run, since a test before it took too long"
_STOPPED = {"time": TOOK_TOO_LONG, "memory": "it needs too much memory", "output": "it prints too much"}


class Verdict(NamedTuple):
  """What came of one test: `message` says why it did not pass, for the one who wrote the code."""

  passed: bool
  message: str


class Report(NamedTuple):
  """What came of all tests, and of the code itself: what it printed, and why it did not run, or ""."""

  verdicts: tuple[Verdict, ...]
  printed: str
  error: str

  @property
  def passed(self) -> bool:
    return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)


def run_tests(code: Sequence[str], tests: Sequence[str | Example], names: Mapping[str, str], before: str = "",
              limits: Limits = LIMITS) -> Report:
  """Runs code, then tests of its functions.

  The code runs once and is asked by all tests, as in one program. Where it ends or is stopped, that test has failed,
  and the code is started again for the next; but nothing runs after a test that took too long.

  Args:
    code: the parts of the judged program, run one after the other in one name space.
    tests: each a program that raises where the code is wrong, or an `Example`.
    names: those of the code that tests use: the name in the tests, and the name in the code.
    before: runs before the tests, and not in the code's process.
    limits: of the judged code.

  Raises:
    UserError: this machine has no sandbox.
    SandboxError: one failed, or the tests themselves could not be run.
  """
  with sandbox.turn(), contextlib.ExitStack() as stack:
    testing = stack.enter_context(_start(_TESTS, "testing.py"))
    tested = stack.enter_context(contextlib.closing(_Tested(code, limits)))
    job = {"before": before, "tests": list(tests), "names": dict(names)}
    testing.write(json.dumps(job).encode() + b"\n")
    verdicts: list[Verdict] = []
    why = ""
    while not why:
      line = testing.read_line()
      if line is None:
        end = testing.wait()
        why = f"the tests did not come to their end: {end.stopped or last_line(end.stderr)}"
        if not tested.asked:
          raise sandbox.SandboxError(why)
        break  # what the code returned was too much for them, or it took its time too often
      message = json.loads(line)  # of our own program: the judged code has no part in it
      if "call" in message:
        testing.write(tested.answer(line) + b"\n")
      elif "test" in message:
        verdicts.append(Verdict(message["passed"], tested.take_failure() or message["message"]))
        why = NOT_RUN if verdicts[-1].message == TOOK_TOO_LONG else ""
      else:
        break
  verdicts += [Verdict(False, why)] * (len(tests) - len(verdicts))
  return Report(tuple(verdicts), tested.printed, tested.error)


def run_program(code: str, stdin: str, limits: Limits = LIMITS) -> tuple[str | None, str]:
  """Runs a program; returns what it printed on standard output and why it failed, else "".

  The output is None where the program failed: it was stopped, or its exit status is not 0.
  """
  finished = Sandbox(limits).python(code, stdin.encode("utf-8", "replace"))
  if finished.stopped:
    return None, _STOPPED[finished.stopped]
  if finished.returncode:
    return None, last_line(finished.stderr) or f"exit status {finished.returncode}"
  return finished.stdout.decode(errors="replace"), ""


def syntax_error(code: str) -> str:
  """Returns why source is no program, or "". A compiler can be made to run on: it runs in a sandbox too."""
  program = "import sys; compile(sys.stdin.buffer.read(), '<your code>', 'exec')"
  finished = Sandbox(LIMITS).python(program, code.encode("utf-8", "replace"))
  if finished.returncode == 0:
    return ""
  return _STOPPED.get(finished.stopped) or last_line(finished.stderr)


def last_line(stderr: bytes) -> str:
  """Returns the last line of a traceback, which says what was wrong."""
  lines = stderr.decode(errors="replace").strip().splitlines()
  return lines[-1][:500] if lines else ""


def _start(limits: Limits, name: str) -> Program:
  folder = importlib.resources.files("agentbank_jax.envs.inside")
  files = {file: (folder / file).read_bytes() for file in ("wire.py", name)}
  return Sandbox(limits).start([*sandbox.python_command(), name], files)


class _Tested:
  """The judged code, started again where it has ended.

  Attributes:
    asked: whether a test has called it.
    error: why the code does not run, or "".
    printed: by the code, once it is closed.
  """

  def __init__(self, code: Sequence[str], limits: Limits):
    self._code, self._limits = code, limits
    self._program: Program | None = None
    self._failure = ""
    self.asked = False
    self.error = self.printed = ""
    self._load()

  def answer(self, call: bytes) -> bytes:
    """Returns the line that answers a call: what the code wrote, which whoever reads it takes for no more than that."""
    self.asked = True
    if self._program is None:
      self._load()
    if self.error:
      return self._reply("NotRun", self.error)
    return self._ask(call)

  def take_failure(self) -> str:
    """Returns why the code's process ended since the last time, or ""."""
    failure, self._failure = self._failure, ""
    return failure

  def close(self) -> None:
    if self._program is not None:
      self._program.close()
      self.printed = (self.printed + self._program.stderr.decode(errors="replace"))[:MAX_PRINTED]
      self._program = None

  def _load(self) -> None:
    if self.error:
      return
    self._program = _start(self._limits, "tested.py")
    for part in self._code:
      try:
        reply = json.loads(self._ask(json.dumps({"code": part}).encode()))
      except (ValueError, RecursionError):
        reply = {"error": "Malformed", "message": "the code wrote to where its replies go"}
      if not isinstance(reply, dict) or "error" in reply:
        self.error = wire.describe(reply)
        break

  def _ask(self, request: bytes) -> bytes:
    self._program.write(request + b"\n")
    line = self._program.read_line()
    if line is not None:
      return line
    self._failure = _STOPPED.get(self._program.wait().stopped, "its process ended before it returned")
    self.close()
    return self._reply("Stopped", self._failure)

  def _reply(self, error: str, message: str) -> bytes:
    return json.dumps({"error": error, "message": message}).encode()
