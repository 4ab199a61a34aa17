"""A mathematical problem, a calculator, a sandboxed Python, and an answer that is compared by value."""

from collections.abc import Callable, Mapping
import re
from typing import Any

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.calculator_eval import evaluate, format_number
from agentbank_jax.envs.equivalence import SHARED, Equivalence

MAX_CHARACTERS = 2_000  # of what a program printed
CPU_SECONDS = 10  # of a program
WALL_SECONDS = 40.0
MEMORY_MIB = 512

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class MathEnv:
  """Expressions and programs until the final answer.

  An action is an expression for the calculator (`calculator_eval`), or one ```python block, whose output is the
  observation. Nothing is kept from one program to the next.

  `Instance.data`: `question`, and what `is_right` needs.
  """

  def __init__(self, is_right: Callable[[str, Mapping[str, Any], Equivalence], bool]):
    self._is_right = is_right
    self._equivalence: Equivalence | None = None
    self._sandbox: Any = None

  def reset(self, instance: Instance) -> str:
    if self._sandbox is None:
      from agentbank_jax.envs import sandbox

      sandbox.require()  # before the agent is told that there is Python
      limits = sandbox.Limits(cpu_seconds=CPU_SECONDS, wall_seconds=WALL_SECONDS, memory_mib=MEMORY_MIB)
      self._sandbox = sandbox.Sandbox(limits)
      self._equivalence = SHARED.open()
    self._data = instance.data
    return instance.data["question"]

  def step(self, action: Action) -> Step:
    if action.kind == "answer":
      solved = self._is_right(action.text, self._data, self._equivalence)
      return Step("Correct." if solved else "Wrong.", float(solved), True, False, {"solved": solved})
    blocks = _BLOCK.findall(action.text)
    if "```" in action.text and (len(blocks) != 1 or _BLOCK.sub("", action.text).strip()):
      return _invalid("write one ```python block and nothing else")
    if blocks:
      return self._run(blocks[0])
    try:
      return Step(format_number(evaluate(action.text)), 0.0, False, False, {})
    except ValueError as e:
      return _invalid(str(e))

  def close(self) -> None:
    if self._equivalence is not None:
      self._equivalence.close()
    self._equivalence = self._sandbox = None

  def _run(self, code: str) -> Step:
    done = self._sandbox.python(code)
    printed = _cut(done.stdout.decode(errors="replace").strip())
    if done.stopped:
      return _invalid(f"the program was stopped: {done.stopped} limit", printed)
    if done.returncode != 0:
      last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
      return _invalid(_cut(last) or f"the program ended with exit code {done.returncode}", printed)
    return Step(printed or "(no output: print what you want to see)", 0.0, False, False, {})


def _invalid(why: str, printed: str = "") -> Step:
  return Step(f"{printed}\nError: {why}".strip(), 0.0, False, False, {"invalid": True})


def _cut(text: str) -> str:
  if len(text) <= MAX_CHARACTERS:
    return text
  return f"{text[:MAX_CHARACTERS]}... ({MAX_CHARACTERS} of {len(text)} characters shown)"
