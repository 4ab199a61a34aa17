"""HumanEval (Chen et al. 2021, arXiv:2107.03374): complete a function; hidden tests.

What the agent sees while it works are the examples of the docstring that are written as Python shows them (`>>>`);
about a quarter of the problems have none. The tests judge the program that is handed in, and nothing else.
"""

import ast
from collections.abc import Iterator, Mapping
import doctest
import json
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import code, published, splits
from agentbank_jax.tasks.task import Source

_SOURCE = "openai/human-eval on GitHub (data/HumanEval.jsonl.gz, unpacked; MIT)"


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("humaneval", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  if split == "train":
    raise UserError("humaneval: no train instances, it is a benchmark without a training split; use test")
  path = published.find("humaneval", "*.jsonl", _SOURCE)
  rows = []
  for number, line in enumerate(path.read_text().splitlines(), start=1):
    try:
      row = json.loads(line)
      rows.append((row["task_id"].rpartition("/")[2].zfill(3), _data(row)))
    except (ValueError, KeyError, TypeError, SyntaxError, AttributeError) as e:
      raise UserError(f"{path}, line {number}: not a HumanEval row ({e!r}); get the file again") from None
  return rows


def _data(row: Mapping[str, str]) -> dict[str, Any]:
  """The prompt stands before the agent's code, as its beginning does in the benchmark: its imports and helpers hold.

  It stands before the tests too: some of them use those helpers.
  """
  name, prompt = row["entry_point"], row["prompt"]
  return {
      "question": f"Complete the function `{name}`. Write it whole, with its first line.\n\n{prompt.strip()}",
      "visible": _examples(prompt, name),
      "tests": [f"{row['test']}\ncheck(candidate)"],
      "names": {"candidate": name, name: name},
      "before": prompt,
      "around": [prompt, ""],
      "gold": [prompt + row["canonical_solution"]],
  }


def _examples(prompt: str, name: str) -> list[list[str]]:
  """Returns the docstring's examples that can be run, each with what it shows."""
  functions = [node for node in ast.parse(prompt).body if isinstance(node, ast.FunctionDef) and node.name == name]
  try:
    examples = doctest.DocTestParser().get_examples(ast.get_docstring(functions[-1]) or "")
  except ValueError:  # it looks like examples, and is not laid out as such
    return []
  return [[example.source.strip(), example.want.strip()] for example in examples if _is_expression(example.source)]


def _is_expression(source: str) -> bool:
  try:
    ast.parse(source.strip(), mode="eval")
  except SyntaxError:
    return False
  return True


TASK = code.make_task(
    "humaneval", _instances,
    Source(
        where=_SOURCE, licence="MIT",
        contamination="HumanEval has test problems only. AgentBank trains on trajectories for 132 of its 164 problems: "
                      "a model tuned on those has seen this benchmark, and its score says nothing about new problems."),
    definition="HumanEval's own hidden tests (Chen et al. 2021, arXiv:2107.03374), one `check` a problem",
)
