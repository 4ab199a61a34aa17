"""Stopping, resuming and comparing runs: nothing is played twice, nothing is mixed, nothing is lost."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from fake_tasks import COUNT, FakePlayer, count_up, gamble, task_with
import pytest

from agentbank_jax.errors import UserError
from agentbank_jax.evaluate.episode_log import (
    EpisodeLog,
    difference,
    fingerprint,
    fingerprint_path,
    read_fingerprint,
)
from agentbank_jax.evaluate.rollout import Limits, play
from agentbank_jax.evaluate.run import Problems, compare_logs, evaluate_tasks, log_path
from agentbank_jax.evaluate.scores import Comparison
from agentbank_jax.evaluate.tables import comparison_table
from agentbank_jax.tasks import requirements
from agentbank_jax.trajectory import Turn
from agentbank_jax.trajectory_io import read_trajectories

LIMITS = Limits(step_seconds=30.0, invalid_actions=3, retries=0)


def evaluate(workdir, task=COUNT, count=20, player=None, files=None, **changes):
  problems = [Problems(task, tuple(task.instances("test", count, 0)), files or {})]
  settings = dict(seed=0, limits=LIMITS, sampling={"temperature": 1.0}) | changes
  (score,) = evaluate_tasks(player or FakePlayer(gamble), problems, workdir, **settings)
  return score


class Counting(FakePlayer):
  """Counts the conversations it is asked for."""

  def __post_init__(self):
    super().__post_init__()
    self.begun = set()

  def send(self, conversation, turns, seed):
    self.begun.add(conversation.instance)
    super().send(conversation, turns, seed)


def test_a_log_is_a_file_of_trajectories(tmp_path):
  score = evaluate(tmp_path)
  path = log_path(tmp_path, "count")
  rows = list(read_trajectories(path))
  assert len(rows) == score.episodes == 20
  assert all(any(t.train for t in row.turns) for row in rows)
  assert [json.loads(line) for line in path.read_text().splitlines()] == [r.to_json() for r in rows]


def test_a_rerun_plays_nothing_and_scores_the_same(tmp_path):
  score = evaluate(tmp_path)
  before = log_path(tmp_path, "count").read_bytes()
  player = Counting(gamble)
  assert evaluate(tmp_path, player=player) == score
  assert not player.begun and log_path(tmp_path, "count").read_bytes() == before


def test_a_rerun_plays_what_is_missing_and_a_torn_line_again(tmp_path, caplog):
  score = evaluate(tmp_path)
  path = log_path(tmp_path, "count")
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join(lines[:12]) + lines[12][:-30])
  missing = {json.loads(line)["metadata"]["instance"] for line in lines[12:]}
  player = Counting(gamble)
  assert evaluate(tmp_path, player=player) == score
  assert player.begun == missing
  assert "the last line is torn" in caplog.text and "is cut off" in caplog.text
  assert len(list(read_trajectories(path))) == 20


def test_a_line_torn_before_its_newline_is_played_again(tmp_path):
  score = evaluate(tmp_path, count=1)
  path = log_path(tmp_path, "count")
  path.write_bytes(path.read_bytes()[:-1])
  assert evaluate(tmp_path, count=1) == score


def test_a_broken_line_in_the_middle_is_named(tmp_path):
  evaluate(tmp_path)
  path = log_path(tmp_path, "count")
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join([*lines[:3], b"{oops}\n", *lines[4:]]))
  with pytest.raises(UserError, match=r"count\.jsonl row 4: not JSON"):
    evaluate(tmp_path)


def test_other_seeds_and_models_share_a_log(tmp_path):
  evaluate(tmp_path)
  evaluate(tmp_path, seed=1)
  assert evaluate(tmp_path, player=FakePlayer(count_up, name="tuned")).success == 1.0
  assert len(list(read_trajectories(log_path(tmp_path, "count")))) == 60


@pytest.mark.parametrize("change, field", [
    (dict(count=21), "instances is 21 here and 20 there"),
    (dict(sampling={"temperature": 0.5}), "sampling.temperature is 0.5 here and 1.0 there"),
    (dict(limits=dataclasses.replace(LIMITS, invalid_actions=4)), "invalid_actions is 4 here and 3 there"),
    (dict(task=dataclasses.replace(COUNT, instructions="Count.")), "prompt_hash is "),
    (dict(task=dataclasses.replace(COUNT, few_shot=(Turn("user", "Count to 1."), Turn("assistant", "Action: 1")))),
     "prompt_hash is "),
    (dict(task=dataclasses.replace(COUNT, packages=("pytest",))), 'versions.pytest is "'),
    (dict(files={"count/rows.jsonl": {"sha256": "ab", "known_as": None}}), "files.count/rows.jsonl is "),
    (dict(task=dataclasses.replace(COUNT, max_steps=7)), "max_steps is 7 here and 6 there")])
def test_other_settings_are_refused_by_name(tmp_path, change, field):
  evaluate(tmp_path)
  before = log_path(tmp_path, "count").read_bytes()
  with pytest.raises(UserError, match=field):
    evaluate(tmp_path, **change)
  assert log_path(tmp_path, "count").read_bytes() == before
  changed = tmp_path / "changed"
  evaluate(changed, **change)
  with pytest.raises(UserError, match="cannot be compared"):
    compare_logs("count", tmp_path, changed, seed=0, models=("fake", "fake"))


def test_another_version_of_a_program_is_another_fingerprint(tmp_path, monkeypatch):
  program = tmp_path / "bin" / "simulator"
  program.parent.mkdir()
  monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
  task = dataclasses.replace(COUNT, programs={"/nowhere/simulator|simulator": "apt-get install simulator"})
  install = lambda said: (program.write_text(f"#!/bin/sh\n{said}\n"), program.chmod(0o755), os.utime(
      program, ns=(len(said), len(said))))
  install("echo simulator 17.1; echo more")
  first = evaluate(tmp_path / "a", task)
  assert first.fingerprint["versions"]["simulator"] == "simulator 17.1"
  install("echo simulator 21 >&2")
  second = evaluate(tmp_path / "b", task, player=FakePlayer(count_up, name="tuned"))
  differs = 'versions.simulator is "simulator 17.1" here and "simulator 21" there'
  with pytest.raises(UserError, match=f"cannot be compared: {differs}"):
    compare_logs("count", tmp_path / "a", tmp_path / "b", seed=0, models=("fake", "tuned"))
  with pytest.raises(UserError, match='versions.simulator is "simulator 21" here and "simulator 17.1" there'):
    evaluate(tmp_path / "a", task)
  table = comparison_table([first], [second], [Comparison("count", 0, 40, 0, 0, None, None, None)],
                           names=("a", "b"), title="")
  assert f"NOT played under the same conditions: count: {differs}" in table.note
  install("exit 1")
  assert requirements.versions(task)["simulator"] == "unknown"
  program.unlink()
  assert requirements.versions(task)["simulator"] == "absent"
  assert requirements.missing(task) == ["needs simulator: apt-get install simulator"]


def test_what_does_not_bear_on_scores_may_change(tmp_path):
  score = evaluate(tmp_path)
  limits = dataclasses.replace(LIMITS, step_seconds=5.0, retries=3)
  assert evaluate(tmp_path, limits=limits, player=FakePlayer(gamble, slots=9)) == score


def test_instances_enter_the_fingerprint_by_content_not_order():
  instances = list(COUNT.instances("test", 5, 0))
  ours = fingerprint(COUNT, instances)
  assert difference(ours, fingerprint(COUNT, instances[::-1])) == ""
  other = [dataclasses.replace(instances[0], data={"goal": 9}), *instances[1:]]
  assert difference(ours, fingerprint(COUNT, other)).startswith("instances_hash is ")


def test_a_score_has_its_fingerprint(tmp_path):
  score = evaluate(tmp_path)
  assert score.fingerprint == read_fingerprint(log_path(tmp_path, "count"))
  assert {"task", "split", "instances_hash", "prompt_hash", "files", "versions", "sampling"} <= score.fingerprint.keys()


def test_a_lost_fingerprint_is_an_error(tmp_path):
  evaluate(tmp_path)
  fingerprint_path(log_path(tmp_path, "count")).unlink()
  with pytest.raises(UserError, match=r"count\.fingerprint\.json is missing"):
    evaluate(tmp_path)


def test_excluded_episodes_are_played_again_only_on_request(tmp_path):
  broken = True

  def trouble(id_, call, attempt):
    if broken and id_.endswith("3"):
      raise OSError("no network")
  task = task_with(trouble)
  first = evaluate(tmp_path, task)
  assert (first.excluded, first.retries) == (2, 2)
  broken = False
  player = Counting(gamble)
  assert evaluate(tmp_path, task, player=player) == first and not player.begun
  again = evaluate(tmp_path, task, player=player, retry_excluded=True)
  assert player.begun == {"test-000003", "test-000013"} and again.excluded == 0
  assert again == evaluate(tmp_path / "undisturbed")
  assert len(list(read_trajectories(log_path(tmp_path, "count")))) == 20


def test_two_runs_are_compared_on_the_same_instances(tmp_path):
  evaluate(tmp_path / "a")
  evaluate(tmp_path / "b", player=FakePlayer(count_up, name="tuned"))
  result = compare_logs("count", tmp_path / "a", tmp_path / "b", seed=0, models=("fake", "tuned"))
  assert result.pairs == 20 and result.only_first == 0 and result.difference > 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_rest_is_played_later(tmp_path, sent):
  script = f"""
