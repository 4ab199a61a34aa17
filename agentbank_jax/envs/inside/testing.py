"""Has the tests, which are the benchmark's: runs them one by one, and says which passed.

Names that the tested code defines are stand-ins here. Calling one writes the call to standard output and waits for
what came of it on standard input. Verdicts go the same way out. The tested code is in another sandbox.
"""

import builtins
import os

import wire


class _Line:
  """The line to the process that has the tested code, and to the one that takes the verdicts."""

  def __init__(self):
    self._replies, self._calls = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what tests print is neither a call nor a verdict

  def read(self):
    return wire.loads(self._replies.readline())

  def write(self, message):
    self._calls.write(wire.dumps(message) + "\n")
    self._calls.flush()


def main():
  line = _StandIn.line = _Line()
  job = line.read()
  # One name space for all, as if they were one program; the names of the tested code win.
  names = {"__name__": "testing"}
  stand_ins = {name: _StandIn(target) for name, target in job["names"].items()}
  exec(compile(job["before"], "<before>", "exec"), names)
  names.update(stand_ins)
  for number, test in enumerate(job["tests"]):
    _StandIn.last = None
    try:
      if isinstance(test, str):
        exec(compile(test, "<test>", "exec"), names)
      else:
        _example(*test, names)
      message = ""
    except _CallFailed as error:
      message = f"{error}"
    except AssertionError as error:
      message = str(error) or _StandIn.last or "the assertion does not hold"
    except Exception as error:
      message = getattr(error, "described", None) or f"{type(error).__name__}: {error}"
    line.write({"test": number, "passed": not message, "message": message})
  line.write({"done": True})


def _example(source, expected, names):
  """Runs an example of a docstring, which shows what Python prints for an expression."""
  value = eval(compile(source, "<example>", "eval"), names)
  shown = "" if value is None else repr(value)
  if shown.split() != expected.split() and not _equal(value, expected):
    raise AssertionError(f"got {shown[:500] or 'None'}")


def _equal(value, expected):
  import ast
  try:
    return value == ast.literal_eval(expected)
  except (ValueError, SyntaxError):
    return False


class _CallFailed(Exception):
  """The tested code raised, or is gone."""


# What a test would take for its own: that it does not hold, or that an iterator of its (`map`) is at its end.
_NOT_RAISED = (AssertionError, StopIteration, StopAsyncIteration)


class _StandIn(wire.Name):
  """A name of the tested code; `last` says what the last call came to."""

  line = last = None

  def __call__(self, *arguments, **keywords):
    self.line.write({"call": self.name, "arguments": (arguments, keywords)})
    reply = self.line.read()
    if "value" in reply:
      try:
        _StandIn.last = f"{self.name}(...) returned {reply['value']!r}"[:500]
      except TypeError as error:
        _StandIn.last = str(error)
      return reply["value"]
    message = wire.describe(reply)
    _StandIn.last = f"{self.name}(...) raised {message}"
    kind = getattr(builtins, reply["error"], None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_RAISED):
      try:
        error = kind(reply["message"])
      except TypeError:  # some exceptions want other arguments
        raise _CallFailed(message) from None
      error.described = message
      raise error
    raise _CallFailed(message)


if __name__ == "__main__":
  main()
