"""The SQL environment: what an agent can read, what it can never do, and what its result is worth."""

import os
import pathlib
import random
import resource
import sqlite3
import threading

import pytest

from agentbank_jax.envs import sql_database
from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.sql import SqlEnv, score
from agentbank_jax.envs.sql_database import Database, QueryError

CARS = [{"name": "cars", "columns": [["name", "TEXT"], ["price", "INTEGER"]],
         "rows": [["Audi", 30], ["Fiat", 10], ["Opel", 20], ["Seat", None]]}]
QUESTION = "Which car is the cheapest?"
GOLD = "SELECT name FROM cars WHERE price IS NOT NULL ORDER BY price LIMIT 1"


@pytest.fixture
def env():
  env = SqlEnv(compact=True)
  instance = Instance("test-0", "test", {"question": QUESTION, "tables": CARS, "gold": GOLD})
  assert env.reset(instance) == QUESTION
  yield env
  env.close()


def act(env, text):
  return env.step(Action("act", text))


def test_an_episode(env):
  assert act(env, "SHOW TABLES").observation == "cars"
  assert act(env, "desc `cars`;").observation == "name | text; price | integer"
  assert act(env, "SELECT * FROM cars").observation == "Audi | 30; Fiat | 10; Opel | 20; Seat | None"
  assert act(env, "```sql\nSELECT name FROM cars\nWHERE price < 15;\n```").observation == "Fiat"
  step = act(env, "submit")
  assert (step.reward, step.terminated, step.info) == (1.0, True, {"solved": True})


def test_as_intercode_shows_it(tmp_path):
  with sqlite3.connect(tmp_path / "cars.sqlite") as connection:
    connection.execute("CREATE TABLE cars (id INT PRIMARY KEY, Name VARCHAR(9) NOT NULL, "
                       "price DOUBLE DEFAULT 1)")
    connection.execute("INSERT INTO cars VALUES (1, 'Fiat', 10), (2, 'It''s', 1.5)")
  connection.close()
  env = SqlEnv(folder=tmp_path)
  env.reset(Instance("test-0", "test", {"question": QUESTION, "db": "cars", "gold": "SELECT 1"}))
  assert act(env, "SHOW TABLES").observation == "[('cars',)]"
  assert act(env, "DESC cars").observation == (
      "[('id', 'int', 'NO', 'PRI', None, ''), ('Name', 'varchar(9)', 'NO', '', None, ''), "
      "('price', 'double', 'YES', '', '1', '')]")
  assert act(env, "SELECT Name, price FROM cars").observation == """[('Fiat', 10.0), ("It's", 1.5)]"""
  assert act(env, "SELECT id FROM cars WHERE 0").observation == "[]"
  before = (tmp_path / "cars.sqlite").read_bytes()
  assert act(env, "DELETE FROM cars").info == {"invalid": True}
  env.close()
  env.close()
  assert (tmp_path / "cars.sqlite").read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ["cars.sqlite"]


def test_nothing_to_submit_scores_zero(env):
  assert act(env, "submit").info == {"solved": False}


def test_a_failed_statement_leaves_nothing_to_submit(env):
  act(env, GOLD)
  assert act(env, "SELECT nothing FROM cars").info == {"invalid": True}
  assert act(env, "submit").reward == 0.0


