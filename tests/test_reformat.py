"""Reformatting: every observation is the calculator's or the database's own."""

from collections import Counter
from fractions import Fraction
import json
import sqlite3
import time

import hypothesis
from hypothesis import strategies as st
from ml_collections import ConfigDict
import pytest

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.calculator import CalculatorEnv
from agentbank_jax.envs.calculator_eval import evaluate, format_number
from agentbank_jax.envs.sql import show
from agentbank_jax.tasks.gsm8k_solution import normalise
from agentbank_jax.tasks.task import Grammar
from agentbank_jax.trajectory import Outcome
from configs import import_agentbank
from data_prep.annotate.reformat import gsm8k, spider
from data_prep.import_sources import run
from data_prep.sources.source import Context, DropRow, Reason


def contents(answer):
  return [t.content for t in gsm8k({"question": "q", "answer": answer}, Context("1")).turns[1:]]


def reason(answer):
  with pytest.raises(DropRow) as drop:
    contents(answer)
  return drop.value.reason


def replay(trajectory):
  """Plays a trajectory's actions and returns the observations and the last step."""
  env, grammar, observations = CalculatorEnv(), Grammar(has_answer=True), []
  answer = trajectory.turns[-1].content.rpartition("Final Answer: ")[2]
  env.reset(Instance("1", "train", {"question": "q", "answer": answer}))
  for turn in trajectory.turns:
    if turn.role == "assistant":
      step = env.step(grammar.parse(turn.content))
      observations.append(f"Observation: {step.observation}")
  return observations[:-1], step


def test_agentbanks_form():
  assert contents("She has 12*3 = <<12*3=36>>36 pens.\nShe keeps 36-4=<<36-4=32>>32 of them.\n#### 32") == [
      "Thought: She has 12*3 pens.\nAction: 12*3", "Observation: 36",
      "Thought: She keeps 36-4 of them.\nAction: 36-4", "Observation: 32", "Final Answer: 32"]


@pytest.mark.parametrize("answer, actions, final", [
    ("Half is $5*.5=$<<5*.5=2.50>>2.50.\n#### 2.50", ["5*.5"], "2.5"),
    ("It is <<1,200+300=1500>>1,500 in all.\n#### 1,500", ["1200+300"], "1500"),
    ("Off: 25% of $80 is <<80*25%=20>>20.\n#### $20", ["80*(25/100)"], "20"),
    ("It is 3 x 4 = <<3x4=12>>12.\n#### 12", ["3*4"], "12"),
    ("A third is <<10/3=3.33>>3.33, three are <<3.33*3=9.99>>9.99.\n#### 9.99", ["10/3", "3.33*3"], "9.99"),
    ("A day has 24 hours / 2 = <<24/2=12>>12. He sleeps 12 - 4 = 8 hours.\n#### 8", ["24/2", "12 - 4"], "8"),
    ("Share: 6 monkeys / 10 animals * 100% = 60%\n#### 60", ["6 / 10 * 100"], "60"),
    ("Rachel: 5+2(4)=13 hours\n#### 13", ["5+2*(4)"], "13"),
    ("We get 2*x = 50 - 10 = 40, so x is 40/2=<<40/2=20>>20\n#### 20", ["50 - 10", "40/2"], "20"),
    ("So x=30*(100/200).\nThus, x=15 seconds.\n#### 15", ["30*(100/200)"], "15"),
    ("The share is $9 / $27 * 100% = 33.333%, which rounds down to 33%\n#### 33", ["9 / 27 * 100"], "33"),
])
def test_expressions_as_people_write_them(answer, actions, final):
  turns = contents(answer)
  assert [t.partition("Action: ")[2] for t in turns[:-1:2]] == actions
  assert turns[-1].endswith(f"Final Answer: {final}")


def test_one_sentence_with_two_calculations_is_cut_between_them():
  assert contents("He has 3*2=<<3*2=6>>6 red and 6+4=<<6+4=10>>10 others left. So he has ten.\n#### 10") == [
      "Thought: He has 3*2 red\nAction: 3*2", "Observation: 6",
      "Thought: and 6+4 others left.\nAction: 6+4", "Observation: 10",
      "Thought: So he has ten.\nFinal Answer: 10"]


def test_what_cannot_be_rewritten_has_a_reason():
  assert reason("Let a be 7.\n#### 7") == Reason.NO_ANNOTATION
  assert reason("It is <<2*3=7>>7.\n#### 7") == Reason.WRONG_VALUE
  assert reason("It is <<10/3=3.1>>3.1.\n#### 3.1") == Reason.WRONG_VALUE
  assert reason("It is <<2**3)=8>>8.\n#### 8") == Reason.BAD_EXPRESSION
  assert reason("It is <<2*3=6>>6.\n#### 8") == Reason.ANSWER_NOT_COMPUTED
  assert reason("It is <<2*3=6>>6.") == Reason.MALFORMED
  # An equation in the text that does not hold is text, whoever wrote it.
  assert reason("It is 192*100=$1920.\n#### 1920") == Reason.NO_ANNOTATION
  assert reason("Let 2*x + 5 + 3 = 8.\n#### 8") == Reason.NO_ANNOTATION
  assert reason("So x=30*2.\nThus, x=15.\n#### 15") == Reason.NO_ANNOTATION
  assert reason("It is 2*3 = <<2*3=6>>6, so 8.\n#### 9") == Reason.ANSWER_NOT_COMPUTED


@pytest.mark.parametrize("piece", ["1+", "1 x ", "(", "1 a b c ", "<<", "(1+1", "1,111", "1 "])
def test_no_line_takes_long(piece):
  start = time.process_time()
  assert reason(piece * 3000 + "\n#### 1") == Reason.NO_ANNOTATION
  assert time.process_time() - start < 2


