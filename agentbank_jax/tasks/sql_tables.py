"""Generated questions on small generated databases, in InterCode-SQL's interface.

The question says "the age of all cars" where the database may say `car_list` and `main_age`: names of
tables and columns contain the question's word, and have to be looked up with SHOW TABLES and DESC. Text
stands in double quotes, as MySQL and SQLite both allow, in the question too: it is copied as it is.
"""

from collections.abc import Generator, Iterator
import contextlib
import dataclasses
import functools
import random
import re
from typing import Any, NamedTuple

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.sql import SqlEnv
from agentbank_jax.envs.sql_database import Database
from agentbank_jax.tasks import splits
from agentbank_jax.tasks.task import Grammar, MetricCard, Task
from agentbank_jax.tasks.words import NAMES

# None is part of another, so that a word finds one table or column.
_NOUNS = ("band", "boat", "car", "club", "dog", "farm", "film", "game", "hotel", "king", "lake", "nurse",
          "pilot", "plane", "player", "poem", "road", "shop", "singer", "song", "team", "tower", "tree",
          "zoo")
_CATEGORIES = {
    "color": ("red", "blue", "green", "black", "white", "pink"),
    "country": ("Chile", "China", "Egypt", "India", "Japan", "Spain"),
    "city": ("Bonn", "Cairo", "Lima", "Oslo", "Paris", "Rome"),
    "style": ("modern", "old", "plain", "rich", "simple", "wild"),
    "level": ("basic", "easy", "hard", "high", "low", "top"),
    "month": ("April", "June", "July", "March", "May", "October"),
}
_MEASURES = ("age", "height", "length", "price", "rank", "score", "size", "speed", "weight", "year")
_TABLE_NAMES = ("{}", "{}s", "{}_list", "{}_data", "all_{}s", "my_{}")
_COLUMN_NAMES = ("{}", "{}_info", "{}_value", "{}_field", "the_{}", "main_{}")
_ROWS = (4, 5, 8, 10)  # so that averages are short decimals
_EXTREMES = (("highest", "DESC"), ("lowest", "ASC"))
_AGGREGATES = (("highest", "MAX"), ("lowest", "MIN"), ("total", "SUM"))
_AVERAGE = ("average", "AVG")
_TWO_TABLES = 0.2  # share, where there are two


@dataclasses.dataclass
class _Table:
  """A table, and what the question calls its parts.

  Attributes:
    noun: what a row is.
    name: of the table.
    columns: name of the column, by the question's word.
    values: of the rows, by the question's word.
    category, measure: words of the two columns, text and number, that a question is about.
  """

  noun: str
  name: str
  columns: dict[str, str]
  values: dict[str, list[Any]]
  category: str
  measure: str

  def json(self) -> dict[str, Any]:
    return {"name": self.name,
            "columns": [[name, "TEXT" if isinstance(self.values[word][0], str) else "INTEGER"]
                        for word, name in self.columns.items()],
            "rows": [list(row) for row in zip(*(self.values[word] for word in self.columns), strict=True)]}


class _Query(NamedTuple):
  """A question, the thought before its query, and the gold query."""

  question: str
  thought: str
  gold: str


def _count_equal(rng: random.Random, t: _Table) -> _Query:
  value, category = rng.choice(t.values[t.category]), t.columns[t.category]
  return _Query(f'How many {t.noun}s have {t.category} "{value}"?', f"Use {category}.",
                f'SELECT COUNT(*) FROM {t.name} WHERE {category} = "{value}"')


def _count_over(rng: random.Random, t: _Table) -> _Query:
  word, sign = rng.choice((("over", ">"), ("under", "<")))
  bound, measure = rng.choice(sorted(t.values[t.measure])[1:-1]), t.columns[t.measure]
  return _Query(f"How many {t.noun}s have {t.measure} {word} {bound}?", f"Use {measure}.",
                f"SELECT COUNT(*) FROM {t.name} WHERE {measure} {sign} {bound}")


