"""The calculator: arithmetic on text, exact and bounded, with no way to run code."""

import ast
import decimal
from fractions import Fraction
import operator
import re

MAX_LENGTH = 500  # characters of an expression
MAX_BITS = 2048  # of a numerator or denominator, at every step: no expression takes long
DIGITS = 12  # decimals shown of a number that does not end

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def evaluate(expression: str) -> Fraction | float:
  """Returns the value of an arithmetic expression.

  Numbers (`3`, `.5`, `1e3`), `+ - * / // % **`, signs and parentheses. Arithmetic is exact, so
  `0.1 + 0.2` is `0.3`; only a fractional exponent gives a float.

  Raises:
    ValueError: anything else, a division by zero, or a number that grows too large. The message
      is written for whoever wrote the expression.
  """
  if len(expression) > MAX_LENGTH:
    raise ValueError(f"the expression is longer than {MAX_LENGTH} characters")
  if unknown := re.search(r"[^0-9eE.+\-*/%() \t\r\n]", expression):
    raise ValueError(f"{unknown[0]!r} is not arithmetic; use numbers, + - * / // % ** and parentheses")
  # Python refuses leading zeros ("05"), people write them.
  source = re.sub(r"(?<![\d.eE])0+(?=\d)", "", " ".join(expression.split()))
  try:
    return _value(ast.parse(source, mode="eval").body, source)
  except SyntaxError:
    raise ValueError(f"cannot read the expression {source!r}") from None
  except ZeroDivisionError:
    raise ValueError("division by zero") from None
  except OverflowError:
    raise ValueError("the result is too large") from None
  except RecursionError:
    raise ValueError("the expression is nested too deeply") from None


def format_number(value: Fraction | float) -> str:
  """Returns `value` as the calculator shows it: "24", "0.2", "0.333333333333".

  Integers and short decimals are exact; what does not end is rounded to `DIGITS` decimals
  (to as many significant digits, where it is smaller than one).
  """
  if isinstance(value, float):
    value = Fraction(repr(value))  # the shortest decimal that is this float
  if value.denominator == 1:
    return str(value.numerator)
  whole = len(str(abs(int(value)))) if abs(value) >= 1 else 0
  context = decimal.Context(prec=whole + DIGITS, rounding=decimal.ROUND_HALF_EVEN)
  quotient = context.divide(decimal.Decimal(value.numerator), decimal.Decimal(value.denominator))
  text = format(quotient, "f")
  return text.rstrip("0").rstrip(".") if "." in text else text


def _value(node: ast.expr, source: str) -> Fraction | float:
  match node:
    case ast.Constant():
      # The text, not the parsed float: 0.1 is a tenth.
      text = ast.get_source_segment(source, node)
      if not re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", text):
        raise ValueError(f"cannot read the number {text!r}")
      return _bounded(Fraction(text))
    case ast.UnaryOp(op=ast.UAdd()):
      return _value(node.operand, source)
    case ast.UnaryOp(op=ast.USub()):
      return -_value(node.operand, source)
    case ast.BinOp(op=ast.Pow()):
      return _power(_value(node.left, source), _value(node.right, source))
    case ast.BinOp() if type(node.op) in _OPERATORS:
      left, right = _value(node.left, source), _value(node.right, source)
      result = _OPERATORS[type(node.op)](left, right)
      return _bounded(Fraction(result) if isinstance(result, int) else result)  # // of two fractions
  raise ValueError(f"cannot read the expression {source!r}")


def _power(base: Fraction | float, exponent: Fraction | float) -> Fraction | float:
  if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * (bits - 1) > MAX_BITS:
      raise ValueError("the result is too large")
    return _bounded(base ** int(exponent))
  result = float(base) ** float(exponent)
  if isinstance(result, complex):
    raise ValueError("a fractional power of a negative number is not real")
  return _bounded(result)


def _bounded(value: Fraction | float) -> Fraction | float:
  if isinstance(value, Fraction):
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
      raise ValueError("the result is too large")
  elif not abs(value) < float("inf"):  # infinite, or NaN
    raise ValueError("the result is too large")
  return value