def test_normalise():
  assert normalise("$1,200 x 3") == "1200 * 3"
  assert normalise("20%*5") == "(20/100)*5" and normalise("17%5") == "17%5"
  assert normalise("40 ÷ 2 − 1") == "40 / 2 - 1"


def test_real_gsm8k_rows_replay_in_the_environment(real_data):
  reasons = Counter()
  for number, line in enumerate((real_data / "gsm8k" / "train_1000.jsonl").read_text().splitlines()):
    row = json.loads(line)
    try:
      trajectory = gsm8k(row, Context(str(number)))
    except DropRow as drop:
      reasons[drop.reason] += 1
      continue
    observations, last = replay(trajectory)
    assert observations == [t.content for t in trajectory.turns[2::2]]
    assert last.info["solved"] and trajectory.outcome == Outcome.SOLVED
    assert "<<" not in "".join(t.content for t in trajectory.turns[1:])
    assert format_number(evaluate(row["answer"].rpartition("####")[2].strip().replace(",", ""))) \
        == trajectory.turns[-1].content.rpartition("Final Answer: ")[2]
    reasons["kept"] += 1
  assert reasons == {"kept": 990, Reason.NO_ANNOTATION: 3, Reason.ANSWER_NOT_COMPUTED: 7}


def test_a_query_is_one_action(tmp_path):
  connection = sqlite3.connect(tmp_path / "zoo.sqlite")
  connection.executescript("CREATE TABLE a (name TEXT, legs INT); INSERT INTO a VALUES ('emu', 2), ('fox', 4);")
  connection.close()
  before = (tmp_path / "zoo.sqlite").read_bytes()
  context = Context("1", options={"databases": str(tmp_path)})
  row = {"db": "zoo", "query": "Two legs?", "gold": "SELECT name FROM a WHERE legs = 2", "hardness": "easy"}
  trajectory = spider(row, context)
  assert [t.content for t in trajectory.turns] == [
      "Two legs?", "Action:\n```sql\nSELECT name FROM a WHERE legs = 2\n```", "Observation: [('emu',)]",
      "Action: submit"]
  assert trajectory.reward == 1.0 and trajectory.metadata == {"db": "zoo", "hardness": "easy"}
  for change, expected in [({"db": "farm"}, Reason.DATABASE_ABSENT),
                           ({"db": "../zoo"}, Reason.DATABASE_ABSENT),
                           ({"gold": "SELECT x FROM a"}, Reason.QUERY_FAILED),
                           ({"gold": "DELETE FROM a"}, Reason.QUERY_FAILED),
                           ({"gold": ""}, Reason.MALFORMED)]:
    with pytest.raises(DropRow) as drop:
      spider(row | change, context)
    assert drop.value.reason == expected
  assert (tmp_path / "zoo.sqlite").read_bytes() == before


def test_real_spider_questions_are_all_imported(real_data, tmp_path):
  folder = real_data / "intercode_sql"
  config = ConfigDict({"lint": import_agentbank.lint(), "on_bad_row": "error", "max_bad_share": 0.0,
                       "output": "out.jsonl"})
  config.sources = (import_agentbank.source("spider", "spider", str(folder / "ic_spider_dev.json"),
                                            databases=str(folder / "sqlite")),)
  summary = run(config, tmp_path)
  rows = json.loads((folder / "ic_spider_dev.json").read_text())
  assert summary["rows"] == len(rows)
  connection = sqlite3.connect(f"file:{folder / 'sqlite' / rows[0]['db']}.sqlite?mode=ro", uri=True)
  first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
  truth = connection.execute(rows[0]["gold"]).fetchall()
  assert first["turns"][2]["content"] == f"Observation: {show(truth, compact=False)}"


@pytest.mark.parametrize("expression, shown", [
    ("0.1 + 0.2", "0.3"), ("2 * 12", "24"), ("05*2", "10"), (".5*3", "1.5"), ("1/3", "0.333333333333"),
    ("7//2", "3"), ("-7//2", "-4"), ("7 % 3", "1"), ("2**10", "1024"), ("2**-2", "0.25"), ("4**0.5", "2"),
    ("2**.5", "1.414213562373"), ("(1/3)*3", "1"), ("-(3)", "-3"), ("1e3", "1000"), ("0.0", "0"),
    ("1/3000000000", "0.000000000333333333333"), ("1**99999999999", "1"), ("2/3", "0.666666666667")])
def test_the_calculator_is_exact(expression, shown):
  assert format_number(evaluate(expression)) == shown


@pytest.mark.parametrize("expression, message", [
    ("", "cannot read"), ("2 +", "cannot read"), ("x * 2", "'x' is not arithmetic"), ("1,000", "',' is not"),
    ("__import__('os')", "is not arithmetic"), ("1/0", "division by zero"), ("0**-1", "division by zero"),
    ("2**99999999999", "too large"), ("9**9**9**9", "too large"), ("1e99**1e9", "too large"),
    ("(-8)**.5", "not real"), ("1" * 501, "longer than 500"), ("(" * 250 + "1" + ")" * 249, "cannot read|nested"),
    ("2\x00", "not arithmetic"), ("١", "not arithmetic"), ("1 == 1", "not arithmetic"), ("2(3)", "cannot read"),
    ("1e999", "cannot read the number")])
def test_the_calculator_says_what_is_wrong(expression, message):
  with pytest.raises(ValueError, match=message):
    evaluate(expression)


@hypothesis.given(st.text("0123456789.+-*/%()e ", max_size=30))
def test_no_expression_breaks_the_calculator(expression):
  try:
    value = evaluate(expression)
  except ValueError:
    return
  assert evaluate(format_number(value)) == value or not isinstance(value, Fraction) or value.denominator > 1
