"""Generated questions on small generated databases, in InterCode-SQL's interface.

The question says "cars" and "age" where the database says `cars4` and `age7`: the tables of a database end
with a digit, and the columns of each table with one of its own, to be looked up with SHOW TABLES and DESC.
Text stands in double quotes, as MySQL and SQLite both allow, in the question too: it is copied as it is.
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
from agentbank_jax.tasks import splits, sql
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task
from agentbank_jax.tasks.words import NAMES

_DIGITS = "123456789"
# None begins another, so that a word finds one table or column.
_NOUNS = ("bands", "boats", "cars", "clubs", "dogs", "farms", "films", "games", "hotels", "kings", "lakes",
          "nurses", "pilots", "planes", "players", "poems", "roads", "shops", "singers", "songs", "teams",
          "towers", "trees", "zoos")
_CATEGORIES = {
    "color": ("red", "blue", "green", "black", "white", "pink"),
    "country": ("Chile", "China", "Egypt", "India", "Japan", "Spain"),
    "city": ("Bonn", "Cairo", "Lima", "Oslo", "Paris", "Rome"),
    "month": ("April", "June", "July", "March", "May", "October"),
    "owner": NAMES,
    "guide": NAMES,
    "sponsor": NAMES,
}
_MEASURES = ("age", "height", "length", "price", "rank", "score", "size", "speed", "weight", "year")
_ROWS = (4, 5, 8, 10)  # so that averages are short decimals
_EXTREMES = (("highest", "DESC"), ("lowest", "ASC"))
_AGGREGATES = (("highest", "MAX"), ("lowest", "MIN"), ("total", "SUM"))
_AVERAGE = ("average", "AVG")
_TWO_TABLES = 0.2  # share, where there are two


@dataclasses.dataclass
class _Table:
  """A table, and what the question calls its parts.

  Attributes:
    noun: what the rows are.
    name: of the table.
    ending: the digit that names of columns end with.
    columns: name of the column, by the question's word.
    values: of the rows, by the question's word.
    category, measure: words of the two columns, text and number, that a question is about.
  """

  noun: str
  name: str
  ending: str
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
  """A question and its answer.

  Attributes:
    question: `{word}` stands for a column; the expert repeats the question with the column's name there.
    gold: the query, with `{word}` for the column's name and `{table}` for the table's.
  """

  question: str
  gold: str


def _count_equal(rng: random.Random, t: _Table) -> _Query:
  value = rng.choice(t.values[t.category])
  return _Query(f'How many have {{{t.category}}} "{value}"?',
                f'SELECT COUNT(*) FROM {{table}} WHERE {{{t.category}}} = "{value}"')


def _count_over(rng: random.Random, t: _Table) -> _Query:
  word, sign = rng.choice((("over", ">"), ("under", "<")))
  bound = rng.choice(sorted(t.values[t.measure])[1:-1])
  return _Query(f"How many have {{{t.measure}}} {word} {bound}?",
                f"SELECT COUNT(*) FROM {{table}} WHERE {{{t.measure}}} {sign} {bound}")


def _count_both(rng: random.Random, t: _Table) -> _Query:
  value, bound = rng.choice(t.values[t.category]), rng.choice(sorted(t.values[t.measure])[1:-1])
  return _Query(f'How many have {{{t.category}}} "{value}" and {{{t.measure}}} over {bound}?',
                f'SELECT COUNT(*) FROM {{table}} WHERE {{{t.category}}} = "{value}" AND {{{t.measure}}} > {bound}')


def _count_distinct(rng: random.Random, t: _Table) -> _Query:
  return _Query(f"How many different {{{t.category}}} are there?",
                f"SELECT COUNT(DISTINCT {{{t.category}}}) FROM {{table}}")


def _count_each(rng: random.Random, t: _Table) -> _Query:
  return _Query(f"How many are there for each {{{t.category}}}?",
                f"SELECT {{{t.category}}}, COUNT(*) FROM {{table}} GROUP BY {{{t.category}}}")


def _look_up(rng: random.Random, t: _Table) -> _Query:
  word, value = rng.choice((t.category, t.measure)), rng.choice(t.values["name"])
  return _Query(f'What is the {{{word}}} of the one with {{name}} "{value}"?',
                f'SELECT {{{word}}} FROM {{table}} WHERE {{name}} = "{value}"')


def _aggregate(rng: random.Random, t: _Table) -> _Query:
  word, function = rng.choice((*_AGGREGATES, _AVERAGE))
  return _Query(f"What is the {word} {{{t.measure}}} of all?",
                f"SELECT {function}({{{t.measure}}}) FROM {{table}}")


def _aggregate_equal(rng: random.Random, t: _Table) -> _Query:
  word, function = rng.choice(_AGGREGATES)
  value = rng.choice(t.values[t.category])
  return _Query(f'What is the {word} {{{t.measure}}} of all with {{{t.category}}} "{value}"?',
                f'SELECT {function}({{{t.measure}}}) FROM {{table}} WHERE {{{t.category}}} = "{value}"')


def _extreme(rng: random.Random, t: _Table) -> _Query:
  word, order = rng.choice(_EXTREMES)
  return _Query(f"What is the {{name}} of the one with the {word} {{{t.measure}}}?",
                f"SELECT {{name}} FROM {{table}} ORDER BY {{{t.measure}}} {order} LIMIT 1")


def _list_equal(rng: random.Random, t: _Table) -> _Query:
  value = rng.choice(t.values[t.category])
  return _Query(f'What is the {{name}} of all with {{{t.category}}} "{value}"?',
                f'SELECT {{name}} FROM {{table}} WHERE {{{t.category}}} = "{value}"')


def _list_ordered(rng: random.Random, t: _Table) -> _Query:
  word, order = rng.choice(_EXTREMES)
  return _Query(f"What is the {{name}} of all, {word} {{{t.measure}}} first?",
                f"SELECT {{name}} FROM {{table}} ORDER BY {{{t.measure}}} {order}")


_KINDS = (_count_equal, _count_over, _count_both, _count_distinct, _count_each, _look_up, _aggregate,
          _aggregate_equal, _extreme, _list_equal, _list_ordered)


def _one_table(rng: random.Random, t: _Table) -> tuple[_Query, list[list[str]]]:
  """Returns question and gold query in full, and the expert's plan between SHOW TABLES and submit."""
  query = rng.choice(_KINDS)(rng, t)
  steps = [_describe(t), _ask(t, query)]
  question = re.sub(r"[{}]", "", query.question)
  return _Query(f"Look at the {t.noun}. {question}", steps[-1][1]), steps


