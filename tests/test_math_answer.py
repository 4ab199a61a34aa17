r"""Answers of MATH: the published definition, equality by value, and wrong answers that look right."""

import json
import time

import pytest

from agentbank_jax.envs.equivalence import SHARED, Equivalence
from agentbank_jax.envs.math_answer import MAX_ANSWER, boxed, is_right, last_boxed, plain_form


@pytest.fixture(scope="module")
def equivalence():
  pytest.importorskip("math_verify")
  with_worker = Equivalence(cpu_seconds=1).open()
  yield with_worker
  with_worker.close()


class Unasked:
  """Fails where an answer is decided by value that the published definition alone must decide."""

  def equal(self, gold, answer):
    raise AssertionError(f"asked whether {gold} is {answer}")


def right(gold, answer, equivalence, question="How much?"):
  return is_right(answer, {"gold": gold, "question": question}, equivalence)


# What `is_equiv` of hendrycks/math says, by its rules, worked out by hand.
@pytest.mark.parametrize("one, other, same", [
    (r"\tfrac{3}{4}", r"\dfrac{3}{4}", True),  # one fraction
    (r"\frac34", r"\frac{3}{4}", True), (r"\frac3{40}", r"\frac{3}{40}", True), (r"\frac{3}4", r"\frac{3}{4}", False),
    ("3/4", r"\frac{3}{4}", True), ("6/8", r"\frac{3}{4}", False), ("x/4", r"\frac{x}{4}", False),
    (r"7\sqrt5", r"7\sqrt{5}", True), (r"\sqrt{20}", r"2\sqrt{5}", False),
    (r"12\text{ inches}", "12", True), (r"12\text{ inches}", r"12\text{ feet}", True), (r"12\mbox{ in}", "12", False),
    (r"\$12", "12", True), (r"40\%", "40", True), ("40%", "40", True), (r"30^\circ", "30", True),
    (".25", "0.25", True), ("0.5", r"\frac{1}{2}", True), ("0.25", r"\frac{1}{4}", False), ("0.50", "0.5", False),
    ("x=9", "9", True), ("k = 9", "9", True), ("abc=9", "9", False), ("x=9", "y=9", True),
    (r"\left(2, 3\right)", "(2,3)", True), ("1, 2", "2, 1", False), ("(x+1)(x-1)", "x^2-1", False),
    (r"1\!000", "1000", True), ("1,000", "1000", False), ("a b", "ab", True), ("A", "a", False),
])
def test_the_published_definition(one, other, same):
  assert (plain_form(one) == plain_form(other)) == same


@pytest.mark.parametrize("gold, answer", [
    (r"\frac{1}{2}", "0.5"), (r"\frac{1}{2}", "1/2"), (r"\frac12", "2/4"), (r"\frac{1}{2}", ".50"),
    ("72", "72"), ("72", "72.0"), ("72", "72."), ("72", "$72$"), ("72", r"\boxed{72}"), ("72", r"$\boxed{72}$."),
    ("72", r"The answer is $\boxed{72}$."), ("72", "x=72"), ("72", r"\(72\)"), ("72", r"\[72\]"), ("72", "+72"),
    ("-72", "-72.00"), (r"3\frac18", "25/8"), (r"3\frac18", "3.125"), ("1,000", "1000"), ("3,\\!110,\\!400", "3110400"),
    (r"\$16,\!386.16", "$16,386.16"), (r"8{,}880", "8880"), (r"100\%", "100"), (r"39^\circ", "39"), ("x = 4", "4"),
    (r"\text{Monday}", "monday"), (r"\text{(C)}", "C"), (r"\text{(C)}", "(C)"), (r"\text{odd}", "Odd."),
    ("25_{6}", "25_6"), ("3:1", "3 : 1"), ("(1,2)", r"\left( 1, 2 \right)"),
])
def test_right_without_a_computer_algebra(gold, answer):
  assert right(gold, answer, Unasked())


