"""MBPP (Austin et al. 2021, arXiv:2108.07732): write a function from a sentence and its tests.

As in the paper, the agent sees all tests, which also name the function; they are those that judge it.
"""

import ast
from collections.abc import Iterator, Mapping
import json
import pathlib
from typing import Any
import warnings

from agentbank_jax.envs.base import Instance
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import code, published, splits
from agentbank_jax.tasks.task import Source

_SOURCE = ("google-research/google-research on GitHub (mbpp/sanitized-mbpp.json or mbpp/mbpp.jsonl, CC-BY-4.0), or "
           "princeton-nlp/intercode (data/python/mbpp/ic_mbpp.json)")
# Numbers of problems, as the paper splits them; 1 to 10 are its few-shot examples, 511 to 600 are for validation.
_SPLITS = {"test": range(11, 511), "train": range(601, 975)}
# Columns: the sanitized file's, the full file's, InterCode's.
_QUESTION, _GOLD, _TESTS = ("prompt", "text", "query"), ("code", "gold"), ("test_list", "tests")


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("mbpp", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  path = published.find("mbpp", "*mbpp.json*", _SOURCE)
  rows = []
  for place, row in _read(path):
    try:
      if row["task_id"] in _SPLITS[split]:
        rows.append((f"{row['task_id']:03d}", _data(row)))
    except (KeyError, TypeError, SyntaxError, StopIteration) as e:
      raise UserError(f"{path}, {place}: not an MBPP row ({e!r}); get the file again") from None
  return rows


def _read(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
  """Yields each row and where it stands: a list of rows, or a row a line."""
  text = path.read_text()
  try:
    if path.suffix == ".json":
      yield from ((f"row {number}", row) for number, row in enumerate(json.loads(text)))
      return
    for number, line in enumerate(text.splitlines(), start=1):
      yield f"line {number}", json.loads(line)
  except ValueError as e:
    raise UserError(f"{path}: not JSON ({e}); get the file again") from None


def _data(row: Mapping[str, Any]) -> dict[str, Any]:
  gold, tests = _first(row, _GOLD).replace("\r\n", "\n"), _first(row, _TESTS)
  imports, set_up = "\n".join(row.get("test_imports", [])), row.get("test_setup_code", "").replace("\r\n", "\n")
  # A few rows build objects of a class that the code defines: that happens where the code is.
  return {
      "question": "\n".join([_first(row, _QUESTION), "", *([set_up] if set_up else []), *tests]),
      "visible": tests,
      "tests": tests,
      "names": _names(gold, set_up, imports, tests),
      "before": imports,
      "around": ["", set_up],
      "gold": [gold],
  }


def _names(gold: str, set_up: str, imports: str, tests: list[str]) -> dict[str, str]:
  """Returns the names that tests use and the code defines; they are all that the tests need of it."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # some rows write '\w', which Python would rather have as r'\w'
    used = {node.id for test in tests for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
    return {name: name for name in sorted(used & _defined(f"{gold}\n{set_up}") - _defined(imports))}


def _defined(source: str) -> set[str]:
  """Returns the names that a program's statements bind."""
  names = set()
  for node in ast.parse(source).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      names.add(node.name)
    elif isinstance(node, ast.Import | ast.ImportFrom):
      names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    else:
      names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
  return names


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> Any:
  return row[next(column for column in columns if column in row)]


TASK = code.make_task(
    "mbpp", _instances,
    Source(
        where=_SOURCE, licence="CC-BY-4.0",
        contamination="The sanitized file has 427 problems of the full file's 974, some of them with other words or "
                      "tests: scores on the two are not comparable."),
    definition="MBPP's own tests (Austin et al. 2021, arXiv:2108.07732), all of which the agent sees, as in "
               "the paper: a program that only answers the tests passes them",
)
