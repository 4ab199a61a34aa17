"""What the exit codes of a run's processes amount to: done, worth another start, or not."""

from collections.abc import Mapping
import signal
from typing import NamedTuple

from agentbank_jax.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_MISSING

LOST = 137  # no exit code to be had, as of a process that was killed: 128 + SIGKILL


class Outcome(NamedTuple):
  """What to do about a run that has ended.

  Attributes:
    kind: "done", "restart" or "failed".
    culprit: the process that decided it, or None where all are done.
    code: its exit code, 0 where all are done.
  """

  kind: str
  culprit: str | None
  code: int

  @property
  def why(self) -> str:
    return f"{self.culprit} {describe(self.code)}"


def judge(codes: Mapping[str, int]) -> Outcome:
  """Judges a run by its processes' exit codes, as shells give them: 128 + n for signal n.

  A run that was preempted (75), lost a process (a signal, or no code at all) or did not come together (69) is worth
  another start: it resumes at its checkpoint. An error (2) would be the same again. Where a process is lost, others
  notice (69), are ended by jax (134) or crash (1); so these decide only where nothing else explains them.

  Args:
    codes: of the processes that ended by themselves, by name.
  """
  failed = {name: code for name, code in codes.items() if code}
  if not failed:
    return Outcome("done", None, 0)
  culprit = min(failed, key=lambda name: _rank(failed[name]))
  return Outcome("restart" if is_worth_a_restart(failed[culprit]) else "failed", culprit, failed[culprit])


def _rank(code: int) -> int:
  """Orders exit codes by how much they explain: an error, a loss, a stop; then what others make of these."""
  if code > 128:
    return 1 if code == LOST else 3
  return {EXIT_ERROR: 0, EXIT_INTERRUPTED: 2, EXIT_MISSING: 4}.get(code, 5)


def is_worth_a_restart(code: int) -> bool:
  return code in (EXIT_INTERRUPTED, EXIT_MISSING) or code > 128


def describe(code: int) -> str:
  """Returns what an exit code says, as the end of a sentence about a process."""
  if code == EXIT_INTERRUPTED:
    return "was stopped and has saved (exit code 75)"
  if code == EXIT_MISSING:
    return "did not find all processes of its run (exit code 69)"
  if code > 128:
    try:
      return f"was killed by {signal.Signals(code - 128).name} or lost (exit code {code})"
    except ValueError:
      pass
  return f"ended with exit code {code}"