def _count_both(rng: random.Random, t: _Table) -> _Query:
  value, bound = rng.choice(t.values[t.category]), rng.choice(sorted(t.values[t.measure])[1:-1])
  category, measure = t.columns[t.category], t.columns[t.measure]
  return _Query(f'How many {t.noun}s have {t.category} "{value}" and {t.measure} over {bound}?',
                f"Use {category} and {measure}.",
                f'SELECT COUNT(*) FROM {t.name} WHERE {category} = "{value}" AND {measure} > {bound}')


def _count_distinct(rng: random.Random, t: _Table) -> _Query:
  category = t.columns[t.category]
  return _Query(f"How many different {t.category} values do the {t.noun}s have?", f"Use {category}.",
                f"SELECT COUNT(DISTINCT {category}) FROM {t.name}")


def _count_each(rng: random.Random, t: _Table) -> _Query:
  category = t.columns[t.category]
  return _Query(f"How many {t.noun}s are there for each {t.category}?", f"Use {category}.",
                f"SELECT {category}, COUNT(*) FROM {t.name} GROUP BY {category}")


def _look_up(rng: random.Random, t: _Table) -> _Query:
  word, value = rng.choice((t.category, t.measure)), rng.choice(t.values["name"])
  wanted, name = t.columns[word], t.columns["name"]
  return _Query(f'What is the {word} of the {t.noun} with name "{value}"?', f"Use {wanted} and {name}.",
                f'SELECT {wanted} FROM {t.name} WHERE {name} = "{value}"')


def _aggregate(rng: random.Random, t: _Table) -> _Query:
  word, function = rng.choice((*_AGGREGATES, _AVERAGE))
  measure = t.columns[t.measure]
  return _Query(f"What is the {word} {t.measure} of all {t.noun}s?", f"Use {measure}.",
                f"SELECT {function}({measure}) FROM {t.name}")


def _aggregate_equal(rng: random.Random, t: _Table) -> _Query:
  word, function = rng.choice(_AGGREGATES)
  value, category, measure = rng.choice(t.values[t.category]), t.columns[t.category], t.columns[t.measure]
  return _Query(f'What is the {word} {t.measure} of all {t.noun}s with {t.category} "{value}"?',
                f"Use {measure} and {category}.",
                f'SELECT {function}({measure}) FROM {t.name} WHERE {category} = "{value}"')


def _extreme(rng: random.Random, t: _Table) -> _Query:
  word, order = rng.choice(_EXTREMES)
  name, measure = t.columns["name"], t.columns[t.measure]
  return _Query(f"What is the name of the {t.noun} with the {word} {t.measure}?",
                f"Use {name} and {measure}.",
                f"SELECT {name} FROM {t.name} ORDER BY {measure} {order} LIMIT 1")


def _list_equal(rng: random.Random, t: _Table) -> _Query:
  value, name, category = rng.choice(t.values[t.category]), t.columns["name"], t.columns[t.category]
  return _Query(f'List the name of all {t.noun}s with {t.category} "{value}".', f"Use {name} and {category}.",
                f'SELECT {name} FROM {t.name} WHERE {category} = "{value}"')


def _list_ordered(rng: random.Random, t: _Table) -> _Query:
  word, order = rng.choice(_EXTREMES)
  name, measure = t.columns["name"], t.columns[t.measure]
  return _Query(f"List the name of all {t.noun}s, {word} {t.measure} first.", f"Use {name} and {measure}.",
                f"SELECT {name} FROM {t.name} ORDER BY {measure} {order}")


_KINDS = (_count_equal, _count_over, _count_both, _count_distinct, _count_each, _look_up, _aggregate,
          _aggregate_equal, _extreme, _list_equal, _list_ordered)


def _one_table(rng: random.Random, t: _Table) -> tuple[_Query, list[list[str]]]:
  query = rng.choice(_KINDS)(rng, t)
  return query, [_describe(t), [query.thought, query.gold]]


