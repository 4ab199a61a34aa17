"""Answers of TheoremQA, by type, with its tolerance."""

import json

import pytest

from agentbank_jax.envs.equivalence import Equivalence
from agentbank_jax.envs.typed_answer import is_right


class NoLatex:
  """For answers that are no LaTeX."""

  def number(self, latex):
    raise AssertionError(f"asked for the value of {latex}")


def right(kind, gold, answer, equivalence=None):
  return is_right(answer, {"type": kind, "gold": gold}, equivalence or NoLatex())


# What predict_accuracy.py of wenhuchen/TheoremQA says once it has read the number.
@pytest.mark.parametrize("kind, gold, answer, solved", [
    ("integer", 12, "12", True), ("integer", 12, "12.0", True), ("integer", 12, "12.4", True),
    ("integer", 12, "12.6", False), ("integer", 12, "11.6", True), ("integer", 12, "11.5", True),  # to even
    ("integer", 13, "12.5", False), ("integer", 12, "-12", False), ("integer", 4800, "4,800", True),
    ("integer", 12, "12 m/s", True), ("integer", 12, "$12", True), ("integer", 12, "x = 12", True),
    ("integer", 8, "2^3", True), ("integer", 12, "approximately 12", True), ("integer", 12, "twelve", False),
    ("float", 10.0, "10.4", True), ("float", 10.0, "9.6", True), ("float", 10.0, "10.41", False),
    ("float", 10.0, "10%", True), ("float", 0.0, "0", True), ("float", 0.0, "0.0001", False),
    ("float", -1.5, "-1.45", True), ("float", -1.5, "1.5", False), ("float", 0.125, "1/8", True),
    ("float", 3.2e-4, "3.2*10^-4", True), ("float", 3.2e-4, "3.2 × 10^{-4}", True), ("float", 3.2e-4, "3.2e-4", True),
    ("float", 3.2e-4, "3.2e4", False), ("float", 6e25, "6e25", True),
    ("list of integer", [1, 2], "[1, 2]", True), ("list of integer", [1, 2], "[2, 1]", True),  # sorted, as published
    ("list of integer", [1, 2], "1, 2", True), ("list of integer", [1, 2], "(1,2)", True),
    ("list of integer", [1, 2], "[1, 2, 3]", False), ("list of integer", [1, 2], "[1]", False),
    ("list of integer", [1, 2], "[1, 3]", False), ("list of integer", [1, 2], "3", False),
    ("list of float", [0.333, 0.25], "[1/3, 1/4]", True), ("list of float", [0.333, 0.25], "[1/2, 1/4]", False),
    ("bool", True, "True", True), ("bool", True, "yes", True), ("bool", False, "No.", True),
    ("bool", True, "false", False), ("bool", True, "1", False), ("option", "(a)", "(a)", True),
    ("option", "(a)", "A", True), ("option", "(a)", "(b)", False),
])
def test_the_published_definition(kind, gold, answer, solved):
  assert right(kind, gold, answer) == solved


@pytest.mark.parametrize("kind, gold, answer", [
    ("integer", 72, "72 or 73"),  # the published program takes the first
    ("integer", 72, "72 73"), ("integer", 72, ""), ("integer", 72, "nan"), ("integer", 72, "inf"),
    ("integer", 72, "1e999"), ("integer", 72, "9**9**9**9"), ("integer", 72, "__import__('os')"),
    ("integer", 72, "9" * 10_000), ("integer", 72, "[72]"), ("integer", 72, "True"), ("integer", 1, "True"),
    ("float", 1.0, "inf"), ("bool", True, "true or false"), ("bool", True, "not true"), ("bool", False, "not true"),
    ("option", "(a)", "(a) or (b)"), ("option", "(a)", "(a)(b)"), ("list of integer", [1, 2], "[1, [2]]"),
    ("list of integer", [1, 2], "1 2"), ("list of integer", [1, 2], "[1, 2], [3, 4]"),
    ("list of integer", [1, 2], "[1,,2]"), ("integer", 72, "\x00"), ("integer", 72, "\ud800"),
])
def test_wrong_and_adversarial_answers_score_zero(kind, gold, answer):
  assert not right(kind, gold, answer)


def test_latex_is_read():
  pytest.importorskip("math_verify")
  equivalence = Equivalence(cpu_seconds=1).open()
  try:
    for gold, answer, solved in [(0.5, r"\frac{1}{2}", True), (1.414, r"$\sqrt{2}$", True), (6.283, r"2\pi", True),
                                 (1.414, r"\sqrt{3}", False), (1.0, r"\frac{x}{x}y", False),
                                 (1.0, r"9^{9^{9^9}}\pi", False)]:
      assert right("float", gold, answer, equivalence) == solved, answer
    assert right("list of float", [0.5, 0.25], r"[\frac{1}{2}, \frac{1}{4}]", equivalence)
  finally:
    equivalence.close()


def test_every_real_gold_answer_is_itself(real_data):
  rows = json.loads((real_data / "theoremqa" / "theoremqa_test.json").read_text())
  assert len(rows) == 300
  for row in rows:
    assert right(row["Answer_type"], row["Answer"], str(row["Answer"])), row["id"]
