"""Whether a final answer is the gold answer of TheoremQA (Chen et al. 2023, arXiv:2305.12524), by its type.

The published definition is predict_accuracy.py (wenhuchen/TheoremQA): an integer is right where the answer rounds to
it; a float within 4 % of itself; a list where it has as many numbers and they are right in order of size, each by the
type of the gold number; a bool or an option where it is the same. So 12.4 is 12, and a path may be given backwards.

The published program finds the number in free text by regular expressions, by evaluating it as Python, by asking
ChatGPT and by asking Wolfram Alpha. Here an answer stands behind `Final Answer:`, and what it says is read: a number
with its unit ("12 m/s", "$1,200", "10%", which is 10 as published), an expression ("3.2*10^-4", "1/8"), or LaTeX. One
departure: "72 or 73" is wrong, where the published program takes the first.
"""

from collections.abc import Mapping
from fractions import Fraction
import math
import re
from typing import Any

from agentbank_jax.envs.calculator import parse_number
from agentbank_jax.envs.calculator_eval import evaluate
from agentbank_jax.envs.equivalence import Equivalence

MAX_ANSWER = 1_000  # characters
TOLERANCE = 0.04  # of a float, relative to the gold answer
TYPES = ("bool", "option", "integer", "float", "list of integer", "list of float")

_WITH_UNIT = re.compile(r"([-+]?(?:[0-9][0-9,]*)?\.?[0-9]+(?:[eE][-+]?[0-9]+)?) ?([A-Za-z%°µΩ/²³·]+)")
_NAME = re.compile(r"[^=≈\d]*[=≈](?!.*[=≈])")  # "x =", "The answer ≈"


def is_right(answer: str, data: Mapping[str, Any], equivalence: Equivalence) -> bool:
  """Returns whether `answer` is `data["gold"]`, which is of `data["type"]`, one of `TYPES`."""
  if len(answer) > MAX_ANSWER:
    return False
  text, gold = answer.strip().removesuffix(".").strip(), data["gold"]
  match data["type"]:
    case "bool":
      return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower()) is gold
    case "option":
      letter = re.fullmatch(r"\(?([a-f])\)?", text.lower())
      return letter is not None and f"({letter[1]})" == gold.lower()
    case "integer" | "float":
      value = _number(text, equivalence)
      return value is not None and _agrees(value, gold)
  numbers = _numbers(text, equivalence)
  return (numbers is not None and len(numbers) == len(gold)
          and all(map(_agrees, sorted(numbers), sorted(gold))))


def _agrees(value: float | Fraction, gold: int | float) -> bool:
  if isinstance(gold, float):
    return gold - abs(gold) * TOLERANCE <= value <= gold + abs(gold) * TOLERANCE
  return round(value) == gold


def _numbers(text: str, equivalence: Equivalence) -> list[float | Fraction] | None:
  """Returns the numbers of "[1, 2]", "(1, 2)", "{1, 2}" or "1, 2", or None."""
  text = _NAME.sub("", text).replace("\\left", "").replace("\\right", "").strip("$ ")
  for opening, closing in ("[]", "()", "{}"):
    if text.startswith(opening) and text.endswith(closing):
      text = text[1:-1]
      break
  numbers = [_number(part.strip(), equivalence) for part in text.split(",")]
  return None if None in numbers else numbers


def _number(text: str, equivalence: Equivalence) -> float | Fraction | None:
  """Returns the finite number that a text is, or None."""
  text = _NAME.sub("", text).replace("`", "").strip("$ ")
  text = re.sub(r"^(?:approximately|about) ", "", text, flags=re.IGNORECASE)
  if (value := parse_number(text.lstrip("+"))) is not None:
    return value
  bare = re.sub(r"\^\{(-?\d+)\}", r"**(\1)", text.replace("×", "*").replace("−", "-"))
  bare = bare.replace("^", "**").replace(" x ", "*")
  bare = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", bare)
  for candidate in (bare, _WITH_UNIT.sub(r"\1", bare) if _WITH_UNIT.fullmatch(bare) else None):
    try:
      value = evaluate(candidate) if candidate else None
    except ValueError:
      continue
    if value is not None:
      return value if math.isfinite(value) else None
  return equivalence.number(text) if "\\" in text else None
