"""Environments in worker processes: trouble in one touches no other, and nothing is left behind."""

import collections
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

from fake_tasks import COUNT, FakePlayer, count_up, gamble
from fake_worker_envs import Undecided, instances, task_of
import pytest

from agentbank_jax.envs.base import Action
from agentbank_jax.envs.worker_pool import PoolSize, WorkerPool
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate.rollout import Limits, play
from agentbank_jax.trajectory import Outcome

LIMITS = Limits(step_seconds=60.0, invalid_actions=3, retries=2)
SIZE = PoolSize(processes=2, episodes=1_000)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


@pytest.fixture
def log(tmp_path):
  return tmp_path / "log"


@pytest.fixture
def once(tmp_path):
  (tmp_path / "once").mkdir()
  return tmp_path / "once"


def notes(log, what):
  """Returns the pids of the lines of `log` that begin with `what`."""
  lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
  return [int(pid) for pid, said in lines if said.startswith(what)]


def folders(log):
  """Returns the temporary folders of the workers."""
  found = [line.partition(" made in ")[2] for line in log.read_text().splitlines() if " made in " in line]
  assert found and all(os.path.basename(folder).startswith("agentbank-") for folder in found)
  return found


def is_running(pid):
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
  except OSError:
    return False


def session(leader):
  """Returns the living processes of a session."""
  return [int(p.name) for p in pathlib.Path("/proc").iterdir() if p.name.isdigit() and is_running(p.name)
          and pathlib.Path(p, "stat").read_text().rpartition(")")[2].split()[3] == str(leader)]


def gone(*pids, seconds=20):
  """Waits until none of the processes and none of their sessions runs."""
  deadline = time.monotonic() + seconds
  while any(is_running(pid) or session(pid) for pid in pids):
    assert time.monotonic() < deadline, [(pid, session(pid)) for pid in pids]
    time.sleep(0.02)
  return True


def rollout(task, chosen, player=None, limits=LIMITS, workers=SIZE):
  player = player or FakePlayer(count_up, slots=8)
  return sorted(play(task, chosen, player, seed=0, limits=limits, workers=workers), key=lambda e: e.id)


def untimed(episodes):
  rows = sorted((e.to_json() for e in episodes), key=lambda row: row["id"])
  for row in rows:
    del row["metadata"]["seconds"]
  return rows


def test_episodes_are_those_of_threads_and_every_process_ends(log):
  chosen = instances(30)
  episodes = rollout(task_of(log), chosen, FakePlayer(gamble, slots=6, shuffle=1))
  assert untimed(episodes) == untimed(play(COUNT, chosen, FakePlayer(gamble), seed=0, limits=LIMITS))
  workers = set(notes(log, "made"))
  assert len(workers) == 2 and os.getpid() not in workers
  assert not any(map(os.path.exists, folders(log)))
  assert len(notes(log, "made")) == len(notes(log, "closed")) == 6
  assert gone(*workers)


def test_sixty_four_episodes_at_once_with_every_trouble_are_what_they_are_without(log, once):
  troubles = {3: "crash", 11: "leave", 19: "hold", 27: "sleep", 35: "error", 43: "exit", 51: "unsendable"}
  chosen = instances(80, troubles, goal=4)
  limits = dataclasses.replace(LIMITS, step_seconds=4.0)
  episodes = rollout(task_of(log, once), chosen, FakePlayer(gamble, slots=64, shuffle=2), limits)
  undisturbed = untimed(play(COUNT, chosen, FakePlayer(gamble), seed=0, limits=LIMITS))
  happened = {name for name in troubles.values() if notes(log, name)}
  assert len(happened) >= 5  # others lose before their second step
  retried = {}
  for row, expected in zip(untimed(episodes), undisturbed, strict=True):
    if errors := row["metadata"].pop("errors", None):
      retried[int(row["metadata"]["instance"][-6:])] = errors
      row["metadata"]["attempts"] = 1
    assert row == expected
  assert {troubles[i] for i in retried} == happened  # nobody else's episode was begun again
  told = {troubles[i]: errors for i, errors in retried.items()}
  for trouble, text in [("crash", "the worker process died in step: killed by signal 11"),
                        ("leave", "the worker process died in step: exit code 3"),
                        ("hold", "no answer within 4 s; its process was killed"),
                        ("error", "OSError: disk full (fake_worker_envs.py:")]:
    assert trouble not in told or text in told[trouble][0]
  assert gone(*notes(log, "made"))


