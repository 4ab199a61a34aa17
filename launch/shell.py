"""Commands that are run, or printed as a script that can be pasted into a shell."""

from collections.abc import Callable, Sequence
import math
import os
import pathlib
import shlex
import subprocess
import sys
from typing import NamedTuple, TypeVar

import tenacity

from agentbank_jax.errors import UserError

_GET = {"gcloud": "the Google Cloud CLI (cloud.google.com/sdk)", "kubectl": "gcloud components install kubectl",
        "sbatch": "a login node of a SLURM cluster"}

T = TypeVar("T")


class Done(NamedTuple):
  """A command that has ended: exit code, and what it said."""

  code: int
  out: str
  err: str


class Shell:
  """Runs commands and writes files, or with `dry_run` only prints them: what is printed is what would be run.

  Attributes:
    dry_run: whether to print alone.
  """

  def __init__(self, dry_run: bool):
    self.dry_run = dry_run
    self._made: set[pathlib.Path] = set()  # folders that the printed script has made already
    if dry_run:
      print("set -euo pipefail")

  def say(self, text: str) -> None:
    """Tells the person; in a dry run, as a comment."""
    print(f"# {text}" if self.dry_run else text, flush=True)

  def run(self, argv: Sequence[str], why: str, output: pathlib.Path | None = None) -> Done:
    """Runs a command that must succeed.

    Args:
      argv: program and arguments.
      why: what it is for.
      output: a file that gets its stdout, beside the result.

    Raises:
      UserError: the program is absent, or fails; its last words are told.
    """
    done = self.attempt(argv, why, output)
    if done.code:
      raise UserError(f"{why}: {shlex.join(argv[:5])} ... ended with exit code {done.code}: {last_line(done.err)}")
    return done

  def attempt(self, argv: Sequence[str], why: str, output: pathlib.Path | None = None) -> Done:
    """As `run`, of a command that may fail."""
    argv = [str(a) for a in argv]
    if output is not None:
      self.folder(output.parent)
    self.say(why)
    if self.dry_run:
      print(shlex.join(argv) + (f" > {shlex.quote(str(output))}" if output else ""))
      return Done(0, "", "")
    done = self._execute(argv)
    if output is not None:
      output.write_text(done.out)
    return done

  def _execute(self, argv: Sequence[str]) -> Done:
    try:
      done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
      raise UserError(f"{argv[0]} is not on PATH; it comes with {_GET.get(argv[0], argv[0])}") from None
    sys.stderr.write(done.stderr)
    return Done(done.returncode, done.stdout, done.stderr)

  def write(self, path: pathlib.Path, text: str, why: str) -> None:
    """Writes a file."""
    self.folder(path.parent)
    self.say(why)
    if self.dry_run:
      print(f"cat > {shlex.quote(str(path))} <<'END_OF_FILE'\n{text.rstrip()}\nEND_OF_FILE")
    else:
      path.write_text(text.rstrip() + "\n")

  def folder(self, path: pathlib.Path) -> None:
    """Makes a folder, where it is not there."""
    if not self.dry_run:
      path.mkdir(parents=True, exist_ok=True)
    elif path not in self._made:
      self._made.add(path)
      print(shlex.join(["mkdir", "-p", os.fspath(path)]))

  def poll(self, argv: Sequence[str], why: str, look: Callable[[Done], T | None], every: float,
           seconds: float = math.inf) -> T | None:
    """Runs a command again and again until `look` makes something of what it says; a dry run shows it once.

    Args:
      argv: program and arguments.
      why: what is waited for.
      look: returns what was waited for, or None to go on waiting.
      every: seconds between two looks.
      seconds: to wait at most.

    Returns:
      What `look` returned; None in a dry run, and when the time is up.
    """
    if self.dry_run:
      self.attempt(argv, f"{why}; asked every {every:g} s until it is so")
      return None
    self.say(why)
    stop = tenacity.stop_never if math.isinf(seconds) else tenacity.stop_after_delay(seconds)
    again = tenacity.Retrying(retry=tenacity.retry_if_result(lambda found: found is None), stop=stop,
                              wait=tenacity.wait_fixed(every), retry_error_callback=lambda state: None)
    return again(lambda: look(self._execute(argv)))


def new_attempt(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the folder for the logs of the next attempt: those of the earlier ones stay."""
  taken = [int(p.name.rpartition("-")[2]) for p in (workdir / "logs").glob("attempt-[0-9]*")]
  return workdir / "logs" / f"attempt-{max(taken, default=-1) + 1}"


def last_line(text: str) -> str:
  """Returns the last line that says something, or "it said nothing"."""
  return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
