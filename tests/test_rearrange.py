"""Rearrangement in text rooms: the room, RoomR's metrics, RoomR's files, and the task."""

import gzip
import importlib.util
import json
import math
import pickle
import random

from conformance import TaskConformance, last, play
import pytest
from thor_layouts import layouts  # noqa: F401 (a fixture)

from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.rearrange import RearrangeEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task, roomr, thor_rooms

# Two tables three metres apart, one with a drawer.
ROOM = {
    "places": [["table 1", [0, 0.9, 0], [0, 1]], ["table 2", [3, 0.9, 0], [3, 1]], ["drawer 1", [3, 0.5, 0], [3, 1]]],
    "objects": [["cup 1", [0.1, 0.9, 0], [3.0, 0.9, 0.1]], ["egg 1", [0.3, 0.9, 0], [0.3, 0.9, 0.4]],
                ["pen 1", [3.2, 0.9, 0], [3.2, 0.9, 0]]],
    "openness": {"drawer 1": [0.9, 0.25]},
}


@pytest.fixture
def env():
  env = RearrangeEnv()
  env.reset(Instance("train-0", "train", ROOM))
  return env


def do(env, *commands):
  for command in commands:
    step = env.step(Action("act", command))
  return step


def test_two_phases(env):
  assert do(env, "go to table 1").observation == (
      "You are at table 1. Within reach: egg 1 at 0.30 0.90 0.40. What can be opened: nothing.")
  assert "cup 1 at 3.00 0.90 0.10; pen 1" in do(env, "go to table 2").observation
  assert "drawer 1 25% open" in do(env, "look").observation
  step = do(env, "take cup 1")
  assert step.info["invalid"] and step.observation == "You only look now. When you know the room: done."
  assert do(env, "done").observation.startswith("The room has been changed.")
  assert "egg 1 at 0.30 0.90 0.00" in do(env, "go to table 1").observation
  assert "drawer 1 90% open" in do(env, "go to table 2").observation


def test_success_and_fixed_strict(env):
  step = do(env, "done", "go to table 1", "take cup 1", "go to table 2", "put cup 1 at 3.0 0.9 0.1")
  assert (step.reward, step.info["progress"], step.info["misplaced"]) == (1 / 3, 1 / 3, 2)
  assert do(env, "open drawer 1 to 40%").info["misplaced"] == 1  # 15 points off is near enough
  assert do(env, "close drawer 1").info["misplaced"] == 2  # 25 are not
  step = do(env, "open drawer 1 to 25%", "go to table 1", "take egg 1", "put egg 1 at (0.30, 0.90, 0.40)")
  assert step.reward == 1 and not step.terminated
  step = do(env, "done")
  assert step.terminated and step.info["solved"] and step.reward == 1


def test_what_was_right_must_stay_right(env):
  step = do(env, "done", "go to table 1", "take egg 1", "put egg 1 at 0.3 0.9 0.4", "go to table 2", "take pen 1",
            "put pen 1 at 3.0 0.9 0.1")
  assert step.observation == "You put pen 1 at 3.00 0.90 0.10."
  assert (step.reward, step.info["progress"], step.info["newly_misplaced"]) == (0.0, 1 / 3, 1)
  step = do(env, "done")
  assert step.terminated and not step.info["solved"] and step.reward == 0


def test_what_is_in_the_hand_is_not_in_place(env):
  step = do(env, "done", "go to table 2", "take pen 1")
  assert step.info["newly_misplaced"] == 1
  assert do(env, "inventory").observation == "You are carrying pen 1."


@pytest.mark.parametrize("command", (
    "take cup 1",  # out of reach
    "take pen 1 and egg 1", "go to table 9", "open drawer 1 to 101%", "open table 1 to 5%", "put pen 1 at 3.2 0.9 0",
    "done done", "put pen 1 at nan nan nan", "open drawer 1", "PUT"))
def test_what_cannot_be_done_changes_nothing(env, command):
  before = do(env, "done", "go to table 2").info["misplaced"]
  step = do(env, command)
  assert step.info["invalid"] and step.info["misplaced"] == before


def test_things_rest_where_things_rest_and_not_in_each_other(env):
  do(env, "done", "go to table 2", "take pen 1")
  assert do(env, "put pen 1 at 3.2 5.0 0").info["invalid"]
  assert do(env, "put pen 1 at 0.3 0.9 0.4").info["invalid"]  # the other table
  assert do(env, "put pen 1 at 3.1 0.9 0.1").observation == "You put pen 1 at 3.00 0.90 0.10."
  do(env, "go to table 1", "take cup 1", "go to table 2")
  assert do(env, "put cup 1 at 3.0 0.9 0.1").observation == "You put cup 1 at 3.20 0.90 0.00."  # the nearest free


