"""Has the tests, which are the benchmark's: runs them one by one, and says which passed.

Names that the tested code defines are stand-ins here. Calling one writes the call to standard output and waits for
what came of it on standard input. Verdicts go the same way out. The tested code is in another sandbox.
"""

import builtins
import os

import wire

_REPLIES, _CALLS = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)  # what tests print is neither a call nor a verdict


def main():
  job = wire.loads(_REPLIES.readline())
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
      message = f"{type(error).__name__}: {error}"
    _write({"test": number, "passed": not message, "message": message})
  _write({"done": True})


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


class _StandIn(wire.Name):
  """A name of the tested code; `last` says what the last call came to."""

  last = None

  def __call__(self, *arguments, **keywords):
    _write({"call": self.name, "arguments": (arguments, keywords)})
    reply = wire.loads(_REPLIES.readline())
    if "value" in reply:
      try:
        _StandIn.last = f"{self.name}(...) returned {reply['value']!r}"[:500]
      except TypeError as error:
        _StandIn.last = str(error)
      return reply["value"]
    message = wire.describe(reply)
    _StandIn.last = f"{self.name}(...) raised {message}"
    kind = getattr(builtins, reply["error"], None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, AssertionError):
      try:
        error = kind(reply["message"])
      except TypeError:  # some exceptions want other arguments
        raise _CallFailed(message) from None
      raise error
    raise _CallFailed(message)


def _write(message):
  _CALLS.write(wire.dumps(message) + "\n")
  _CALLS.flush()


main()
