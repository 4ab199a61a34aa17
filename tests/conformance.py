"""What every task of the registry promises; `class TestX(TaskConformance)` with a fixture `task` checks it."""

import itertools
import json
import os
import pathlib
import pickle
import random
import subprocess
import sys

import pytest

from agentbank_jax.envs.base import Action
from agentbank_jax.tasks import get_task, published
from agentbank_jax.tasks.task import SKILLS
from agentbank_jax.trajectory import Turn


def play(task, env, instance, errs=False):
  """Yields once for every step of an episode; the last value is (turns, the last step).

  Where the expert `errs`, it may try what cannot be done.
  """
  observation = env.reset(instance)
  turns = list(task.opening(observation))
  expert = task.expert(instance, observation)
  text = next(expert)
  for _ in range(task.max_steps):
    turns.append(Turn("assistant", text))
    step = env.step(task.grammar.parse(text))
    yield turns, step
    assert errs or not step.info.get("invalid"), (instance.id, text, step.observation)
    if step.terminated:
      return
    turns.append(task.observe(step.observation))
    try:
      text = expert.send(step.observation)
    except StopIteration:
      return


def last(episode):
  *_, (turns, step) = episode
  return turns, step


NOISE = ("", " ", "look", "42", "SELECT 1", "submit", "\x00", "\ud800", "x" * 5_000, "((((", "'; DROP TABLE x; --",
         "{}", "{0}", "%s", "go to go to", "take all from all", "١٢", "🤖")


