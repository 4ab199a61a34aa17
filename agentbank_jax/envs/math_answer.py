r"""Whether a final answer is the gold answer of MATH (Hendrycks et al. 2021, arXiv:2103.03874).

The published definition, `is_equiv` of math_equivalence.py (hendrycks/math), compares strings after a few rewritings:
`plain_form` here. It calls "(x-2)(x+2)" and "x^2-4" different. So answers that it tells apart are compared by value:
numbers exactly, everything else by `equivalence` (fractions, roots, polynomials, sets, intervals, matrices).

An answer is right where either says so, with these guards, each against a wrong answer that would pass:
- one answer: more than one \boxed is none (the published program takes the last), nor is "72\text{ or }73" (it takes
  that for 72 and a unit), and "7 2" is not 72 (it takes spaces out);
- "x=5" is 5, as published, but "7=5" is not: what stands left of "=" must be a name;
- where the gold answer is a number, the answer must be one: "2^{10}", "36\cdot 2" still have to be computed;
- what the question itself says ("Factor $x^2-1$") is no answer to it, unless it is the gold answer;
- brackets matter: "(1,2)" is not "[1,2]", and not "1,2";
- a number in another base than ten, a ratio and words are compared as text.
"""

from collections.abc import Mapping
from fractions import Fraction
import re
from typing import Any

from agentbank_jax.envs.equivalence import Equivalence

MAX_ANSWER = 300  # characters; the longest gold answer we know has 81
MAX_DEPTH = 8  # of brackets: the parser's time grows fast with it

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_NUMBER = re.compile(rf"(?P<sign>[-+]?)(?:(?P<whole>{_DIGITS})?\\frac\{{(?P<top>-?[0-9]+)\}}\{{(?P<bottom>[0-9]+)\}}"
                     rf"|(?P<decimal>{_DIGITS}))(?P<unit>[A-Za-z]*)")
_TEXT = re.compile(r"\\(?:text|mbox|textbf|mathrm)\s*\{([^{}]*)\}")
_HEDGE = re.compile(r"\\(?:text|mbox|textbf|mathrm)\s*\{\s*or\b|\bor\b")
_WRAPPERS = (r"\$\$(.*)\$\$", r"\$(.*)\$", r"\\\((.*)\\\)", r"\\\[(.*)\\\]")


def last_boxed(text: str) -> str | None:
  r"""Returns what is in the last \boxed{...} or \fbox{...} of a solution, or None.

  `last_boxed_only_string` of hendrycks/math (modeling/dataset/util.py), and `\boxed 5`, which a few solutions have.
  """
  boxes = boxed(text)
  return boxes[-1] if boxes else None


def boxed(text: str) -> list[str]:
  r"""Returns what is in every \boxed{...} or \fbox{...}, outermost ones only."""
  found, end = [], 0
  for match in re.finditer(r"\\(?:boxed|fbox)\s*", text):
    if match.start() < end:
      continue
    if text[match.end():match.end() + 1] == "{":
      end = _closing(text, match.end())
      if end:
        found.append(text[match.end() + 1:end])
    elif single := re.compile(r"[^\s$]+").match(text, match.end()):
      found.append(single[0])
      end = single.end()
  return found


