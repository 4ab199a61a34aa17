"""HotpotQA, StrategyQA, TriviaQA and Bamboogle: their rows, their pages, their experts."""

import csv
import json

from conformance import TaskConformance, last, play
import pytest

from agentbank_jax.cache import VARIABLE
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task

ROWS = 22


@pytest.fixture
def data(tmp_path, monkeypatch):
  """A folder of rows in the published layouts, and a Wikipedia for the tasks whose rows bring no pages."""
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path / "data"))
  monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
  for name in ("hotpotqa", "strategyqa", "triviaqa", "bamboogle"):
    (tmp_path / "data" / name).mkdir(parents=True)
  return tmp_path / "data"


def write_hotpotqa(folder, name, first):
  """The second fact stands behind the five sentences that a search shows."""
  row = lambda n: {
      "_id": f"id{n}", "question": f"Who made the thing that town {n} has?", "answer": f"Maker {n}", "type": "bridge",
      "level": "hard", "supporting_facts": [[f"Town {n}", 0], [f"Thing {n}", 6], [f"Thing {n}", 99]],
      "context": [[f"Town {n}", [f"Town {n} has thing {n}.", " It is old."]],
                  [f"Thing {n}", [*(f" Line {i}." for i in range(6)), f" It was made by Maker {n}  alone."]],
                  ["Shared page", ["It is in every row."]]]}
  (folder / "hotpotqa" / name).write_text(json.dumps([row(n) for n in range(first, first + ROWS)]))


def strategyqa_row(n):
  return {"qid": f"q{n}", "term": f"Term {n % 20}", "description": "-", "question": f"Is {n} odd?",
          "answer": n % 2 == 1, "facts": [f"{n} is a number.", f"The half of {n} is {n / 2}."],
          "decomposition": [f"What is half of {n}?", "Is #1 whole?"],
          "evidence": [[[[f"Half-life {n}-1"]], ["operation"]], [["no_evidence"], ["operation"]]]}


def write_strategyqa(folder, name="strategyqa_dev.json", first=0):
  (folder / "strategyqa" / name).write_text(json.dumps([strategyqa_row(n) for n in range(first, first + ROWS)]))


def write_triviaqa(folder):
  row = lambda n: {
      "Question": f"What is trivia {n}?", "QuestionId": f"tc_{n}", "QuestionSource": "-", "SearchResults": [],
      "EntityPages": [{"DocSource": "TagMe", "Filename": f"Trivia_{n}.txt", "Title": f"Trivia {n}"}],
      "Answer": {"Value": f"The Thing-{n}", "Aliases": [f"Thing {n}"], "NormalizedAliases": [f"thing {n}"],
                 "HumanAnswers": [f"It's {n}"], "Type": "WikipediaEntity"}}
  (folder / "triviaqa" / "unfiltered-web-dev.json").write_text(json.dumps(
      {"Data": [row(n) for n in range(ROWS)], "Domain": "UnfilteredWeb", "Version": 1.0}))


def write_bamboogle(folder):
  with (folder / "bamboogle" / "test.csv").open("w", newline="") as file:
    csv.writer(file).writerows([("Question", "Answer"), *((f"Who, or what, is {n}?", f"Mr {n}") for n in range(ROWS))])


def write_wikipedia(folder):
  (folder / "wikipedia").mkdir()
  (folder / "wikipedia" / "pages.jsonl").write_text("".join(
      json.dumps({"title": f"Trivia {n}", "text": f"Trivia {n} is a thing. It is small."}) + "\n" for n in range(40)))


def write_all(folder):
  write_hotpotqa(folder, "hotpot_dev_distractor_v1.json", 0)
  write_hotpotqa(folder, "hotpot_train_v1.1.json", 100)
  write_strategyqa(folder)
  write_triviaqa(folder)
  write_bamboogle(folder)


