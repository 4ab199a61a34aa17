"""Playing episodes: what ends them, and that trouble in one never touches another."""

import dataclasses
import pathlib
import subprocess
import sys
import threading
import time

from fake_tasks import COUNT, CountEnv, FakePlayer, count_up, delays, gamble, task_with
import pytest

from agentbank_jax.agents import Reply
from agentbank_jax.envs.base import Step
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate.rollout import Limits, derive_seed, play
from agentbank_jax.experts import ExpertPlayer, RandomPlayer, make_trajectories
from agentbank_jax.trajectory import Outcome, Turn
from agentbank_jax.trajectory_io import read_trajectories

LIMITS = Limits(step_seconds=30.0, invalid_actions=3, retries=2)
STRICT = dataclasses.replace(LIMITS, invalid_actions=2)


def rollout(task, player, count=12, seed=0, limits=LIMITS):
  instances = list(task.instances("test", count, 0))
  return sorted(play(task, instances, player, seed=seed, limits=limits), key=lambda e: e.id)


def one(policy, task=COUNT, limits=LIMITS, goal=4):
  """The episode of one instance."""
  instances = [i for i in task.instances("test", 4, 0) if i.data["goal"] == goal]
  (episode,) = play(task, instances, FakePlayer(policy), seed=0, limits=limits)
  return episode


def untimed(episodes):
  """JSON rows without what a clock wrote."""
  rows = [e.to_json() for e in episodes]
  for row in rows:
    assert row["metadata"].pop("seconds") >= 0
  return rows


def test_solved_episode_is_a_trajectory_of_what_was_sent_and_said():
  episode = one(count_up, goal=2)
  assert [(t.role, t.content, t.train) for t in episode.turns] == [
      ("system", "Count aloud.", False),
      ("user", "Count to 2.", False),
      ("assistant", "Thought: next.\nAction: 1", True),
      ("user", "Observation: You said 1.", False),
      ("assistant", "Thought: next.\nAction: 2", True)]
  assert (episode.id, episode.task, episode.reward, episode.outcome) == (
      "count/test-000001/seed0/fake", "count", 1.0, Outcome.SOLVED)
  assert episode.provenance.technique == "sampling" and episode.provenance.teacher == "fake"
  assert episode.provenance.licence == "CC0-1.0" and episode.provenance.seed == 0
  assert untimed([episode])[0]["metadata"] == {
      "instance": "test-000001", "split": "test", "steps": 2, "tokens": 48, "invalid_actions": 0,
      "cut_turns": 0, "attempts": 1, "final_observation": "You said 2."}


def test_few_shot_turns_are_sent_first_and_never_trained_on():
  example = (Turn("user", "Count to 1."), Turn("assistant", "Action: 1"))
  episode = one(count_up, dataclasses.replace(COUNT, few_shot=example, max_steps=1), goal=2)
  assert [(t.role, t.train) for t in episode.turns] == [
      ("system", False), ("user", False), ("assistant", False), ("user", False), ("assistant", True)]
  assert episode.turns[2].content == "Action: 1"


def test_wrong_action_fails_with_the_last_reward():
  episode = one(lambda turns, seed: "Action: 1")
  assert (episode.outcome, episode.reward, episode.metadata["steps"]) == (Outcome.FAILED, 0.25, 2)


def test_unreadable_action_is_answered_and_the_agent_recovers():
  def policy(turns, seed):
    return "Action: 1" if "No action" in turns[-1].content else "I count."
  episode = one(policy, goal=1)
  assert episode.outcome == Outcome.SOLVED
  assert episode.turns[3].content.startswith("Observation: No action found.")
  assert (episode.metadata["steps"], episode.metadata["invalid_actions"]) == (2, 1)


@pytest.mark.parametrize("text", ["no marker", "Action: skip"])
def test_invalid_actions_in_a_row_end_an_episode(text):
  episode = one(lambda turns, seed: text)
  assert episode.outcome == Outcome.INVALID_ACTION
  assert (episode.metadata["steps"], episode.metadata["invalid_actions"]) == (3, 3)


def test_valid_actions_between_invalid_ones_start_the_count_anew():
  def policy(turns, seed):  # skip, skip, 1, skip, skip, 2
    n = sum(t.role == "user" for t in turns)
    return f"Action: {n // 3 if n % 3 == 0 else 'skip'}"
  episode = one(policy)
  assert (episode.outcome, episode.metadata["steps"], episode.reward) == (Outcome.STEP_LIMIT, 6, 0.5)
  assert episode.turns[-1].role == "assistant" and episode.metadata["final_observation"] == "You said 2."