def write_rows(folder, count=20, scene="FloorPlan1"):
  """RoomR's rows, of two to four objects on the two counters of our kitchen."""
  rng = random.Random(0)
  spots = [(0.1 * i, 0.95, -1.9) for i in range(6)] + [(2 + 0.1 * i, 0.9, 1.9) for i in range(6)]
  rows = []
  for index in range(count):
    names = rng.sample(("Apple_1a", "Bowl_2b", "Bowl_3c", "Cup_4d"), rng.randint(2, 4))
    starts, targets = rng.sample(spots[::2], len(names)), rng.sample(spots[1::2], len(names))
    targets[0] = starts[0]  # one that stays
    pose = lambda name, spot: {"name": name, "position": dict(zip("xyz", spot, strict=True)), "rotation": {}}
    rows.append({
        "scene": scene, "index": index,
        "starting_poses": [pose(*pair) for pair in zip(names, starts, strict=True)],
        "target_poses": [pose(*pair) for pair in zip(names, targets, strict=True)],
        "openable_data": [{"objectId": "Drawer|+03.00|+00.80|-02.00", "start_openness": 0.1,
                           "target_openness": 0.9}] if index % 2 else [
                              {"objectId": "Cabinet|-03.00|+00.50|+00.00", "start_openness": 0.5,
                               "target_openness": 0.0}]})
  (folder / "roomr").mkdir(exist_ok=True)
  (folder / "roomr" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return rows


@pytest.fixture
def data(tmp_path, monkeypatch, layouts):  # noqa: F811
  write_rows(tmp_path)
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  return tmp_path


class TestRearrange(TaskConformance):
  @pytest.fixture
  def task(self, data):
    return get_task("rearrange")


def test_rooms_are_the_layouts(data):
  room = roomr.room(roomr.rows("train")[0][1])
  names = [name for name, *_ in room["places"]]
  assert names == ["cabinet 1", "cabinet 2", "countertop 1", "diningtable 1", "drawer 1", "fridge 1", "microwave 1",
                   "sinkbasin 1", "cabinet 3"]
  assert room["openness"]["cabinet 3"] == [0.5, 0.0]  # what the layout does not have is added
  assert room["places"][0] == ["cabinet 1", [0.5, 0.5, -2.0], [0.5, -1.25]]


def test_published_pickles_are_read_and_nothing_in_them_is_run(data):
  rows = write_rows(data)
  (data / "roomr" / "train.jsonl").unlink()
  plain = [{key: row[key] for key in row if key not in ("scene", "index")} for row in rows]
  with gzip.open(data / "roomr" / "train.pkl.gz", "wb") as file:
    pickle.dump({"FloorPlan1": plain}, file)
  assert [row["starting_poses"] for _, row in roomr.rows("train")] == [row["starting_poses"] for row in rows]
  with gzip.open(data / "roomr" / "train.pkl.gz", "wb") as file:
    pickle.dump({"FloorPlan1": [math.dist]}, file)
  with pytest.raises(UserError, match=r"\(it holds math.dist\); get it again"):
    roomr.rows("train")


def test_rows_and_layouts_that_are_absent_or_broken(data, monkeypatch):
  with pytest.raises(UserError, match="no .*test.*get it from allenai/ai2thor-rearrangement"):
    roomr.rows("test")
  (data / "roomr" / "train.jsonl").write_text('{"scene": "FloorPlan1"}\n')
  with pytest.raises(UserError, match=r"train.jsonl, row 1: not a row of RoomR \(it has no index, openable_data,"):
    roomr.rows("train")
  with pytest.raises(UserError, match="no layout of FloorPlan99"):
    thor_rooms.places("FloorPlan99")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  thor_rooms.places.cache_clear()
  with pytest.raises(UserError, match="alfworld, which is not installed: pip install"):
    thor_rooms.places("FloorPlan1")


@pytest.fixture
def real(real_data, monkeypatch):
  if importlib.util.find_spec("alfworld") is None:
    pytest.skip("the package alfworld, which has the layouts, is not installed")
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))


def test_as_much_is_misplaced_as_roomr_says(real):
  """5 cm and 20 points tell RoomR's changed things from the others, in every published row."""
  env = RearrangeEnv()
  rows = roomr.rows("train")
  for key, row in rows:
    env.reset(Instance(key, "train", roomr.room(row)))
    assert do(env, "done").info["misplaced"] == row["position_diff_count"] + row["open_diff_count"], key
  assert len(rows) == 80


def test_every_real_room_is_restored_from_the_text_alone(real):
  task = get_task("rearrange")
  env = task.make_env()
  for instance in task.instances("train", 80, 0):
    _, step = last(play(task, env, instance))
    assert step.info["solved"] and step.reward == 1, instance.id