class _Conformance(TaskConformance):
  split = "test"
  name = ""

  @pytest.fixture
  def task(self, data):
    write_all(data)
    if self.name in ("triviaqa", "bamboogle"):
      write_wikipedia(data)
    return get_task(self.name)

  def test_progress_is_reported_where_it_is_declared(self, task):
    for _, step in play(task, task.make_env(), self.some(task, 1)[0]):
      assert bool(task.progress) == ("progress" in step.info)
    assert not task.progress or step.info["progress"] == 1.0


class TestHotpotqa(_Conformance):
  name = "hotpotqa"


class TestStrategyqa(_Conformance):
  name = "strategyqa"
  lucky = 0.8  # half of the answers are yes


class TestTriviaqa(_Conformance):
  name = "triviaqa"


class TestBamboogle(_Conformance):
  name = "bamboogle"


def one(task, split="test"):
  return next(iter(task.instances(split, 1, 0)))


def test_hotpotqa_gold_paths_look_up_what_a_search_does_not_show(data):
  write_all(data)
  task = get_task("hotpotqa")
  instance = one(task, "train")
  turns, step = last(play(task, task.make_env(), instance))
  n = instance.data["question"].split()[-2]
  assert [t.content.splitlines()[-1] for t in turns if t.role == "assistant"] == [
      f"Action: search[Town {n}]", f"Action: search[Thing {n}]", "Action: lookup[Maker]", f"Final Answer: Maker {n}"]
  assert f"It was made by Maker {n} alone." in turns[-2].content and step.info["progress"] == 1.0


def test_hotpotqa_pages_are_those_of_all_rows_once(data):
  write_all(data)
  assert get_task("hotpotqa").make_env()._open_corpus().about["pages"] == 2 * 2 * ROWS + 1


def test_a_row_that_two_files_have_is_said(data):
  write_all(data)
  row = json.loads((data / "hotpotqa" / "hotpot_train_v1.1.json").read_text())[3]
  (data / "hotpotqa" / "train_some.jsonl").write_text(json.dumps(row))
  with pytest.raises(UserError, match=r"train_some.jsonl, line 1: row 'id103' is also .*v1.1.json, row 3; keep one"):
    one(get_task("hotpotqa"), "train")


def test_strategyqa_test_rows_are_not_train_rows(data):
  write_strategyqa(data, "strategyqa_train.json", 0)
  write_strategyqa(data, "strategyqa_dev.json", 10)
  task = get_task("strategyqa")
  train = {i.data["question"] for i in task.instances("train", 10, 0)}
  assert not train & {i.data["question"] for i in task.instances("test", ROWS, 0)}
  with pytest.raises(UserError, match="11 train instances asked for, but there are only 10"):
    list(task.instances("train", 11, 0))


def test_strategyqa_facts_of_a_term_are_one_page(data):
  write_strategyqa(data)
  page = get_task("strategyqa").make_env()._open_corpus().page("Term 1")
  assert page.sentences == ("1 is a number.", "The half of 1 is 0.5.", "21 is a number.", "The half of 21 is 10.5.")


def test_strategyqa_paragraphs_are_searched_where_they_are_given(data):
  write_strategyqa(data)
  paragraphs = {f"Half-life {n}-{i}": {"title": f"Half-life {n}", "section": "", "headers": [], "para_index": i,
                                        "content": f"Part {i}. More."} for n in range(ROWS) for i in (10, 9)}
  (data / "strategyqa" / "strategyqa_train_paragraphs.json").write_text(json.dumps(paragraphs))
  task = get_task("strategyqa")
  assert task.make_env()._open_corpus().page("Half-life 3").sentences == ("Part 9.", "More.", "Part 10.", "More.")
  turns, step = last(play(task, task.make_env(), one(task)))
  assert "Action: search[Half-life " in turns[2].content and step.info == {"solved": True, "progress": 1.0}


