"""The calculator environment: what counts as the answer, and what does not."""

from fractions import Fraction
import time

import pytest

from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.calculator import CalculatorEnv, parse_number
from agentbank_jax.tasks.gsm8k_solution import SolutionError, calculations, gold_answer

NATALIA = ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
           "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72")


def start(answer: str) -> CalculatorEnv:
  env = CalculatorEnv()
  assert env.reset(Instance("test-0", "test", {"question": "How many?", "answer": answer})) == "How many?"
  return env


@pytest.mark.parametrize("gold, answer", [
    ("72", "72"), ("72", "72.0"), ("72", "$72"), ("72", "72."), ("72", " 72 "), ("72", "072"),
    ("72.50", "72.5"),
    ("1000", "1,000"), ("1,000", "1000"), ("1234567.5", "$1,234,567.50"), ("-3", "-3"), ("-3", "-$3.00"),
    ("0.5", ".5"), ("0", "-0"),
])
def test_the_same_number_is_right(gold, answer):
  step = start(gold).step(Action("answer", answer))
  assert (step.reward, step.terminated, step.truncated, step.info) == (1.0, True, False, {"solved": True})


@pytest.mark.parametrize("answer", [
    "", "73", "7", "7.2", "-72", "720", "072.1", "72.0000000000000000000000001", "71.99999999999999999",
    "72 or 73", "73 72", "72 72", "72, 73", "7 2", "not 72", "72 apples", "72%", "72/1", "36*2", "7.2e1",
    "0x48", "72\n73", "7\n2", "72..", "72,", ",72", "7,2", "$$72", "$ 72", "--72", "+72", "~72", "<72>",
    "٧٢", "７２", "72²", "½", "nan", "inf", "None", "{answer}", "72\x00", "9" * 10_000, "seventy-two", "(72)",
])
def test_wrong_and_adversarial_answers_score_zero(answer):
  step = start("72").step(Action("answer", answer))
  assert (step.reward, step.terminated, step.info) == (0.0, True, {"solved": False})


def test_commas_are_for_thousands_only():
  assert parse_number("1,000") == 1000
  for text in ("1,00", "10,00", "1000,000", "1,0000", "1.000,5"):
    assert parse_number(text) is None
  assert parse_number("12,345.678") == Fraction("12345.678")


def test_expressions_are_evaluated_exactly_and_end_nothing():
  env = start("72")
  for expression, value in [("2 * 12", "24"), ("0.1 + 0.2", "0.3"), ("(48 + 24) / 3", "24"),
                            ("10 / 4", "2.5")]:
    assert env.step(Action("act", expression)) == (value, 0.0, False, False, {})


@pytest.mark.parametrize("expression", [
    "2 +", "apples", "1 / 0", "9 ** 9 ** 9", "__import__('os').system('true')", "72; 1", "\x00", "\ud800",
    "(" * 400, "1" * 10_000, "2 = 2",
])
def test_bad_expressions_are_said_and_the_episode_goes_on(expression):
  env = start("72")
  step = env.step(Action("act", expression))
  assert step.observation.startswith("Error: ") and step.info == {"invalid": True}
  assert not step.terminated and step.reward == 0.0
  assert env.step(Action("answer", "72")).info["solved"]


def test_the_right_value_as_an_expression_is_no_answer():
  assert start("72").step(Action("act", "72")) == ("72", 0.0, False, False, {})


def test_solutions_become_steps_and_thoughts_do_not_tell_the_result():
  steps, rest = calculations(NATALIA)
  assert [tuple(step) for step in steps] == [
      ("Natalia sold 48/2 clips in May.", "48/2", 24),
      ("Natalia sold 48+24 clips altogether in April and May.", "48+24", 72)]
  assert (rest, gold_answer(NATALIA)) == ("", "72")
  # Plain equations count where they hold; units, percent and thousands are read.
  steps, rest = calculations("First 5 boxes x 4 = 20 pens.\nThat is 20/80 x 100% = 25% of all.\nDone.\n#### 25")
  assert [step[:2] for step in steps] == [
      ("First 5 boxes x 4 pens.", "5 * 4"), ("That is 20/80 x 100% of all.", "20/80 * 100")]
  assert rest == "Done."


@pytest.mark.parametrize("solution, expression, rest", [
    ("So 60 minutes/hour / 2 minutes/mile = 30 miles/hour\n#### 30", "60 / 2", ""),
    ("That is 158 * 1 1/2 = 237 fish.\n#### 237", "158 * (1 + 1/2)", ""),
    ("It is 8 girls / 25 people = 32%\n#### 32", "8 / 25 * 100", ""),
    ("It is (8 + 8) / 50 = 32%\n#### 32", "((8 + 8) / 50) * 100", ""),
    ("It is 9 / 27 * 100% = 33.3%. It rounds to 33%.\n#### 33", "9 / 27 * 100", "It rounds to 33%."),
    ("120/16 = <<120/16=7.5>>7.5 cans.\nHe needs to buy 8 cans.\n#### 8", "120/16", "He needs to buy 8 cans."),
])
def test_solutions_as_people_write_them(solution, expression, rest):
  steps, last = calculations(solution)
  assert ([step.expression for step in steps], last) == ([expression], rest)


@pytest.mark.parametrize("piece", ["1+", "1 x ", "(", "1 a b c ", "<<", "(1+1", "1,111", "1 ", "1 1/2 ", "1 a/b / "])
def test_no_solution_takes_long(piece):
  start = time.process_time()
  with pytest.raises(SolutionError):
    calculations(piece * 3_000 + "\n#### 1")
  assert time.process_time() - start < 2


@pytest.mark.parametrize("solution, reason", [
    ("He has <<2+2=4>>4 apples.", "no_answer"),
    ("He has four apples.\n#### 4", "no_annotation"),
    ("He has <<2+2=5>>5 apples.\n#### 5", "wrong_value"),
    ("He has <<2+(2=4>>4 apples.\n#### 4", "bad_expression"),
    ("He has <<2+2=4>>4 apples.\n#### 5", "answer_not_computed"),
    ("He has <<2+2=4>>4 apples.\nHe keeps 6 of 5.\n#### 6", "answer_not_computed"),  # the text ends with another
    ("He has <<2+2=4>>4.\nSo it is 192*100=$1920\n#### 1920", "answer_not_computed"),  # the text calculates wrongly
    ("He has <<2+2=4>>4.\nSo 3A + 4 = 19 and A = 5\n#### 5", "answer_not_computed"),  # it is algebra
])
def test_solutions_that_are_no_steps_say_why(solution, reason):
  with pytest.raises(SolutionError) as e:
    calculations(solution)
  assert e.value.reason == reason
