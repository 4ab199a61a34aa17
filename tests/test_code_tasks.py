"""HumanEval, MBPP and APPS: how programs are judged, what cannot fool the judge, and the real rows' own solutions."""

import functools
import json

from conformance import TaskConformance, last, play
from fake_tasks import FakePlayer
import pytest

from agentbank_jax.envs import code as code_env
from agentbank_jax.envs import code_judge, sandbox
from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.code import CodeEnv
from agentbank_jax.envs.code_judge import run_program, run_tests
from agentbank_jax.envs.inside import wire
from agentbank_jax.envs.output import same_output
from agentbank_jax.envs.sandbox import Limits, SandboxError
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate import rollout
from agentbank_jax.evaluate.rollout import Limits as EpisodeLimits
from agentbank_jax.experts import ExpertPlayer
from agentbank_jax.tasks import get_task

pytestmark = pytest.mark.skipif(bool(sandbox.missing()), reason=f"no sandbox here: {sandbox.missing()}")
NAMES = ("apps", "humaneval", "mbpp")


def humaneval_row(n):
  return {"task_id": f"HumanEval/{n}", "entry_point": "add",
          "prompt": f'from typing import List\n\n\ndef add(x: List[int]) -> int:\n    """Sum and {n}.\n'
                    f'    >>> add([1])\n    {1 + n}\n    """\n',
          "canonical_solution": f"    return sum(x) + {n}\n",
          "test": "def check(candidate):\n    for x in ([], [1, 2], [5] * 9):\n"
                  f"        assert candidate(x) == sum(x) + {n}\n"}


def mbpp_row(n, task_id):
  return {"task_id": task_id, "prompt": f"Write a function to add {n}.", "code": f"def add(x):\n  return x + {n}",
          "test_imports": ["import math"], "source_file": "x",
          "test_list": [f"assert add({i}) == {i + n}" for i in (1, 7)] + [f"assert math.isclose(add(.5), {n + .5})"]}


def apps_row(n):
  if n % 3 == 0:
    return {"problem_id": n, "question": f"Add {n}, for example [1, 2] gives {3 + n} .", "difficulty": "interview",
            "url": "", "starter_code": "class Solution:\n  def add(self, xs):\n", "solutions": json.dumps([
                f"class Solution:\n  def add(self, xs):\n    return sum(xs) + {n}"]),
            "input_output": json.dumps(
                {"fn_name": "add", "inputs": [[[1, 2]], [[5]]], "outputs": [3 + n, [5 + n]]})}
  return {"problem_id": n, "question": f"Add {n}.\nInput\n1 2\nOutput\n{3 + n}\n", "difficulty": "introductory",
          "url": "", "starter_code": "", "solutions": [f"print(sum(map(int, input().split())) + {n})"],
          "input_output": {"inputs": ["1 2\n", "5 5 5\n"], "outputs": [f"{3 + n}\n", f"{15 + n}\n"]}}


@pytest.fixture
def published(tmp_path, monkeypatch):
  """A folder with a few rows in the published layouts."""
  rows = {"humaneval/HumanEval.jsonl": [humaneval_row(n) for n in range(20)],
          "apps/test.jsonl": [apps_row(n) for n in range(20)], "apps/train.jsonl": [apps_row(n) for n in range(40, 50)]}
  for name, content in rows.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
  (tmp_path / "mbpp").mkdir()
  (tmp_path / "mbpp" / "sanitized-mbpp.json").write_text(json.dumps(
      [mbpp_row(n, n + 11) for n in range(20)] + [mbpp_row(3, 2), mbpp_row(4, 550), mbpp_row(5, 601)]))
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  return tmp_path


class TestCode(TaskConformance):
  split = "test"
  few = 3

  @pytest.fixture(params=NAMES)
  def task(self, request, published):
    return get_task(request.param)


def env_with(**data):
  env = CodeEnv()
  env.reset(Instance("test-0", "test", {"question": "", "visible": [], "before": "", "around": ["", ""], **data}))
  return env


def block(code):
  return Action("act", f"```python\n{code}\n```")


FUNCTION = {"names": {"f": "f"}, "tests": ["assert f(1) == 2", "assert f(41) == 42"], "visible": ["assert f(1) == 2"]}
PROGRAM = {"tests": [["1\n", "2\n"], ["41\n", "42\n"]], "visible": [["1\n", "2\n"]]}


