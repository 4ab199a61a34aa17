"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168) with a calculator, in the form of AgentBank's trajectories.

The expert plays the data's own solutions; of 1,000 training rows it can read 990 (`tasks/gsm8k_solution.py` says how),
and it raises on the others: five contradict their answers, four calculate with unknowns, one by the clock.
"""

from collections.abc import Generator, Iterator, Mapping
import json
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.calculator import CalculatorEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import calculator, published, splits
from agentbank_jax.tasks.gsm8k_solution import gold_answer, replies
from agentbank_jax.tasks.task import Source, Task

_SOURCE = "openai/grade-school-math on GitHub (grade_school_math/data/{split}.jsonl, MIT)"


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("gsm8k", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  path = published.find("gsm8k", f"{split}*.jsonl", _SOURCE.format(split=split))
  rows = []
  for number, line in enumerate(path.read_text().splitlines(), start=1):
    try:
      row = json.loads(line)
      data = {"question": row["question"], "answer": gold_answer(row["answer"]), "solution": row["answer"]}
    except (ValueError, KeyError, TypeError) as e:
      raise UserError(f"{path}, line {number}: not a GSM8K row ({e}); get the file again") from None
    rows.append((f"{number:05d}", data))
  return rows


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Plays the data's own solution.

  Raises:
    SolutionError: it is not calculator steps.
  """
  del observation
  steps, conclusion = replies(instance.data["solution"])
  for text, _ in steps:
    yield text
  yield conclusion


TASK = Task(
    name="gsm8k",
    skill="math",
    held_in=True,
    instructions="""\
Solve the problem with a calculator. Each turn, think, then write one expression for it:
Thought: ...
Action: (48 + 2) * 3
When you know the answer, write the number alone:
Final Answer: 150""",
    grammar=calculator.GRAMMAR,
    max_steps=15,
    metric=calculator.METRIC,
    make_env=CalculatorEnv,
    instances=_instances,
    expert=_expert,
    random_turn=calculator.random_turn,
    source=Source(
        where=_SOURCE.format(split="*"), licence="MIT",
        checksums={
            "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465": "GSM8K's train.jsonl, 7473 rows",
            "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14": "GSM8K's test.jsonl, 1319 rows",
            "1ac7bbc66e2382eb607416db7eef146b997dfbf371a5a962b920f886ca911641":
                "1,000 of the 7,473 rows of train.jsonl, sampled with seed 0"}),
    runs="a calculator",
)
