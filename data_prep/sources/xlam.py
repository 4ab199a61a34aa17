"""xLAM (ActionStudio): `{unique_trajectory_id, task_instruction, tools, conversation}`.

`tools` and `conversation` are lists, or their text: JSON or a Python literal, which is read as data and
never run. Messages are OpenAI's. Files hold one row for each turn of the agent, repeating what came
before: of rows with one id, which follow each other, the longest is imported and the others are dropped as
parts of it.
"""

import ast
from collections.abc import Iterator, Mapping
import itertools
import json
from typing import Any

from agentbank_jax.trajectory import Trajectory
from data_prep.sources import openai_messages
from data_prep.sources.source import Context, DropRow, Format, Reason, rest_of

_PART = "part_of_another_row"  # set by `mark_parts` on the shorter rows


def mark_parts(rows: Iterator[Any]) -> Iterator[Any]:
  """Yields all rows, those marked that repeat a part of a longer one next to them."""
  def key(row):
    return row.get("unique_trajectory_id") if isinstance(row, Mapping) else None

  for name, group in itertools.groupby(rows, key):
    group = list(group)
    if name is None:
      yield from group
      continue
    longest = max(group, key=lambda row: len(str(row.get("conversation"))))
    yield from (row if row is longest else {**row, _PART: True} for row in group)


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  if row.get(_PART):
    raise DropRow(Reason.PART_OF_ANOTHER_ROW, "a longer row has the same unique_trajectory_id")
  known = {"id": row.get("unique_trajectory_id"), "messages": _literal(row, "conversation")}
  if row.get("tools"):
    known["tools"] = _literal(row, "tools")
  rest = rest_of(row, "unique_trajectory_id", "conversation", "tools")
  return openai_messages.convert(rest | known, context)


def _literal(row: Mapping[str, Any], field: str) -> Any:
  value = row.get(field)
  if not isinstance(value, str):
    return value
  for parse in (json.loads, ast.literal_eval):
    try:
      return parse(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
      continue
  raise DropRow(Reason.MALFORMED, f"{field} is text that is neither JSON nor a literal")


FORMAT = Format(convert, options=openai_messages.FORMAT.options, prepare=mark_parts)