def test_truncation_by_the_environment_is_a_step_limit():
  class Truncating(CountEnv):
    def step(self, action):
      return Step("Time is up.", 0.0, False, True, {})
  assert one(count_up, dataclasses.replace(COUNT, make_env=Truncating)).outcome == Outcome.STEP_LIMIT


def test_context_limit_is_scored_with_the_reward_so_far():
  def policy(turns, seed):
    return Reply("", 0, "context") if len(turns) > 2 else count_up(turns, seed)
  episode = one(policy)
  assert (episode.outcome, episode.reward) == (Outcome.CONTEXT_LIMIT, 0.25)
  assert one(lambda *_: Reply("", 0, "context")).reward == 0.0
  assert episode.turns[-1].role == "user"


def test_a_cut_turn_is_read_and_flagged():
  episode = one(lambda turns, seed: Reply(count_up(turns, seed), 7, "length"), goal=2)
  assert episode.outcome == Outcome.SOLVED
  assert (episode.metadata["cut_turns"], episode.metadata["tokens"]) == (2, 14)


def test_agent_error_is_retried_then_excluded():
  failures = []
  def policy(turns, seed):
    failures.append(seed)
    return Reply("", 0, "error", "out of memory") if len(failures) <= broken else count_up(turns, seed)
  broken = 2
  episode = one(policy, goal=1)
  assert (episode.outcome, episode.metadata["attempts"]) == (Outcome.SOLVED, 3)
  assert episode.metadata["errors"] == ["agent_error: out of memory"] * 2
  assert len(set(failures)) == 1  # the same seed each time: a retry is the episode that failed

  failures.clear()
  broken = 3
  episode = one(policy, goal=1)
  assert (episode.outcome, episode.reward, episode.metadata["attempts"]) == (Outcome.AGENT_ERROR, None, 3)
  assert not episode.outcome.is_scored and episode.turns[-1].content == "Count to 1."


@pytest.mark.parametrize("call", [0, 2])  # in reset, in a step
def test_environment_error_is_excluded_with_its_cause(call):
  def trouble(id_, n, attempt):
    if n == call:
      raise OSError("disk full: \udcff")
  episode = one(count_up, task_with(trouble))
  assert (episode.outcome, episode.reward) == (Outcome.ENVIRONMENT_ERROR, None)
  assert len(episode.metadata["errors"]) == 3
  assert all("OSError: disk full: ? (test_rollout.py:" in e for e in episode.metadata["errors"])  # as a log can hold it


@pytest.mark.parametrize("step", [
    Step(None, 0.0, False, False, {}), Step("x", float("nan"), False, False, {}),
    Step("x", 0.0, True, False, {}), Step("\ud800", 0.0, False, False, {}), ("x", 0.0)])
def test_an_environment_that_breaks_the_contract_is_an_environment_error(step):
  class Broken(CountEnv):
    def step(self, action):
      return step
  assert one(count_up, dataclasses.replace(COUNT, make_env=Broken)).outcome == Outcome.ENVIRONMENT_ERROR


def test_missing_assets_reach_the_user():
  def trouble(*_):
    raise UserError("games are not there; run agentbank setup")
  with pytest.raises(UserError, match="games are not there"):
    rollout(task_with(trouble), FakePlayer(count_up))


def test_episodes_do_not_depend_on_slots_or_timing():
  expected = untimed(rollout(COUNT, FakePlayer(gamble, slots=1), count=30, limits=STRICT))
  assert len({row["outcome"] for row in expected}) >= 3  # the gamble covers several endings
  for slots in (1, 3, 16):
    task = task_with(delays(slots))
    assert untimed(rollout(task, FakePlayer(gamble, slots=slots, shuffle=slots), count=30,
                           limits=STRICT)) == expected


def test_seed_changes_episodes():
  a, b = (untimed(rollout(COUNT, FakePlayer(gamble), count=30, seed=seed)) for seed in (0, 1))
  assert [r["turns"] for r in a] != [r["turns"] for r in b]
  assert derive_seed(0, "count", "test-000001", 0) == 183760622  # the same on every machine, for ever