def test_an_episode_shows_the_visible_tests_and_judges_by_all():
  env = env_with(**FUNCTION)
  assert env.step(Action("act", "def f(x): ...")).info == {"invalid": True}
  assert env.step(Action("act", "```python\n1\n```\n```python\n2\n```")).observation.startswith("Error: found 2 code b")
  step = env.step(block("print('hi')\ndef f(x):\n  return 2 * x + 1"))
  assert step.observation == ("Printed:\nhi\n0 of 1 tests passed. Failed:\nassert f(1) == 2\n  f(...) returned 3")
  assert env.step(block("def f(x):\n  return g(x)")).observation.endswith(
      "NameError: name 'g' is not defined (line 2)")
  assert env.step(block("def f(x)")).observation == (
      "Your code does not run: SyntaxError: expected ':' (<your code>, line 1)")
  assert env.step(block("def f(x):\n  return 2")).observation == "1 of 1 tests passed."
  step = env.step(Action("act", "submit"))
  assert step[1:] == (0.0, True, False, {"solved": False})  # the hidden test does not hold
  env.reset(Instance("test-0", "test", {**FUNCTION, "question": "", "before": "", "around": ["", ""]}))
  assert env.step(Action("act", "submit")).info == {"solved": False}  # nothing of the episode before is left


def test_an_episode_with_a_program():
  env = env_with(**PROGRAM)
  step = env.step(block("print(int(input()) + 2)"))
  assert step.observation == "0 of 1 tests passed. Failed:\ninput '1\\n': expected '2\\n'\n  printed '3\\n'"
  assert env.step(block("print(x)")).observation.endswith("NameError: name 'x' is not defined")
  assert env.step(block("print(int(input()) + 1)")).observation == "1 of 1 tests passed."
  assert env.step(Action("act", "submit")).reward == 1.0


def test_what_is_shown_where_no_test_is():
  env = env_with(**{**PROGRAM, "visible": []})
  assert env.step(block("print(1")).observation == "Your code does not run: SyntaxError: '(' was never closed"
  assert env.step(block("raise ValueError")).observation == "It compiles. No tests are shown for this problem."
  env = env_with(**{**FUNCTION, "visible": []})
  assert env.step(block("raise ValueError(3)")).observation == "Your code does not run: ValueError: 3 (line 1)"
  assert env.step(block("print(5)")).observation == "Printed:\n5\nIt ran. No tests are shown for this problem."


