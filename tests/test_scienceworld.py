"""ScienceWorld: its test variations, its simulator on Java, and gold paths."""

import importlib.util
import os
import shutil
import subprocess
import sys

from conformance import TaskConformance
import pytest

from agentbank_jax import cache
from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task
from agentbank_jax.tasks.catalog import scienceworld

TASK = scienceworld.TASK


def test_instances_are_test_variations_the_tasks_in_turn():
  instances = list(TASK.instances("test", 1_819, 0))
  assert len({instance.id for instance in instances}) == 1_819
  assert [i.data["task"] for i in instances[:30]] == list(scienceworld.TEST_VARIATIONS)
  for instance in instances:
    first, number = scienceworld.TEST_VARIATIONS[instance.data["task"]]
    assert first <= instance.data["variation"] < first + number
  assert instances[:100] == list(TASK.instances("test", 100, 0)) != list(TASK.instances("test", 100, 1))
  with pytest.raises(UserError, match="1820 test instances asked for, but there are only 1819"):
    list(TASK.instances("test", 1_820, 0))


def test_it_is_never_trained_on():
  assert not TASK.held_in
  with pytest.raises(UserError, match="no 'train' instances, the task is held out"):
    list(TASK.instances("train", 1, 0))


def test_without_the_package_it_says_what_to_install():
  if importlib.util.find_spec("scienceworld"):
    pytest.skip("the package scienceworld is installed")
  with pytest.raises(UserError, match="scienceworld: .*pip install 'agentbank-jax\\[envs\\]'"):
    TASK.make_env().reset(next(iter(TASK.instances("test", 1, 0))))


def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
  monkeypatch.setenv("AGENTBANK_CACHE", str(tmp_path / "mine"))
  assert cache.folder("x") == tmp_path / "mine" / "x" and cache.folder("x").is_dir()
  monkeypatch.delenv("AGENTBANK_CACHE")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
  assert cache.folder("x") == tmp_path / "xdg" / "agentbank" / "x"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
  """The package and Java; keeps the machine running for the tests of this file."""
  if importlib.util.find_spec("scienceworld") is None:
    pytest.skip("the package scienceworld is not installed")
  if shutil.which("java") is None:
    pytest.skip("java is not installed")
  from agentbank_jax.envs.scienceworld import MACHINE, new_simulator
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("AGENTBANK_CACHE", os.environ.get(cache.VARIABLE) or str(tmp_path_factory.mktemp("cache")))
    yield new_simulator()
    MACHINE.leave()


@pytest.mark.slow
class TestScienceWorld(TaskConformance):
  split = "test"
  few = 2

  @pytest.fixture
  def task(self, simulator):
    return get_task("scienceworld")


def gold_reward(task, variation):
  """Returns the reward at the end of the gold path, all of it."""
  env = TASK.make_env()
  env.reset(Instance("test", "test", {"task": task, "variation": variation}))
  for command in scienceworld.gold_path(task, variation):
    step = env.step(Action("act", command))
    assert not step.info["invalid"] and step.info["progress"] == step.reward
    if step.terminated:
      break
  env.close()
  return step.reward if step.terminated and step.info["solved"] else 0


@pytest.mark.slow
@pytest.mark.parametrize("task", ("chemistry-mix", "find-plant", "lifespan-longest-lived", "power-component"))
def test_gold_paths_of_a_few_tasks_reach_100(simulator, task):
  assert gold_reward(task, scienceworld.TEST_VARIATIONS[task][0]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", scienceworld.TEST_VARIATIONS)
def test_gold_paths_of_all_tasks_reach_100(simulator, task):
  assert gold_reward(task, scienceworld.TEST_VARIATIONS[task][0]) == 1


@pytest.mark.slow
def test_the_splits_are_the_simulators(simulator):
  assert set(simulator.getTaskNames()) == set(scienceworld.TEST_VARIATIONS)
  for task, (first, number) in scienceworld.TEST_VARIATIONS.items():
    simulator.load(task, 0, "", False)
    assert list(simulator.getVariationsTest()) == list(range(first, first + number)), task


@pytest.mark.slow
def test_resetting_is_refused_and_the_wrong_focus_ends(simulator):
  env = TASK.make_env()
  env.reset(Instance("test", "test", {"task": "boil", "variation": 21}))
  for command in ("reset task", "  Reset Task"):
    step = env.step(Action("act", command))
    assert step.info["invalid"] and step.observation == "'reset task' is not possible here."
  step = env.step(Action("act", "focus on agent"))
  assert step.terminated and not step.info["solved"] and step.reward == step.info["progress"] == 0
  env.close()


TEXTS = """
import json
from agentbank_jax.envs.base import Action
from agentbank_jax.tasks import get_task
task = get_task("scienceworld")
env = task.make_env()
for instance in [*task.instances("test", 8, 1)] * 2:
  print(json.dumps(env.reset(instance)))
  for command in ("open door to hallway", "go to hallway", "open door to kitchen", "go to kitchen", "look around"):
    print(json.dumps(env.step(Action("act", command)).observation))
env.close()
"""


@pytest.mark.slow
def test_the_text_is_always_the_same(simulator):
  """In another machine, and the second time in the same one."""
  play = lambda: subprocess.run([sys.executable, "-c", TEXTS], capture_output=True, text=True, check=True).stdout
  first = play()
  assert first == play()
  lines = first.splitlines()
  assert lines[:len(lines) // 2] == lines[len(lines) // 2:] and len(set(lines)) > 12


@pytest.mark.slow
def test_the_machine_ends_with_its_last_environment():
  """In a process of its own: here the fixture keeps one running."""
  code = ("import subprocess, os; from agentbank_jax.tasks import get_task; task = get_task('scienceworld'); "
          "i = next(iter(task.instances('test', 1, 0))); a, b = task.make_env(), task.make_env(); "
          "a.reset(i); b.reset(i); "
          "java = lambda: subprocess.run(['ps', '--ppid', str(os.getpid()), '-o', 'comm='], "
          "capture_output=True, text=True).stdout.split().count('java'); "
          "print(java(), end=' '); a.close(); a.close(); print(java(), end=' '); b.close(); print(java())")
  if importlib.util.find_spec("scienceworld") is None or not shutil.which("java") or not shutil.which("ps"):
    pytest.skip("needs the package scienceworld, java and ps")
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1 1 0\n"
