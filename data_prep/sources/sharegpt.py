"""ShareGPT conversations, ETO's among them: `{conversations: [{from, value}], system?, tools?}`.

`{role, content}` is read too. `function_call` turns are the agent's (`Action: ` and the value),
`observation` and `tool` turns the environment's. With the option `tools_in_system` the tools that a row
offers are written into its system turn. `export` gives the row back: names of roles become ShareGPT's
own, a turn's loss flag is written as `loss` where it is not the rule's.
"""

from collections.abc import Mapping
from typing import Any

from agentbank_jax.trajectory import Trajectory
from data_prep.sources.source import (
  Context,
  Format,
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
from data_prep.sources.tool_calls import assemble, disassemble, parse_calls, tools_of

_NAMES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_CALL = "function_call"


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  messages = messages_of(row, "conversations", "conversation", "messages")
  if row.get("system"):
    messages.insert(0, {"from": "system", "value": row["system"], "top_level": True})
  turns, fields = [], []
  for i, message in enumerate(messages):
    name, text, extra = role_of(message, i), text_of(message, i), message_fields(message)
    if name == _CALL:
      text = text and f"Action: {text}"
      extra["from"] = name
    role = "assistant" if name == _CALL else schema_role(name, i)
    turns.append(make_turn(role, text, loss_flag(message, i), i))
    fields.append(extra)
  turns, metadata = assemble(turns, fields, tools_of(row), context.options["tools_in_system"])
  metadata |= rest_of(row, "id", "conversations", "conversation", "messages", "system")
  return Trajectory(identity(row, context), context.task_or(None), turns, provenance=context.provenance,
                    metadata=metadata)


def to_sharegpt(trajectory: Trajectory) -> dict[str, Any]:
  """Returns a ShareGPT row; a turn that is a tool call and nothing else becomes a `function_call`.

  The trajectory's task, reward, outcome and provenance have no place in the format.
  """
  messages, metadata = disassemble(trajectory)
  row: dict[str, Any] = {"id": trajectory.id, **metadata, "conversations": []}
  for turn, extra in messages:
    if extra.pop("top_level", False):
      row["system"] = turn.content
      continue
    name, value = extra.pop("from", _NAMES[turn.role]), turn.content
    if turn.role == "assistant" and (name == _CALL or _is_call(value)):
      name, value = _CALL, value.removeprefix("Action: ")
    flag = {} if turn.train == (turn.role == "assistant") else {"loss": turn.train}
    row["conversations"].append({"from": name, "value": value} | flag | extra)
  return row


def _is_call(content: str) -> bool:
  text, calls = parse_calls(content)
  return not text and len(calls) == 1


FORMAT = Format(convert, options=("tools_in_system",))
