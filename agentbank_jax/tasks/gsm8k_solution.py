"""GSM8K's written solutions, read as calculator steps.

A step is an annotation, `48/2 = <<48/2=24>>24 clips`, or a plain equation of numbers whose value is right,
`48/2 = 24`, or what an unknown is said to be, `x=30*(100/200). Thus, x=15`; also with units that have a slash, `60
minutes/hour / 2 minutes/mile = 30`, mixed numbers, `158 * 1 1/2 = 237`, percent, `8 / 25 = 32%`, and a result rounded
or cut to its decimals. Its thought is the sentence it stands in without the result: that is for the calculator to say.

The answer is the value of a step, or what the text behind the last step ends with: "Since he cannot buy half a can, he
needs 8.", "= 33.333%, which rounds down to 33%". Where that text still calculates, and nothing in it was read as a
step, the solution is not read: it may be wrong (one says `192*100=$1920`).
"""

from fractions import Fraction
import re
from typing import NamedTuple

from agentbank_jax.envs.calculator import parse_number
from agentbank_jax.envs.calculator_eval import evaluate, format_number

# Possessive throughout (`*+`, `(?>...)`): a long line takes linear time to be found not to be an equation.
_NUMBER = r"(?>\$?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)%?)"
_UNIT = r"(?!x\b)[A-Za-z]+\b(?:/[A-Za-z]+\b)?"  # "eggs", "miles/hour"
_MIXED = r"(?>\d+\ \d+/\d+(?![\d.]))"  # "1 1/2"
_OPERAND = rf"\(*+\ ?(?:{_MIXED}|{_NUMBER})(?:\ ?{_UNIT}){{0,3}}+\ ?\)*+"  # "(2 eggs", "$3", "40%)"
_SUM = rf"(?:{_OPERAND}(?:(?:\ *+[-+*/x×÷−–]\ *+|(?=\()){_OPERAND})++)"
_CALCULATION = re.compile(rf"""
    # an annotation, between the sign and the result of the text around it,
    (?:\ *+=)?\ *+\$?<<(?P<expression>[^<>]*)=(?P<value>[^<>=]*)>>(?:{_NUMBER})?
    # or a whole plain equation with a number on its right
    |(?<![\w.,$(+*/×÷−–-])(?<![+*/×÷−–-]\ )(?<!\ x\ )
    (?P<sum>{_SUM})\ *=\ *(?P<result>{_NUMBER})
    (?!\ *[A-Za-z]*\ *[-+*/x×÷−–=]\ *[\d$(.])
    # or a sum that ends a sentence, behind "x="
    |(?<==)\ ?(?P<unknown>{_SUM})(?=\.?(?:\s|\Z))
    """, re.VERBOSE)
_SENTENCE_END = re.compile(r"\n|[.;!?](?=\s|\Z)|\Z")
_CLAUSE_END = re.compile(r",\s| (?:and|so|then|but|which)\b")
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-"})


class SolutionError(ValueError):
  """A solution that is not calculator steps.

  Attributes:
    reason: "no_answer", "no_annotation", "bad_expression", "wrong_value" or "answer_not_computed".
  """

  def __init__(self, reason: str, message: str):
    super().__init__(message)
    self.reason = reason


class Calculation(NamedTuple):
  """One step of a solution."""

  thought: str
  expression: str
  value: Fraction | float


def gold_answer(solution: str) -> str:
  """Returns the number behind `####`, as the calculator writes it.

  Raises:
    SolutionError: there is none.
  """
  _, mark, answer = solution.rpartition("####")
  value = parse_number(answer) if mark else None
  if value is None:
    raise SolutionError("no_answer", "no number behind '####'")
  return format_number(value)


def replies(solution: str) -> tuple[list[tuple[str, str]], str]:
  """Returns an agent's turns for a solution: each step's with what the calculator answers, and the last.

  Raises:
    SolutionError: it is not calculator steps that lead to its answer.
  """
  steps, rest = calculations(solution)
  conclusion = f"Thought: {rest}\n" if rest else ""
  return ([(f"Thought: {step.thought}\nAction: {step.expression}", format_number(step.value)) for step in steps],
          f"{conclusion}Final Answer: {gold_answer(solution)}")


def calculations(solution: str) -> tuple[list[Calculation], str]:
  """Returns the steps of a solution in order, one of whose values is the answer, and the text behind the last.

  Raises:
    SolutionError: there are none, one cannot be read or has another value than it says, or the answer
      is none of their values.
  """
  answer = gold_answer(solution)
  text = solution.rpartition("####")[0]
  found = []
  for match in _CALCULATION.finditer(text):
    if expression := _expression(match, text):
      found.append((match, expression))
  steps, start = [], 0
  for i, (match, expression) in enumerate(found):
    limit = found[i + 1][0].start() if i + 1 < len(found) else len(text)
    value = _annotated(expression, match["value"]) if match["value"] else evaluate(expression)
    end = _end_of_thought(text, match.end(), limit)
    if not text[end:].strip(" .\n") and format_number(value) != answer:  # the last step: the answer is in its sentence
      end = _end_of_clause(text, match.end(), end)
    calculation = match["sum"] or (match[0] if match["unknown"] else "")
    thought = _clean(f"{text[start:match.start()]}{calculation}{text[match.end():end]}")
    steps.append(Calculation(thought or "Calculate.", expression, value))
    start = end
  if not steps:
    raise SolutionError("no_annotation", "the solution has no calculation")
  rest = _clean(text[start:])
  values = [format_number(step.value) for step in steps]
  if answer not in values and _conclusion(rest) != answer:
    raise SolutionError("answer_not_computed", f"the answer is {answer}, computed are {', '.join(values)}")
  return steps, rest