class TaskConformance:
  """The step contract, determinism, isolation, the expert and the release of everything.

  A subclass gives the fixture `task`, for which at least `few` + 2 instances of `split` are to be had.

  Attributes:
    split: whose instances are played.
    few: how many episodes are played at once or in turn.
    expert_instances: how many the expert must solve.
    lucky: share of them that a random agent may solve.
    errs: whether the expert finds out by trying what cannot be done.
  """

  split = "train"
  few = 6
  expert_instances = 20
  lucky = 0.2
  errs = False

  def play(self, task, env, instance):
    return play(task, env, instance, self.errs)

  def some(self, task, count, seed=0):
    return list(task.instances(self.split, count, seed))

  def test_card(self, task):
    assert get_task(task.name) is task
    assert task.skill in SKILLS and task.max_steps > 0 and task.source.licence
    low, high = task.metric.reward_range
    assert low < high and task.metric.success and task.metric.definition
    assert not task.stands_in_for or get_task(task.stands_in_for).skill == task.skill
    assert task.runs, "the table of tasks says what really runs"
    assert [turn.role for turn in task.few_shot] == ["user", "assistant"] * (len(task.few_shot) // 2)
    assert not any(turn.train for turn in task.opening("Begin."))
    if task.processes:
      pickle.dumps(task.make_env)
    instance = self.some(task, 1)[0]
    assert not task.problem or isinstance(instance.data.get(task.problem), str), (
        f"`problem` is {task.problem!r}: the data have {list(instance.data)}")

  def test_the_expert_solves_everything(self, task):
    env = task.make_env()
    for instance in self.some(task, self.expert_instances):
      turns, step = last(self.play(task, env, instance))
      assert isinstance(step.observation, str) and not step.truncated
      low, high = task.metric.reward_range
      assert low <= step.reward <= high
      assert step.terminated and step.info["solved"] and step.reward == high, instance.id
      assert step.info.get("progress") == (1 if task.progress else None)
      assert all(turn.content for turn in turns) and turns[-1].role == "assistant"
    env.close()

  def test_random_turns_are_in_form_and_solve_little(self, task):
    """They parse as actions, are repeatable, and reach a low score."""
    if task.random_turn is None:
      pytest.skip(f"{task.name} has no random agent yet")
    env, solved = task.make_env(), 0
    chosen = self.some(task, self.expert_instances)
    for n, instance in enumerate(chosen):
      rng, observation = random.Random(n), env.reset(instance)
      for _ in range(task.max_steps):
        state = rng.getstate()
        text = task.random_turn(rng, observation)
        rng.setstate(state)
        assert task.random_turn(rng, observation) == text
        step = env.step(task.grammar.parse(text))
        if step.terminated:
          solved += step.info["solved"]
          break
        observation = step.observation
    env.close()
    assert solved <= self.lucky * len(chosen)

  def test_the_fingerprint_has_what_the_environment_reads(self, task):
    with published.files_used() as of_instances:
      instance = self.some(task, 1)[0]
    with published.files_used() as of_environment:
      env = task.make_env()
      env.reset(instance)
      env.close()
    assert of_environment <= of_instances, "`instances` finds all files: what it finds is in the fingerprint"

  def test_interleaved_episodes_are_serial_episodes(self, task):
    chosen = self.some(task, self.few)
    one = task.make_env()
    serial = [last(self.play(task, one, instance)) for instance in chosen]
    one.close()
    envs = [task.make_env() for _ in chosen]
    episodes = [self.play(task, env, instance) for env, instance in zip(envs, chosen, strict=True)]
    steps = list(itertools.zip_longest(*episodes))
    interleaved = [[step for step in column if step][-1] for column in zip(*steps, strict=True)]
    for env in envs:
      env.close()
    assert interleaved == serial

  def test_an_episode_leaves_nothing_for_the_next(self, task):
    first, second = self.some(task, 2)
    env = task.make_env()
    expected = last(self.play(task, env, second))
    next(self.play(task, env, first))  # left after one step
    assert last(self.play(task, env, second)) == expected
    env.close()

  def test_nothing_an_agent_writes_raises(self, task):
    env = task.make_env()
    instance = self.some(task, 1)[0]
    for text in NOISE:
      for kind in ("act", "answer") if task.grammar.has_answer else ("act",):
        env.reset(instance)
        step = env.step(Action(kind, text))
        assert bool(task.progress) == ("progress" in step.info) and 0 <= step.info.get("progress", 0) <= 1
        assert isinstance(step.observation, str) and not step.truncated
        assert step.terminated == ("solved" in step.info) and not step.info.get("solved")
    env.close()

  def test_close_releases_everything(self, task, tmp_path):
    if sys.platform != "linux":
      pytest.skip("counts open files as Linux shows them")
    opened = lambda: [str(path.resolve()) for path in pathlib.Path("/proc/self/fd").iterdir() if path.exists()]
    env = task.make_env()
    last(self.play(task, env, self.some(task, 1)[0]))  # imports and caches open files of their own
    env.close()
    before = opened()
    for instance in self.some(task, 3):
      next(self.play(task, env, instance))
    env.close()
    env.close()
    assert not set(opened()) - set(before)

  def test_instances_are_deterministic_and_prefix_stable(self, task):
    assert self.some(task, self.few + 2) == self.some(task, self.few + 2)
    assert self.some(task, self.few) == self.some(task, self.few + 2)[:self.few]
    assert self.some(task, 0) == []
    assert [i.data for i in self.some(task, self.few + 2)] != [i.data for i in self.some(task, self.few + 2, seed=1)]
    ids = [instance.id for instance in self.some(task, self.expert_instances)]
    assert len(set(ids)) == self.expert_instances and all(id.startswith(self.split) for id in ids)
    for instance in self.some(task, self.few):
      assert instance == type(instance)(**json.loads(json.dumps(vars(instance))))

  def test_instances_are_the_same_in_another_process(self, task):
    code = ("import sys, json; from agentbank_jax.tasks import get_task; "
            "print(json.dumps([vars(i) for i in get_task(sys.argv[1]).instances(sys.argv[2], 3, 7)]))")
    mine = self.some(task, 3, seed=7)
    result = subprocess.run([sys.executable, "-c", code, task.name, mine[0].split], capture_output=True, text=True,
                            check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert json.loads(result.stdout) == [vars(instance) for instance in mine]