def test_trouble_in_some_episodes_changes_no_episode():
  expected = untimed(rollout(COUNT, FakePlayer(gamble), count=40))

  def trouble(id_, call, attempt):
    if attempt == 0 and int(id_[-2:]) % 3 == 0 and call == 1:
      raise RuntimeError("crash")
    if attempt == 0 and int(id_[-2:]) % 7 == 1:
      time.sleep(0.8)  # longer than the limit below
    if id_.endswith("5"):
      raise RuntimeError("broken for good")
  limits = dataclasses.replace(LIMITS, step_seconds=0.4)
  player = FakePlayer(gamble, slots=8, shuffle=3)
  episodes = untimed(rollout(task_with(trouble), player, count=40, limits=limits))
  retried = excluded = 0
  for row, undisturbed in zip(episodes, expected, strict=True):
    if row["metadata"]["instance"].endswith("5"):
      assert row["outcome"] == "environment_error"
      excluded += 1
      continue
    retried += row["metadata"]["attempts"] == 2
    row["metadata"].pop("errors", None)
    row["metadata"]["attempts"] = 1
    assert row == undisturbed
  assert excluded == 4 and retried >= 12


class Half(CountEnv):
  """Reports how many of four numbers are said, and forgets a number after the third."""

  def step(self, action):
    step = super().step(action)
    self.said -= self.said == 3
    return step._replace(info=step.info | {"progress": self.said / 4})


def test_progress_is_the_best_of_an_episode():
  task = dataclasses.replace(COUNT, make_env=Half, progress="numbers said")
  says = iter(("1", "2", "3", "1"))
  episode = one(lambda turns, seed: f"Action: {next(says)}", task)
  assert (episode.outcome, episode.metadata["progress"]) == (Outcome.FAILED, 0.5)
  assert one(lambda turns, seed: "Action: 7", task).metadata["progress"] == 0.0
  assert "progress" not in one(count_up).metadata


@pytest.mark.parametrize("progress, told", [
    (1.5, "the progress is 1.5, expected 0 to 1"), (float("nan"), "the progress is nan"),
    (None, "the task declares progress, and info has no 'progress'")])
def test_progress_that_breaks_the_contract_is_an_environment_error(progress, told):
  class Broken(CountEnv):
    def step(self, action):
      return Step("x", 0.0, False, False, {} if progress is None else {"progress": progress})
  episode = one(count_up, dataclasses.replace(COUNT, make_env=Broken, progress="numbers said"))
  assert episode.outcome == Outcome.ENVIRONMENT_ERROR and told in episode.metadata["errors"][0]


def test_progress_that_no_task_declares_is_an_environment_error():
  episode = one(count_up, dataclasses.replace(COUNT, make_env=Half))
  assert "a 'progress' that the task does not declare" in episode.metadata["errors"][0]


def test_a_task_may_allow_less_time_than_the_run_and_not_more():
  def trouble(id_, call, attempt):
    if call == 1:
      time.sleep(0.6)
  for own, run, outcome in [(0.2, 30.0, Outcome.ENVIRONMENT_ERROR), (30.0, 0.2, Outcome.ENVIRONMENT_ERROR),
                            (None, 30.0, Outcome.SOLVED)]:
    limits = Limits(step_seconds=run, invalid_actions=3, retries=0)
    assert one(count_up, task_with(trouble, step_seconds=own), limits).outcome == outcome


def test_the_random_player_plays_the_tasks_own_by_the_seed():
  task = dataclasses.replace(COUNT, random_turn=lambda rng, observation: f"Action: {rng.randint(1, 3)}")
  player = lambda slots: RandomPlayer([task], slots)
  episodes = untimed(rollout(task, player(1), count=30))
  assert episodes == untimed(rollout(task, player(7), count=30))
  assert {row["outcome"] for row in episodes} == {"solved", "failed"}
  assert untimed(rollout(task, player(1), count=30, seed=1)) != episodes
  assert episodes[0]["provenance"]["teacher"] == "random"
  with pytest.raises(UserError, match="'count' has no random agent"):
    RandomPlayer([COUNT], 1)

  def read(rng, observation):
    assert observation.startswith(("Count to", "You said")), observation
    raise RuntimeError("no idea")
  episode = rollout(dataclasses.replace(COUNT, random_turn=read), RandomPlayer(
      [dataclasses.replace(COUNT, random_turn=read)], 1), count=1)[0]
  assert "agent_error: the random agent raised RuntimeError: no idea" in episode.metadata["errors"][0]


def test_slots_are_filled_and_freed_and_environments_live_in_one_thread():
  CountEnv.opened = []
  player = FakePlayer(count_up, slots=5)
  assert len(rollout(COUNT, player, count=40)) == 40
  assert player.most == 5 and not player.open
  assert len(CountEnv.opened) == 5
  assert all(env.closed and len(env.threads) == 1 for env in CountEnv.opened)
  assert len({t for env in CountEnv.opened for t in env.threads}) == 5