ATTACKS = [
    "INSERT INTO cars VALUES ('x', 1)", "UPDATE cars SET price = 0", "DELETE FROM cars", "DROP TABLE cars",
    "CREATE TABLE x (a)", "CREATE TEMP TABLE x (a)", "CREATE TEMP VIEW v AS SELECT 1",
    "ALTER TABLE cars ADD x INT",
    "REPLACE INTO cars VALUES ('x', 1)", "WITH x AS (SELECT 1) DELETE FROM cars",
    "ATTACH '{folder}/stolen.sqlite' AS x", "DETACH main", "VACUUM", "VACUUM INTO '{folder}/stolen.sqlite'",
    "PRAGMA query_only = OFF", "PRAGMA writable_schema = ON", "PRAGMA journal_mode = DELETE",
    "PRAGMA temp_store_directory = '{folder}'", "pragma  QUERY_ONLY(0)", "SELECT * FROM pragma_query_only",
    "SELECT load_extension('{folder}/x.so')", "SELECT Load_Extension('x')", "SELECT fts3_tokenizer('x')",
    "SELECT writefile('{folder}/stolen', 'x')", "SELECT readfile('/etc/hostname')", "SELECT random()",
    "BEGIN", "BEGIN EXCLUSIVE", "COMMIT", "ROLLBACK", "SAVEPOINT x", "ANALYZE", "REINDEX",
    "SELECT 1; DROP TABLE cars", "SELECT 1; SELECT 2", "", ";", "--", "SELECT", "SELECT ?", "SELECT :a",
    "SELECT '\x00'", "SELECT '\ud800'", "SELECT CAST(x'ff' AS TEXT)", "(" * 4_000,
    "SELECT " + "(" * 900 + "1" + ")" * 900,
    "DESC nothing", "DESC cars; DROP TABLE cars", 'DESC "cars"); DROP TABLE cars', "SHOW DATABASES",
    "ATTACH ':memory:' AS x", "ATTACH '' AS x", "PRAGMA hard_heap_limit = 0", "PRAGMA soft_heap_limit = 0",
    "PRAGMA temp_store = FILE", "PRAGMA cache_size = 99999999", "PRAGMA mmap_size = 99999999",
    "PRAGMA trusted_schema = ON",
    "PRAGMA database_list", "SELECT * FROM pragma_database_list", "PRAGMA writable_schema(1)", "PRAGMA shrink_memory",
    "CREATE VIRTUAL TABLE x USING fts5(a)", "SELECT * FROM dbstat", "SELECT * FROM sqlite_dbpage",
    "SELECT * FROM generate_series(1, 9)", "SELECT edit('x')", "SELECT json_group_array(1)", "SELECT hex(zeroblob(9))",
    "SELECT format('%999999999d', 1)", "SELECT randomblob(999999999)", "SELECT sqlite_source_id()",
    "SELECT group_concat(a.name || printf('%9999d', 1)) FROM cars a", "EXPLAIN SELECT load_extension('x')",
    "WITH RECURSIVE r(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM r) SELECT length(s) FROM r LIMIT 40",
    "SELECT replace(replace(replace(replace('xxxxxxxxxx', 'x', 'yyyyyyyyyy'), 'y', 'zzzzzzzzzzzzzzzzzzzz'), 'z', "
    "'aaaaaaaaaaaaaaaaaaaaaaaa'), 'a', 'bbbbbbbbbbbbbbbb')",
    "SELECT zeroblob(1000000000)", "SELECT printf('%.*c', 2000000000, 'x')", "SELECT 1 -- " + "x" * 10_000,
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
    "```sql\nSELECT 1\n``` ```sql\nSELECT 2\n```",
]


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_attacks_are_errors_and_change_nothing(env, attack, tmp_path):
  step = act(env, attack.replace("{folder}", str(tmp_path)))
  assert step.observation.startswith("Error executing query: ") and step.info == {"invalid": True}
  assert not step.terminated and not list(tmp_path.iterdir())
  assert act(env, "SELECT COUNT(*), SUM(price) FROM cars").observation == "4 | 60"


ENDLESS = [
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r",
    "WITH RECURSIVE r(n, s) AS (SELECT 1, 'x' UNION ALL SELECT n + 1, substr(s || n || s, 1, 20000) FROM r) "
    "SELECT n FROM r ORDER BY s",
    "WITH RECURSIVE r(s) AS (SELECT 'x' UNION ALL SELECT substr(s || 'xx' || s, 1, 20000) FROM r) "
    f"SELECT SUM(s LIKE '%{'x' * 190}y') FROM r",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 5000) SELECT SUM(a.n * b.n * c.n) "
    "FROM r a, r b, r c",
]


@pytest.mark.parametrize("statement", ENDLESS, ids=range(len(ENDLESS)))
def test_what_would_run_on_is_stopped(env, statement, monkeypatch):
  monkeypatch.setattr(sql_database, "TIME_LIMIT", 0.3)
  step = act(env, statement)
  # Which limit it meets first depends on how fast the machine is.
  assert step.observation.removeprefix("Error executing query: ") in (
      "stopped after 0.3 seconds", "the statement needs too much memory")
  assert step.info == {"invalid": True} and not step.terminated
  assert act(env, GOLD).observation == "Fiat"


def doubling(level):
  """Each common table expression uses the one before twice: 2**25 copies, were there memory for them."""
  tables = ", ".join(f"c{i} AS (SELECT {level.format(f'c{i - 1}')})" for i in range(1, 26))
  return f"WITH c0 AS (SELECT 1 AS a), {tables} SELECT a FROM c25"


@pytest.mark.parametrize("level", [
    "(SELECT max(a) FROM {0}) + (SELECT min(a) FROM {0}) AS a",
    "x.a FROM {0} x, {0} y",
    "a FROM {0} UNION ALL SELECT a FROM {0}",
])
def test_what_compiles_to_an_enormous_program_is_stopped(env, level):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  step = act(env, doubling(level))
  assert step.observation == "Error executing query: the statement needs too much memory"
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB
  assert act(env, GOLD).observation == "Fiat"


HUNGRY = ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 1000000) "
          "SELECT n, substr('{pad}' || n, 1, 40000) AS s FROM r ORDER BY s DESC")


