"""The ledger: what went in equals what was kept plus what was dropped, by reason.

Rows in = rows kept + rows dropped. Tokens in = trained + masked + dropped. Both are counted twice, where
they are read and where they end, and `check` compares the two.
"""

from collections import Counter, defaultdict
import dataclasses
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

MAX_EXAMPLES = 5  # ids kept of each reason


class Where(NamedTuple):
  """A row: the source it was read from, its task ("" where it is not known), its id."""

  source: str
  task: str
  id: str


@dataclasses.dataclass
class _Count:
  """Of one source and task. `dropped` counts by reason."""

  rows_kept: int = 0
  rows_dropped: Counter[str] = dataclasses.field(default_factory=Counter)
  tokens_trained: int = 0
  tokens_masked: int = 0
  tokens_dropped: Counter[str] = dataclasses.field(default_factory=Counter)

  def add(self, other: "_Count") -> None:
    self.rows_kept += other.rows_kept
    self.rows_dropped.update(other.rows_dropped)
    self.tokens_trained += other.tokens_trained
    self.tokens_masked += other.tokens_masked
    self.tokens_dropped.update(other.tokens_dropped)

  @property
  def rows(self) -> int:
    return self.rows_kept + self.rows_dropped.total()

  @property
  def tokens(self) -> int:
    return self.tokens_trained + self.tokens_masked + self.tokens_dropped.total()


class Ledger:
  """Counts of rows and tokens by source and task."""

  def __init__(self):
    self._rows_in: Counter[str] = Counter()  # by source
    self._tokens_in: Counter[str] = Counter()
    self._counts: defaultdict[tuple[str, str], _Count] = defaultdict(_Count)
    self._examples: defaultdict[str, list[str]] = defaultdict(list)

  def read(self, source: str, rows: int = 1, tokens: int = 0) -> None:
    """Counts what comes in."""
    self._rows_in[source] += rows
    self._tokens_in[source] += tokens

  def keep(self, where: Where, rows: int = 1, trained: int = 0, masked: int = 0) -> None:
    """Counts what is kept; `trained` and `masked` are tokens with and without loss."""
    count = self._counts[where.source, where.task]
    count.rows_kept += rows
    count.tokens_trained += trained
    count.tokens_masked += masked

  def drop(self, reason: str, where: Where, rows: int = 1, tokens: int = 0) -> None:
    """Counts what is dropped, and why. `rows=0`: tokens cut from a row that is kept."""
    count = self._counts[where.source, where.task]
    count.rows_dropped[reason] += rows
    count.tokens_dropped[reason] += tokens
    if len(self._examples[reason]) < MAX_EXAMPLES:
      self._examples[reason].append(where.id)

  def merge(self, other: "Ledger") -> None:
    """Adds the counts of `other`, a ledger of other rows."""
    self._rows_in.update(other._rows_in)
    self._tokens_in.update(other._tokens_in)
    for key, count in other._counts.items():
      self._counts[key].add(count)
    for reason, ids in other._examples.items():
      self._examples[reason] = (self._examples[reason] + ids)[:MAX_EXAMPLES]

  def check(self) -> None:
    """Raises AssertionError where a row or token went missing: a defect of the caller, never of the data."""
    for what, come_in in [("rows", self._rows_in), ("tokens", self._tokens_in)]:
      gone = Counter()
      for (source, _), count in self._counts.items():
        gone[source] += getattr(count, what)
      for source in come_in | gone:
        if come_in[source] != gone[source]:
          raise AssertionError(f"{source}: {come_in[source]} {what} in, but {gone[source]} kept or dropped")

  @property
  def total(self) -> _Count:
    """The counts of all sources and tasks together."""
    total = _Count()
    for count in self._counts.values():
      total.add(count)
    return total

  def rows_in(self, source: str) -> int:
    return self._rows_in[source]

  def to_json(self) -> dict[str, Any]:
    """Returns the totals, the same for every source and task, and example ids of every reason."""
    parts = [{"source": source, "task": task, **_plain(count)}
             for (source, task), count in sorted(self._counts.items())]
    return {
        "rows_in": self._rows_in.total(),
        "tokens_in": self._tokens_in.total(),
        **_plain(self.total),
        "by_source_and_task": parts,
        "examples": dict(sorted(self._examples.items())),
    }

  def print(self, console: Console | None = None) -> None:
    """Prints one line a source and task, the total, and every reason with example ids."""
    with_tokens = self._tokens_in.total() > 0
    table = Table("source", "task")
    token_columns = ("tokens", "trained", "masked", "dropped") if with_tokens else ()
    for name in ("rows", "kept", "dropped", *token_columns):
      table.add_column(name, justify="right")
    total = self.total
    for (source, task), count in [*sorted(self._counts.items()), (("total", ""), total)]:
      cells = [count.rows, count.rows_kept, count.rows_dropped.total()]
      if with_tokens:
        cells += [count.tokens, count.tokens_trained, count.tokens_masked, count.tokens_dropped.total()]
      table.add_row(escape(source), escape(task) or "-", *(f"{n:,}" for n in cells))
    console = console or Console()
    console.print(table)
    for reason, ids in sorted(self._examples.items()):
      count = f"{total.rows_dropped[reason]:,} rows"
      if with_tokens:
        count += f", {total.tokens_dropped[reason]:,} tokens"
      line = f"dropped as {reason}: {count}; for example {', '.join(ids)}"
      console.print(line, markup=False, highlight=False)


def _plain(count: _Count) -> dict[str, Any]:
  return {
      "rows_kept": count.rows_kept,
      "rows_dropped": {k: n for k, n in sorted(count.rows_dropped.items()) if n},
      "tokens_trained": count.tokens_trained,
      "tokens_masked": count.tokens_masked,
      "tokens_dropped": {k: n for k, n in sorted(count.tokens_dropped.items()) if n},
  }