@pytest.mark.parametrize("gold, answer", [
    (r"10\sqrt 2", r"\sqrt{200}"), ("x^2-4", "(x-2)(x+2)"), (r"3-\sqrt7", r"-\sqrt{7}+3"),
    ("-5, 1, 4", "1, 4, -5"), (r"(1,\frac12)", "(1,0.5)"), ("x^2 + y^2 = 13", "y^2+x^2-13=0"),
    (r"(-\infty,0]\cup[4,\infty)", r"[4,\infty)\cup(-\infty,0]"), (r"\{-1\} \cup [0,7)", r"[0,7)\cup\{-1\}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac{4}{2} \end{pmatrix}"), ("18", "18 ways"),
    (r"39^\circ", "39 degrees"), (r"144 \mbox{ m}^3", "144"), (r"\frac{\pi}{9}", r"\frac{2\pi}{18}"),
])
def test_right_by_value(gold, answer, equivalence):
  assert right(gold, answer, equivalence)


# Plausible, and wrong. Where `is_equiv` says otherwise, `test_where_we_are_stricter` says so.
@pytest.mark.parametrize("gold, answer", [
    ("72", "73"), ("72", "-72"), ("72", "7.2"), ("72", "720"), ("72", "72 or 73"), ("72", "72, 73"), ("72", "72 73"),
    ("72", "7 2"), ("72", "not 72"), ("72", r"\boxed{72} or \boxed{73}"), ("72", r"\boxed{73} \boxed{72}"),
    ("72", "$72$ or $73$"), ("72", "seventy-two"), ("72", "72.0000001"), ("72", "71.99999"), ("72", "72_8"),
    ("72", r"36\cdot 2"), ("72", "36*2"), ("72", "70+2"), ("1024", "2^{10}"), ("4", r"\sqrt{16}"), ("6", "3!"),
    ("72", "72 million"), ("72", ""), ("72", "?"), ("72", "٧٢"), ("72", "9" * 10_000), ("72", "72=72=73"),
    (r"\frac{1}{2}", "1/2 or 0.5"), (r"\frac{1}{2}", "0.05"), (r"\frac{1}{2}", "2/1"), (r"\frac{1}{3}", "0.333333"),
    (r"\frac{1}{3}", "0.33"), (r"\frac{1}{2}", r"\frac{1}{0}"), (r"\pi", "3.14"), (r"2\pi", "6.28"),
    (r"\sqrt{2}", "1.414"), ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(1,2)", "1,2"), ("(1,2)", "(1,2,3)"),
    ("-5, 1, 4", "1, 4"), ("-5, 1, 4", "1, 4, 5"), ("1,-2", "1"), ("x^2-4", "x^2+4"), ("x = 4", "y=5"),
    (r"(-\infty,0]\cup[4,\infty)", r"(-\infty,0)\cup[4,\infty)"), (r"(-\infty,0]", r"(-\infty,0)"),
    ("25_{6}", "25"), ("25_{6}", "17"), ("25_{6}", "25_{7}"), ("3:1", "3"), ("3:1", "1:3"),
    (r"\text{Monday}", "Tuesday"), (r"\text{Evelyn}", "Eevlyn"), (r"\text{(C)}", "A"), (r"\text{(C)}", "A or C"),
    ("6", "5=6"), ("5", "2+3=5"), (r"100\%", "1"), ("a", r"\text{b}"), (r"\frac{2a + b}{2}", "2a+b"),
])
def test_wrong_and_adversarial_answers_score_zero(gold, answer, equivalence):
  assert not right(gold, answer, equivalence)


@pytest.mark.parametrize("gold, answer", [
    ("6", "5=6"),  # `is_equiv` takes any two characters left of "=" for a name; `plain_form` does not
    ("72", "7 2"),  # `is_equiv` takes spaces out, `plain_form` too
    ("72", r"\boxed{73} \boxed{72}"),  # its caller takes the last box
    ("72", r"72\text{ or }73"), ("72", r"72\text{ or maybe 73}"),  # `is_equiv` drops units, `plain_form` too
])
def test_where_we_are_stricter_than_published(gold, answer, equivalence):
  assert not right(gold, answer, equivalence)


