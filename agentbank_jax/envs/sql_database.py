"""A SQLite database that an agent may read and do nothing else with.

What stands between the agent and the machine, each of it sufficient against writing: the connection is
read-only or in memory, `PRAGMA query_only`, and an authorizer that knows only reading. Against running
on or filling up: only functions that take bounded time, a limit on every value and on a whole result, a
deadline, and a limit on memory (a nested WITH grows exponentially while it is compiled, before any clock). SQLite
counts memory for the whole process, so one statement runs at a time: none fails for what another one takes. No sort
or intermediate result goes to a disk. There is nothing to shut off from the network: no function here knows it.
"""

from collections.abc import Mapping, Sequence
import pathlib
import re
import sqlite3
import threading
import time
from typing import Any, Self

TIME_LIMIT = 2.0  # seconds for a statement
MAX_STATEMENT = 5_000  # characters
MAX_VALUE = 50_000  # bytes of one value
MAX_RESULT = 1_000_000  # characters of a result, as Python prints its rows
_MAX_PATTERN = 200  # characters behind LIKE, which is quadratic and cannot be interrupted
_STEPS = 100  # of SQLite's virtual machine, between two looks at the clock
_MAX_HEAP = 2**28  # bytes of all databases of this process; SQLite knows no limit for one alone

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_PRAGMAS = {"table_info", "table_list", "foreign_key_list", "index_list", "index_info"}
# The rest is refused: it runs long in one step (printf), is random, or loads code.
_FUNCTIONS = frozenset(
    "abs avg ceil ceiling char coalesce concat count cume_dist date datetime dense_rank exp first_value "
    "floor group_concat ifnull iif instr julianday lag last_value lead length like ln log lower ltrim max "
    "min mod nth_value ntile nullif percent_rank pow power rank replace round row_number rtrim sign sqrt "
    "strftime substr substring sum time total trim trunc typeof unicode unixepoch upper".split())

_SHOW_TABLES = re.compile(r"SHOW\s+TABLES\s*;?", re.IGNORECASE)
_DESCRIBE = re.compile(r"(?:DESC|DESCRIBE|SHOW\s+COLUMNS\s+FROM)\s+([`\"']?)(\w+)\1\s*;?", re.IGNORECASE)

Row = tuple[Any, ...]

_turn = threading.Lock()  # of the one statement of this process that runs


class QueryError(Exception):
  """A statement that gives no rows; the message is for whoever wrote it."""


class Database:
  """Runs one reading statement at a time."""

  def __init__(self, connection: sqlite3.Connection):
    """Takes over `connection` and locks it."""
    self._connection = connection
    self._deadline = 0.0
    connection.isolation_level = None
    connection.execute(f"PRAGMA hard_heap_limit = {_MAX_HEAP}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA query_only = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _MAX_PATTERN)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(self._is_late, _STEPS)

  @classmethod
  def from_tables(cls, tables: Sequence[Mapping[str, Any]]) -> Self:
    """Builds a database in memory.

    Args:
      tables: each with `name`, `columns` (pairs of name and SQL type) and `rows`.
    """
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    for table in tables:
      columns = ", ".join(f'"{name}" {kind}' for name, kind in table["columns"])
      connection.execute(f'CREATE TABLE "{table["name"]}" ({columns})')
      marks = ", ".join("?" * len(table["columns"]))
      connection.executemany(f'INSERT INTO "{table["name"]}" VALUES ({marks})', table["rows"])
    connection.commit()
    return cls(connection)

  @classmethod
  def from_file(cls, path: pathlib.Path) -> Self:
    """Opens a SQLite file, which stays as it is."""
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    return cls(sqlite3.connect(uri, uri=True, check_same_thread=False))

  def execute(self, statement: str) -> list[Row]:
    """Returns the rows of a statement: SQLite's reading statements, and MySQL's SHOW TABLES and DESC.

    Raises:
      QueryError: the statement is wrong, not allowed, takes longer than `TIME_LIMIT`, or returns too much.
    """
    if _SHOW_TABLES.fullmatch(statement):
      return self._select("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
                          "AND name NOT LIKE 'sqlite_%' ORDER BY lower(name)")
    if match := _DESCRIBE.fullmatch(statement):
      return self._describe(match[2])
    return self._select(statement)

  def close(self) -> None:
    """Closes the connection. May be called twice."""
    self._connection.close()

  def _describe(self, table: str) -> list[Row]:
    """Returns MySQL's columns of DESC: field, type, null, key, default, extra."""
    rows = self._select(f'PRAGMA table_info("{table}")')
    if not rows:
      raise QueryError(f"Table '{table}' doesn't exist")
    return [(name, kind.lower(), "NO" if not_null or key else "YES", "PRI" if key else "", default, "")
            for _, name, kind, not_null, default, key in rows]

  def _select(self, statement: str) -> list[Row]:
    with _turn:
      return self._run(statement)

  def _run(self, statement: str) -> list[Row]:
    self._deadline = time.monotonic() + TIME_LIMIT
    rows, size = [], 0
    try:
      cursor = self._connection.execute(statement)
      if cursor.description is None:
        raise QueryError("the statement returns no rows; write one SELECT")
      for row in cursor:
        rows.append(row)
        size += len(str(row))
        if size > MAX_RESULT:
          raise QueryError(f"the result is longer than {MAX_RESULT} characters; ask for less")
    except (sqlite3.Error, sqlite3.Warning, ValueError) as e:  # ValueError: text that UTF-8 cannot hold
      if self._is_late():
        raise QueryError(f"stopped after {TIME_LIMIT:g} seconds") from None
      message = str(e)
      raise QueryError("only reading is allowed" if message == "not authorized" else message) from None
    except MemoryError:
      raise QueryError("the statement needs too much memory") from None
    return rows

  def _is_late(self) -> bool:
    return time.monotonic() > self._deadline


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
  """SQLite's authorizer, asked about each part of a statement: `first` is a pragma, `second` a function."""
  allowed = (action in _READING
             or action == sqlite3.SQLITE_FUNCTION and second.lower() in _FUNCTIONS
             or action == sqlite3.SQLITE_PRAGMA and first.lower() in _PRAGMAS)
  return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
