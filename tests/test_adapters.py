"""Environments of other packages as tasks by name."""

import shutil
import sys

from conformance import TaskConformance, last, play
import pytest

from agentbank_jax.envs.base import Action
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate import run as evaluate
from agentbank_jax.tasks import adapter_names, get_task
from configs.evaluate import get_config

gymnasium = pytest.importorskip("gymnasium")

WALK, ECHO = "gym:fake_gym:Walk-v0", "gym:fake_gym:Echo-v0"


def begin(name, seed=0):
  task = get_task(name)
  (instance,) = task.instances("test", 1, seed)
  env = task.make_env()
  return env, env.reset(instance)


def test_texts_of_a_dict_and_names_of_an_enum():
  env, observation = begin(WALK)
  mission, view, blank, actions = observation.split("\n")
  assert mission.startswith("mission: Ring at house ") and view == "view: You are at house 0." and not blank
  assert actions == "Actions: left, right, ring"
  goal = int(mission[-2])
  for _ in range(goal):
    step = env.step(Action("act", "right"))
    assert not step.terminated and step.reward == 0 and "Actions" not in step.observation
  step = env.step(Action("act", "ring"))
  assert (step.reward, step.terminated, step.info) == (1.0, True, {"solved": True})
  env.close()


def test_a_wrong_end_is_not_solved_and_a_wrong_action_is_answered():
  env, _ = begin(WALK)
  step = env.step(Action("act", "fly"))
  assert step.info == {"invalid": True} and "no action 'fly'; the actions are left, right, ring" in step.observation
  assert env.step(Action("act", "ring")).info == {"solved": False}
  env.close()


def test_texts_as_they_are_and_success_by_info():
  env, observation = begin(ECHO)
  word = observation.removeprefix("Say ").removesuffix(".")
  assert env.step(Action("act", "é")).info == {"invalid": True}
  step = env.step(Action("act", "no"))
  assert (step.observation, step.reward, step.terminated) == ("Wrong.", -1.0, False)
  step = env.step(Action("act", word))
  assert step.info == {"solved": True} and step.reward == -2.0
  env.close()


def test_the_environments_own_step_limit_truncates():
  env, _ = begin(WALK)
  steps = [env.step(Action("act", "left")) for _ in range(20)]
  assert [s.truncated for s in steps] == [False] * 19 + [True]
  env.close()


def test_options():
  task = get_task(f"{WALK}?max_steps=7&skill=web&success=0.5&actions=a,b,c")
  assert (task.max_steps, task.skill) == (7, "web") and "sum to 0.5 or more" in task.metric.success
  env, observation = begin(task.name)
  assert observation.endswith("Actions: a, b, c")
  env.close()


@pytest.mark.parametrize("name, told", [
    ("gym:", "nothing stands behind the colon"),
    ("gymm:x", "no adapter 'gymm'; did you mean 'gym'?"),
    (f"{WALK}?max_step=7", "unknown option 'max_step'; did you mean 'max_steps'?"),
    (f"{WALK}?max_steps=many", "max_steps is 'many': invalid literal"),
    (f"{WALK}?skill=cooking", "skill is 'cooking': expected one of reasoning"),
    (f"{WALK}?actions=a,b", "2 names (a, b) for 3 actions"),
    ("gym:fake_gym:Nameless-v0", "its 3 actions have no names; give them: gym:fake_gym:Nameless-v0?actions="),
    ("gym:fake_gym:Numbers-v0", "its observations are Box"),
    ("gym:no_such_package:X-v0", "no_such_package"),
    ("gym:NoSuchEnv-v0", "NoSuchEnv"),
])
def test_what_cannot_be_played_is_a_user_error(name, told):
  with pytest.raises(UserError) as error:
    begin(name)
  assert told in str(error.value) and "\n" not in str(error.value)


def test_one_config_line_plays_it(tmp_path):
  config = get_config()
  config.update({"tasks": (WALK,), "player": "random", "episodes": 8})
  (score,) = evaluate.run(config, tmp_path)["tasks"]
  assert (score["name"], score["model"], score["excluded"]) == (WALK, "random", 0)
  assert score["fingerprint"]["versions"]["gymnasium"] == gymnasium.__version__
  assert (tmp_path / "episodes" / "gym%3Afake_gym%3AWalk-v0.jsonl").exists()


def test_adapters_are_looked_up():
  assert {"gym", "textworld_express"} <= set(adapter_names())


GAMES = ("cookingworld", "coin", "twc", "mapreader", "arithmetic", "sorting", "simonsays", "peckingorder")


@pytest.fixture(scope="session")
def textworld_express():
  pytest.importorskip("textworld_express")
  if not shutil.which("java"):
    pytest.skip("no java")


@pytest.mark.slow
class TestTextWorldExpress(TaskConformance):
  """Environments share one Java machine here, in this process. (Of coin and twc the gold paths are drawn anew.)"""

  split = "test"

  @pytest.fixture(params=["mapreader", "cookingworld?numLocations=3&numIngredients=2"])
  def task(self, request, textworld_express):
    return get_task(f"textworld_express:{request.param}")


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_every_gold_path_wins(game, textworld_express):
  task = get_task(f"textworld_express:{game}")
  env = task.make_env()
  for split in ("train", "test"):
    for instance in task.instances(split, 20, 0):
      _, step = last(play(task, env, instance))
      assert step.info["solved"] and step.reward == 1, instance.id
  env.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_textworld_express_runs_in_worker_processes(tmp_path, textworld_express):
  config = get_config()
  config.update({"tasks": ("textworld_express:coin",), "player": "expert", "episodes": 40, "slots": 40})
  (score,) = evaluate.run(config, tmp_path)["tasks"]
  assert score["success"] == 1.0 and score["progress"] == 1.0 and score["excluded"] == 0


def test_unknown_games_and_parameters(textworld_express):
  for name, told in [("textworld_express:poker", "Unknown game"),
                     ("textworld_express:coin?rooms=3", "Unrecognized property name")]:
    with pytest.raises(UserError, match=told):
      list(get_task(name).instances("test", 1, 0))
