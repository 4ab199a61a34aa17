r"""MATH (Hendrycks et al. 2021, arXiv:2103.03874): competition problems, with a calculator and Python.

The gold answer is what the solution has in its last \boxed{}. There is no path of actions in the data: the expert
says the solution and answers.
"""

from collections.abc import Generator, Iterator, Mapping
import functools
import json
import os
import pathlib
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.math_answer import is_right, last_boxed
from agentbank_jax.envs.math_problem import MathEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import math_problems, published, requirements, rows, splits
from agentbank_jax.tasks.task import MetricCard, Source, Task

_SOURCE = "hendrycks/math on GitHub (MATH.tar: MATH/train/<subject>/<n>.json and MATH/test/..., MIT), or JSON lines"
_FOLDERS = ("MATH/{split}", "{split}")
_FILES = {"train": ("train*.jsonl", "math_non500*.jsonl"), "test": ("test*.jsonl", "math500*.jsonl")}


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("math", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  return rows.unique((place, key, _data(row, place)) for place, key, row in _read(split))


def _read(split: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
  """Yields (place, key, row) from the release's folder of the split, or from JSON lines."""
  for name in (pattern.format(split=split) for pattern in _FOLDERS):
    if pathlib.Path(os.environ.get(published.VARIABLE, ""), "math", name).is_dir():
      folder = published.find("math", name, _SOURCE)
      for path in sorted(folder.glob("*/*.json")):
        try:
          yield str(path), f"{path.parent.name}-{path.stem}", json.loads(path.read_text(encoding="utf-8"))
        except ValueError as e:
          raise UserError(f"{path}: not JSON ({e}); get the file again") from None
      return
  for path in rows.find_all("math", _FILES[split], _SOURCE):
    for number, (place, row) in enumerate(rows.read_rows(path), start=1):
      yield place, f"{path.stem}-{number:05d}", row


def _data(row: Mapping[str, Any], place: str) -> dict[str, Any]:
  try:
    gold = last_boxed(row["solution"])
    if not gold:
      raise ValueError("no \\boxed answer in the solution")
    return {"question": row["problem"], "gold": gold.strip(), "solution": row["solution"],
            "subject": row.get("type") or row["subject"], "level": str(row["level"])}
  except (KeyError, TypeError, ValueError, AttributeError) as e:
    raise UserError(f"{place}: not a MATH row ({e}); get the file again") from None


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Knows the solution."""
  del observation
  yield f"Thought: {' '.join(instance.data['solution'].split())}\nFinal Answer: {instance.data['gold']}"


TASK = Task(
    name="math",
    skill="math",
    held_in=True,
    instructions=math_problems.INSTRUCTIONS.format(answer="it alone, in LaTeX", example="\\frac{3}{4}"),
    grammar=math_problems.GRAMMAR,
    max_steps=math_problems.MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="the final answer is the gold answer: the same text after the published rewriting, or the same value",
        definition="is_equiv of hendrycks/math (modeling/math_equivalence.py), or equality by Math-Verify and SymPy "
                   "with guards (envs/math_answer.py): unlike is_equiv, it calls 2/4 and 1/2 the same; over all "
                   "problems of the split given"),
    make_env=functools.partial(MathEnv, is_right),
    instances=_instances,
    runs=math_problems.RUNS,
    packages=math_problems.PACKAGES,
    programs=requirements.SANDBOX_PROGRAMS,
    expert=_expert,
    random_turn=math_problems.random_turn,
    source=Source(
        where=_SOURCE,
        licence="MIT (the repository); the problems are of AoPS and AMC contests",
        contamination="math_non500*.jsonl are problems of MATH's test set outside of the 500 of PRM800K's split: "
                      "training on them makes scores on the whole test set worthless, those on MATH-500 not.",
        checksums={"bf778130609f79b376518730ada8bf009d90d1f02c7fd6e37490baaf9ce72c24":
                   "1,200 rows of MATH's test set, none of MATH-500, from math-evaluation-harness (ZubinGou)"}),
)
