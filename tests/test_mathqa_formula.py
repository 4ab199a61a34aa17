"""MathQA's formulas and options: what they compute, and which option that is."""

from collections import Counter
import json

import pytest

from agentbank_jax.envs.calculator_eval import evaluate, format_number
from agentbank_jax.tasks.mathqa_formula import Call, FormulaError, nearest, option_value, options, parse, play


def compute(formula):
  """Returns the actions of a formula and its value; Python is not run, calculators' expressions are."""
  actions, done = play(parse(formula), {}), []
  try:
    action = next(actions)
    while True:
      done.append(action)
      action = actions.send("7" if "```" in action else format_number(evaluate(action)))
  except StopIteration as e:
    return done, e.value


@pytest.mark.parametrize("formula, actions, value", [
    ("add(2, 3)", ["2 + 3"], "5"),
    ("divide(multiply(7, const_3), subtract(10, 3))", ["7 * 3", "10 - 3", "21 / 7"], "3"),
    ("subtract(2, subtract(3, 9))", ["3 - 9", "2 - (-6)"], "8"),
    ("multiply(add(1, 2), add(1, 2))", ["1 + 2", "3 * 3"], "9"),  # the same part is computed once
    ("multiply(54, const_0_2778)", ["54 * 0.2778"], "15.0012"),
    ("power(8, divide(1, 3))", ["1 / 3", "8 ** 0.333333333333"], "1.999999999999"),
    ("triangle_area_three_edges(3, 4, 5)", ["((3 + 4 + 5) * (3 + 4 - 5) * (3 - 4 + 5) * (4 + 5 - 3)) ** 0.5 / 4"], "6"),
    ("floor(divide(7, const_2))", ["7 / 2", "3.5 // 1"], "3"),
    ("circle_area(const_2.0)", ["3.14159265358979 * 2.0 ** 2"], "12.566370614359"),
    ("lcm(4, 6)", ["\n```python\nimport math\nprint(math.lcm(4, 6))\n```"], "7"),
])
def test_formulas_become_actions(formula, actions, value):
  assert compute(formula) == (actions, value)


def test_a_formula_is_nested_calls():
  assert parse("add(n, 2)".replace("n", "const_pi")) == Call("add", ("3.14159265358979", "2"))


@pytest.mark.parametrize("formula", [
    "", "3", "add(2", "add(2, 3))", "add(2, 3) add(1, 2)", "add(2)", "add(2, 3, 4)", "spell(2)", "add(two, 3)",
    "add(const_x, 3)", "sqrt()", "add(,)", "__import__(2)",
])
def test_what_is_no_formula_is_said(formula):
  with pytest.raises(FormulaError):
    parse(formula)


@pytest.mark.parametrize("text, found", [
    ("a ) 12 , b ) 16 hr , c ) 1,800 , d ) 3 : 2 , e ) none of these",
     {"a": "12", "b": "16 hr", "c": "1,800", "d": "3 : 2", "e": "none of these"}),
    ("a ) a ) 1055 , b ) b ) 1215 , c ) c ) 3 , d ) d ) 4 , e ) e ) 5",
     {"a": "1055", "b": "1215", "c": "3", "d": "4", "e": "5"}),
    ("['a ) 8', 'b ) 1', 'c ) 3', 'd ) 4', 'e ) 6']", {"a": "8", "b": "1", "c": "3", "d": "4", "e": "6"}),
])
def test_options(text, found):
  assert options(text) == found


@pytest.mark.parametrize("text, value", [
    ("12", 12), ("17 hr", 17), ("rs . 1,200", 1200), ("$ 5,330", 5330), ("3 / 4", 0.75), ("3 : 2", 1.5),
    ("2 1 / 2", 2.5),
    ("- 6", -6), ("12.5 %", 12.5), (".5", 0.5), ("s : 1067", 1067), ("1 / 0", None), ("none of these", None),
    ("7 - 19", None), ("12 , 13", None), ("13 π", 13),
])
def test_values_of_options(text, value):
  assert option_value(text) == value


@pytest.mark.parametrize("value, letter", [
    (12.0, "a"), (12.1, "a"), (12.4, "a"), (16.0, "b"), (14.0, None), (100.0, None), (0.333333, "c"), (0.3, None)])
def test_the_nearest_option_is_near(value, letter):
  assert nearest(value, {"a": "12", "b": "16 km", "c": "0.33", "d": "none"}) == letter


def test_two_options_of_one_value_are_none():
  assert nearest(2.0, {"a": "1 / 2", "b": "2", "c": "4 : 2"}) is None and nearest(2.0, {"a": "none"}) is None


def test_how_many_real_formulas_lead_to_the_right_option(real_data):
  """The numbers that catalog/mathqa.py states. Python is run here, in place of the sandbox."""
  counts = Counter()
  for line in (real_data / "mathqa" / "test_1000.jsonl").read_text().splitlines():
    row = json.loads(line)
    choices, actions = options(row["options"]), play(parse(row["annotated_formula"]), {})
    assert "".join(choices) == "abcde"
    try:
      action = next(actions)
      while True:
        if "```" in action:
          import math
          value = str(eval(action.partition("print(")[2].partition(")\n")[0], {"math": math}))
        else:
          value = format_number(evaluate(action))
        action = actions.send(value)
    except StopIteration as e:
      letter = nearest(float(e.value), choices)
      counts["right" if letter == row["correct"] else "none" if letter is None else "wrong"] += 1
    except ValueError:
      counts["not computed"] += 1
  assert counts == {"right": 340, "none": 129, "wrong": 29, "not computed": 2}
