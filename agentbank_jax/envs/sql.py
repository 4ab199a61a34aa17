"""InterCode-SQL's environment: look around in a database, query it, submit the last result.

Rules and reward are those of InterCode (Yang et al. 2023, arXiv:2306.14898): the result that stands when
the agent says `submit` is compared with the gold query's.
"""

from collections import Counter
import pathlib
import re

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.sql_database import Database, QueryError, Row

MAX_ROWS = 50  # of a result that the agent is shown
MAX_CHARACTERS = 2_000

_FENCE = re.compile(r"```(?:sql\b)?(.*?)```", re.IGNORECASE | re.DOTALL)


class SqlEnv:
  """Statements until `submit`.

  `Instance.data`: `question`; `gold`, a query; and `tables` (see `Database.from_tables`) or, where the
  environment has a folder of databases, `db`, the name of one.

  An action is a statement, plain or in a ```sql block. The agent never sees the gold query or its result.
  """

  def __init__(self, folder: pathlib.Path | None = None, compact: bool = False):
    """Prepares an environment.

    Args:
      folder: has `<db>.sqlite`; None where every instance brings its tables.
      compact: False shows rows as InterCode does, a Python list of tuples. True shows "Audi | 30; Fiat | 10",
        and of DESC's six columns field and type only.
    """
    self._folder = folder
    self._compact = compact
    self._database: Database | None = None

  def reset(self, instance: Instance) -> str:
    self.close()
    data = instance.data
    if self._folder is None:
      self._database = Database.from_tables(data["tables"])
    else:
      self._database = Database.from_file(self._folder / f"{data['db']}.sqlite")
    try:
      self._gold = self._database.execute(data["gold"])
    except QueryError as e:
      raise ValueError(f"instance {instance.id}: its gold query does not run: {e}") from None
    self._result: list[Row] | None = None
    return data["question"]

  def step(self, action: Action) -> Step:
    try:
      statement = _statement(action.text)
      if statement.lower() == "submit":
        reward = 0.0 if self._result is None else score(self._result, self._gold)
        return Step("Submitted.", reward, True, False, {"solved": reward == 1.0})
      self._result = None  # a statement that fails leaves nothing to submit
      self._result = self._database.execute(statement)
    except QueryError as e:
      return Step(f"Error executing query: {e}", 0.0, False, False, {"invalid": True})
    shown = self._result
    if self._compact and re.match(r"desc|show\s+columns", statement, re.IGNORECASE):
      shown = [row[:2] for row in shown]
    return Step(show(shown, self._compact), 0.0, False, False, {})

  def close(self) -> None:
    if self._database:
      self._database.close()
      self._database = None


def show(rows: list[Row], compact: bool) -> str:
  """Returns rows as text. What is left out is said: "... (50 of 64 rows shown)"."""
  shown = rows[:MAX_ROWS]
  if compact:
    text = "; ".join(" | ".join(map(str, row)) for row in shown) if rows else "no rows"
  else:
    text = str(shown)
  if len(text) > MAX_CHARACTERS:
    text = f"{text[:MAX_CHARACTERS]}... ({MAX_CHARACTERS} of {len(text)} characters shown)"
  if len(rows) > MAX_ROWS:
    text += f" ... ({MAX_ROWS} of {len(rows)} rows shown)"
  return text


def score(rows: list[Row], gold: list[Row]) -> float:
  """Returns InterCode's reward: intersection over union of the rows, times how well they are ordered.

  Rows count as often as they occur and are compared as Python prints them: `3` is not `3.0`. The order
  of the rows that both have is compared by Kendall's tau-b of the two lists, so a wrong order makes the
  reward smaller or negative, also where the question asks for no order. Two empty results agree.
  InterCode rounds to two decimals; we do not: nearly right is not solved.
  """
  ours, theirs = [str(row) for row in rows], [str(row) for row in gold]
  if ours == theirs:
    return 1.0
  common, union = Counter(ours) & Counter(theirs), Counter(ours) | Counter(theirs)
  overlap = common.total() / union.total()
  order = _kendall_tau(_only(ours, common), _only(theirs, common))
  return overlap if order is None else overlap * order


def _only(items: list[str], counts: Counter[str]) -> list[str]:
  """Returns the first `counts[item]` of every item, in order."""
  left = counts.copy()
  kept = []
  for item in items:
    if left[item]:
      left[item] -= 1
      kept.append(item)
  return kept


def _kendall_tau(a: list[str], b: list[str]) -> float | None:
  """Returns Kendall's tau-b of two lists of equal length, or None where one has no order (all rows equal)."""
  if len(set(a)) < 2:
    return None
  import numpy as np
  from scipy import stats  # slow to import, and a right answer does not need it

  ranks = [np.unique(items, return_inverse=True)[1] for items in (a, b)]
  return float(stats.kendalltau(*ranks).statistic)


def _statement(text: str) -> str:
  blocks = _FENCE.findall(text)
  if len(blocks) > 1:
    raise QueryError("more than one SQL block; write exactly one")
  return (blocks[0] if blocks else text).strip()