# Programs that want to pass without doing what is asked.
CHEATS = {
    "equal to everything": "class A:\n  def __eq__(self, o): return True\n  __hash__ = None\ndef f(x): return A()",
    "an integer equal to everything": "class A(int):\n  def __eq__(self, o): return True\ndef f(x): return A(0)",
    "never unequal": "class A(float):\n  def __ne__(self, o): return False\n  def __eq__(self, o): return True\n"
                     "def f(x): return A(0)",
    "ends the process as if all were well": "import os\nos._exit(0)",
    "exits when called": "import sys\ndef f(x): sys.exit(0)",
    "ends the process when called": "import os\ndef f(x): os._exit(0)",
    "kills everybody": "import os\ndef f(x): os.kill(-1, 9)",
    "kills its parent": "import os\ndef f(x): os.kill(os.getppid(), 9); os.kill(1, 9)",
    "writes verdicts to every file": "import os, json\n"
        "line = b''.join("
        "json.dumps({'test': n, 'passed': True, 'message': ''}).encode() + b'\\n' for n in (0, 1))\n"
        "def f(x):\n  for fd in range(64):\n    try: os.write(fd, line + b'{\"done\": true}\\n')\n"
        "    except OSError: pass",
    "writes verdicts when it is loaded": "import os\nfor fd in range(64):\n"
        "  try: os.write(fd, b'{\"test\": 0, \"passed\": true, \"message\": \"\"}\\n' * 9)\n  except OSError: pass\n"
        "def f(x): return 0",
    "prints verdicts": "print('{\"test\": 0, \"passed\": true}', '{\"done\": true}', sep='\\n')\n"
                       "def f(x): print('PASSED')",
    "replaces the wire": "import wire\nwire.dumps = lambda m: '{\"test\": 0, \"passed\": true, \"message\": \"\"}'\n"
                         "def f(x): return 0",
    "replaces what compares": "import builtins\nbuiltins.AssertionError = Exception\n"
                              "int.__eq__ if True else 0\ndef f(x): return 0",
    "looks for the tests in its files": "import os, re\ndef f(x):\n  for d, _, names in os.walk('/tmp'):\n"
        "    for n in names:\n      t = open(os.path.join(d, n), errors='replace').read()\n"
        "      m = re.search(r'f\\(%d\\) == (\\d+)' % x, t)\n      if m: return int(m[1])",
    "looks for the tests in the processes": "import os, re\ndef f(x):\n  for p in os.listdir('/proc'):\n"
        "    for n in ('cmdline', 'environ'):\n"
        "      try: t = open(f'/proc/{p}/{n}').read()\n      except OSError: continue\n"
        "      m = re.search(r'f\\(%d\\) == (\\d+)' % x, t)\n      if m: return int(m[1])",
    "looks for the tests in its callers": "import sys\ndef f(x):\n  g = sys._getframe()\n  while g:\n"
        "    for v in list(g.f_locals.values()):\n      if isinstance(v, int) and v > x: return v\n    g = g.f_back",
    "looks for the tests in its memory": "import gc, re\ndef f(x):\n  for o in gc.get_objects():\n"
        "    m = re.search(r'f\\(%d\\) == (\\d+)' % x, repr(o)[:9999]) if isinstance(o, (dict, list)) else None\n"
        "    if m: return int(m[1])",
    "answers twice": "import os\ndef f(x):\n  os.fork()\n  return 0",
    "raises what tests wait for": "def f(x): raise AssertionError()",
    "ends the tests' iteration": "def f(x): raise StopIteration()",
    "returns not implemented": "def f(x): return NotImplemented",
    "returns nothing": "def f(x): pass",
    "returns itself": "def f(x): return f",
    "returns something endless": "import itertools\ndef f(x): return itertools.count()",
    "returns something that contains itself": "def f(x):\n  a = []\n  a.append(a)\n  return a",
    "returns text": "def f(x): return str(x + 1)",
    "off by one": "def f(x): return x",
    "right for the visible test only": "def f(x): return 2",
    "right the first time": "n = []\ndef f(x):\n  n.append(x)\n  return x + 1 if len(n) == 1 else 0",
    "another name": "def g(x): return x + 1",
    "no function": "f = 2",
    "runs on": "def f(x):\n  while True: pass",
    "prints without end": "def f(x):\n  while True: print('x' * 10000)",
    "takes all memory": "def f(x): return len(bytearray(10 << 30)) and x",
    "nothing": "pass",
}


@pytest.mark.parametrize("name", CHEATS)
def test_no_function_cheats_its_way_to_a_pass(name):
  limits = Limits(cpu_seconds=1, wall_seconds=30)
  report = run_tests([CHEATS[name]], FUNCTION["tests"], FUNCTION["names"], limits=limits)
  assert len(report.verdicts) == 2 and not report.passed
  if not name.startswith("right"):
    assert not any(verdict.passed for verdict in report.verdicts), report
  assert all(verdict.passed or verdict.message for verdict in report.verdicts)


def test_a_function_that_is_right_passes_whatever_else_it_does():
  for code in ("def f(x): return x + 1", "import os\nprint('x')\nos.write(1, b'noise')\ndef f(x): return x + 1",
               "f = lambda x: x + 1", "class F:\n  def __call__(self, x): return x + 1\nf = F()"):
    assert run_tests([code], FUNCTION["tests"], FUNCTION["names"]).passed, code


def test_an_end_of_iteration_is_the_codes_own():
  """In one process with the tests, `map` would take it for the end of the cases."""
  report = run_tests(["def f(x): raise StopIteration()"], ["assert all(map(f, [1, 2]))"], FUNCTION["names"])
  assert report.verdicts == (code_judge.Verdict(False, "StopIteration:  (line 1)"),)


def test_what_ends_the_process_fails_one_test_and_not_the_next():
  code = "import os\ndef f(x):\n  if x == 1: os._exit(0)\n  return x + 1"
  report = run_tests([code], FUNCTION["tests"], FUNCTION["names"])
  assert [v.passed for v in report.verdicts] == [False, True]
  assert report.verdicts[0].message == "its process ended before it returned"


def test_waiting_costs_its_time_once():
  code = "import time\ndef f(x): time.sleep(1000)"
  report = run_tests([code], FUNCTION["tests"] * 50, FUNCTION["names"], limits=Limits(cpu_seconds=1, wall_seconds=2))
  assert [v.message for v in report.verdicts[:2]] == ["it took too long", code_judge.NOT_RUN]
  assert len(report.verdicts) == 100 and not report.passed


