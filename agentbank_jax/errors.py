"""The one exception that reaches people: a message they can act on, no traceback, exit code 2."""

from collections.abc import Iterable
import difflib
import traceback


class UserError(Exception):
  """Something the person who ran the command can mend.

  The message is one line: which file, row or key, what is wrong, what to do.
  `agentbank` prints it after "agentbank: error: " and exits with code 2.
  """


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns "; did you mean 'x'?" for the closest of `known`, or ""."""
  close = difflib.get_close_matches(name, list(known), n=1)
  return f"; did you mean {close[0]!r}?" if close else ""


def describe(error: BaseException) -> str:
  """Returns an exception as one line, with the place where it was raised: "OSError: disk full (sql.py:12)"."""
  frames = traceback.extract_tb(error.__traceback__)
  where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
  return f"{type(error).__name__}: {error}{where}"


class Interrupted(Exception):
  """The run was asked to stop (SIGTERM), has saved its state and can be started again: exit code 75."""


class Terminated(KeyboardInterrupt):
  """SIGTERM came where Ctrl-C would stop the run just as well; what is done is kept: exit code 75."""


class ProcessesMissing(Exception):
  """Other processes of this run did not start, or were lost: exit code 69. Starting all again may do."""


EXIT_ERROR = 2  # UserError
EXIT_INTERRUPTED = 75  # Interrupted, Terminated; sysexits' EX_TEMPFAIL: try again
EXIT_MISSING = 69  # ProcessesMissing; sysexits' EX_UNAVAILABLE
