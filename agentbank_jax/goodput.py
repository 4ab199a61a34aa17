"""Goodput: which share of a run's wall time made it go forward, over all its starts.

`goodput.jsonl` in the workdir tells where the time of each process of a run went until it was at a step: {"started":
unix seconds, "step", "seconds": {part: seconds}}. A process is always in one part, so its parts add up to its time.
What it did after its last line is not known, where it was killed, and counts as `down`. So the parts add up to

  wall time = from the first start to the report

  step        the loop waits for steps. Less those of `redone`, and over the wall time, this is `goodput`
  redone      steps beyond the one that a later start went on from: done, lost, and done again
  input       the loop waits for a batch, and for its way to the devices. An upper bound of what the devices wait: they
              may still be at the step before
  checkpoint  the loop waits for a save; what is written while steps go on costs nothing here
  evaluation  of the split "eval"
  start       from the process's start until its first step is on its way: imports, meeting the other processes,
              reading the checkpoint, compiling
  end         the model is written
  down        between a process's last line and the next start

Times are process 0's. Prior art: Google's ml_goodput_measurement, which reads a job's cloud logs.
"""

from collections.abc import Iterator, Sequence
import contextlib
import itertools
import json
import operator
import time
from typing import Any

import numpy as np
import psutil

from agentbank_jax.files import atomic_path, line_file, read_lines
from agentbank_jax.paths import AnyPath

PARTS = ("start", "step", "input", "checkpoint", "evaluation", "end")  # of a process; `redone` and `down` come after


def process_started() -> float:
  """Returns when this process was made, in unix seconds."""
  return psutil.Process().create_time()


class Goodput:
  """Where the time of this process goes, and the run's file of it. It begins in the part `start`."""

  def __init__(self, path: AnyPath, started: float | None, lead: bool = True):
    """Args:
      path: the file.
      started: unix seconds; None: now.
      lead: whether this process writes; of several, one does.
    """
    self._path, self._lead, self._file = path, lead, None
    now = time.time()
    self._started = now if started is None else started
    self._seconds = dict.fromkeys(PARTS, 0.0) | {"start": now - self._started}
    self._part, self._since = "start", time.perf_counter()

  def enter(self, part: str) -> str:
    """From here on time counts as `part`. Returns the part before."""
    now, before = time.perf_counter(), self._part
    self._seconds[before] += now - self._since
    self._part, self._since = part, now
    return before

  @contextlib.contextmanager
  def within(self, part: str) -> Iterator[None]:
    """Counts the block as `part`, and what follows as what came before. While the process starts, all is `start`."""
    before = self.enter("start" if self._part == "start" else part)
    try:
      yield
    finally:
      self.enter(before)

  def open(self, step: int) -> None:
    """Begins this process's lines, below those of the processes before it; `step` is what it goes on from.

    Raises:
      UserError: the file there is not ours.
    """
    if self._lead:
      lines = _read(self._path)
      with atomic_path(self._path) as temporary:  # without the half line that a kill may have left
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
      self._file = line_file(self._path)
      self.write(step)

  def write(self, step: int, sync: bool = False) -> None:
    """Notes where the time went until `step` was done; `sync`: so that it survives the machine."""
    if self._file:
      self.enter(self._part)
      seconds = {part: round(s, 3) for part, s in self._seconds.items()}
      self._file.append(json.dumps({"started": round(self._started, 3), "step": step, "seconds": seconds}))
      if sync:
        self._file.sync()

  def close(self) -> None:
    if self._file:
      self._file.close()

  def report(self) -> dict[str, Any] | None:
    """Returns `account` of the whole run, until the last line; None where another process writes."""
    return account(_read(self._path)) if self._lead else None


def account(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Adds up a run's lines by the formula above.

  Returns:
    goodput; shares: of each part, 1 in all; wall_seconds; starts; steps_redone.
  """
  starts = [list(group) for _, group in itertools.groupby(lines, operator.itemgetter("started"))]
  last = [start[-1]["seconds"] for start in starts]
  parts = {part: sum(seconds[part] for seconds in last) for part in PARTS} | {"redone": 0.0, "down": 0.0}
  steps_redone = 0
  for number, start in enumerate(starts[:-1]):
    gap = starts[number + 1][0]["started"] - (start[-1]["started"] + sum(last[number].values()))
    parts["down"] += max(gap, 0.0)
    # Below zero where the clocks of two hosts differ, or as Linux tells a process's start to a second: counted once.
    parts["start"] -= min(max(-gap, 0.0), last[number + 1]["start"])
    kept = min(later[0]["step"] for later in starts[number + 1:])
    done, seconds = zip(*((line["step"], line["seconds"]["step"]) for line in start), strict=True)
    steps_redone += max(done[-1] - max(kept, done[0]), 0)
    parts["redone"] += seconds[-1] - float(np.interp(kept, done, seconds))
  parts["step"] -= parts["redone"]
  wall = sum(parts.values())
  shares = {part: seconds / wall for part, seconds in parts.items()}
  return {"goodput": shares["step"], "shares": shares, "wall_seconds": wall, "starts": len(starts),
          "steps_redone": steps_redone}


def describe(report: dict[str, Any]) -> str:
  """Returns a report in one line."""
  rest = ", ".join(f"{part} {share:.1%}" for part, share in report["shares"].items() if part != "step" and share > 0)
  starts = "1 start" if report["starts"] == 1 else f"{report['starts']} starts"
  return f"goodput: {report['goodput']:.1%} of {report['wall_seconds']:,.0f} s in {starts} were steps ({rest})"


def _read(path: AnyPath) -> list[dict[str, Any]]:
  return read_lines(path, "goodput", "started", "step", "seconds")