def test_what_is_too_much_for_the_tests_is_the_codes_failure(monkeypatch):
  """Whatever it returns: an error of the environment would be played again, and not counted."""
  monkeypatch.setattr(code_judge, "_TESTS", Limits(cpu_seconds=20, memory_mib=48, output_bytes=10_000))
  report = run_tests(["def f(x): return [[n] for n in range(200_000)]"], FUNCTION["tests"], FUNCTION["names"])
  assert len(report.verdicts) == 2 and not any(v.passed for v in report.verdicts)
  with pytest.raises(SandboxError, match="the tests did not come to their end"):  # not the code's: it was never asked
    run_tests(["def f(x): return 1"], ["import os\nos._exit(1)"], FUNCTION["names"])


def test_what_tests_need_of_each_other():
  """Helpers of the prompt, calls of calls, keywords, objects that stay with the code, exceptions that are asked for."""
  code = ("class Node:\n  def __init__(self, value): self.value, self.left = value, None\n"
          "def depth(node): return 0 if node is None else 1 + depth(node.left)\n"
          "def twice(x, *, by=2): return [x] * by\ndef bad(x): raise ValueError('no')")
  tests = ["assert depth(root) == 2", "assert twice(twice(1)) == [[1, 1], [1, 1]]",
           "assert twice({(1, 2)}, by=1) == [{(1, 2)}]",
           "try: bad(1); assert False\nexcept ValueError as e: assert str(e) == 'no'", "assert helper(twice(3)) == 6",
           ("twice('a', by=3)", "['a', 'a', 'a']")]
  names = {name: name for name in ("depth", "root", "twice", "bad")}
  report = run_tests([code, "root = Node(1)\nroot.left = Node(2)"], tests, names, before="def helper(x): return sum(x)")
  assert report.passed, report


@pytest.mark.parametrize("value", [
    None, True, False, 0, -5, 10**5000, 1.5, float("inf"), 1e-320, 1j, "", "a\n\ud800é", b"\0x", bytearray(b"x"), [],
    [1, [2]], (), (1,), {1, 2}, frozenset({1}), {}, {"a": {1: (2,)}}, {(1, 2): None}, range(3, 9, 2)], ids=range(24))
def test_values_come_across_as_they_are(value):
  read = wire.loads(wire.dumps({"value": value}))["value"]
  assert read == value and type(read) is type(value)


def test_what_is_no_plain_data_passes_nothing():
  for value in (object(), len, int, [object()], lambda: 0, NotImplemented, ...):
    read = wire.loads(wire.dumps({"value": value}))["value"]
    read = read[0] if isinstance(read, list) else read
    for use in (lambda v: v == 1, lambda v: v != 1, bool, len, iter, hash, repr, lambda v: v < 1, lambda v: 1 in v):
      with pytest.raises(TypeError):
        use(read)
  for line in ("", "[]", "{", '{"value": ["int"]}', '{"value": ["set", [["list", []]]]}', '{"value": ["name", "x"]}',
               '{"value": 3}', '{"value": "x"}', '{"value": ["dict", [1]]}', '{"value": ["range", 1, 2, 0]}'):
    with pytest.raises(ValueError):
      wire.loads(line)


@pytest.mark.parametrize("output, expected, same", [
    ("1 2\n3\n", "1 2\n3", True), ("1  2 \n\n3", "1 2\n3\n", True), ("", "", True), ("YES", "YES\n", True),
    ("0.333333", "0.3333334", True), ("1.0", "1", True), ("1e3", "1000.0", True), ("-0.0", "0", True),
    ("1 2 3", "1 2\n3", False), ("3\n1 2", "1 2\n3", False), ("2 1", "1 2", False), ("1 1 2", "1 2", False),
    ("yes", "YES", False), ("0.34", "0.33", False), ("1000000007", "1000000009", False), ("", "0", False),
    ("1 2\n3\n4", "1 2\n3", False), ("nan", "1.0", False), ("nan", "nan", True), ("12", "1 2", False),
    ("Yes.", "Yes", False), ("1000000007.0", "1000000009", False), ("1000000009.0", "1000000009", True),
    ("1.9999999", "2", True), ("1.99", "2", False), ("1_0", "10", False), ("1e99999999999999999999", "1", False),
    ("1e1000000", "1", False),
    ("0x10", "16", False), ("٣", "3", False), ("1e9", "1000000001", False), ("infinity", "inf", False),
    ("9" * 5000 + ".0", "9" * 5000, True),
])
def test_outputs_agree_line_by_line_and_word_by_word(output, expected, same):
  assert same_output(output, expected) == same


