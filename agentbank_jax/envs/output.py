"""When what a program printed is what it should have printed."""

import decimal
from decimal import Decimal
import math
import re

_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_RELATIVE, _ABSOLUTE = 1e-5, 1e-8  # numpy.allclose's defaults, which APPS uses
_FROM_INTEGER = 1e-6  # how far a number may be from an integer that is expected, however large


def same_output(output: str, expected: str) -> bool:
  """Returns whether two outputs agree: line by line, word by word, in order.

  Spaces, blank lines and how a number that is no integer is written do not count. APPS (`eval/testing_util.py`) does
  the same, and then accepts much more, which we do not: words of a line, and lines, in any order and number; integers
  that are close ("1000000007" or "1000000007.0" for "1000000009").
  """
  ours, theirs = _words(output), _words(expected)
  return len(ours) == len(theirs) and all(
      len(a) == len(b) and all(map(_same_word, a, b)) for a, b in zip(ours, theirs, strict=True))


def _words(text: str) -> list[list[str]]:
  return [words for line in text.splitlines() if (words := line.split())]


def _same_word(a: str, b: str) -> bool:
  if a == b:
    return True
  if not (_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)):
    return False
  if _INTEGER.fullmatch(b):
    try:
      return not _INTEGER.fullmatch(a) and abs(Decimal(a) - Decimal(b)) <= _FROM_INTEGER
    except decimal.DecimalException:  # an exponent beyond all bounds
      return False
  return math.isclose(float(a), float(b), rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
