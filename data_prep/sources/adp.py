"""Agent Data Protocol, standardised: `{id, content: [item, ...], details}`, an item's kind in `class_`.

Actions are the agent's turns, observations never have loss:

- `message_action`: its content; `api_action`: a tool call in the canonical rendering (see
  `data_prep.sources.tool_calls`); `code_action`: `Action:` and the code in a fence. A `description` is
  the text in front.
- `text_observation`: a user turn where `source` is user, the system turn where it is system, an agent's turn
  without loss where it is agent or assistant, else a tool turn. `web_observation`: the accessibility tree,
  or the HTML where there is none. `json_observation`: its JSON.
- `image_observation`, and web pages that are only an image, cannot be imported: the row is dropped.
"""

from collections.abc import Mapping
import json
from typing import Any

from agentbank_jax.trajectory import Trajectory, Turn
from data_prep.sources.intercode import render_action
from data_prep.sources.source import Context, DropRow, Format, Reason, identity, messages_of, rest_of
from data_prep.sources.tool_calls import Call, render_calls

_ROLES = {"user": "user", "system": "system", "agent": "assistant", "assistant": "assistant",
          "environment": "tool"}


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  items = messages_of(row, "content")
  turns = tuple(_turn(item, i) for i, item in enumerate(items))
  rewards = [item["reward"] for item in items if item.get("reward") is not None]
  return Trajectory(identity(row, context), context.task_or(None), turns, rewards[-1] if rewards else None,
                    provenance=context.provenance, metadata=rest_of(row, "id", "content"))


def _turn(item: Mapping[str, Any], i: int) -> Turn:
  kind = item.get("class_")
  match kind:
    case "message_action" | "api_action" | "code_action":
      return Turn("assistant", _action(kind, item, i))
    case "text_observation":
      source = item.get("source") or "environment"
      if not isinstance(source, str) or source not in _ROLES:
        raise DropRow(Reason.UNKNOWN_ROLE, f"turn {i}: unknown source {source!r}")
      return Turn(_ROLES[source], _text(item, "content", i), train=False)
    case "web_observation":
      if not (item.get("axtree") or item.get("html")):
        raise DropRow(Reason.UNSUPPORTED, f"turn {i}: a web page with neither axtree nor html")
      return Turn("tool", _text(item, "axtree" if item.get("axtree") else "html", i))
    case "json_observation":
      return Turn("tool", json.dumps(item.get("content"), ensure_ascii=False))
    case "image_observation":
      raise DropRow(Reason.UNSUPPORTED, f"turn {i}: an image; only text can be imported")
  raise DropRow(Reason.UNKNOWN_ROLE, f"turn {i}: unknown kind of item {kind!r}")


def _action(kind: str, item: Mapping[str, Any], i: int) -> str:
  description = _text(item, "description", i) if item.get("description") else ""
  if kind == "api_action":
    arguments = json.dumps(item.get("kwargs") or {}, ensure_ascii=False)
    return render_calls(description, [Call(_text(item, "function", i), arguments)])
  content = _text(item, "content", i)
  if kind == "code_action":
    content = render_action(content, _text(item, "language", i))
  return f"{description}\n{content}" if description else content


def _text(item: Mapping[str, Any], field: str, i: int) -> str:
  if not isinstance(item.get(field), str):
    raise DropRow(Reason.MALFORMED, f"turn {i}: {field} is {type(item.get(field)).__name__}, expected text")
  return item[field]


FORMAT = Format(convert)