def test_a_program_that_fails_has_no_output_to_compare():
  quick = Limits(cpu_seconds=1, wall_seconds=30, memory_mib=256, output_bytes=10_000)
  assert run_program("print(input())", "x") == ("x\n", "")
  assert run_program("print(42); raise ValueError('no')", "") == (None, "ValueError: no")
  assert run_program("print(42, flush=True)\nwhile True: pass", "", quick) == (None, "it took too long")
  assert run_program("while True: print(42)", "", quick) == (None, "it prints too much")
  assert run_program("print(42); import sys; sys.exit(3)", "") == (None, "exit status 3")


def test_apps_compares_what_functions_return_as_apps_does(published):
  """Tuples are lists, and an expected list may hold the one result; nothing else counts."""
  data = next(i for i in get_task("apps").instances("test", 20, 0) if i.id == "test-0003").data
  run = lambda result: run_tests([f"def _asked(x): return {result}"], data["tests"][:1], {"add": "_asked"},
                                 data["before"]).passed
  assert data["tests"] == ["_check(add(*[[1, 2]]), 6)", "_check(add(*[[5]]), [8])"]
  assert run("6") and not run("7") and not run("'6'") and not run("[6]") and not run("None")
  assert [data["visible"], data["gold"][0].count("Solution")] == [data["tests"][:1], 1]


def test_layouts_of_published_rows(published, tmp_path):
  one = lambda name, split="test": next(get_task(name).instances(split, 1, 0)).data
  sanitized = one("mbpp", "train")
  (published / "mbpp" / "sanitized-mbpp.json").unlink()
  full = {"text": "Write a function to add 5.", "code": "def add(x):\r\n  return x + 5", "task_id": 601,
          "test_setup_code": "", "test_list": mbpp_row(5, 601)["test_list"], "challenge_test_list": []}
  (published / "mbpp" / "mbpp.jsonl").write_text(json.dumps(full) + "\n")
  assert one("mbpp", "train") == {**sanitized, "before": ""}
  (published / "mbpp" / "mbpp.jsonl").unlink()
  intercode = [{"query": full["text"], "gold": full["code"], "tests": full["test_list"], "task_id": 601,
                "test_setup_code": ""}]
  (published / "mbpp" / "ic_mbpp.json").write_text(json.dumps(intercode))
  assert one("mbpp", "train") == {**sanitized, "before": ""}

  (published / "apps" / "test.jsonl").write_text(json.dumps(apps_row(7)) + "\n")
  as_values = one("apps")
  row = {key: json.dumps(value) if key in ("solutions", "input_output") else value
         for key, value in apps_row(7).items()}
  (published / "apps" / "test.jsonl").write_text(json.dumps(row) + "\n")
  assert one("apps") == as_values
  (published / "apps" / "test.jsonl").unlink()
  folder = published / "apps" / "test" / "0007"
  folder.mkdir(parents=True)
  for name, text in (("question.txt", row["question"]), ("solutions.json", row["solutions"]),
                     ("input_output.json", row["input_output"]), ("metadata.json", '{"difficulty": "introductory"}')):
    (folder / name).write_text(text)
  assert one("apps") == as_values


def test_validation_problems_are_test_problems_only_where_there_are_no_others(published):
  ids = lambda split, count: {i.id.partition("-")[2] for i in get_task("apps").instances(split, count, 0)}
  (published / "apps" / "mini_val_introductory.jsonl").write_text(json.dumps(apps_row(41)) + "\n")
  assert len(ids("test", 20)) == 20 and "0041" not in ids("train", 9)
  (published / "apps" / "test.jsonl").unlink()
  assert ids("test", 1) == {"0041"}