@pytest.mark.parametrize("gold, answer", [
    (r"\frac{3}{4}", "6/8"), ("x^2-4", "(x-2)(x+2)"), ("1, 2", "2, 1"), ("1000", "1,000"), (r"\text{odd}", "odd"),
])
def test_where_published_is_stricter(gold, answer, equivalence):
  assert plain_form(gold) != plain_form(answer) and right(gold, answer, equivalence)


@pytest.mark.parametrize("question, gold, answer, solved", [
    ("Factor $x^2-4$.", "(x-2)(x+2)", "x^2-4", False), ("Factor $x^2-4$.", "(x-2)(x+2)", "x^2 - 4", False),
    ("Factor $x^2-4$.", "(x-2)(x+2)", "(x+2)(x-2)", True),
    ("Simplify $\\sqrt{50}$.", "5\\sqrt{2}", "\\sqrt{50}", False),
    ("Simplify $\\sqrt{50}$.", "5\\sqrt{2}", "\\sqrt{2}\\cdot 5", True),
    ("Which of $x+1$ and $2x$ is it?", "x+1", "x+1", True),
])
def test_the_question_itself_is_no_answer(question, gold, answer, solved, equivalence):
  assert right(gold, answer, equivalence, question) == solved


@pytest.mark.parametrize("solution, answer", [
    (r"So it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"), (r"First \boxed{1}, then \boxed{2}.", "2"),
    (r"\fbox{3}", "3"), (r"It is $\boxed 5$ again.", "5"), (r"\boxed{\text{a {b} c}}", r"\text{a {b} c}"),
    (r"\boxed{\boxed{7}}", r"\boxed{7}"), ("No box.", None), (r"\boxed{open", None), ("\\boxed", None),
])
def test_what_is_boxed(solution, answer):
  assert last_boxed(solution) == answer


def test_boxes_are_found_in_linear_time():
  start = time.process_time()
  assert len(boxed(r"\boxed{1} " * 20_000)) == 20_000
  assert boxed(r"\boxed{" * 2_000) == []
  assert time.process_time() - start < 5


@pytest.mark.parametrize("answer", [
    "9**9**9**9", "9^{9^{9^9}}", r"\frac{9^{9^{9^9}}}{2}x", "10^9!", r"\sum_{n=1}^{10^9} n^{1000}", "(" * MAX_ANSWER,
    "{" * MAX_ANSWER, r"\frac" * 60, r"\sqrt" * 60, "x" * MAX_ANSWER, "\x00", "\ud800", "^", "_", "\\", "$", "$$",
    r"\int e^{x^{x^x}} \sin x dx", "__import__('os').system('true')", r"\input{/etc/passwd}", "٣", "½", "{}", "{0}",
])
@pytest.mark.parametrize("gold", ["5", r"\sqrt{2}"])
def test_no_answer_hangs_or_raises(gold, answer, equivalence):
  assert not right(gold, answer, equivalence)


def test_a_question_that_takes_too_long_is_ended_and_the_next_is_answered(equivalence):
  assert equivalence.equal("x!", "10^9!") is None
  assert equivalence.equal(r"\frac{x}{2}", "0.5x") is True
  assert equivalence.equal(r"\frac{x}{2}", "0.5y") is False
  assert equivalence.number(r"\frac{\pi}{2}") == pytest.approx(1.5707963)
  assert equivalence.number(r"\frac{x}{2}") is None and equivalence.number("") is None


def test_the_worker_ends_with_its_last_user():
  pytest.importorskip("math_verify")
  first, second = SHARED.open(), SHARED.open()
  assert first.equal("x+y", "y+x")
  process = SHARED._process
  first.close()
  assert process.poll() is None and second.equal("x", "x")
  second.close()
  assert process.poll() is not None and SHARED._process is None


def test_every_real_gold_answer_is_itself(real_data):
  rows = (real_data / "math" / "math_non500_1200.jsonl").read_text().splitlines()
  for row in map(json.loads, rows):
    gold = last_boxed(row["solution"])
    assert right(gold, gold, Unasked(), row["problem"]) and right(gold, f"$\\boxed{{{gold}}}$", Unasked(), "?")