def _two_tables(rng: random.Random, t: _Table, other: _Table) -> tuple[_Query, list[list[str]]]:
  """Asks for something about the `other` row that a row of `t` points to; the expert takes two queries."""
  ids = rng.sample(range(10, 100), len(other.values["name"]))
  other.values["id"] = ids
  other.columns = {"id": "id"} | other.columns
  t.values[other.noun] = rng.choices(ids, k=len(t.values["name"]))
  t.columns[other.noun] = f"{other.noun}_id"

  word, row = rng.choice((other.category, other.measure)), rng.randrange(len(t.values["name"]))
  value, key = t.values["name"][row], t.values[other.noun][row]
  wanted, name, link = other.columns[word], t.columns["name"], t.columns[other.noun]
  query = _Query(f'What is the {word} of the {other.noun} of the {t.noun} with name "{value}"?',
                 f"Use {wanted} and id.",
                 f"SELECT {other.name}.{wanted} FROM {other.name} JOIN {t.name} "
                 f'ON {other.name}.id = {t.name}.{link} WHERE {t.name}.{name} = "{value}"')
  return query, [_describe(t),
                 [f"Use {link} and {name}.", f'SELECT {link} FROM {t.name} WHERE {name} = "{value}"'],
                 _describe(other),
                 [query.thought, f"SELECT {wanted} FROM {other.name} WHERE id = {key}"]]


def _describe(t: _Table) -> list[str]:
  return [f"The {t.noun}s are in {t.name}.", f"DESC {t.name}"]


def _make_table(rng: random.Random, noun: str) -> _Table:
  rows = rng.choice(_ROWS)
  category, measure = rng.choice(list(_CATEGORIES)), rng.choice(_MEASURES)
  values: dict[str, list[Any]] = {
      "name": rng.sample(NAMES, rows),
      category: rng.choices(rng.sample(_CATEGORIES[category], 3), k=rows),
      measure: rng.sample(range(10, 100), rows),
  }
  if rng.random() < 0.5:  # a column that the question does not ask for
    other = rng.choice([word for word in _CATEGORIES if word != category])
    values[other] = rng.choices(_CATEGORIES[other], k=rows)
  words = rng.sample(list(values), len(values))
  return _Table(noun, rng.choice(_TABLE_NAMES).format(noun),
                {word: rng.choice(_COLUMN_NAMES).format(word) for word in words}, values, category, measure)


def _make(rng: random.Random) -> tuple[str, dict[str, Any]]:
  """Returns a problem. Its content is the schema and the question."""
  while True:
    tables = [_make_table(rng, noun) for noun in rng.sample(_NOUNS, rng.randint(1, 3))]
    if len(tables) > 1 and rng.random() < _TWO_TABLES:
      query, plan = _two_tables(rng, *tables[:2])
    else:
      query, plan = _one_table(rng, tables[0])
    rng.shuffle(tables)
    data = [table.json() for table in tables]
    with contextlib.closing(Database.from_tables(data)) as database:
      answer = {str(cell) for row in database.execute(query.gold) for cell in row}
    if answer != {"0"} and answer.isdisjoint(re.findall(r"\w+", query.question)):
      break
  plan = [["Look at the tables.", "SHOW TABLES"], *plan, ["This is the answer.", "submit"]]
  schema = sorted([table["name"], *(name for name, _ in table["columns"])] for table in data)
  return (f"{schema} {query.question}",
          {"question": query.question, "tables": data, "gold": query.gold, "plan": plan})


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.generate("sql_tables", _make, split, count, seed)


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Plays `data["plan"]`, pairs of thought and statement. Whatever it names, it has seen before."""
  del observation
  for thought, statement in instance.data["plan"]:
    yield f"Thought: {thought}\nAction: {statement}"


TASK = Task(
    name="sql_tables",
    skill="programming",
    held_in=True,
    instructions="",
    grammar=Grammar(has_answer=False),
    max_steps=10,
    metric=MetricCard(
        reward_range=(-1.0, 1.0),
        success="the submitted result has the gold result's rows, in its order (reward 1)",
        definition="InterCode-SQL's reward (Yang et al. 2023, arXiv:2306.14898): intersection over union of "
                   "the rows times Kendall's tau of their order; on generated databases, so not its score"),
    make_env=functools.partial(SqlEnv, compact=True),
    instances=_instances,
    expert=_expert,
    licence="Apache-2.0",
)