def test_triviaqa_evidence_is_searched_where_it_is_given(data):
  write_triviaqa(data)
  (data / "triviaqa" / "evidence" / "wikipedia").mkdir(parents=True)
  for n in range(ROWS):
    (data / "triviaqa" / "evidence" / "wikipedia" / f"Trivia_{n}.txt").write_text(f"Trivia {n}.\n\nIt is the thing.")
  task = get_task("triviaqa")
  turns, _ = last(play(task, task.make_env(), one(task)))
  assert turns[3].content.endswith("It is the thing.")


def test_triviaqa_answers_are_any_alias(data):
  write_triviaqa(data)
  write_wikipedia(data)
  task = get_task("triviaqa")
  instance, env = one(task), task.make_env()
  n = instance.data["question"].split()[-1].rstrip("?")
  for answer, solved in [(f"thing {n}", True), (f"The Thing_{n}!", True), (f"it s {n}", True), (f"thing {n} x", False)]:
    env.reset(instance)
    assert env.step(task.grammar.parse(f"Final Answer: {answer}")).info["solved"] == solved


@pytest.mark.parametrize("name", ["triviaqa", "bamboogle"])
def test_rows_without_pages_say_what_to_bring(data, name):
  write_all(data)
  with pytest.raises(UserError, match=rf"{name}: its rows bring no pages .* put a Wikipedia into .*data/wikipedia: "):
    one(get_task(name))


def test_a_wikipedia_is_searched_by_all(data):
  write_all(data)
  write_wikipedia(data)
  for name in ("hotpotqa", "strategyqa", "triviaqa", "bamboogle"):
    assert get_task(name).make_env()._open_corpus().about["pages"] == 40


@pytest.mark.parametrize("name, file, content, message", [
    ("hotpotqa", "train_x.jsonl", '{"id": "1", "question": "q"}\n', r"line 1: not a HotpotQA row .*'context'"),
    ("hotpotqa", "train_x.jsonl", "{", "line 1: not JSON"),
    ("hotpotqa", "train_x.jsonl", "[1]\n", "line 1: not a HotpotQA row"),
    ("strategyqa", "strategyqa_train.json", '[{"qid": "1", "answer": "yes"}]', "row 0: not a StrategyQA row"),
    ("strategyqa", "strategyqa_train.json", '{"a": 1}', "not a list of rows"),
])
@pytest.mark.parametrize("own", [True, False])
def test_broken_rows_are_said(data, own, name, file, content, message):
  if not own:  # rows are read only for questions
    write_wikipedia(data)
  (data / name / file).write_text(content)
  with pytest.raises(UserError, match=message):
    one(get_task(name), "train")


@pytest.mark.parametrize("name", ["hotpotqa", "strategyqa", "triviaqa", "bamboogle"])
def test_what_cannot_be_had_is_a_user_error(data, name):
  write_wikipedia(data)
  task = get_task(name)
  with pytest.raises(UserError, match=f"{name}: no .*get it from" if task.held_in else "held out"):
    one(task, "train")
  with pytest.raises(UserError, match=f"{name}: no .*get it from"):
    one(task)
  with pytest.raises(UserError, match="unknown split|'dev'"):
    one(task, "dev")


@pytest.mark.parametrize("name, split, count", [("hotpotqa", "train", 350), ("strategyqa", "test", 120)])
def test_every_real_gold_path_ends_solved(name, split, count, real_data, monkeypatch, tmp_path):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  monkeypatch.setenv(VARIABLE, str(tmp_path))
  task = get_task(name)
  env = task.make_env()
  for instance in task.instances(split, count, 0):
    _, step = last(play(task, env, instance))
    assert step.info == {"solved": True, "progress": 1.0} and step.reward == 1.0, instance.id


@pytest.mark.parametrize("name, count", [("triviaqa", 75), ("bamboogle", 59)])
def test_every_real_gold_answer_is_right(name, count, real_data, data):
  (data / name).rmdir()
  (data / name).symlink_to(real_data / name)
  write_wikipedia(data)
  task = get_task(name)
  env = task.make_env()
  for instance in task.instances("test", count, 0):
    _, step = last(play(task, env, instance))
    assert step.info["solved"] and step.reward == 1.0, instance.id
