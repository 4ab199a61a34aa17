"""ALFWorld: its goals, its games on disk, its experts, and its engine with and without memos."""

import importlib.util
import json
import lzma
import os
import random
import subprocess
import sys
import tarfile

from conformance import TaskConformance, last, play
import pytest

from agentbank_jax import cache
from agentbank_jax.envs.alfworld_goal import Goal
from agentbank_jax.envs.base import Action
from agentbank_jax.envs.household import current_command
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import alfworld_games, get_task
from agentbank_jax.tasks.alfworld_explorer import AlfworldExplorer
from agentbank_jax.tasks.catalog.alfworld import walkthrough

CLEAN = """(define (problem p) (:goal (and (exists (?r - receptacle) (exists (?o - object) (and
  (cleanable ?o) (objectType ?o MugType) (receptacleType ?r ShelfType) (isClean ?o) (inReceptacle ?o ?r)))))))"""
TWO = """(:goal (and (exists (?r - receptacle) (exists (?o1 - object) (and (objectType ?o1 MugType)
  (receptacleType ?r ShelfType) (inReceptacle ?o1 ?r) (exists (?o2 - object) (and (not (= ?o1 ?o2))
  (objectType ?o2 MugType) (receptacleType ?r ShelfType) (inReceptacle ?o2 ?r))))))))"""
LOOK = """(:goal (and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) (and (objectType ?ot LampType)
  (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?ot ?r)))
  (exists (?o - object ?a - agent) (and (objectType ?o MugType) (holds ?a ?o)))))"""
THINGS = [("objecttype", "mug1", "mugtype"), ("objecttype", "mug2", "mugtype"), ("cleanable", "mug1"),
          ("cleanable", "mug2"), ("receptacletype", "shelf1", "shelftype"), ("receptacletype", "shelf2", "shelftype"),
          ("receptacletype", "desk", "desktype"), ("objecttype", "lamp", "lamptype"), ("toggleable", "lamp"),
          ("receptacleatlocation", "desk", "there"), ("receptacleatlocation", "shelf1", "here"),
          ("inreceptacle", "lamp", "desk")]


@pytest.mark.parametrize("goal, facts, progress", [
    (CLEAN, "", 0), (CLEAN, "isclean mug1", 1 / 2), (CLEAN, "inreceptacle mug1 shelf2", 1 / 2),
    (CLEAN, "isclean mug1; inreceptacle mug2 shelf1", 1 / 2),  # not the same mug
    (CLEAN, "isclean mug1; inreceptacle mug1 desk", 1 / 2), (CLEAN, "isclean mug1; inreceptacle mug1 shelf1", 1),
    (TWO, "", 0), (TWO, "inreceptacle mug1 shelf1", 1 / 2),
    (TWO, "inreceptacle mug1 shelf1; inreceptacle mug2 shelf2", 1 / 2),
    (TWO, "inreceptacle mug1 shelf1; inreceptacle mug2 shelf1", 1),
    (LOOK, "", 0), (LOOK, "atlocation me here; holds me mug1", 1 / 3),
    (LOOK, "atlocation me there; holds me mug1", 2 / 3),
    (LOOK, "atlocation me here; holds me mug1; istoggled lamp", 2 / 3),
    (LOOK, "atlocation me there; holds me mug2; istoggled lamp", 1)])
def test_progress_is_the_share_of_the_goals_conditions(goal, facts, progress):
  holds = [tuple(fact.split()) for fact in facts.split("; ") if fact]
  assert Goal(goal, THINGS).progress(THINGS + holds) == pytest.approx(progress)


def test_progress_counts_from_what_holds_at_the_start():
  start = [*THINGS, ("inreceptacle", "mug1", "shelf1")]
  assert Goal(TWO, start).progress(start) == 0
  assert Goal(TWO, start).progress(THINGS) == 0  # worse than at the start
  with pytest.raises(ValueError, match="not there"):
    Goal(TWO.replace("MugType", "CupType"), THINGS)


@pytest.mark.parametrize("old, new", [
    ("put mug 1 in/on cabinet 2", "move mug 1 to cabinet 2"), ("put mug 1 on shelf 1", "move mug 1 to shelf 1"),
    ("put mug 1 in fridge 1", "move mug 1 to fridge 1"), ("move mug 1 to shelf 1", "move mug 1 to shelf 1"),
    ("put mug 1", "put mug 1"), ("  look ", "look")])
def test_commands_of_older_versions_are_translated(old, new):
  assert current_command(old) == new


