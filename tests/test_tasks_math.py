"""MathQA, MATH and TheoremQA: their rows, their experts; and GSM8K's real solutions."""

import json

from conformance import TaskConformance, last, play
import pytest

from agentbank_jax.envs import sandbox
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task
from agentbank_jax.tasks.catalog.mathqa import chosen
from agentbank_jax.tasks.gsm8k_solution import SolutionError
from agentbank_jax.tasks.mathqa_formula import FormulaError

ROWS = 22


@pytest.fixture
def data(tmp_path, monkeypatch):
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  for name in ("mathqa", "math", "theoremqa"):
    (tmp_path / name).mkdir()
  return tmp_path


@pytest.fixture
def programs():
  if why := sandbox.missing():
    pytest.skip(why)


def mathqa_row(n, **changes):
  """Computes n * 7 + 1000 in two steps; option d."""
  return {"Problem": f"a box has {n} rows of 7 , how many ?", "Rationale": "-", "correct": "d",
          "options": f"a ) {n} , b ) {n + 7} , c ) {n * 6} kg , d ) {n * 7 + 1000} kg , e ) none",
          "annotated_formula": f"add(multiply({n}, 7), const_1000)", "linear_formula": "-", "category": "general",
          **changes}


def write_mathqa(folder, name="test.json", rows=None):
  (folder / "mathqa" / name).write_text(json.dumps(rows or [mathqa_row(n) for n in range(10, 10 + ROWS)]))


def math_row(n):
  return {"problem": f"What is half of ${n}$?", "level": "Level 1", "type": "Algebra",
          "solution": f"Half of ${n}$\nis $\\boxed{{\\frac{{{n}}}{{2}}}}$."}


def write_math_folders(folder):
  for n in range(ROWS):
    for split, odd in (("train", 1), ("test", 51)):
      path = folder / "math" / "MATH" / split / "algebra" / f"{n}.json"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(json.dumps(math_row(2 * n + odd)))


def write_theoremqa(folder, **changes):
  golds = [("integer", 777), ("float", 0.12345), ("bool", True), ("option", "(b)"), ("list of integer", [5, 777])]
  rows = [{"Question": f"Theorem {n}?", "Answer_type": golds[n % 5][0], "Answer": golds[n % 5][1], "Picture": None,
           "source": "-", "id": f"someone/theorem{n}.json", "explanation": "-", "theorem": "t", "subfield": "s",
           "field": "Math", **changes} for n in range(ROWS)]
  (folder / "theoremqa" / "theoremqa_test.json").write_text(json.dumps(rows))


class _Conformance(TaskConformance):
  split = "test"
  name = ""

  @pytest.fixture
  def task(self, data, programs):
    write_mathqa(data)
    write_math_folders(data)
    write_theoremqa(data)
    return get_task(self.name)


class TestMathqa(_Conformance):
  name = "mathqa"
  lucky = 0.5  # there are five options


class TestMath(_Conformance):
  name = "math"


class TestTheoremqa(_Conformance):
  name = "theoremqa"


def one(task, split="test"):
  return next(iter(task.instances(split, 1, 0)))


def test_mathqa_experts_compute_the_formula(data, programs):
  write_mathqa(data, rows=[mathqa_row(10)])
  task = get_task("mathqa")
  turns, step = last(play(task, task.make_env(), one(task)))
  assert turns[1].content == ("a box has 10 rows of 7 , how many ?\na) 10\nb) 17\nc) 60 kg\nd) 1070 kg\ne) none")
  assert [t.content.splitlines()[-1] for t in turns[2:]] == [
      "Action: 10 * 7", "Observation: 70", "Action: 70 + 1000", "Observation: 1070", "Final Answer: d"]
  assert step.info["solved"]


def test_mathqa_experts_use_python_where_a_calculator_does_not_do(data, programs):
  write_mathqa(data, rows=[mathqa_row(10, annotated_formula="add(factorial(4), choose(5, 2))",
                                      options="a ) 34 , b ) 1 , c ) 2 , d ) 3 , e ) 4", correct="a")])
  task = get_task("mathqa")
  turns, step = last(play(task, task.make_env(), one(task)))
  assert "print(math.factorial(4))" in turns[2].content and turns[-2].content == "Observation: 34"
  assert step.info["solved"]


@pytest.mark.parametrize("changes, why", [
    ({"correct": "a"}, "gives 1070, which is option d, and not a"),
    ({"annotated_formula": "divide(1, subtract(2, 2))"}, "cannot be computed: Error: division by zero"),
    ({"annotated_formula": "add(1, 1)"}, "gives 2, which is option None"),
    ({"annotated_formula": "guess(1)"}, "the operation 'guess' is not known"),
])
def test_mathqa_experts_raise_where_the_annotation_is_wrong(data, programs, changes, why):
  write_mathqa(data, rows=[mathqa_row(10, **changes)])
  task = get_task("mathqa")
  env, instance = task.make_env(), one(task)
  expert = task.expert(instance, env.reset(instance))
  with pytest.raises(FormulaError, match=why):
    text = next(expert)
    while True:
      text = expert.send(env.step(task.grammar.parse(text)).observation)
  env.close()


