"""A table, for the terminal and for a report."""

from collections.abc import Sequence
import dataclasses
import sys

import rich.box
import rich.cells
import rich.console
import rich.measure
import rich.table
import rich.text


@dataclasses.dataclass(frozen=True)
class Table:
  """Plain text in rows and columns.

  Attributes:
    title: says what the table shows.
    columns: the heads. The first column is left-aligned, all others are numbers.
    rows: as many cells each as there are columns.
    summary: how many of the last rows sum up those before them.
    prose: whether the last column is text, which is left-aligned and may wrap.
    note: how to read it: the method behind every number.
  """

  title: str
  columns: Sequence[str]
  rows: Sequence[Sequence[str]]
  summary: int = 0
  prose: bool = False
  note: str = ""

  def __post_init__(self):
    for row in self.rows:
      if len(row) != len(self.columns):
        raise ValueError(f"table {self.title!r}: a row has {len(row)} cells, expected {len(self.columns)}")


def markdown(table: Table) -> str:
  """Returns `table`, without title and note, as a Markdown table."""
  cell = lambda text: text.replace("|", "&#124;").replace("<", "&lt;")
  row = lambda cells: f"| {' | '.join(map(cell, cells))} |"
  return "\n".join([row(table.columns), "|---" * len(table.columns) + "|", *map(row, table.rows)])


def print_table(table: Table, console: rich.console.Console | None = None) -> None:
  """Prints `table` on the terminal, or on `console`. A file gets 120 columns, or as many as it takes to cut nothing."""
  console = console or rich.console.Console(width=None if sys.stdout.isatty() else 120)
  shown = rich.table.Table(title=rich.text.Text(table.title), caption=rich.text.Text(table.note),
                           title_justify="left", caption_justify="left", box=rich.box.SIMPLE_HEAD)
  for i, column in enumerate(table.columns):
    prose = table.prose and i == len(table.columns) - 1
    whole = 0 if prose else max(rich.cells.cell_len(cells[i]) for cells in (table.columns, *table.rows))
    shown.add_column(rich.text.Text(column), justify="left" if prose or i == 0 else "right", overflow="fold",
                     no_wrap=not prose, min_width=whole)
  for i, row in enumerate(table.rows):
    if table.summary and i == len(table.rows) - table.summary:
      shown.add_section()
    shown.add_row(*map(rich.text.Text, row))  # Text: a cell's brackets are no markup
  # All columns but a last one of prose have their full width: the terminal may wrap a line, but no number is cut.
  least = rich.measure.Measurement.get(console, console.options.update(max_width=10_000), shown).minimum
  console.width = max(console.width, least)
  console.print(shown)
