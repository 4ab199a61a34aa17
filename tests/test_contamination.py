"""Training conversations that hold an evaluation problem: planted ones are found, others are not."""

import dataclasses
import json
import random
import tracemalloc

from fake_tasks import COUNT
from packing_samples import make_config, save_tokenizer, trajectories, write_rows
import pytest

from agentbank_jax.envs.base import Instance
from agentbank_jax.errors import UserError
from agentbank_jax.tasks.splits import TooFewInstances
from agentbank_jax.trajectory import Trajectory, Turn
from data_prep import contamination, pack

LONG = ("Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
        "How many clips did Natalia sell altogether?")
SHORT = "Who was the mayor of the town of Bree in 1987?"  # 11 words
TINY = "What is 2 + 2?"
FORM = "Write a function in Python that takes one list of numbers and gives back"
SETTINGS = dict(split="test", instances=100, ngram=13, shortest=8, common=10)


def task(*problems):
  def instances(split, count, seed):
    assert split == "test"
    if count > len(problems):
      raise TooFewInstances("quiz", split, count, len(problems))
    return iter([Instance(f"test-{i}", split, {"question": text}) for i, text in enumerate(problems[:count])])
  return dataclasses.replace(COUNT, name="quiz", instances=instances)


@pytest.fixture
def quiz(monkeypatch):
  def register(*problems):
    monkeypatch.setattr(contamination, "get_task", {"quiz": task(*problems)}.__getitem__)
  register(LONG, SHORT, TINY)
  return register


def find(text, screen=None, role="user", **changes):
  screen = screen or contamination.make_screen(["quiz"], **SETTINGS | changes)
  return screen.find(Trajectory("t", "t", (Turn("system", "You act."), Turn(role, text))))


@pytest.mark.parametrize("text", [
    LONG, f"Question: {LONG} Answer.", LONG.upper(), LONG.replace(",", " --").replace(" ", "\n"),
    " ".join(LONG.split()[:13]), " ".join(LONG.split()[-13:])])
def test_thirteen_words_in_a_row_are_found_whatever_stands_between(quiz, text):
  for role in ("user", "assistant", "tool"):
    match = find(text, role=role)
    assert (match.turn, match.task, match.instance) == (1, "quiz", "test-0")
    assert len(match.words.split()) == 13 and match.words in " ".join(contamination.words_of(text))


@pytest.mark.parametrize("text", [
    " ".join(LONG.split()[:12]), LONG.replace("half", "twice").replace("48", "58").replace("altogether", "then"),
    " ".join(random.Random(0).sample(LONG.split(), len(LONG.split()))), TINY, "", "natalia " * 50])
def test_less_or_other_words_are_not(quiz, text):
  if "twice" in text:  # no thirteen words in a row are left
    text = text.replace("friends", "people")
  assert find(text) is None


def test_words_in_a_row_end_with_their_turn(quiz):
  halves = LONG.split()[:10], LONG.split()[10:20]
  turns = tuple(Turn("user", " ".join(half)) for half in halves)
  assert contamination.make_screen(["quiz"], **SETTINGS).find(Trajectory("t", "t", turns)) is None


def test_a_short_problem_is_looked_for_as_a_whole_and_a_tiny_one_not_at_all(quiz):
  assert find(f"I ask: {SHORT}").instance == "test-1"
  assert find(" ".join(SHORT.split()[:10])) is None
  assert contamination.make_screen(["quiz"], **SETTINGS).counts == {
      "quiz": {"instances": 3, "too_short": 1, "common_grams": 0}}
  assert find(TINY, shortest=4).instance == "test-2"


def test_what_many_problems_share_is_their_form(quiz):
  quiz(*(f"{FORM} number {i} of it, plus {i * 7} and minus {i * 11} in the end, as text." for i in range(11)))
  screen = contamination.make_screen(["quiz"], **SETTINGS)
  assert find(f"{FORM} nothing", screen) is None and screen.counts["quiz"]["common_grams"] > 0
  assert find("number 4 of it, plus 28 and minus 44 in the end, as text.", screen).instance == "test-4"


def test_what_cannot_be_looked_for_is_a_user_error(quiz, monkeypatch):
  with pytest.raises(UserError, match="contamination.shortest is 14, expected 1 to contamination.ngram=13"):
    find("", shortest=14)
  with pytest.raises(UserError, match="problems of 'household' are no text"):
    monkeypatch.undo()
    contamination.make_screen(["household"], **SETTINGS)
  with pytest.raises(UserError, match="unknown task 'gsm9k'"):
    contamination.make_screen(["gsm9k"], **SETTINGS)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_packer_drops_and_names_them(tmp_path, workers):
  """Arithmetic's test problems, planted into other conversations; workers draw none themselves."""
  from agentbank_jax.tasks import get_task
  problems = [i for i in get_task("arithmetic").instances("test", 300, 0)
              if len(contamination.words_of(i.data["question"])) >= 13]
  rows = trajectories(60)
  for n, problem in zip((7, 20, 41), problems, strict=False):
    rows[n]["turns"][-1]["content"] += f"\n{problem.data['question']}"
  config = make_config(save_tokenizer(tmp_path / "tokenizer"), write_rows(tmp_path / "rows.jsonl", rows),
                       workers=workers, block_size=9, max_dropped_share=0.0)
  config.contamination.update({"tasks": ("arithmetic",), "instances": 300})
  pack.run(config, tmp_path)
  ledger = json.loads((tmp_path / "packed" / "ledger.json").read_text())
  assert ledger["rows_dropped"] == {"contaminated": 3} and ledger["rows_kept"] == 57
  assert ledger["examples"]["contaminated"] == ["t7", "t20", "t41"]
  report = [json.loads(line) for line in (tmp_path / "packed" / "contamination.jsonl").read_text().splitlines()]
  assert [(r["source"], r["trajectory"], r["turn"] + 1, r["task"], r["instance"]) for r in report] == [
      ("rows.jsonl", f"t{n}", len(rows[n]["turns"]), "arithmetic", problem.id)
      for n, problem in zip((7, 20, 41), problems, strict=False)]
  for r, problem in zip(report, problems, strict=False):
    assert r["words"] in " ".join(contamination.words_of(problem.data["question"]))
  summary = json.loads((tmp_path / "packed" / "contamination.json").read_text())
  assert summary["ngram"] == 13 and summary["tasks"]["arithmetic"]["contaminated_trajectories"] == 3


def test_without_tasks_nothing_is_looked_for(tmp_path):
  config = make_config(save_tokenizer(tmp_path / "tokenizer"), write_rows(tmp_path / "rows.jsonl", trajectories(9)),
                       eval_share=0.0)
  pack.run(config, tmp_path)
  assert not list((tmp_path / "packed").glob("contamination*"))


def test_memory_does_not_grow_with_the_training_data(quiz):
  screen = contamination.make_screen(["quiz"], **SETTINGS)
  conversation = Trajectory("t", "t", (Turn("user", "go look see table " * 200),))
  screen.find(conversation)
  tracemalloc.start()
  for _ in range(50):
    screen.find(conversation)
  grown, _ = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert grown < 50_000