def _two_tables(rng: random.Random, t: _Table, other: _Table) -> tuple[_Query, list[list[str]]]:
  """Like `_one_table`, for the `other` row that a row of `t` points to.

  The gold query joins the two; the expert asks twice, the second time with what it has observed.
  """
  ids = rng.sample(range(10, 100), len(other.values["name"]))
  other.values["id"] = ids
  other.columns = {"id": f"id{other.ending}"} | other.columns
  t.values[other.noun] = rng.choices(ids, k=len(t.values["name"]))
  t.columns[other.noun] = other.noun + t.ending

  word, row = rng.choice((other.category, other.measure)), rng.randrange(len(t.values["name"]))
  value, key = t.values["name"][row], t.values[other.noun][row]
  first = _Query(f'What is the {{{other.noun}}} of the one with {{name}} "{value}"?',
                 f'SELECT {{{other.noun}}} FROM {{table}} WHERE {{name}} = "{value}"')
  second = _Query(f"What is the {{{word}}} of the one with {{id}} {key}?",
                  f"SELECT {{{word}}} FROM {{table}} WHERE {{id}} = {key}")
  gold = (f"SELECT {other.name}.{other.columns[word]} FROM {other.name} JOIN {t.name} "
          f"ON {other.name}.{other.columns['id']} = {t.name}.{t.columns[other.noun]} "
          f'WHERE {t.name}.{t.columns["name"]} = "{value}"')
  question = f'What is the {word} of the {other.noun} of the one with name "{value}"?'
  return (_Query(f"Look at the {t.noun}. {question}", gold),
          [_describe(t), _ask(t, first), _describe(other), _ask(other, second)])


def _describe(t: _Table) -> list[str]:
  return [f"The table is {t.name}.", f"DESC {t.name}"]


def _ask(t: _Table, query: _Query) -> list[str]:
  return [query.question.format(**t.columns), query.gold.format(table=t.name, **t.columns)]


def _make_table(rng: random.Random, noun: str, digit: str) -> _Table:
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
  ending = rng.choice(_DIGITS)
  return _Table(noun, noun + digit, ending, {word: word + ending for word in words}, values, category,
                measure)


def _make(rng: random.Random) -> tuple[str, dict[str, Any]]:
  """Returns a problem. Its content is the schema and the question."""
  while True:
    digit = rng.choice(_DIGITS)
    tables = [_make_table(rng, noun, digit) for noun in rng.sample(_NOUNS, rng.randint(1, 3))]
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
    random_turn=sql.random_turn,
    source=Source(where="generated", licence="Apache-2.0"),
    runs=sql.RUNS,
    stands_in_for="intercode_sql",
    packages=sql.PACKAGES,
)
