"""OpenAI chat messages: `{messages: [{role, content, tool_calls?, tool_call_id?, ...}], tools?}`.

A tool call is a rendering of the agent's turn: one line each, `Action: {"name": ..., "arguments": {...}}`,
behind the message's text (see `data_prep.sources.tool_calls`). Arguments may be JSON text or an object, the
content null, text or parts of text; `developer` is the system role. A message's loss flag (`loss`, `train`,
`loss_mask`, `trainable`, `weight`) is honoured. Ids of calls, names, `reasoning_content` and other fields
are kept in the metadata and given back by `to_openai`; they are not part of the text the model sees. With
the option `tools_in_system` the tools that a row offers are written into its system turn.
"""

from collections.abc import Mapping
import json
from typing import Any

from agentbank_jax.trajectory import Trajectory, Turn
from data_prep.sources.source import (
  Context,
  DropRow,
  Format,
  Reason,
  identity,
  loss_flag,
  make_turn,
  message_fields,
  messages_of,
  rest_of,
  role_of,
  schema_role,
  text_of,
)
from data_prep.sources.tool_calls import Call, assemble, disassemble, parse_calls, render_calls, tools_of

_UNSUPPORTED = ("function_call", "audio", "refusal")  # they carry the agent's output: never ignored


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  turns, fields = [], []
  for i, message in enumerate(messages_of(row, "messages")):
    turn, extra = _read(message, i)
    turns.append(turn)
    fields.append(extra)
  turns, metadata = assemble(turns, fields, tools_of(row), context.options["tools_in_system"])
  return Trajectory(identity(row, context), context.task_or(None), turns, provenance=context.provenance,
                    metadata=metadata | rest_of(row, "id", "messages"))


def _read(message: Mapping[str, Any], i: int) -> tuple[Turn, dict[str, Any]]:
  name, text, extra = role_of(message, i), text_of(message, i), message_fields(message)
  role = schema_role(name, i)
  if unsupported := [key for key in _UNSUPPORTED if key in extra]:
    raise DropRow(Reason.UNSUPPORTED, f"turn {i}: {unsupported[0]!r} cannot be imported")
  calls = extra.pop("tool_calls", None) or []
  if not isinstance(calls, list):
    raise DropRow(Reason.MALFORMED, f"turn {i}: tool_calls is {type(calls).__name__}, expected a list")
  if calls:
    if role != "assistant":
      raise DropRow(Reason.MALFORMED, f"turn {i}: tool_calls on a {role} turn")
    if text is None:
      extra["content"] = None
    # The ids say how many of the lines at the turn's end are calls.
    extra["tool_call_ids"] = [call.get("id") if isinstance(call, Mapping) else None for call in calls]
    text = render_calls(text or "", [_read_call(call, i) for call in calls])
  if name != role:
    extra["role"] = name
  return make_turn(role, text, loss_flag(message, i), i), extra


def _read_call(call: Any, i: int) -> Call:
  call = call if isinstance(call, Mapping) else {}
  function = call.get("function")
  if (call.get("type") or "function") != "function" or not isinstance(function, Mapping):
    raise DropRow(Reason.UNSUPPORTED, f"turn {i}: a tool call that is not a function's")
  if not isinstance(function.get("name"), str):
    raise DropRow(Reason.MALFORMED, f"turn {i}: a tool call without a name")
  arguments = function.get("arguments", "")
  if isinstance(arguments, Mapping):
    arguments = json.dumps(arguments, ensure_ascii=False)
  if not isinstance(arguments, str):
    kind = type(arguments).__name__
    raise DropRow(Reason.MALFORMED, f"turn {i}: arguments are {kind}, expected text or an object")
  return Call(function["name"], arguments)


def to_openai(trajectory: Trajectory) -> dict[str, Any]:
  """Returns a row of OpenAI messages. A turn without loss that the rule would train has `"train": false`.

  The lines at the end of an agent's turn that are tool calls in the canonical rendering become
  `tool_calls`, their arguments text. The trajectory's task, reward, outcome and provenance have no place
  in the format.
  """
  messages, metadata = disassemble(trajectory)
  return {"id": trajectory.id, **metadata, "messages": [_write(turn, extra) for turn, extra in messages]}


def _write(turn: Turn, extra: dict[str, Any]) -> dict[str, Any]:
  message: dict[str, Any] = {"role": turn.role, "content": turn.content}
  if turn.role == "assistant":
    ids = extra.pop("tool_call_ids", None)
    text, calls = parse_calls(turn.content, None if ids is None else len(ids))
    if calls:
      message["content"] = text
      message["tool_calls"] = [
          {"id": id_ or f"call_{n}", "type": "function", "function": call._asdict()}
          for n, (call, id_) in enumerate(zip(calls, ids or [None] * len(calls), strict=True))]
    if not turn.train:
      message["train"] = False
  return message | extra


FORMAT = Format(convert, options=("tools_in_system",))
