"""Tool calls as text, and back.

The canonical rendering: after the message's own text, if any, one line for each call:
`Action: {"name": "get_weather", "arguments": {"city": "Oslo"}}`. Arguments that are JSON text of an
object on one line keep their bytes; those on several lines are written on one; arguments that are
not a JSON object become a JSON string. Tools that a row offers may be written into its system turn,
so that the model sees what it is trained to call.
"""

from collections.abc import Mapping, Sequence
import json
from typing import Any, NamedTuple

from agentbank_jax.trajectory import Trajectory, Turn
from data_prep.sources.source import DropRow, Reason

_TOOLS_HEADER = 'You have these tools. To call one, write `Action: {"name": ..., "arguments": {...}}`.\n'


class Call(NamedTuple):
  """`arguments` is text, as in the OpenAI API."""

  name: str
  arguments: str


def render_calls(text: str, calls: Sequence[Call]) -> str:
  """Returns the content of a turn: `text`, then a line for each call."""
  lines = [f"Action: {_head(call.name)}{_arguments(call.arguments)}}}" for call in calls]
  return "\n".join([text, *lines] if text else lines)


def parse_calls(content: str, limit: int | None = None) -> tuple[str, list[Call]]:
  """Undoes `render_calls`: returns the text and the calls at its end, at most `limit` of them."""
  lines = content.split("\n")
  calls: list[Call] = []
  while lines and (limit is None or len(calls) < limit) and (call := _parse_line(lines[-1])):
    calls.insert(0, call)
    lines.pop()
  return "\n".join(lines), calls


def _head(name: str) -> str:
  return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '


def _arguments(text: str) -> str:
  try:
    value = json.loads(text)
  except ValueError:
    value = None
  if not isinstance(value, dict):
    return json.dumps(text, ensure_ascii=False)
  return json.dumps(value, ensure_ascii=False) if "\n" in text else text


def _parse_line(line: str) -> Call | None:
  if not line.startswith('Action: {"name": '):
    return None
  line = line.removeprefix("Action: ")
  try:
    value = json.loads(line)
  except ValueError:
    return None
  if list(value) != ["name", "arguments"] or not isinstance(value["name"], str):
    return None
  if isinstance(value["arguments"], str):
    return Call(value["name"], value["arguments"])
  head = _head(value["name"])
  return Call(value["name"], line[len(head):-1]) if line.startswith(head) else None


def render_tools(tools: Sequence[Any]) -> str:
  """Returns the text that tells an agent its tools, one JSON line each."""
  return _TOOLS_HEADER + "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)


def tools_of(row: Mapping[str, Any]) -> list[Any]:
  """Returns the tools that a row offers, which it holds as a list or as its JSON text."""
  tools = row.get("tools")
  if isinstance(tools, str):
    try:
      tools = json.loads(tools or "[]")
    except ValueError:
      raise DropRow(Reason.MALFORMED, "tools is not JSON") from None
  if not isinstance(tools, Sequence | None) or isinstance(tools, str):
    raise DropRow(Reason.MALFORMED, f"tools is {type(tools).__name__}, expected a list")
  return list(tools or ())


def assemble(turns: Sequence[Turn], fields: Sequence[Mapping[str, Any]], tools: Sequence[Any],
             tools_in_system: bool) -> tuple[tuple[Turn, ...], dict[str, Any]]:
  """Returns the turns of a trajectory, and the metadata that `disassemble` needs.

  Args:
    turns: one for each message of the source.
    fields: for each, what the turn cannot hold.
    tools: the row's.
    tools_in_system: whether they go to the end of the system turn, which is added where there is none.
  """
  turns, fields, metadata = list(turns), list(fields), {}
  if tools and tools_in_system:
    text = render_tools(tools)
    if turns[0].role == "system":
      turns[0] = Turn("system", f"{turns[0].content}\n\n{text}")
    else:
      turns.insert(0, Turn("system", text))
      fields.insert(0, {})
    metadata["tools_in_system"] = True
  if any(fields):
    metadata["message_fields"] = {str(i): dict(extra) for i, extra in enumerate(fields) if extra}
  return tuple(turns), metadata


def disassemble(trajectory: Trajectory) -> tuple[list[tuple[Turn, dict[str, Any]]], dict[str, Any]]:
  """Undoes `assemble`: returns each message's turn and fields, and the rest of the metadata."""
  metadata = dict(trajectory.metadata)
  fields = metadata.pop("message_fields", {})
  messages = [(turn, dict(fields.get(str(i), {}))) for i, turn in enumerate(trajectory.turns)]
  if metadata.pop("tools_in_system", False):
    (system, extra), text = messages[0], render_tools(tools_of(metadata))
    if system.content == text:
      messages.pop(0)
    else:
      messages[0] = (Turn("system", system.content.removesuffix(f"\n\n{text}")), extra)
  return messages, metadata