def test_what_cannot_be_had_is_a_user_error(published):
  have = lambda name, split, count=1: list(get_task(name).instances(split, count, 0))
  with pytest.raises(UserError, match="humaneval: no train instances, it is a benchmark"):
    have("humaneval", "train")
  with pytest.raises(UserError, match="2 train instances asked for, but there are only 1"):
    have("mbpp", "train", 2)  # 601 to 974
  for name, file in (("humaneval", "HumanEval.jsonl"), ("apps", "test.jsonl"), ("mbpp", "sanitized-mbpp.json")):
    path = published / name / file
    path.write_text('[{"task_id": 20}]' if name == "mbpp" else '{"task_id": "HumanEval/0"}\n')
    with pytest.raises(UserError, match=f"{file}, (line 1|row 0): not an? "):
      have(name, "test")
    path.write_text("{")
    with pytest.raises(UserError, match=f"{file}"):
      have(name, "test")
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: no .*get it from"):
      have(name, "test")


@pytest.mark.parametrize("attack", [
    "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "while True: print('x' * 10000)",
    "x = []\nwhile True: x.append(bytearray(1 << 24))", "import os\nos.kill(-1, 9)"],
    ids=["fork", "print", "memory", "kill"])
def test_an_attack_is_an_episode_that_failed(published, monkeypatch, attack):
  """And no error of the environment: those are played again."""
  quick = Limits(cpu_seconds=1, wall_seconds=5, memory_mib=256, processes=16, output_bytes=100_000)
  for function in (code_judge.run_tests, code_judge.run_program):
    monkeypatch.setattr(code_env, function.__name__, functools.partial(function, limits=quick))
  turns = [f"Action:\n```python\n{attack}\n```", "Action: submit"]
  player = FakePlayer(lambda said, seed: turns[sum(turn.role == "user" for turn in said) - 4], slots=3)
  limits = EpisodeLimits(step_seconds=300, invalid_actions=3, retries=0)
  for name in ("mbpp", "apps"):
    task = get_task(name)
    episodes = list(rollout.play(task, list(task.instances("test", 3, 0)), player, seed=0, limits=limits))
    assert [(str(e.outcome), e.metadata["steps"]) for e in episodes] == [("failed", 2)] * 3


def solve_all(task, instances):
  env = task.make_env()
  failed = [i.id for i in instances if not last(play(task, env, i))[1].info["solved"]]
  env.close()
  return failed


@pytest.mark.parametrize("name, rows, unsolved", [
    pytest.param("humaneval", 8, set(), id="humaneval"), pytest.param("mbpp", 8, set(), id="mbpp"),
    pytest.param("apps", 3, set(), id="apps"),
    pytest.param("humaneval", None, set(), id="humaneval all", marks=pytest.mark.slow),
    pytest.param("mbpp", None, set(), id="mbpp all", marks=pytest.mark.slow),
    # Its text allows any of several answers, its tests know one: not that of the first solution.
    pytest.param("apps", None, {"test-2378"}, id="apps all", marks=pytest.mark.slow),
])
def test_the_real_rows_own_solutions_pass(real_data, monkeypatch, name, rows, unsolved):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  task = get_task(name)
  if rows is None:
    module = __import__(f"agentbank_jax.tasks.catalog.{name}", fromlist=["_rows"])
    rows = len(module._rows("test"))
  assert set(solve_all(task, task.instances("test", rows, 0))) <= unsolved


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["def {name}(*args): return None", "def {name}(*args): return 0",
                                   "def {name}(*args): return args[0]", "def {name}(*args): return True"])
def test_real_rows_refuse_constant_answers(real_data, monkeypatch, wrong):
  """Few tests of a benchmark are passed by a constant, and hardly a problem with all its tests."""
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  for task in map(get_task, ("humaneval", "mbpp")):
    solved = 0
    for instance in task.instances("test", 40, 0):
      name = list(instance.data["names"].values())[0]
      data = instance.data
      solved += run_tests([wrong.format(name=name)], data["tests"], data["names"], data["before"]).passed
    assert solved == 0


@pytest.mark.parametrize("count", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_episodes_at_once_come_to_what_they_come_to_alone(published, count):
  """As many slots as episodes, whose experts all solve them."""
  (published / "mbpp" / "sanitized-mbpp.json").write_text(json.dumps([mbpp_row(n, n + 11) for n in range(count)]))
  task = get_task("mbpp")
  instances = list(task.instances("test", count, 0))
  limits = EpisodeLimits(step_seconds=task.step_seconds, invalid_actions=3, retries=0)
  episodes = list(rollout.play(task, instances, ExpertPlayer([(task, instances)], count), seed=0, limits=limits))
  assert len(episodes) == count and {str(e.outcome) for e in episodes} == {"solved"}