def write_games(folder, split="train", **changes):
  for name in ("pick_and_place_simple-Mug-None-Shelf-1/trial_1", "look_at_obj_in_light-Mug-None-DeskLamp-2/trial_2",
               "pick_and_place_with_movable_recep-Mug-Plate-Shelf-3/trial_3", "pick_and_place_simple-AppleSliced-4/t"):
    game = folder / "json_2.1.1" / split / name
    game.mkdir(parents=True)
    (game / "game.tw-pddl").write_text(json.dumps({"solvable": True, "walkthrough": ["look"]} | changes))


@pytest.fixture
def data(tmp_path, monkeypatch):
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path / "data"))
  monkeypatch.setenv("AGENTBANK_CACHE", str(tmp_path / "cache"))
  (tmp_path / "data" / "alfworld").mkdir(parents=True)
  return tmp_path / "data" / "alfworld"


def test_games_in_a_folder_and_in_an_archive_are_the_same(data, tmp_path):
  write_games(tmp_path)
  with tarfile.open(data / "games.tar.xz", "w:xz") as tar:
    tar.add(tmp_path / "json_2.1.1", "json_2.1.1")
  from_archive = alfworld_games.rows("train")
  assert alfworld_games.folder().is_relative_to(cache.folder("alfworld"))
  assert [data["type"] for _, data in from_archive] == ["look_at_obj_in_light", "pick_and_place_simple"]
  unpacked = alfworld_games.folder().stat().st_mtime_ns
  assert alfworld_games.folder().stat().st_mtime_ns == unpacked  # once
  write_games(data)
  assert alfworld_games.folder() == data / "json_2.1.1"
  assert alfworld_games.rows("train") == from_archive
  assert alfworld_games.walkthrough(from_archive[0][1]["game"]) == ["look"]


def test_test_games_are_unseen_rooms_or_it_is_said(data, caplog):
  write_games(data, "valid_seen")
  assert [key for key, _ in alfworld_games.rows("test")][0].startswith("valid_seen-")
  assert "no valid_unseen" in caplog.text
  write_games(data, "valid_unseen")
  assert [key for key, _ in alfworld_games.rows("test")][0].startswith("valid_unseen-")
  with pytest.raises(UserError, match="alfworld: no train in"):
    alfworld_games.rows("train")


def test_games_that_are_absent_or_broken(data, monkeypatch):
  with pytest.raises(UserError, match="alfworld: no .*json_2.1.1; get it from alfworld-download"):
    alfworld_games.folder()
  (data / "games.tar.xz").write_bytes(lzma.compress(b"no archive"))
  with pytest.raises(UserError, match="games.tar.xz cannot be unpacked"):
    alfworld_games.folder()
  write_games(data, solvable=False)
  assert alfworld_games.rows("train") == []
  next(data.glob("**/game.tw-pddl")).write_text("{")
  with pytest.raises(UserError, match="game.tw-pddl: not a game of ALFWorld"):
    alfworld_games.rows("train")


def test_without_the_package_it_says_what_to_install(data):
  if importlib.util.find_spec("alfworld"):
    pytest.skip("the package alfworld is installed")
  write_games(data)
  task = get_task("alfworld")
  with pytest.raises(UserError, match="pip install 'agentbank-jax\\[envs\\]'"):
    task.make_env().reset(next(iter(task.instances("train", 1, 0))))


def test_the_explorer_solves_the_full_household_in_fewer_steps():
  """Household and ALFWorld say the same things in the same words."""
  task = get_task("household_full")
  env = task.make_env()
  plain, better = 0, 0
  for instance in task.instances("test", 60, 0):
    turns, _ = last(play(task, env, instance))
    plain += len(turns)
    observation = env.reset(instance)
    explorer = AlfworldExplorer(observation).solve()
    text = next(explorer)
    for _ in range(task.max_steps):
      better += 2
      step = env.step(task.grammar.parse(text))
      if step.terminated:
        break
      text = explorer.send(step.observation)
    assert step.info["solved"], instance.id
  assert better < plain


def test_the_explorer_finds_what_cannot_be_gone_to():
  answers = {"go to desk 1": "You arrive at desk 1. On the desk 1, you see a cd 1.",
             "take cd 1 from desk 1": "You pick up the cd 1 from the desk 1.",
             "go to drawer 1": "Nothing happens.", "examine drawer 1": "The drawer 1 is closed.",
             "open drawer 1": "You open the drawer 1. The drawer 1 is open. In it, you see nothing."}
  room = "You are in the middle of a room. Looking quickly around you, you see a desk 1, and a drawer 1."
  explorer = AlfworldExplorer(f"{room}\nYour task is to: put a cd in drawer.").solve()
  text, commands = next(explorer), []
  while commands[-1:] != ["move cd 1 to drawer 1"]:
    commands.append(text.rpartition("Action: ")[2])
    if commands[-1] in answers:
      text = explorer.send(answers[commands[-1]])
  assert commands == [*answers, "move cd 1 to drawer 1"]


