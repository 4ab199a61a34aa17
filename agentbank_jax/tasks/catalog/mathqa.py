"""MathQA (Amini et al. 2019, arXiv:1905.13319): word problems with five options, with a calculator and Python.

The expert computes the annotated formula, one operation a step, and chooses the option that it gives. Not every
annotation gives one: of the 500 rows that we know, 340 lead to the right option, 129 to none, 29 to a wrong one, and
2 cannot be computed. There the expert raises.
"""

from collections.abc import Generator, Iterator, Mapping
import functools
import re
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.calculator import parse_number
from agentbank_jax.envs.equivalence import Equivalence
from agentbank_jax.envs.math_problem import MathEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import math_problems, requirements, rows, splits
from agentbank_jax.tasks.mathqa_formula import FormulaError, nearest, option_value, options, parse, play
from agentbank_jax.tasks.task import MetricCard, Source, Task

_SOURCE = "math-qa.github.io (MathQA.zip: train.json, dev.json, test.json, Apache-2.0)"
_FILES = {"train": ("train.json", "train*.jsonl"), "test": ("test.json", "test*.jsonl")}
_LETTERS = "abcde"


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("mathqa", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  def parsed() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path in rows.find_all("mathqa", _FILES[split], _SOURCE):
      for number, (place, row) in enumerate(rows.read_rows(path), start=1):
        try:
          yield place, f"{path.stem}-{number:05d}", _data(row)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
          raise UserError(f"{place}: not a MathQA row ({e}); get the file again") from None
  return rows.unique(parsed())


def _data(row: Mapping[str, Any]) -> dict[str, Any]:
  """Reads a row of the release; other copies have the names of its first two fields in small letters."""
  problem, choices = row.get("Problem") or row["problem"], options(row["options"])
  if "".join(choices) != _LETTERS or row["correct"] not in choices:
    raise ValueError(f"options {', '.join(choices)}, the correct one is {row['correct']!r}")
  shown = "\n".join(f"{letter}) {text}" for letter, text in choices.items())
  return {"question": f"{problem}\n{shown}", "gold": row["correct"], "options": choices,
          "formula": row["annotated_formula"], "category": row.get("category") or row["type"]}


def chosen(answer: str, choices: Mapping[str, str]) -> str | None:
  """Returns the letter that an answer chooses, or None.

  That is a letter ("b", "(b)", "b) 16 hr" where that is option b), the text of one option, or the number of one.
  """
  text = " ".join(answer.lower().split()).removesuffix(".")
  if letter := re.fullmatch(r"\(?([a-e])\)?", text):
    return letter[1]
  spelt = {key: " ".join(value.lower().split()) for key, value in choices.items()}
  if labelled := re.fullmatch(r"\(?([a-e]) ?\) ?(.+)", text):
    return labelled[1] if labelled[2] == spelt[labelled[1]] else None
  same = [key for key, value in spelt.items() if value == text]
  number = parse_number(text)
  if not same and number is not None:
    same = [key for key, value in spelt.items() if (has := option_value(value)) is not None and has == float(number)]
  return same[0] if len(same) == 1 else None


def _is_right(answer: str, data: Mapping[str, Any], equivalence: Equivalence) -> bool:
  del equivalence  # options are chosen, not computed
  return chosen(answer, data["options"]) == data["gold"]


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Computes the annotated formula and chooses the option that it gives.

  Raises:
    FormulaError: it cannot be computed, or does not give the right option.
  """
  data = instance.data
  actions = play(parse(data["formula"]), {})
  try:
    action = next(actions)
    while True:
      observation = yield f"Thought: I compute the next part.\nAction: {action}"
      if observation.startswith("Error"):
        raise FormulaError(f"{data['formula']} cannot be computed: {observation}")
      action = actions.send(observation)
  except StopIteration as e:
    value = e.value
  letter = nearest(float(value), data["options"])
  if letter != data["gold"]:
    raise FormulaError(f"{data['formula']} gives {value}, which is option {letter}, and not {data['gold']}")
  yield f"Thought: {value} is option {letter}.\nFinal Answer: {letter}"


TASK = Task(
    name="mathqa",
    skill="math",
    held_in=True,
    instructions=math_problems.INSTRUCTIONS.format(answer="the letter of the right option", example="b"),
    grammar=math_problems.GRAMMAR,
    max_steps=20,  # the longest formula of the rows we know has 16 operations
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="the right one of five options is chosen, by its letter, its text or its number; guessing reaches 1/5",
        definition="accuracy, as in the paper (arXiv:1905.13319), over all rows of the test file"),
    make_env=functools.partial(MathEnv, _is_right),
    instances=_instances,
    runs=math_problems.RUNS,
    packages=requirements.SANDBOX_PACKAGES,
    programs=requirements.SANDBOX_PROGRAMS,
    expert=_expert,
    random_turn=functools.partial(math_problems.random_turn, answers=tuple(_LETTERS)),
    source=Source(
        where=_SOURCE,
        licence="Apache-2.0",
        contamination="A part of the annotated options and formulas is wrong in the release: of 500 rows, 340 formulas "
                      "lead to the right option.",
        checksums={"357c63ad612a5669bc02317765c2c2b1e6c793f56609a76bd0bfb6de568de7eb":
                   "500 rows of the test set, from math-evaluation-harness (ZubinGou)"}),
)