def normalise(expression: str) -> str:
  """Returns an expression as the calculator reads it.

  Units, `$` and commas between thousands go; `x`, `×`, `÷` become operators, `3(4)` a product, `20%` becomes
  `(20/100)`, and `1 1/2` becomes `(1 + 1/2)`.
  """
  expression = re.sub(r"(?<=[A-Za-z])/[A-Za-z]+", "", expression)
  expression = re.sub(r"(?<![\d.,/])(\d+) (\d+/\d+)(?![\d.])", r"(\1 + \2)", expression)
  expression = re.sub(r"[A-Za-z]+", lambda word: "*" if word[0] in "xX" else "", expression.replace("$", ""))
  expression = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", expression)
  expression = re.sub(r"(\d*\.?\d+)%(?! *[\d(.])", r"(\1/100)", expression)
  expression = re.sub(r"(?<=[\d)]) *\(", "*(", expression)
  return " ".join(expression.translate(_SIGNS).split())


def _expression(match: re.Match, text: str) -> str | None:
  """Returns what to calculate, or None where the match in `text` is no step."""
  if match["sum"]:
    return _equation(match)
  if not match["unknown"]:
    return normalise(match["expression"])
  expression, said = normalise(match["unknown"]), re.search(_NUMBER, text[match.end():])
  try:
    return expression if said and _agrees(evaluate(expression), said[0]) else None
  except ValueError:
    return None


def _equation(match: re.Match) -> str | None:
  """Returns the expression of a plain equation, or None where it does not hold: then it is text.

  A result in percent is read as a number of percents: of `6/10 * 100% = 60%`, `6/10 * 100` is 60, and of
  `8 / 25 = 32%`, `8 / 25 * 100` is 32.
  """
  sum_, result = match["sum"], match["result"]
  if not result.endswith("%"):
    candidates = [normalise(sum_)]
  else:
    candidates, result = [normalise(sum_.replace("%", ""))], result.replace("%", "")
    if "%" not in sum_:
      plain = candidates[0]
      candidates.append(f"({plain}) * 100" if re.search(r"[-+]", plain) else f"{plain} * 100")
  for expression in candidates:
    try:
      if _agrees(evaluate(expression), result):
        return expression
    except ValueError:
      continue
  return None


def _annotated(expression: str, stated: str) -> Fraction | float:
  """Returns the value of an annotation; the stated one may be rounded or cut to its decimals."""
  try:
    value = evaluate(expression)
    agrees = _agrees(value, stated)
  except ValueError as e:
    raise SolutionError("bad_expression", f"<<{expression}={stated}>>: {e}") from None
  if not agrees:
    raise SolutionError("wrong_value", f"<<{expression}={stated}>>: it is {format_number(value)}")
  return value


def _agrees(value: Fraction | float, stated: str) -> bool:
  """Whether `stated` is the value, or the value rounded or cut to the decimals that it has."""
  number, decimals = evaluate(normalise(stated)), len(stated.partition(".")[2])
  return value == number or (decimals > 0 and abs(value - number) < Fraction(1, 10**decimals))


def _conclusion(rest: str) -> str | None:
  """Returns the number that the text behind the last step ends with, or None: it has none, or still calculates."""
  if re.search(r"\d[^=]*[-+*/x×÷−–][^=]*\d[^=]*=", rest):
    return None
  numbers = re.findall(_NUMBER, rest)
  value = parse_number(numbers[-1].removesuffix("%")) if numbers else None
  return None if value is None else format_number(value)


def _end_of_thought(text: str, start: int, limit: int) -> int:
  """Returns where the thought of the calculation that ends at `start` ends.

  That is the end of its sentence or line. Where the next calculation (at `limit`) is in the same
  sentence, it is the end of the clause, or of the calculation itself.
  """
  sentence = _SENTENCE_END.search(text, start)
  if sentence.end() <= limit:
    return sentence.end()
  return _end_of_clause(text, start, limit)


def _end_of_clause(text: str, start: int, limit: int) -> int:
  clause = _CLAUSE_END.search(text, start, limit)
  return clause.start() if clause else start


def _clean(text: str) -> str:
  """Returns a piece of a solution as a thought, on one line."""
  return " ".join(text.split()).strip(" ,;=")
