"""Reformatting: gold solutions rewritten as trajectories, every observation computed, none copied.

GSM8K: each calculation of the solution becomes a step. That is an annotation `<<48/2=24>>`, or a plain
equation of numbers in the text (`48/2 = 24`) whose value is right. The thought is the part of the solution
that the calculation stands in, annotations removed; the action is the expression; the observation is its
value as the calculator computes it. Annotated values must agree with the computed ones, and the answer
behind `####` must be one of them.

Spider and InterCode questions: the gold query is the one action, the environment gives its observation.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
import pathlib
import re
from typing import Any, NamedTuple

from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.calculator import parse_number
from agentbank_jax.envs.calculator_eval import evaluate, format_number
from agentbank_jax.envs.sql import SqlEnv
from agentbank_jax.trajectory import Outcome, Trajectory, Turn
from data_prep.sources.intercode import render_action
from data_prep.sources.source import Context, DropRow, Format, Reason, identity, rest_of

# Possessive throughout (`*+`, `(?>...)`): a long line takes linear time to be found not to be an equation.
_NUMBER = r"(?>\$?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)%?)"
_OPERAND = rf"\(*+\ ?{_NUMBER}(?:\ ?(?!x\b)[A-Za-z]+\b){{0,3}}+\ ?\)*+"  # "(2 eggs", "$3", "40%)"
_CALCULATION = re.compile(rf"""
    # an annotation and the result that follows it,
    <<(?P<expression>[^<>]*)=(?P<value>[^<>=]*)>>(?:{_NUMBER})?
    # or a whole plain equation with a number on its right
    |(?<![\w.,$(+*/×÷−–-])(?<![+*/×÷−–-]\ )(?<!\ x\ )
    (?P<sum>{_OPERAND}(?:(?:\ *+[-+*/x×÷−–]\ *+|(?=\()){_OPERAND})++)\ *=\ *(?P<result>{_NUMBER})
    (?!\ *[A-Za-z]*\ *[-+*/x×÷−–=]\ *[\d$(.])
    """, re.VERBOSE)


class Calculation(NamedTuple):
  """One step of a solution."""

  thought: str
  expression: str
  value: Fraction | float


def gsm8k(row: Mapping[str, Any], context: Context) -> Trajectory:
  """Rewrites a GSM8K row `{question, answer}` in AgentBank's form.

  Raises:
    DropRow: no calculation, one that cannot be read or has another value than it says, or an answer
      that is none of the values.
  """
  question, solution = row.get("question"), row.get("answer")
  if not isinstance(question, str) or not isinstance(solution, str):
    raise DropRow(Reason.MALFORMED, "no text in 'question' or 'answer'")
  solution, mark, answer = solution.rpartition("####")
  gold = parse_number(answer)
  if not mark or gold is None:
    raise DropRow(Reason.MALFORMED, "no number behind '####'")
  steps, rest = calculations(solution)
  if not steps:
    raise DropRow(Reason.NO_ANNOTATION, "the solution has no calculation")
  if gold not in [step.value for step in steps]:
    computed = ", ".join(format_number(step.value) for step in steps)
    raise DropRow(Reason.ANSWER_NOT_COMPUTED, f"the answer is {format_number(gold)}, computed are {computed}")
  turns = [Turn("user", question)]
  for step in steps:
    turns.append(Turn("assistant", f"Thought: {step.thought}\nAction: {step.expression}"))
    turns.append(Turn("user", f"Observation: {format_number(step.value)}"))
  conclusion = f"Thought: {rest}\n" if rest else ""
  turns.append(Turn("assistant", f"{conclusion}Final Answer: {format_number(gold)}"))
  return Trajectory(identity(row, context), context.task_or("gsm8k"), tuple(turns), 1.0, Outcome.SOLVED,
                    context.provenance, rest_of(row, "id", "question", "answer"))


def calculations(solution: str) -> tuple[list[Calculation], str]:
  """Returns the calculations of a GSM8K solution in order, and the text behind the last one.

  Raises:
    DropRow: an annotation that cannot be read, or whose value is wrong.
  """
  found = []
  for match in _CALCULATION.finditer(solution):
    if expression := normalise(match["expression"]) if match["sum"] is None else _equation(match):
      found.append((match, expression))
  steps, start = [], 0
  for i, (match, expression) in enumerate(found):
    limit = found[i + 1][0].start() if i + 1 < len(found) else len(solution)
    end = _end_of_thought(solution, match.end(), limit)
    value = _value(expression, match["value"]) if match["sum"] is None else evaluate(expression)
    steps.append(Calculation(_clean(solution[start:end]) or expression, expression, value))
    start = end
  return steps, _clean(solution[start:])


def normalise(expression: str) -> str:
  """Returns an expression as the calculator reads it.

  Units, `$` and commas between thousands go; `x`, `×` and `÷` become operators, `3(4)` a product, and
  `20%` is `(20/100)`.
  """
  expression = re.sub(r"[A-Za-z]+", lambda word: "*" if word[0] in "xX" else "", expression.replace("$", ""))
  expression = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", expression)
  expression = re.sub(r"(\d*\.?\d+)%(?! *[\d(.])", r"(\1/100)", expression)
  expression = re.sub(r"(?<=[\d)]) *\(", "*(", expression)
  return " ".join(expression.translate(_OPERATORS).split())


_SENTENCE_END = re.compile(r"\n|[.;!?](?=\s|\Z)|\Z")
_CLAUSE_END = re.compile(r",\s| (?:and|so|then|but|which)\b")
_OPERATORS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-"})


def _equation(match: re.Match) -> str | None:
  """Returns the expression of a plain equation, or None where it does not hold: then it is text.

  A result in percent is read as a number of percents: of `6/10 * 100% = 60%`, `6/10 * 100` is 60.
  """
  texts = (match["sum"], match["result"])
  if match["result"].endswith("%"):
    texts = tuple(text.replace("%", "") for text in texts)
  expression, result = map(normalise, texts)
  try:
    return expression if evaluate(expression) == evaluate(result) else None
  except ValueError:
    return None


def _value(expression: str, stated: str) -> Fraction | float:
  """Returns the value of an annotation; the stated one may be rounded or cut to its decimals."""
  try:
    value = evaluate(expression)
    number = evaluate(normalise(stated))
  except ValueError as e:
    raise DropRow(Reason.BAD_EXPRESSION, f"<<{expression}={stated}>>: {e}") from None
  decimals = len(stated.partition(".")[2])
  if value != number and (decimals == 0 or abs(value - number) >= Fraction(1, 10**decimals)):
    raise DropRow(Reason.WRONG_VALUE, f"<<{expression}={stated}>>: it is {format_number(value)}")
  return value


def _end_of_thought(text: str, start: int, limit: int) -> int:
  """Returns where the thought of the calculation that ends at `start` ends.

  That is the end of its sentence or line. Where the next calculation (at `limit`) is in the same
  sentence, it is the end of the clause, or of the calculation itself.
  """
  sentence = _SENTENCE_END.search(text, start)
  if sentence.end() <= limit:
    return sentence.end()
  clause = _CLAUSE_END.search(text, start, limit)
  return clause.start() if clause else start


def _clean(text: str) -> str:
  """Returns a piece of a solution as a thought: annotations removed, on one line."""
  return " ".join(re.sub(r"<<[^<>]*>>", "", text).split()).strip(" ,;")


def spider(row: Mapping[str, Any], context: Context) -> Trajectory:
  """Rewrites a question and its gold query as one action.

  Rows are InterCode's `{db, query, gold}`, or Spider's `{db_id, question, query}`.

  Option `databases`: folder of `<db>.sqlite`, opened read-only.

  Raises:
    DropRow: a field or the database is missing, or the query fails.
  """
  question, gold, name = ((row.get("query"), row["gold"], row.get("db")) if "gold" in row
                          else (row.get("question"), row.get("query"), row.get("db_id")))
  if not all(isinstance(text, str) and text for text in (question, gold, name)):
    raise DropRow(Reason.MALFORMED, "no text in the question, the query or the database's name")
  folder = pathlib.Path(context.options["databases"])
  if not re.fullmatch(r"\w+", name) or not (folder / f"{name}.sqlite").is_file():
    raise DropRow(Reason.DATABASE_ABSENT, f"no database {name!r} in {folder}")
  instance = Instance(identity(row, context), "train", {"question": question, "gold": gold, "db": name})
  actions = (render_action(gold, "sql"), "Action: submit")
  observation = _play_sql(folder, instance, [action.removeprefix("Action:").strip() for action in actions])
  turns = (Turn("user", question), Turn("assistant", actions[0]), Turn("user", f"Observation: {observation}"),
           Turn("assistant", actions[1]))
  return Trajectory(instance.id, context.task_or("intercode_sql"), turns, 1.0, Outcome.SOLVED,
                    context.provenance, rest_of(row, "id", "query", "gold", "question", "db_tables"))


def _play_sql(folder: pathlib.Path, instance: Instance, actions: Sequence[str]) -> str:
  """Returns the observation of the first action. Raises `DropRow` unless the second solves the instance."""
  env = SqlEnv(folder)
  try:
    env.reset(instance)
    shown, done = (env.step(Action("act", action)) for action in actions)
  except ValueError as e:
    raise DropRow(Reason.QUERY_FAILED, str(e)) from None
  finally:
    env.close()
  if not done.info.get("solved"):
    raise DropRow(Reason.QUERY_FAILED, f"{shown.observation}; the reward is {done.reward}")
  return shown.observation


GSM8K = Format(gsm8k, technique="reformatting")
SPIDER = Format(spider, options=("databases",), technique="reformatting")
