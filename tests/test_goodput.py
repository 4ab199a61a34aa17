"""The account of a run's wall time: by hand, and over a real process that is stopped."""

import json
import time

import pytest

from agentbank_jax import goodput
from agentbank_jax.errors import UserError

PARTS = dict(start=0.0, step=0.0, input=0.0, checkpoint=0.0, evaluation=0.0, end=0.0)


def _line(started, step, /, **seconds):
  return {"started": started, "step": step, "seconds": PARTS | seconds}


def test_one_start():
  last = _line(1000.0, 50, start=30.0, step=60.0, input=5.0, checkpoint=3.0, evaluation=1.0, end=1.0)
  found = goodput.account([_line(1000.0, 0, start=30.0), last])
  assert found == {"goodput": 0.6, "wall_seconds": 100.0, "starts": 1, "steps_redone": 0,
                   "shares": {"start": 0.3, "step": 0.6, "input": 0.05, "checkpoint": 0.03, "evaluation": 0.01,
                              "end": 0.01, "redone": 0.0, "down": 0.0}}


# Killed after step 30, by its last line 50 s old; went on from 20, 10 s later; killed before it did a step; went on
# from 20 again, and came to its end at step 40. Steps take a second.
KILLED = [
    _line(1000.0, 0, start=20.0), _line(1000.0, 10, start=20.0, step=10.0), _line(1000.0, 30, start=20.0, step=30.0),
    _line(1060.0, 20, start=15.0),
    _line(1100.0, 20, start=15.0), _line(1100.0, 40, start=15.0, step=20.0, checkpoint=5.0)]


def test_steps_that_are_done_again_are_no_goodput():
  found = goodput.account(KILLED)
  seconds = {part: share * found["wall_seconds"] for part, share in found["shares"].items()}
  assert seconds == pytest.approx(
      dict(PARTS, start=50.0, step=40.0, redone=10.0, checkpoint=5.0, down=10.0 + 25.0))
  assert (found["starts"], found["steps_redone"]) == (3, 10)
  assert found["wall_seconds"] == pytest.approx(1140.0 - 1000.0)  # from the first start to the last line
  assert found["goodput"] == pytest.approx(40 / 140)
  assert sum(found["shares"].values()) == pytest.approx(1)


def test_a_later_start_that_goes_back_further_takes_more():
  """As where the newest checkpoints cannot be read."""
  lines = [*KILLED[:4], _line(1060.0, 25, start=15.0, step=5.0), _line(1100.0, 5, start=15.0),
           _line(1100.0, 40, start=15.0, step=35.0)]
  found = goodput.account(lines)
  assert found["steps_redone"] == 25 + 5
  assert found["shares"]["redone"] * found["wall_seconds"] == pytest.approx(25.0 + 5.0)
  assert found["goodput"] * found["wall_seconds"] == pytest.approx(40.0)


def test_time_that_two_starts_claim_is_counted_once():
  """The second began 2 s before the last line of the first, by its clock."""
  found = goodput.account([_line(1000.0, 0, start=10.0), _line(1000.0, 5, start=10.0, step=5.0),
                           _line(1013.0, 5, start=10.0), _line(1013.0, 10, start=10.0, step=5.0)])
  assert found["wall_seconds"] == pytest.approx(28.0)
  assert found["shares"]["start"] * 28 == pytest.approx(18.0) and found["shares"]["down"] == 0
  assert sum(found["shares"].values()) == pytest.approx(1)


def test_a_report_in_one_line():
  assert goodput.describe(goodput.account(KILLED)) == (
      "goodput: 28.6% of 140 s in 3 starts were steps (start 35.7%, checkpoint 3.6%, redone 7.1%, down 25.0%)")


def test_a_clock_is_always_in_one_part(tmp_path):
  began = time.time()
  clock = goodput.Goodput(tmp_path / "goodput.jsonl", began - 100.0)
  clock.open(7)
  with clock.within("input"):  # while it starts, all is start
    time.sleep(0.02)
  clock.enter("step")
  with pytest.raises(ZeroDivisionError), clock.within("checkpoint"):
    1 / 0  # noqa: B018
  with clock.within("evaluation"):
    time.sleep(0.02)
  clock.write(8)
  clock.close()
  first, last = [json.loads(line) for line in (tmp_path / "goodput.jsonl").read_text().splitlines()]
  assert first["step"] == 7 and first["seconds"].keys() == PARTS.keys()
  assert last["seconds"]["start"] >= 100.02 and last["seconds"]["evaluation"] >= 0.02
  assert last["seconds"]["input"] == 0
  assert sum(last["seconds"].values()) == pytest.approx(time.time() - began + 100.0, abs=0.5)
  assert clock.report()["shares"]["start"] > 0.9


def test_half_a_line_and_lines_of_others(tmp_path):
  path = tmp_path / "goodput.jsonl"
  whole = json.dumps(_line(1000.0, 0, start=1.0)) + "\n"
  path.write_text(whole + whole[:20])
  goodput.Goodput(path, None, lead=False).open(3)
  assert path.read_text() == whole + whole[:20]
  clock = goodput.Goodput(path, None)
  clock.open(3)
  clock.close()
  assert path.read_text().startswith(whole) and path.read_text().count("\n") == 2
  path.write_text('{"step": 1}\n' + whole)
  with pytest.raises(UserError, match="line 1 is not a goodput line; move the file away"):
    goodput.Goodput(path, None).open(3)