def test_what_always_dies_is_excluded_and_its_neighbours_are_not(log):
  episodes = rollout(task_of(log), instances(12, {5: "crash"}, goal=3), workers=PoolSize(processes=1, episodes=1_000))
  assert [e.metadata["instance"][-2:] for e in episodes if e.outcome != Outcome.SOLVED] == ["05"]
  assert (episodes[5].outcome, episodes[5].reward) == (Outcome.ENVIRONMENT_ERROR, None)
  assert len(episodes[5].metadata["errors"]) == 3
  assert all(e.metadata["attempts"] == 1 for e in episodes if e is not episodes[5])


def test_a_hung_process_is_killed_with_its_family_and_its_folder(log, tmp_path):
  limits = dataclasses.replace(LIMITS, step_seconds=3.0, retries=0)
  (episode,) = rollout(task_of(log), instances(1, {0: "family"}, goal=3), limits=limits)
  assert episode.outcome == Outcome.ENVIRONMENT_ERROR and "no answer within 3 s" in episode.metadata["errors"][0]
  assert gone(*notes(log, "made"))
  assert not any(map(os.path.exists, folders(log)))


def test_a_process_is_replaced_after_its_episodes(log):
  episodes = rollout(task_of(log), instances(20), FakePlayer(count_up, slots=2), workers=PoolSize(1, episodes=4))
  assert {e.outcome for e in episodes} == {Outcome.SOLVED}
  each = collections.Counter(notes(log, "reset"))
  assert max(each.values()) <= 4 and len(each) >= 5
  assert len(notes(log, "made")) == len(notes(log, "closed"))
  assert gone(*each)


def test_an_environment_that_answers_differently_is_an_error_when_it_is_moved(log):
  limits = dataclasses.replace(LIMITS, retries=0)
  pool = WorkerPool("undecided", task_of(log, env=Undecided).make_env, PoolSize(1, 100), limits.step_seconds)
  mine, other = pool.make_env(), pool.make_env()
  quiet, crashing = instances(2, {1: "crash"}, goal=4)
  mine.reset(quiet)
  mine.step(Action("act", "1"))
  other.reset(crashing)
  other.step(Action("act", "1"))
  with pytest.raises(Exception, match="the worker process died"):
    other.step(Action("act", "2"))
  with pytest.raises(Exception, match="it is not deterministic"):
    mine.step(Action("act", "2"))
  pool.close()
  pool.close()
  assert gone(*notes(log, "made"))


def test_missing_data_reach_the_user(log):
  with pytest.raises(UserError, match="games are not there"):
    rollout(task_of(log), instances(3, {1: "user_error"}, goal=3))
  assert gone(*notes(log, "made"))


def test_the_smaller_time_limit_holds(log):
  task = task_of(log, step_seconds=2.0)
  (episode,) = rollout(task, instances(1, {0: "sleep"}, goal=3), limits=dataclasses.replace(LIMITS, retries=0))
  assert "no answer within 2 s" in episode.metadata["errors"][0]


def test_a_task_in_processes_says_what_it_lacks(log):
  with pytest.raises(ValueError, match="say how many"):
    rollout(task_of(log), instances(1), workers=None)
  with pytest.raises(ValueError, match="cannot be sent"):
    rollout(dataclasses.replace(COUNT, processes=True, make_env=lambda: None), instances(1))
  with pytest.raises(UserError, match="workers.episodes is 0, expected 1 or more"):
    PoolSize(1, 0)


@pytest.mark.parametrize("trouble", ["", "family", "hold"])
def test_nothing_lives_on_when_the_parent_is_killed(log, trouble):
  """Idle, in the midst of a call with a family, and in a call that lets no other thread run."""
  script = f"""
import sys, time
sys.path.insert(0, "tests")
from fake_worker_envs import instances, task_of
from agentbank_jax.envs.base import Action
from agentbank_jax.envs.worker_pool import PoolSize, WorkerPool
pool = WorkerPool("count", task_of({str(log)!r}).make_env, PoolSize(1, 10), 600.0)
env = pool.make_env()
env.reset(instances(1, {{0: {trouble!r}}}, goal=4)[0])
env.step(Action("act", "1"))
print("ready", flush=True)
env.step(Action("act", "2"))
time.sleep(600)
"""
  parent = subprocess.Popen([sys.executable, "-c", script], cwd=pathlib.Path(__file__).parents[1],
                            stdout=subprocess.PIPE, text=True)
  assert parent.stdout.readline() == "ready\n"
  (worker,) = notes(log, "made")
  deadline = time.monotonic() + 20
  while trouble and not notes(log, trouble if trouble == "hold" else "family started"):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  assert len(session(worker)) == (3 if trouble == "family" else 1)
  parent.send_signal(signal.SIGKILL)
  parent.wait()
  parent.stdout.close()
  assert gone(worker)
  deadline = time.monotonic() + 20
  while any(map(os.path.exists, folders(log))):
    assert time.monotonic() < deadline
    time.sleep(0.02)
