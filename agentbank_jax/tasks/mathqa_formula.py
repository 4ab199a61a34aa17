"""MathQA's annotated formulas and options (Amini et al. 2019, arXiv:1905.13319), read.

A formula is nested calls, `divide(multiply(7, const_3), subtract(10, 3))`. What the operations mean is not written
down in the release; it is taken from how they are executed in `compute_single_result` of Trax
(google/trax, trax/data/tf_inputs.py), without its repairs (a division by zero that gives 0, exponents cut at 5).
"""

from collections.abc import Generator, Iterator
import math
import re
from typing import NamedTuple

_PI = "3.14159265358979"
_CONSTANTS = {"const_pi": _PI, "const_deg_to_rad": "0.0174532925199433"}
_EXPRESSIONS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "speed": "{0} / {1}",
    "power": "{0} ** {1}",
    "negate": "-{0}",
    "inverse": "1 / {0}",
    "sqrt": "{0} ** 0.5",
    "floor": "{0} // 1",
    "reminder": "{0} % {1}",
    "negate_prob": "1 - {0}",
    "union_prob": "{0} + {1} - {2}",
    "from_percent": "{0} / 100",
    "gain_percent": "100 + {0}",
    "loss_percent": "100 - {0}",
    "negate_percent": "100 - {0}",
    "percent": "{0} / 100 * {1}",
    "p_after_gain": "(1 + {0} / 100) * {1}",
    "price_after_gain": "(1 + {0} / 100) * {1}",
    "price_after_loss": "(1 - {0} / 100) * {1}",
    "original_price_before_gain": "{1} * 100 / (100 + {0})",
    "original_price_before_loss": "{1} * 100 / (100 - {0})",
    "speed_in_still_water": "({0} + {1}) / 2",
    "stream_speed": "({0} - {1}) / 2",
    "speed_ratio_steel_to_stream": "({0} + {1}) / ({0} - {1})",
    "count_interval": "{0} - {1} + 1",
    "rectangle_area": "{0} * {1}",
    "rectangle_perimeter": "2 * ({0} + {1})",
    "square_area": "{0} ** 2",
    "square_perimeter": "4 * {0}",
    "square_edge_by_area": "{0} ** 0.5",
    "square_edge_by_perimeter": "{0} / 4",
    "rhombus_area": "{0} * {1} / 2",
    "rhombus_perimeter": "4 * {0}",
    "triangle_area": "{0} * {1} / 2",
    "triangle_perimeter": "{0} + {1} + {2}",
    "triangle_area_three_edges": "(({0} + {1} + {2}) * ({0} + {1} - {2}) * ({0} - {1} + {2}) * "
                                 "({1} + {2} - {0})) ** 0.5 / 4",
    "quadrilateral_area": "{0} * ({1} + {2}) / 2",
    "trapezium_area": "{0} * ({1} + {2}) / 2",
    "diagonal": "({0} ** 2 + {1} ** 2) ** 0.5",
    "circle_area": f"{_PI} * {{0}} ** 2",
    "circumface": f"2 * {_PI} * {{0}}",
    "circle_arc": f"{{0}} / 360 * 2 * {_PI} * {{1}}",
    "circle_sector_area": f"{{1}} / 360 * {_PI} * {{0}} ** 2",
    "semi_circle_perimiter": f"{_PI} * {{0}} + 2 * {{0}}",
    "volume_cube": "{0} ** 3",
    "cube_edge_by_volume": "{0} ** (1 / 3)",
    "surface_cube": "6 * {0} ** 2",
    "volume_rectangular_prism": "{0} * {1} * {2}",
    "surface_rectangular_prism": "2 * ({0} * {1} + {0} * {2} + {1} * {2})",
    "volume_cylinder": f"{_PI} * {{0}} ** 2 * {{1}}",
    "surface_cylinder": f"2 * {_PI} * {{0}} * ({{0}} + {{1}})",
    "volume_cone": f"{_PI} * {{0}} ** 2 * {{1}} / 3",
    "volume_sphere": f"4 / 3 * {_PI} * {{0}} ** 3",
    "surface_sphere": f"4 * {_PI} * {{0}} ** 2",
}
_PROGRAMS = {  # what a calculator has no sign for
    "factorial": "math.factorial({0})",
    "choose": "math.comb({0}, {1})",
    "permutation": "math.perm({0}, {1})",
    "gcd": "math.gcd({0}, {1})",
    "lcm": "math.lcm({0}, {1})",
    "max": "max({0}, {1})",
    "min": "min({0}, {1})",
    "log": "math.log2({0})",
    "sine": "math.sin({0})",
    "cosine": "math.cos({0})",
    "tangent": "math.tan({0})",
}
_NUMBER = r"(?:\d+(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)"


class FormulaError(ValueError):
  """A formula that cannot be read, or that does not lead to the right option."""


class Call(NamedTuple):
  """An operation and its operands: other calls, or numbers as text."""

  name: str
  operands: tuple["Call | str", ...]