def plain_form(text: str) -> str:
  """Returns `text` as the published `is_equiv` compares it: without spaces, units, percent and dollar signs ..."""
  text = text.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
  text = text.replace("tfrac", "frac").replace("dfrac", "frac").replace("\\left", "").replace("\\right", "")
  text = text.replace("^{\\circ}", "").replace("^\\circ", "").replace("\\$", "")
  if text.count("\\text{ ") == 1:
    text = text.partition("\\text{ ")[0]
  text = text.replace("\\%", "").replace("%", "").replace(" .", " 0.").replace("{.", "{0.")
  if text.startswith("."):
    text = f"0{text}"
  name, equals, value = text.partition("=")
  if equals and "=" not in value and len(name) <= 2 and name.strip().isalpha():
    text = value
  text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text).replace(" ", "")
  text = re.sub(r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", text)
  text = re.sub(r"\\frac([^{])\{", r"\\frac{\1}{", text)
  if text == "0.5":
    return "\\frac{1}{2}"
  if slash := re.fullmatch(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)", text):
    return f"\\frac{{{slash[1]}}}{{{slash[2]}}}"
  return text


def is_right(answer: str, data: Mapping[str, Any], equivalence: Equivalence) -> bool:
  """Returns whether `answer` is `data["gold"]`, the answer to `data["question"]`."""
  text = _the_answer(answer)
  if text is None:
    return False
  gold = data["gold"]
  ours, theirs = plain_form(text), plain_form(gold)
  if text != gold.strip() and (re.search(r"\d\s+\d", text) or _HEDGE.search(text)):
    return False
  if ours == theirs:
    return True
  if re.search(r"\d_", text + gold):  # a number in another base
    return _bare_base(ours) == _bare_base(theirs)
  if not ours or "$" in text or (":" in text) != (":" in gold):
    return False
  if _left_of_equals(text) and "=" not in gold:
    return False
  if _is_words(gold):
    return _words(text) == _words(gold)
  number = _number(theirs)
  if number is not None:
    mine = _NUMBER.fullmatch(ours)
    if not mine:
      return False
    if not mine["unit"]:
      return _number(ours) == number
  elif len(ours) > 3 and ours in plain_form(data["question"]):
    return False
  if _brackets(ours) != _brackets(theirs) or _depth(text) > MAX_DEPTH:
    return False
  return bool(equivalence.equal(gold, text))


def _the_answer(answer: str) -> str | None:
  """Returns the one answer in what an agent wrote, or None: there is none, or more than one."""
  if len(answer) > MAX_ANSWER:
    return None
  boxes = boxed(answer)
  if len(boxes) > 1:
    return None
  text = (boxes[0] if boxes else answer).strip()
  for wrapper in _WRAPPERS:
    if inner := re.fullmatch(wrapper, text.removesuffix("."), re.DOTALL):
      text = inner[1].strip()
  text = text.removesuffix(".").strip()
  return re.sub(r"^\$(?=[-.\d])", "", text) or None  # a price in dollars


def _closing(text: str, start: int) -> int:
  """Returns where the brace that opens at `start` closes, or 0."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == "{") - (text[i] == "}")
    if depth == 0:
      return i
  return 0


def _number(form: str) -> Fraction | None:
  """Returns the value of a number without unit: -7, 1,000.5, \\frac{1}{2}, 1\\frac{1}{2}; None for anything else."""
  match = _NUMBER.fullmatch(form.replace("{,}", ","))
  if not match or match["unit"]:
    return None
  exact = lambda digits: Fraction(digits.replace(",", "").rstrip("."))
  if match["decimal"]:
    value = exact(match["decimal"])
  elif match["bottom"].strip("0") == "":
    return None
  else:
    value = (exact(match["whole"]) if match["whole"] else 0) + Fraction(int(match["top"]), int(match["bottom"]))
  return -value if match["sign"] == "-" else value


def _words(text: str) -> str:
  r"""Returns a text in small letters, without brackets around it: "\text{(C)}" and "(C)" are "c"."""
  inner = _TEXT.fullmatch(text.strip())
  return (inner[1] if inner else text).strip().strip("().").strip().lower()


def _is_words(gold: str) -> bool:
  """Whether an answer is words and not mathematics: "Monday", a text with letters alone; not "xy"."""
  is_text = _TEXT.fullmatch(gold.strip()) is not None
  words = _words(gold)
  return re.fullmatch(r"[a-z]+(?:[ -][a-z]+)*", words) is not None and (is_text or len(words) > 2)


def _bare_base(form: str) -> str:
  return re.sub(r"_\{(\w+)\}", r"_\1", form)


def _depth(text: str) -> int:
  depth = deepest = 0
  for character in text:
    depth += (character in "([{") - (character in ")]}")
    deepest = max(deepest, depth)
  return deepest


def _left_of_equals(text: str) -> bool:
  """Whether something stands left of an equals sign that is no name: "7=6", "2+3=5"."""
  left, equals, _ = text.partition("=")
  return bool(equals) and re.fullmatch(r"\\?[A-Za-z]+(_\{?\w\}?)?(\([A-Za-z]\))?", left.strip()) is None


def _brackets(form: str) -> str:
  """Returns the brackets around a tuple or an interval, "" around anything else."""
  pairs = re.fullmatch(r"([(\[]).*,.*([)\]])", form)
  return pairs[1] + pairs[2] if pairs and "\\cup" not in form else ""