def test_player_is_polled_in_one_thread_and_does_not_wait_for_environments():
  threads, polls, enough = set(), [], threading.Event()

  class Player(FakePlayer):
    def poll(self):
      threads.add(threading.get_ident())
      polls.append(None)
      if len(polls) == 20:
        enough.set()
      return super().poll()

  def trouble(id_, call, attempt):
    if id_ == "test-000000" and not enough.wait(20):
      raise RuntimeError("the player waited for this environment")
  episodes = rollout(task_with(trouble), Player(count_up, slots=2), count=60)
  assert threads == {threading.get_ident()}
  assert {e.outcome for e in episodes} == {Outcome.SOLVED}


def test_leaving_early_closes_everything():
  CountEnv.opened = []
  player = FakePlayer(count_up, slots=4, shuffle=5)
  episodes = play(COUNT, COUNT.instances("test", 100, 0), player, seed=0, limits=LIMITS)
  next(episodes)
  episodes.close()
  assert not player.open
  assert all(env.closed for env in CountEnv.opened)


def test_a_hung_environment_neither_stops_the_run_nor_the_exit():
  script = """
import threading, sys
sys.path.insert(0, "tests")
from fake_tasks import COUNT, FakePlayer, count_up, task_with
from agentbank_jax.evaluate.rollout import Limits, play
def trouble(id_, call, attempt):
  if id_ == "test-000002" and call == 1:
    threading.Event().wait()
limits = Limits(step_seconds=0.2, invalid_actions=3, retries=1)
instances = COUNT.instances("test", 8, 0)
episodes = list(play(task_with(trouble), instances, FakePlayer(count_up), seed=0, limits=limits))
print(sorted(str(e.outcome) for e in episodes), max(e.metadata.get("errors", []) for e in episodes))
"""
  began = time.monotonic()
  done = subprocess.run([sys.executable, "-c", script], cwd=pathlib.Path(__file__).parents[1], timeout=60,
                        capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "'environment_error', " + ", ".join(["'solved'"] * 7) in done.stdout
  assert "environment_error: TimeoutError: no answer within 0.2 s" in done.stdout
  assert time.monotonic() - began < 30


@pytest.mark.parametrize("limits, key", [
    (dict(step_seconds=0), "step_seconds"), (dict(invalid_actions=0), "invalid_actions"),
    (dict(retries=-1), "retries")])
def test_impossible_limits_are_refused(limits, key):
  with pytest.raises(UserError, match=f"limits.{key}"):
    Limits(**{"step_seconds": 1.0, "invalid_actions": 1, "retries": 0, **limits})


def test_expert_solves_and_its_trajectories_are_written(tmp_path):
  results = [make_trajectories(COUNT, "train", 10, 0, tmp_path / f"{slots}.jsonl", limits=LIMITS, slots=slots)
             for slots in (1, 4)]
  assert results[0] == results[1] == {"task": "count", "attempted": 10, "written": 10, "not_written": []}
  assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "4.jsonl").read_bytes()
  rows = list(read_trajectories(tmp_path / "1.jsonl"))
  assert [r.metadata["instance"] for r in rows] == [f"train-{i:06d}" for i in range(10)]
  assert {(r.provenance.technique, r.provenance.teacher, r.outcome) for r in rows} == {
      ("expert", "expert", Outcome.SOLVED)}


def test_what_the_expert_did_not_solve_is_reported(tmp_path):
  def expert(instance, observation):
    if instance.id == "train-000001":
      raise RuntimeError("no plan")
    if instance.id == "train-000002":
      yield "Action: give up"
    if instance.id == "train-000003":
      return
    yield from COUNT.expert(instance, observation)
  task = dataclasses.replace(COUNT, expert=expert)
  result = make_trajectories(task, "train", 5, 0, tmp_path / "t.jsonl", limits=LIMITS, slots=2)
  assert (result["attempted"], result["written"]) == (5, 2)
  assert [(n["instance"], n["outcome"]) for n in result["not_written"]] == [
      ("train-000001", "agent_error"), ("train-000002", "failed"), ("train-000003", "agent_error")]
  assert "RuntimeError: no plan" in result["not_written"][0]["errors"][0]


def test_no_training_data_of_a_held_out_task_and_no_expert_where_there_is_none(tmp_path):
  with pytest.raises(UserError, match="held out"):
    make_trajectories(dataclasses.replace(COUNT, held_in=False), "train", 1, 0, tmp_path / "t.jsonl",
                      limits=LIMITS, slots=1)
  with pytest.raises(UserError, match="no expert"):
    ExpertPlayer([(dataclasses.replace(COUNT, expert=None), ())], slots=1)