def parse(formula: str) -> Call:
  """Returns the call that a formula is.

  Raises:
    FormulaError: it is none, or an operation or a constant of it is not known.
  """
  tokens = re.findall(r"[A-Za-z_][\w.]*|-?[\d.]+|[(),]|\S", formula)
  call, end = _parse(tokens, 0)
  if end != len(tokens) or isinstance(call, str):
    raise FormulaError(f"cannot read the formula {formula!r}")
  return call


def play(call: Call, known: dict[Call, str]) -> Generator[str, str, str]:
  """Yields the actions that compute a formula, innermost first; is sent the observations; returns the last.

  Args:
    call: the formula.
    known: values of calls; those computed are added, and what is in it is not computed again.
  """
  if call in known:
    return known[call]
  operands = []
  for operand in call.operands:
    value = operand if isinstance(operand, str) else (yield from play(operand, known))
    operands.append(f"({value})" if value.startswith("-") else value)
  if call.name in _EXPRESSIONS:
    action = _EXPRESSIONS[call.name].format(*operands)
  else:
    action = f"\n```python\nimport math\nprint({_PROGRAMS[call.name].format(*operands)})\n```"
  known[call] = yield action
  return known[call]


def options(text: str) -> dict[str, str]:
  """Returns the options of `"a ) 12 , b ) 16 hr , ..."` by their letters, in order.

  Raises:
    FormulaError: there are none.
  """
  if text.startswith("["):  # a few rows have a list, written as text
    text = " , ".join(re.findall(r"'([^']*)'", text))
  found: dict[str, str] = {}
  for match in re.finditer(r"([a-e]) \) *(.*?) *(?=, *[a-e] \)|$)", text):
    found[match[1]] = re.sub(r"^([a-e] \) *)+", "", match[2]).strip()
  if not found:
    raise FormulaError(f"no options in {text!r}")
  return found


def option_value(text: str) -> float | None:
  """Returns the number of an option ("rs . 1,200", "17 hr", "3 / 4", "3 : 2", "2 1 / 2"), or None: no one number.

  A ratio is its quotient, a percentage its number of percents.
  """
  fraction = rf"(?P<whole>\d+ )?(?P<top>{_NUMBER}) ?(?:/|:|÷) ?(?P<bottom>{_NUMBER})"
  form = re.fullmatch(rf"[^\d]*?(?P<sign>- ?)?(?:{fraction}|(?P<number>{_NUMBER}))(?P<unit>[^\d]*)", text)
  if not form:
    return None
  number = lambda name: float(form[name].replace(",", ""))
  if form["number"]:
    value = number("number")
  elif number("bottom") == 0:
    return None
  else:
    value = (float(form["whole"]) if form["whole"] else 0.0) + number("top") / number("bottom")
  return -value if form["sign"] else value


def nearest(value: float, choices: dict[str, str]) -> str | None:
  """Returns the letter of the one option that has `value`, or None.

  It is the nearest, and not further than an option is rounded: by 1 %, or half of its last digit.
  """
  distances = sorted((abs(number - value), letter) for letter, number in _values(choices))
  if not distances or (len(distances) > 1 and distances[0][0] == distances[1][0]):
    return None
  distance, letter = distances[0]
  decimals = re.search(r"\.(\d+)", choices[letter])
  last_digit = 10.0 ** -(len(decimals[1]) if decimals else 0)
  return letter if distance <= max(0.01 * abs(value), last_digit / 2 + 1e-9) else None


def _values(choices: dict[str, str]) -> Iterator[tuple[str, float]]:
  for letter, text in choices.items():
    value = option_value(text)
    if value is not None and math.isfinite(value):
      yield letter, value


def _parse(tokens: list[str], start: int) -> tuple[Call | str, int]:
  if start >= len(tokens):
    raise FormulaError("the formula ends too soon")
  name, at = tokens[start], start + 1
  if at >= len(tokens) or tokens[at] != "(":
    return _operand(name), at
  if name not in _EXPRESSIONS and name not in _PROGRAMS:
    raise FormulaError(f"the operation {name!r} is not known")
  operands = []
  while True:
    operand, at = _parse(tokens, at + 1)
    operands.append(operand)
    if at >= len(tokens) or tokens[at] not in ",)":
      raise FormulaError(f"cannot read the formula after {name!r}")
    if tokens[at] == ")":
      break
  template = _EXPRESSIONS.get(name) or _PROGRAMS[name]
  if len(operands) != 1 + max(int(n) for n in re.findall(r"\{(\d)\}", template)):
    raise FormulaError(f"{name!r} has {len(operands)} operands")
  return Call(name, tuple(operands)), at + 1


def _operand(token: str) -> str:
  if token in _CONSTANTS:
    return _CONSTANTS[token]
  number = token.removeprefix("const_").replace("_", ".")
  if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", number):
    raise FormulaError(f"the operand {token!r} is not known")
  return number
