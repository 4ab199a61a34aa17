"""The programming environment: write Python, see what it does on the tests that are shown, submit it once.

Every action with code runs that code on the visible tests. `submit` hands in the code that ran last; it is judged by
all tests, and that is the episode's end: one submission counts (pass@1). The hidden tests are run for nothing else,
so no observation depends on them.
"""

from collections.abc import Sequence
import re

from agentbank_jax.envs import code_judge, sandbox
from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.code_judge import MAX_PRINTED, Verdict, run_program, run_tests
from agentbank_jax.envs.output import same_output

_SHOWN = 300  # characters of a test, or of an output, in an observation
_FAILURES = 3  # failed tests that an observation shows
_FENCE = re.compile(r"^```(?:python3?|py)?[ \t]*\n(.*?)^```[ \t]*$", re.IGNORECASE | re.DOTALL | re.MULTILINE)
_HELP = "Write the whole program in one ```python block, or submit to hand in the one that ran last."


class CodeEnv:
  """Code until `submit`.

  `Instance.data` always has `question` and `tests`, all tests of the benchmark; `visible`, those that the agent's
  code runs on before, need not be among them. Functions (`"names" in data`) add what `code_judge.run_tests` takes:
  `names`, `before`, and `around`, the code in whose middle the agent's stands. Tests of programs are pairs of input
  and output.
  """

  def __init__(self):
    sandbox.require()

  def reset(self, instance: Instance) -> str:
    self._data = instance.data
    self._code: str | None = None
    return instance.data["question"]

  def step(self, action: Action) -> Step:
    if action.text.strip().lower() == "submit":
      passed = self._code is not None and self._passes_all(self._code)
      return Step("Submitted.", float(passed), True, False, {"solved": passed})
    blocks = _FENCE.findall(action.text + "\n")
    if len(blocks) != 1:
      found = f"{len(blocks) or 'no'} code block{'s' * (len(blocks) != 1)}"
      return Step(f"Error: found {found}. {_HELP}", 0.0, False, False, {"invalid": True})
    self._code = blocks[0]
    return Step(self._run(self._code), 0.0, False, False, {})

  def close(self) -> None:
    """Nothing to release: a sandbox does not outlive its run."""

  def _run(self, code: str) -> str:
    """Returns what running the code on the visible tests shows."""
    tests = self._data["visible"]
    if "names" in self._data:
      report = run_tests(self._parts(code), tests, self._data["names"], self._data["before"])
      if report.error:
        return _lines(report.printed, f"Your code does not run: {report.error}")
      return _lines(report.printed, _summary([_show(test) for test in tests], report.verdicts))
    if not tests:
      error = code_judge.syntax_error(code)
      return f"Your code does not run: {error}" if error else "It compiles. No tests are shown for this problem."
    verdicts: list[Verdict] = []
    for test in tests:
      late = verdicts and verdicts[-1].message in (code_judge.TOOK_TOO_LONG, code_judge.NOT_RUN)
      verdicts.append(Verdict(False, code_judge.NOT_RUN) if late else self._try(code, *test))
    return _summary([f"input {_cut(stdin)}: expected {_cut(expected)}" for stdin, expected in tests], verdicts)

  def _passes_all(self, code: str) -> bool:
    tests = self._data["tests"]
    if "names" in self._data:
      return run_tests(self._parts(code), tests, self._data["names"], self._data["before"]).passed
    return bool(tests) and all(self._try(code, *test).passed for test in tests)

  def _parts(self, code: str) -> Sequence[str]:
    before, after = self._data["around"]
    return [part for part in (before, code, after) if part]

  def _try(self, code: str, stdin: str, expected: str) -> Verdict:
    output, failure = run_program(self._data.get("imports", "") + code, stdin)
    if output is None:
      return Verdict(False, failure)
    return Verdict(same_output(output, expected), f"printed {_cut(output)}")


def _summary(tests: Sequence[str], verdicts: Sequence[Verdict]) -> str:
  if not tests:
    return "It ran. No tests are shown for this problem."
  failed = [f"{test}\n  {verdict.message}" for test, verdict in zip(tests, verdicts, strict=True) if not verdict.passed]
  text = f"{len(tests) - len(failed)} of {len(tests)} tests passed."
  if failed:
    text += f" Failed{' among others' * (len(failed) > _FAILURES)}:\n" + "\n".join(failed[:_FAILURES])
  return text


def _lines(printed: str, text: str) -> str:
  if not printed.strip():
    return text
  cut = " (cut)" if len(printed) >= MAX_PRINTED else ""
  return f"Printed{cut}:\n{printed.strip()}\n{text}"


def _show(test: str | Sequence[str]) -> str:
  return _cut(test, quote=False) if isinstance(test, str) else f"{_cut(test[0], quote=False)} is {_cut(test[1], False)}"


def _cut(text: str, quote: bool = True) -> str:
  text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({_SHOWN} of {len(text)} characters)"
  return repr(text) if quote else text.strip()