import pathlib, sys, time
sys.path.insert(0, "tests")
from fake_tasks import FakePlayer, gamble, task_with
from test_episode_log import evaluate
evaluate(pathlib.Path({str(tmp_path)!r}), task_with(lambda *_: time.sleep(0.05)), count=400)
"""
  # A shell that runs the tests in the background has its children ignore SIGINT.
  command = ["env", "--default-signal=INT", sys.executable, "-c", script]
  process = subprocess.Popen(command, cwd=pathlib.Path(__file__).parents[1], stderr=subprocess.PIPE, text=True)
  path = log_path(tmp_path, "count")
  deadline = time.monotonic() + 60
  while not path.exists() or path.read_bytes().count(b"\n") < 5:
    assert time.monotonic() < deadline and process.poll() is None
    time.sleep(0.02)
  process.send_signal(sent)
  _, stderr = process.communicate(timeout=30)
  assert process.returncode != 0 and "the same command plays the rest" in stderr
  done = {e.metadata["instance"] for e in read_trajectories(path)}
  assert 5 <= len(done) < 400
  player = Counting(gamble)
  assert evaluate(tmp_path, count=400, player=player) == evaluate(tmp_path / "unbroken", count=400)
  assert player.begun.isdisjoint(done) and len(player.begun) + len(done) == 400


def test_an_id_is_never_written_twice(tmp_path):
  instances = list(COUNT.instances("test", 1, 0))
  (episode,) = play(COUNT, instances, FakePlayer(count_up), seed=0, limits=LIMITS)
  with EpisodeLog(tmp_path / "x.jsonl", fingerprint(COUNT, instances)) as log:
    log.append(episode)
    with pytest.raises(ValueError, match="already"):
      log.append(episode)
