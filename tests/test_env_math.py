"""The environment of mathematical problems: calculator, Python, answer."""

import pytest

from agentbank_jax.envs import sandbox
from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.math_problem import MathEnv
from agentbank_jax.errors import UserError


def start():
  env = MathEnv(lambda answer, data, equivalence: answer == data["gold"])
  assert env.reset(Instance("test-0", "test", {"question": "How much?", "gold": "42"})) == "How much?"
  return env


@pytest.fixture
def env():
  if why := sandbox.missing():
    pytest.skip(why)
  env = start()
  yield env
  env.close()


def program(code):
  return Action("act", f"```python\n{code}\n```")


def test_without_a_sandbox_no_episode_begins(monkeypatch):
  monkeypatch.setattr(sandbox, "missing", lambda: "no 'bwrap'")
  with pytest.raises(UserError, match="programs cannot be run safely here: no 'bwrap'"):
    start()


def test_expressions_and_programs(env):
  assert env.step(Action("act", "0.1 + 0.2")) == ("0.3", 0.0, False, False, {})
  assert env.step(program("import math\nprint(math.comb(5, 2))")) == ("10", 0.0, False, False, {})
  assert env.step(Action("act", "\n```\nprint(1)\nprint(2)\n```")).observation == "1\n2"
  assert env.step(program("x = 1")).observation == "(no output: print what you want to see)"
  step = env.step(program("print(x)"))  # nothing is kept
  assert step.observation == "Error: NameError: name 'x' is not defined" and step.info == {"invalid": True}
  assert env.step(Action("answer", "42")) == ("Correct.", 1.0, True, False, {"solved": True})


@pytest.mark.parametrize("text, why", [
    ("1 / 0", "division by zero"), ("9 ** 9 ** 9", "too large"), ("```python\nprint(1)", "one ```python block"),
    ("```python\n1\n```\n```python\n2\n```", "one ```python block"), ("```python\n1\n```\nso 1", "nothing else"),
    ("```python\nprint(7)\n1/0\n```", "7\nError: ZeroDivisionError"),
    ("```python\nwhile True:\n  (\n```", "SyntaxError"),
    ("```python\nimport sys; sys.exit(3)\n```", "exit code 3"),
])
def test_what_fails_says_why_and_the_episode_goes_on(env, text, why):
  step = env.step(Action("act", text))
  assert why in step.observation and step.info == {"invalid": True} and not step.terminated
  assert env.step(Action("act", "6 * 7")).observation == "42"


def test_long_output_is_cut_and_said(env):
  assert env.step(program("print('x' * 5_000)")).observation.endswith("... (2000 of 5000 characters shown)")


def test_endless_output_is_stopped(env):
  step = env.step(program("while True: print('x' * 1000)"))
  assert "Error: the program was stopped: output limit" in step.observation