def test_a_sort_takes_memory_until_it_may_not_and_no_disk(env):
  """What SQLite would put aside in a file, deleted as soon as it is open."""
  statement = HUNGRY.replace("{pad}", "x" * 4_000)
  files, done = set(), threading.Event()

  def look():
    while not done.is_set():
      files.update(os.readlink(path) for path in pathlib.Path("/proc/self/fd").iterdir() if path.is_symlink())

  def links():
    try:
      look()
    except OSError:  # closed while we looked
      links()

  watcher = threading.Thread(target=links)
  watcher.start()
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  step = act(env, statement)
  done.set()
  watcher.join()
  assert step.info == {"invalid": True}
  assert not [file for file in files if "etilqs" in file]
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB
  assert act(env, GOLD).observation == "Fiat"


def test_a_hungry_statement_does_not_starve_those_of_other_episodes():
  """SQLite counts memory by process: while one statement takes all there is, no other one may be counted."""
  databases = [Database.from_tables(CARS) for _ in range(4)]
  results, done = [], threading.Event()
  statement = ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 2000) "
               "SELECT n FROM r ORDER BY substr(n || '{pad}', 1, 2000) LIMIT 1").replace("{pad}", "x" * 2_000)

  def attack():
    while not done.is_set():
      with pytest.raises(QueryError):
        databases[0].execute(doubling("(SELECT max(a) FROM {0}) + (SELECT min(a) FROM {0}) AS a"))

  def work(database):
    for _ in range(3):
      try:
        results.append(database.execute(statement))
      except QueryError as e:
        results.append(e)

  threads = [threading.Thread(target=attack), *(threading.Thread(target=work, args=(d,)) for d in databases[1:])]
  for thread in threads:
    thread.start()
  for thread in threads[1:]:
    thread.join()
  done.set()
  threads[0].join()
  assert results == [[(1000,)]] * 9
  for database in databases:
    database.close()


def test_long_results_say_what_is_left_out(env):
  numbers = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 64) SELECT n FROM r"
  assert act(env, numbers).observation == f"{'; '.join(map(str, range(1, 51)))} ... (50 of 64 rows shown)"
  text = act(env, "SELECT replace('" + "x" * 3_000 + "', 'x', 'yz')").observation
  assert text == "yz" * 1_000 + "... (2000 of 6000 characters shown)"


def test_the_gold_query_is_out_of_reach(env):
  seen = [QUESTION]
  for statement in ("SHOW TABLES", "SELECT * FROM sqlite_master", "SELECT * FROM sqlite_temp_master",
                    "PRAGMA table_list", "EXPLAIN SELECT 1", "SELECT gold FROM cars", "submit"):
    seen.append(act(env, statement).observation)
  assert not any("ORDER BY price" in text for text in seen)


def test_a_gold_query_that_does_not_run_is_no_failure_of_the_agent():
  with pytest.raises(ValueError, match="test-0: its gold query does not run"):
    SqlEnv().reset(Instance("test-0", "test", {"question": "", "tables": CARS, "gold": "SELECT x FROM cars"}))


@pytest.mark.parametrize("rows, gold, reward", [
    # By hand: overlap of the rows over their union, times tau of the order of those in common.
    ([], [], 1.0),
    ([], [(1,)], 0.0),
    ([(1,)], [(2,)], 0.0),
    ([(1,), (2,)], [(1,), (2,)], 1.0),
    ([(1,), (2,)], [(1,)], 0.5),
    ([(1,), (1,)], [(1,)], 0.5),
    ([(1,), (1,), (2,)], [(1,), (2,), (2,)], 0.5),
    ([(1,), (2,), (3,), (4,)], [(1,), (2,), (3,)], 0.75),
    ([(2,), (1,)], [(1,), (2,)], -1.0),
    ([(1,), (3,), (2,)], [(1,), (2,), (3,)], 1 / 3),
    ([(1, "a")], [("a", 1)], 0.0),
    ([(3.0,)], [(3,)], 0.0),
    ([(None,)], [("None",)], 0.0),
    ([(1,)], [(1, 1)], 0.0),
])
def test_reward_by_hand(rows, gold, reward):
  assert score(rows, gold) == pytest.approx(reward)


def test_reward_agrees_with_tau_by_its_definition():
  def tau_b(a, b):
    signs = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i in range(8) for j in range(i)]
    untied = [sum(pair[k] != 0 for pair in signs) for k in (0, 1)]
    return sum(x * y for x, y in signs) / (untied[0] * untied[1]) ** 0.5

  rng = random.Random(0)
  for _ in range(50):
    gold = [(rng.randint(0, 5),) for _ in range(8)]
    rows = rng.sample(gold, 8)
    assert score(rows, gold) == pytest.approx(tau_b(rows, gold))  # one digit: the same order as text
    assert (score(rows, gold) == 1.0) == (rows == gold)


def test_databases_do_not_share_anything():
  one, two = Database.from_tables(CARS), Database.from_tables([{**CARS[0], "rows": []}])
  assert len(one.execute("SELECT * FROM cars")) == 4 and not two.execute("SELECT * FROM cars")
  two.close()
  two.close()
  assert len(one.execute("SELECT * FROM cars")) == 4
  one.close()