@pytest.mark.parametrize("answer, letter", [
    ("b", "b"), ("B", "b"), ("(b)", "b"), ("b)", "b"), ("b) 16 hr", "b"), ("b ) 16 hr.", "b"), ("16 hr", "b"),
    ("16", "b"), ("1,800", "c"), ("1800", "c"), ("none of these", "e"), ("3 : 2", "d"), ("1.5", "d"),
    ("a or b", None), ("b) 12", None), ("b, c", None), ("ab", None), ("17", None), ("f", None), ("", None),
    ("not b", None), ("16 km", None), ("option b is wrong", None), ("none", None), ("бb", None), ("b\nc", None),
])
def test_what_chooses_an_option(answer, letter):
  assert chosen(answer, {"a": "12", "b": "16 hr", "c": "1,800", "d": "3 : 2", "e": "none of these"}) == letter


def test_a_number_that_two_options_have_chooses_none():
  assert chosen("2", {"a": "2 km", "b": "4 / 2", "c": "1", "d": "3", "e": "5"}) is None


def test_math_is_read_from_folders_and_from_json_lines(data):
  write_math_folders(data)
  task = get_task("math")
  assert one(task, "train").id.startswith("train-algebra-")
  (data / "math" / "MATH").rename(data / "math" / "elsewhere")
  (data / "math" / "math_non500_9.jsonl").write_text("\n".join(json.dumps(math_row(n)) for n in (1, 3)) + "\n")
  (data / "math" / "math500_test.jsonl").write_text(json.dumps(math_row(5) | {"answer": "-", "subject": "-"}))
  assert {i.data["gold"] for i in task.instances("train", 2, 0)} == {"\\frac{1}{2}", "\\frac{3}{2}"}
  assert one(task).data["gold"] == "\\frac{5}{2}"


@pytest.mark.parametrize("name, file, content, message", [
    ("math", "test.jsonl", '{"problem": "p", "solution": "s", "level": "1", "type": "t"}', "line 1: not a MATH row"),
    ("math", "test.jsonl", '{"problem": "p"}', r"line 1: not a MATH row \('solution'\)"),
    ("mathqa", "test.json", '[{"problem": "p", "options": "none", "correct": "a"}]', "row 0: not .*no options"),
    ("mathqa", "test.json", '[{"problem": "p", "options": "a ) 1 , b ) 2", "correct": "a"}]', "row 0: not a MathQA"),
    ("theoremqa", "theoremqa_test.json", '[{"id": "x", "Answer_type": "poem"}]', "row 0: not a TheoremQA row"),
    ("theoremqa", "theoremqa_test.json", "[", "not JSON"),
])
def test_broken_rows_are_said(data, name, file, content, message):
  (data / name / file).write_text(content)
  with pytest.raises(UserError, match=message):
    one(get_task(name))


@pytest.mark.parametrize("name", ["mathqa", "math", "theoremqa"])
def test_what_cannot_be_had_is_a_user_error(data, name):
  task = get_task(name)
  with pytest.raises(UserError, match=f"{name}: no .*get it from" if task.held_in else "held out"):
    one(task, "train")
  with pytest.raises(UserError, match=f"{name}: no .*get it from"):
    one(task)
  with pytest.raises(UserError, match="'dev'"):
    one(task, "dev")


@pytest.mark.parametrize("name, split, count", [("math", "train", 1_200), ("theoremqa", "test", 300)])
def test_every_real_gold_answer_is_right(name, split, count, real_data, programs, monkeypatch):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  task = get_task(name)
  env = task.make_env()
  for instance in task.instances(split, count, 0):
    _, step = last(play(task, env, instance))
    assert step.info["solved"], instance.id
  env.close()


def test_990_of_1000_real_gsm8k_solutions_are_read_and_all_of_them_solve(real_data, monkeypatch):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  task = get_task("gsm8k")
  env, unread = task.make_env(), []
  for instance in task.instances("train", 1_000, 0):
    try:
      _, step = last(play(task, env, instance))
      assert step.info["solved"], instance.id
    except SolutionError:
      unread.append(int(instance.id.rpartition("-")[2]))
  contradict_their_answers = [25, 168, 375, 897, 960]
  calculate_with_unknowns, by_the_clock = [67, 295, 841, 925], [92]
  assert sorted(unread) == sorted(contradict_their_answers + calculate_with_unknowns + by_the_clock)


def test_real_mathqa_formulas_lead_to_the_right_option_or_say_that_they_do_not(real_data, programs, monkeypatch):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  task = get_task("mathqa")
  env, solved, raised = task.make_env(), 0, 0
  for instance in task.instances("test", 500, 0):
    try:
      *_, (_, step) = play(task, env, instance)
      solved += step.info["solved"]
    except (FormulaError, AssertionError):  # `play` does not go on after an invalid action
      raised += 1
  env.close()
  assert (solved, raised) == (340, 160)