@pytest.fixture(scope="module")
def real_games(real_data, tmp_path_factory):
  """ALFWorld's package and real games."""
  if importlib.util.find_spec("alfworld") is None:
    pytest.skip("the package alfworld is not installed")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("AGENTBANK_DATA", str(real_data))
    patch.setenv("AGENTBANK_CACHE", os.environ.get(cache.VARIABLE) or str(tmp_path_factory.mktemp("cache")))
    yield alfworld_games.folder()


@pytest.mark.slow
class TestAlfworld(TaskConformance):
  errs = True  # the explorer

  @pytest.fixture
  def task(self, real_games):
    return get_task("alfworld")


# Plays games in the stock engine: put together by ALFWorld's own helper, with nothing of ours in the process.
STOCK = """
import json, sys
import textworld
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
for game, commands in json.load(sys.stdin):
  env = textworld.start(game, textworld.EnvInfos(won=True), wrappers=[AlfredDemangler()])
  said = [env.reset().feedback]
  for command in commands:
    state, _, done = env.step(command)
    said.append([state.feedback, bool(done), state["admissible_commands"]])
  print(json.dumps(said))
"""


@pytest.mark.slow
def test_memos_change_nothing(real_games):
  """Observations, wins and all admissible commands are the stock engine's, at every step of twelve games."""
  task, rng = get_task("alfworld"), random.Random(0)
  env = task.make_env()
  plays, ours = [], []
  for instance in task.instances("test", 12, 3):
    path = str(real_games / instance.data["game"] / "game.tw-pddl")
    said, commands = [env.reset(instance)], []
    plan = alfworld_games.walkthrough(instance.data["game"])
    for n in range(10 + len(plan)):
      admissible = env._engine.unwrapped.state["admissible_commands"]
      commands.append(rng.choice(admissible) if n < 10 else plan[n - 10])
      step = env.step(Action("act", commands[-1]))
      said.append([step.observation, step.terminated, env._engine.unwrapped.state["admissible_commands"]])
      if step.terminated:
        break
    plays.append([path, commands])
    ours.append(said)
  env.close()
  result = subprocess.run([sys.executable, "-c", STOCK], input=json.dumps(plays), capture_output=True, text=True,
                          check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
  stock = [json.loads(line) for line in result.stdout.splitlines()]
  assert [said[1:] for said in stock] == [said[1:] for said in ours]
  for theirs, mine in zip(stock, ours, strict=True):
    assert theirs[0].replace("\n\n", "\n") == f"-= Welcome to TextWorld, ALFRED! =-\n{mine[0]}"


@pytest.mark.slow
def test_walkthroughs_win(real_games):
  """A tenth of the games; `measure` plays them all."""
  task = get_task("alfworld")
  env = task.make_env()
  for split, count in (("train", 60), ("test", 14)):
    for instance in task.instances(split, count, 0):
      progress = []
      env.reset(instance)
      for text in walkthrough(instance, ""):
        step = env.step(task.grammar.parse(text))
        progress.append(step.info["progress"])
      assert step.info["solved"] and progress[-1] == 1 and max(progress[:-1], default=0) < 1, instance.id
  env.close()


@pytest.mark.slow
def test_published_trajectories_play_again(real_games, real_data):
  """KnowAgent's successes, made before alfworld 0.4, in those of their games that are here."""
  task = get_task("alfworld")
  env = task.make_env()
  lines = (real_data / "alfworld" / "knowagent_success_218.jsonl").read_text().splitlines()
  found = {row["game"].partition("/")[2]: row for split in ("train", "test") for _, row in alfworld_games.rows(split)}
  played = won = 0
  for row in map(json.loads, lines):
    if row["name"] not in found:
      continue
    instance = next(iter(task.instances("train", 1, 0)))
    env.reset(type(instance)("old", "train", found[row["name"]]))
    steps = [env.step(Action("act", line[2:])) for line in row["traj"].splitlines()
             if line.startswith("> ") and not line.startswith(("> Think", "> ActionPath"))]
    played += 1
    won += any(step.terminated for step in steps)
  env.close()
  assert played >= 15 and won == played, (won, played)
