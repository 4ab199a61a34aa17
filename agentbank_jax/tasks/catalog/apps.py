"""APPS (Hendrycks et al. 2021, arXiv:2105.09938): programs for problems of programming sites.

Most problems are programs from input to output; in some, a function is called. What the agent sees while it works are
those tests whose input and output stand in the problem's text.
"""

from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import code, published, splits
from agentbank_jax.tasks.task import Source

_SOURCE = "hendrycks/apps on GitHub (the folder APPS/{split}), or codeparrot/apps on Hugging Face ({split}.jsonl; MIT)"
# CodeChain's validation problems, out of APPS's training split: they are test instances where the test split is absent.
_VALIDATION = "mini_val*.jsonl"

# What APPS puts before every program (eval/testing_util.py), except for numpy, which the sandbox does not have.
_IMPORTS = (
    "import sys, time, itertools, collections, math, fractions, random, heapq; "
    "from itertools import accumulate, product, permutations, combinations; "
    "from collections import Counter, OrderedDict, deque, defaultdict, ChainMap; from functools import lru_cache; "
    "from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2; from typing import List, Tuple; "
    "from heapq import *\n")

# APPS's rules for what a function returns: tuples are lists, and an expected list may be a list of the one result.
_COMPARE = """\
def _listed(value):
  return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value

def _check(value, expected):
  value = _listed(value)
  assert value == expected or isinstance(expected, list) and expected and value == expected[0]
"""


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("apps", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  validation = published.find_all("apps", _VALIDATION)
  if split == "test" and validation and not published.find_all("apps", "test*"):
    return [(key, data) for path in validation for key, data in _read(path)]
  held_out = {key for path in validation for key, _ in _read(path)} if split == "train" else set()
  path = published.find("apps", f"{split}*", _SOURCE.format(split=split))
  return [(key, data) for key, data in _read(path) if key not in held_out]


def _read(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields key and data of each problem that has tests (some of APPS's have none): a line each, or a folder each."""
  for place, number, row in _folders(path) if path.is_dir() else _lines(path):
    try:
      if row["input_output"]:
        yield f"{int(number):04d}", _data(row)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
      raise UserError(f"{place}: not an APPS problem ({e!r}); get it again") from None


def _lines(path: pathlib.Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
  for n, line in enumerate(path.read_text().splitlines(), start=1):
    try:
      row = json.loads(line)
      # Hugging Face's rows have JSON in text, other copies of them the values.
      row |= {key: json.loads(row[key] or "null") for key in ("input_output", "solutions") if isinstance(row[key], str)}
      number = row["problem_id"]
    except (ValueError, KeyError, TypeError) as e:
      raise UserError(f"{path}, line {n}: not an APPS problem ({e!r}); get the file again") from None
    yield f"{path}, line {n}", str(number), row


def _folders(path: pathlib.Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
  for folder in sorted(path.iterdir()):
    text = lambda name: file.read_text() if (file := folder / name).exists() else ""  # noqa: B023 (used at once)
    try:
      row = {"question": text("question.txt"), "starter_code": text("starter_code.py"),
             "input_output": json.loads(text("input_output.json") or "null"),
             "solutions": json.loads(text("solutions.json") or "[]"),
             "difficulty": json.loads(text("metadata.json") or "{}").get("difficulty", "")}
    except ValueError as e:
      raise UserError(f"{folder}: not an APPS problem ({e}); get it again") from None
    yield str(folder), folder.name, row


def _data(row: Mapping[str, Any]) -> dict[str, Any]:
  tests, name = row["input_output"], row["input_output"].get("fn_name")
  pairs = list(zip(tests["inputs"], tests["outputs"], strict=True))
  starter = row.get("starter_code", "").strip()
  data = {"difficulty": row["difficulty"], "gold": row["solutions"] or []}
  if name is None:
    pairs = [[_text(stdin), _text(stdout)] for stdin, stdout in pairs]
    question = f"{row['question'].strip()}\n\nRead from standard input and print to standard output."
    return data | {"question": question, "tests": pairs, "imports": _IMPORTS,
                   "visible": [pair for pair in pairs if _stands_in(row["question"], pair)]}
  question = f"{row['question'].strip()}\n\nWrite the function `{name}`."
  if starter:
    question += f" Begin with:\n{starter}"
  calls = [(f"_check({name}(*{_keys(arguments)!r}), {_keys(expected)!r})",
            [*map(json.dumps, arguments), json.dumps(expected)]) for arguments, expected in pairs]
  return data | {
      "question": question,
      "visible": [call for call, texts in calls if _stands_in(row["question"], texts)],
      "tests": [call for call, _ in calls],
      "names": {name: "_asked"},
      "before": _COMPARE,
      "around": [_IMPORTS, f"_asked = Solution().{name} if 'Solution' in globals() else {name}"],
  }


def _text(value: str | Sequence[Any]) -> str:
  return value if isinstance(value, str) else "\n".join(map(str, value))


def _keys(value: Any) -> Any:
  """Returns JSON's objects with the integer keys that they had, as APPS does for the first argument."""
  if isinstance(value, list) and value and isinstance(value[0], dict):
    try:
      return [{int(key): item for key, item in value[0].items()}, *value[1:]]
    except ValueError:
      return value
  return value


def _stands_in(question: str, texts: Sequence[str]) -> bool:
  words = f" {' '.join(question.split())} "
  return all(f" {' '.join(text.split())} " in words for text in texts)


TASK = code.make_task(
    "apps", _instances,
    Source(
        where=_SOURCE.format(split="{train,test}"), licence="MIT",
        contamination="Problems come from public sites, with their solutions. Problems without tests are left out. "
                      "Where the folder has CodeChain's mini_val files and no test split, those problems (of APPS's "
                      "training split) are the test instances, and no training instances: not APPS's test score."),
    definition=(
        "APPS's own tests (Hendrycks et al. 2021, arXiv:2105.09938): its 'strict accuracy'. Outputs agree line by line "
        "and word by word, numbers up to 1e-5 of their value; APPS's script also accepts words and lines in another "
        "order, and close integers, which here fail; a program has 10 s of processor time a test, there 4 s; no numpy"),
)
