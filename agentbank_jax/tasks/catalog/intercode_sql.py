"""InterCode-SQL (Yang et al. 2023, arXiv:2306.14898): questions of Spider's development set on its databases.

Spider's development set tests and is never trained on, so there is no training split.
"""

from collections.abc import Generator, Iterator, Mapping
import json
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.sql import SqlEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, splits, sql
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

_QUESTIONS = "ic_spider_dev.json"
_DATABASES = "sqlite"
_SOURCE = "princeton-nlp/intercode on GitHub (data/sql/spider, MIT; the databases as <db>.sqlite)"


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("intercode_sql", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  if split == "train":
    raise UserError("intercode_sql: no train instances, it is Spider's development set; use test")
  path = published.find("intercode_sql", _QUESTIONS, _SOURCE)
  databases = {file.stem for file in published.find("intercode_sql", _DATABASES, _SOURCE).glob("*.sqlite")}
  rows = []
  try:
    for number, row in enumerate(json.loads(path.read_text())):
      if row["db"] not in databases:
        raise UserError(f"{path}, row {number}: no {_DATABASES}/{row['db']}.sqlite, get it from {_SOURCE}")
      rows.append((f"{number:05d}", {"question": row["query"], "db": row["db"], "gold": row["gold"],
                                     "hardness": row["hardness"]}))
  except (ValueError, KeyError, TypeError) as e:
    raise UserError(f"{path}, row {len(rows)}: not a row of InterCode-SQL ({e}); get the file again") from None
  return rows


def _make_env() -> SqlEnv:
  return SqlEnv(folder=published.find("intercode_sql", _DATABASES, _SOURCE))


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Knows the gold query."""
  del observation
  yield f"Thought: This query answers the question.\nAction:\n```sql\n{instance.data['gold']}\n```"
  yield "Thought: The result is the answer.\nAction: submit"


TASK = Task(
    name="intercode_sql",
    skill="programming",
    held_in=True,
    instructions="""\
Answer the question about a MySQL database. Each turn, think, then write one statement:
Thought: ...
Action:
```sql
SHOW TABLES
```
SHOW TABLES and DESC show what there is. When the last result is the answer, end with:
Action: submit""",
    grammar=Grammar(has_answer=False),
    max_steps=10,
    metric=MetricCard(
        reward_range=(-1.0, 1.0),
        success="the submitted result has the gold result's rows, in its order (reward 1)",
        definition="InterCode-SQL's reward (Yang et al. 2023, arXiv:2306.14898), not rounded: intersection over "
                   "union of the rows times Kendall's tau of their order; on SQLite in place of MySQL"),
    make_env=_make_env,
    instances=_instances,
    expert=_expert,
    random_turn=sql.random_turn,
    source=Source(where=_SOURCE, licence="MIT (InterCode), CC-BY-SA-4.0 (Spider)",
                  contamination="The questions are Spider's development set; training on them is training on Spider's "
                                "test."),
    runs=sql.RUNS,
    packages=sql.PACKAGES,
)
