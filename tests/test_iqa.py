"""Question answering in text rooms: the room, IQUAD's files, and the task."""

import importlib.util

from conformance import TaskConformance, last, play
import pytest
from thor_layouts import layouts  # noqa: F401 (a fixture)

from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.iqa import IqaEnv, read_answer
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task, iquad
from agentbank_jax.tasks.catalog.iqa import read_question

HEADER = "question_type,scene_number,seed,question,answer,object_id,container_id\n"
FILES = {
    "existence": "0,1,{seed},Do we have any spoons?,{truth},1,21\n",
    "counting": "1,6,{seed},Please tell me how many heads of lettuce are around here?,{count},8,21\n",
    "contains": "2,1,{seed},I think there is an egg in a garbage can. Is that correct?,{truth},5,17\n",
}


def write_files(folder, count=10):
  (folder / "iqa").mkdir(exist_ok=True)
  for kind, line in FILES.items():
    lines = [line.format(seed=n, truth=n % 2 == 0, count=n % 4) for n in range(count)]
    (folder / "iqa" / f"train_{kind}.csv").write_text(HEADER + "".join(lines))


@pytest.fixture
def data(tmp_path, monkeypatch, layouts):  # noqa: F811
  write_files(tmp_path)
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  return tmp_path


class TestIqa(TaskConformance):
  lucky = 0.5  # answers are few

  @pytest.fixture
  def task(self, data):
    return get_task("iqa")


DATA = {"question": "Is there a mug in the fridge?", "answer": "yes",
        "receptacles": [["countertop 1", ["egg 1"]], ["fridge 1", ["mug 1"]]]}


def test_looking_is_allowed_and_touching_is_not():
  env = IqaEnv()
  assert env.reset(Instance("x", "train", DATA)) == (
      "You are in the middle of a room. Looking quickly around you, you see a countertop 1, and a fridge 1.\n"
      "Question: Is there a mug in the fridge?")
  act = lambda command: env.step(Action("act", command))
  assert act("go to fridge 1").observation == "You arrive at fridge 1. The fridge 1 is closed."
  assert "you see a mug 1." in act("open fridge 1").observation
  for command in ("take mug 1 from fridge 1", "inventory", "go to fridge 2"):
    assert act(command).info["invalid"]


@pytest.mark.parametrize("text, read", [
    ("yes", "yes"), ("Yes.", "yes"), ("TRUE", "yes"), ("no", "no"), ("False", "no"), ("3", "3"), ("03", "3"),
    ("two", "2"), ("none", "0"), ("maybe", None), ("yes, I think", None), ("٣", None), ("²", None), ("-1", None),
    ("", None), ("1.5", None)])
def test_answers(text, read):
  assert read_answer(text) == read


def test_wrong_answers_end_and_unreadable_ones_do_not():
  env = IqaEnv()
  env.reset(Instance("x", "train", DATA))
  step = env.step(Action("answer", "a mug"))
  assert not step.terminated and step.info["invalid"]
  for answer, solved in (("no", False), ("1", False), ("yes", True)):
    env.reset(Instance("x", "train", DATA))
    step = env.step(Action("answer", answer))
    assert step.terminated and step.info["solved"] == solved and step.reward == solved


def test_rooms_have_the_published_answers(data):
  for _, row in iquad.rows("train"):
    room = iquad.room(row)
    assert room["answer"] == row["published_answer"]
    assert iquad.room(row) == room  # the same every time
    assert all(sum(thing.startswith(f"{kind} ") for _, things in room["receptacles"] for thing in things) <= iquad.MOST
               for kind in iquad.OBJECTS.values())
    if row["type"] == "contains":  # our kitchen has no garbage can of its own
      assert room["receptacles"][-1][0] == "garbagecan 1"


def test_an_answer_is_read_off_the_room():
  room = {"type": "contains", "object": "egg", "container": "fridge", "receptacles": [["fridge 1", ["mug 1"]]]}
  assert iquad.answer(room) == "no"
  room["receptacles"].append(["countertop 1", ["egg 1"]])
  assert iquad.answer(room) == "no" and iquad.answer(room | {"type": "existence"}) == "yes"
  room["receptacles"].append(["fridge 2", ["egg 2"]])
  assert iquad.answer(room) == "yes" and iquad.answer(room | {"type": "counting"}) == "2"


def test_files_that_are_absent_or_broken(data):
  with pytest.raises(UserError, match="get it from danielgordon10/thor-iqa-cvpr-2018"):
    iquad.rows("test")
  official = data / "iqa" / "questions" / "test"
  for kind in iquad.TYPES:
    (official / f"data_{kind}").mkdir(parents=True)
    (data / "iqa" / f"train_{kind}.csv").rename(official / f"data_{kind}" / "combined.csv")
  assert len(iquad.rows("test")) == 30
  (official / "data_counting" / "combined.csv").write_text(HEADER + "1,6,7,How many?,True,8,21\n")
  with pytest.raises(UserError, match=r"counting/combined.csv, line 2: not a question of IQUAD \(invalid literal"):
    iquad.rows("test")


@pytest.fixture
def real(real_data, monkeypatch):
  if importlib.util.find_spec("alfworld") is None:
    pytest.skip("the package alfworld, which has the layouts, is not installed")
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))


def test_every_real_question_is_understood(real):
  for key, row in iquad.rows("train"):
    assert read_question(row["question"]) == (row["object"], row["container"], row["type"] == "counting"), key


def test_real_questions_are_answered_from_the_text_alone(real):
  task = get_task("iqa")
  env = task.make_env()
  for instance in task.instances("train", 300, 0):
    _, step = last(play(task, env, instance))
    assert step.info["solved"], instance.id
    assert instance.data["answer"] == instance.data["published_answer"]
