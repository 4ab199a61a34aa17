"""What every task of the registry promises, and the data that tasks need."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys

from conformance import TaskConformance, last, play
import pytest

from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task, splits, task_names

GENERATED = ("arithmetic", "household", "household_full", "sql_tables")
PUBLISHED = ("gsm8k", "intercode_sql")


@pytest.fixture
def published(tmp_path, monkeypatch):
  """A folder with a few rows in the published layouts."""
  gsm8k = tmp_path / "gsm8k"
  gsm8k.mkdir()
  for split, start in (("train", 2), ("test", 50)):
    rows = [{"question": f"{n} and {n}?", "answer": f"It is {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n}.\n#### {2 * n}"}
            for n in range(start, start + 20)]
    (gsm8k / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  sql = tmp_path / "intercode_sql"
  (sql / "sqlite").mkdir(parents=True)
  connection = sqlite3.connect(sql / "sqlite" / "shop.sqlite")
  connection.execute("CREATE TABLE hats (id INTEGER PRIMARY KEY, color TEXT)")
  connection.executemany("INSERT INTO hats (color) VALUES (?)", [("red",), ("blue",), ("red",)])
  connection.commit()
  connection.close()
  rows = [{"db": "shop", "query": f"Which {n} hats come first?", "hardness": "easy",
           "gold": f"SELECT * FROM hats LIMIT {n}"} for n in range(1, 21)]
  (sql / "ic_spider_dev.json").write_text(json.dumps(rows))
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  return tmp_path


def instances(task, count=6, seed=0, split="train"):
  return list(task.instances(split, count, seed))


class TestGenerated(TaskConformance):
  @pytest.fixture(params=GENERATED)
  def task(self, request):
    return get_task(request.param)


class TestPublished(TaskConformance):
  split = "test"

  @pytest.fixture(params=PUBLISHED)
  def task(self, request, published):
    return get_task(request.param)

  def test_no_more_than_there_are(self, task):
    with pytest.raises(UserError, match="21 test instances asked for, but there are only 20"):
      self.some(task, 21)


@pytest.mark.parametrize("name", GENERATED + PUBLISHED)
def test_what_cannot_be_had_is_a_user_error(name, published):
  with pytest.raises(UserError, match="split"):
    instances(get_task(name), 1, split="dev")


def test_names_are_known_or_close():
  assert set(GENERATED) | set(PUBLISHED) <= set(task_names())
  with pytest.raises(UserError, match=r"unknown task 'gsm8'; did you mean 'gsm8k'\? \(known: .*arithmetic"):
    get_task("gsm8")


def test_the_registry_imports_no_environment():
  code = ("import sys, agentbank_jax.tasks as t; t.task_names(); "
          "print([m for m in sys.modules if 'jax.envs.' in m or 'numpy' in m or 'sqlite3' in m])")
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == "['agentbank_jax.envs.base']"


@pytest.mark.parametrize("name", GENERATED)
def test_train_and_test_share_no_problem(name):
  task = get_task(name)
  problem = lambda instance: json.dumps(instance.data, sort_keys=True)
  train = {problem(i) for seed in (0, 1) for i in instances(task, 500, seed)}
  test = {problem(i) for i in instances(task, 300, split="test")}
  assert len(test) == 300 and not train & test


def text(data):
  return data["question"]


def schema_and_question(data):
  schema = sorted((t["name"], *(name for name, _ in t["columns"])) for t in data["tables"])
  return data["question"], tuple(schema)


@pytest.mark.parametrize("name, problem", [("arithmetic", text), ("sql_tables", schema_and_question)])
def test_five_thousand_train_and_a_thousand_test_problems(name, problem):
  task = get_task(name)
  train = {problem(i.data) for i in instances(task, 5_000)}
  test = [i.data for i in instances(task, 1_000, split="test")]
  assert train.isdisjoint(map(problem, test)) and len(train) > 4_950
  for data in test:
    if name == "arithmetic":
      assert data["answer"] not in re.findall(r"\d+", data["question"])


def test_sql_answers_are_not_in_the_questions():
  task = get_task("sql_tables")
  env = task.make_env()
  for instance in instances(task, 200, split="test"):
    words = set(re.findall(r"\w+", env.reset(instance)))
    cells = {str(cell) for row in env._gold for cell in row}
    assert cells and not cells & words
  env.close()


def test_the_sql_expert_names_only_what_it_has_seen():
  task = get_task("sql_tables")
  env = task.make_env()
  for instance in instances(task, 100):
    names = {t["name"] for t in instance.data["tables"]} | {
        name for t in instance.data["tables"] for name, _ in t["columns"]}
    turns, _ = last(play(task, env, instance))
    for i, turn in enumerate(turns):
      if turn.role == "assistant":
        seen = set(re.findall(r"\w+", " ".join(t.content for t in turns[:i])))
        assert names & set(re.findall(r"\w+", turn.content)) <= seen
  env.close()


def test_arithmetic_operands_are_given_or_observed():
  task = get_task("arithmetic")
  env = task.make_env()
  for instance in instances(task, 200):
    turns, _ = last(play(task, env, instance))
    for i, turn in enumerate(turns):
      if turn.role == "assistant":
        seen = set(re.findall(r"\d+", " ".join(t.content for t in turns[:i])))
        assert set(re.findall(r"\d+", turn.content)) <= seen
  env.close()


def test_no_more_problems_than_there_are():
  make = lambda rng: (str(n := rng.randrange(40)), {"n": n})
  have = sum(splits.split_of(str(n)) == "test" for n in range(40))
  assert len(list(splits.generate("forty", make, "test", have, 0))) == have
  with pytest.raises(UserError, match=f"forty: {have + 1} test instances asked for, but there are only {have}"):
    list(splits.generate("forty", make, "test", have + 1, 0))


def test_published_rows_keep_their_ids_under_every_seed(published):
  first = {i.id: i.data for i in instances(get_task("gsm8k"), 20, 0, "test")}
  assert first == {i.id: i.data for i in instances(get_task("gsm8k"), 20, 1, "test")}


def test_published_data_that_is_absent_or_broken(published, monkeypatch):
  gsm8k, sql = get_task("gsm8k"), get_task("intercode_sql")
  with pytest.raises(UserError, match="no train instances"):
    instances(sql, 1, split="train")
  (published / "gsm8k" / "test.jsonl").write_text('{"question": "2?", "answer": "#### 2"}\n{"question": "3?"}\n')
  with pytest.raises(UserError, match=r"test.jsonl, line 2: not a GSM8K row \('answer'\)"):
    instances(gsm8k, 1, split="test")
  shutil.copy(published / "gsm8k" / "test.jsonl", published / "gsm8k" / "test_2.jsonl")
  with pytest.raises(UserError, match="ambiguous: test.jsonl, test_2.jsonl; keep one"):
    instances(gsm8k, 1, split="test")
  (published / "intercode_sql" / "sqlite" / "shop.sqlite").unlink()
  with pytest.raises(UserError, match="row 0: no sqlite/shop.sqlite"):
    instances(sql, 1, split="test")
  shutil.rmtree(published / "gsm8k")
  with pytest.raises(UserError, match="gsm8k: no .*get it from openai/grade-school-math"):
    instances(gsm8k, 1, split="test")
  monkeypatch.delenv("AGENTBANK_DATA")
  with pytest.raises(UserError, match="gsm8k: set AGENTBANK_DATA to a folder with gsm8k/"):
    instances(gsm8k, 1, split="test")


def test_every_real_intercode_gold_query_has_reward_one(real_data, monkeypatch):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  task = get_task("intercode_sql")
  env = task.make_env()
  rows = len(json.loads((real_data / "intercode_sql" / "ic_spider_dev.json").read_text()))
  for instance in task.instances("test", rows, 0):
    _, step = last(play(task, env, instance))
    assert step.reward == 1.0, instance.id
  env.close()
