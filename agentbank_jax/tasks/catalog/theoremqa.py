"""TheoremQA (Chen et al. 2023, arXiv:2305.12524): questions that need a theorem, with a calculator and Python.

Held out. The data has answers and no solutions: the expert knows the answer.
"""

from collections.abc import Generator, Iterator, Mapping
import functools
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.math_problem import MathEnv
from agentbank_jax.envs.typed_answer import TYPES, is_right
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import math_problems, requirements, rows, splits
from agentbank_jax.tasks.task import MetricCard, Source, Task

_SOURCE = "wenhuchen/TheoremQA on GitHub (theoremqa_test.json, MIT)"


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  if split == "train":
    raise UserError("theoremqa: no train instances, it is held out for evaluation; use test")
  return splits.choose("theoremqa", _rows, split, count, seed)


def _rows() -> list[tuple[str, Mapping[str, Any]]]:
  def parsed() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path in rows.find_all("theoremqa", ("theoremqa_test.json",), _SOURCE):
      for place, row in rows.read_rows(path):
        try:
          yield place, row["id"].removesuffix(".json"), _data(row)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
          raise UserError(f"{place}: not a TheoremQA row ({e}); get the file again") from None
  return rows.unique(parsed())


def _data(row: Mapping[str, Any]) -> dict[str, Any]:
  kind, gold = row["Answer_type"].lower(), row["Answer"]
  if kind not in TYPES:
    raise ValueError(f"the answer's type is {kind!r}")
  return {"question": row["Question"], "gold": gold, "type": kind, "picture": row["Picture"] is not None,
          "field": row["field"], "theorem": row["theorem"]}


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Knows the answer."""
  del observation
  yield f"Thought: I know the answer.\nFinal Answer: {instance.data['gold']}"


TASK = Task(
    name="theoremqa",
    skill="math",
    held_in=False,
    instructions=math_problems.INSTRUCTIONS.format(
        answer="it alone: a number, True or False, an option such as (a), or a list such as [1, 2]", example="0.75"),
    grammar=math_problems.GRAMMAR,
    max_steps=math_problems.MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="the final answer is the gold answer by its type: an integer when rounded, a float within 4 %, a list "
                "in any order, True or False, an option",
        definition="predict_accuracy.py of wenhuchen/TheoremQA (arXiv:2305.12524), without its ChatGPT and Wolfram "
                   "Alpha readings of free text (envs/typed_answer.py); over all 800 questions, those with a picture "
                   "included, which is not shown"),
    make_env=functools.partial(MathEnv, is_right),
    instances=_instances,
    runs=math_problems.RUNS,
    packages=math_problems.PACKAGES,
    programs=requirements.SANDBOX_PROGRAMS,
    expert=_expert,
    random_turn=math_problems.random_turn,
    source=Source(
        where=_SOURCE,
        licence="MIT",
        contamination="Some questions refer to a picture (19 of the 300 that we know; `picture` in the instance), "
                      "which a text agent does not see.",
        checksums={"82e1f983952ae19e2afdcb32ce8dbf172d0b5ee0b0952f7befbf31dcb9f46b2d":
                   "300 of the 800 questions of theoremqa_test.json"}),
)
