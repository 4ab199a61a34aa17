"""The calculator environment: a word problem, expressions to evaluate, and a number for an answer."""

from fractions import Fraction
import re

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.calculator_eval import evaluate, format_number

# A number as people write it: -72, 72.0, .5, $1,000.50. ASCII digits only; commas only between thousands.
_NUMBER = re.compile(r"(?P<sign>-?)\$?(?P<digits>([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]*)?|\.[0-9]+)")
MAX_ANSWER = 100  # characters


def parse_number(text: str) -> Fraction | None:
  """Returns the exact value of a number as people write it, or None where `text` is not just one number."""
  match = _NUMBER.fullmatch(text.strip()) if len(text) <= MAX_ANSWER else None
  return match and Fraction(match["sign"] + match["digits"].replace(",", "").rstrip("."))


class CalculatorEnv:
  """Evaluates expressions until the final answer, which must equal the gold answer exactly.

  `Instance.data`: `question`, the problem, and `answer`, a number as text.
  """

  def reset(self, instance: Instance) -> str:
    self._answer = parse_number(instance.data["answer"])
    if self._answer is None:
      raise ValueError(f"instance {instance.id}: its answer {instance.data['answer']!r} is not a number")
    return instance.data["question"]

  def step(self, action: Action) -> Step:
    if action.kind == "answer":
      solved = parse_number(action.text) == self._answer
      return Step("Correct." if solved else "Wrong.", float(solved), True, False, {"solved": solved})
    try:
      return Step(format_number(evaluate(action.text)), 0.0, False, False, {})
    except ValueError as e:
      return Step(f"Error: {e}", 0.0, False, False, {"invalid": True})

  def close(self) -> None:
    """Nothing to release."""
