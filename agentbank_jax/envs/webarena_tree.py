"""A page as WebArena shows it: the accessibility tree of what is in the window, `[id] role 'name' property: value`.

Written after browser_env/processors.py of web-arena-x/webarena (mode accessibility_tree, current_viewport_only). What
differs: ids number the nodes from 1, so that the same page reads the same in every browser; and the options of a
closed list are shown, which have no place on the page, so that they can be chosen.
"""

from collections.abc import Mapping, Sequence
import re
from typing import Any, NamedTuple

_IGNORED_PROPERTIES = frozenset((
    "focusable", "editable", "readonly", "level", "settable", "multiline", "invalid",
    "url"))  # newer Chromium adds it
_EMPTY_ROLES = frozenset((  # nothing to show without a name
    "generic", "img", "list", "strong", "paragraph", "banner", "navigation", "Section", "LabelText", "Legend",
    "listitem"))
_STATIC = re.compile(r"\[\d+\] StaticText (.+)", re.DOTALL)


class Box(NamedTuple):
  """A rectangle of the window, in pixels."""

  x: float
  y: float
  width: float
  height: float


class Node(NamedTuple):
  """What can be acted on. `box` is the part of it in the window; None for an option of a closed list."""

  backend_id: int
  role: str
  box: Box | None


def boxes_in_window(snapshot: Mapping[str, Any], scroll: tuple[float, float],
                    size: tuple[float, float]) -> dict[int, Box | None]:
  """Returns the part in the window of everything that is laid out, by backend id; None where there is none.

  Args:
    snapshot: what DOMSnapshot.captureSnapshot returns.
    scroll: x and y of the page at the window's corner, in pixels.
    size: width and height of the window.
  """
  document = snapshot["documents"][0]
  ids = document["nodes"]["backendNodeId"]
  boxes: dict[int, Box | None] = {}
  for node, (x, y, width, height) in zip(document["layout"]["nodeIndex"], document["layout"]["bounds"], strict=True):
    left, top = max(0.0, x - scroll[0]), max(0.0, y - scroll[1])
    right, bottom = min(size[0], x - scroll[0] + width), min(size[1], y - scroll[1] + height)
    boxes[ids[node]] = Box(left, top, right - left, bottom - top) if right > left and bottom > top else None
  return boxes


def show_tree(nodes: Sequence[Mapping[str, Any]], boxes: Mapping[int, Box | None]) -> tuple[str, dict[int, Node]]:
  """Returns the tree as text, and its nodes by id.

  Args:
    nodes: of Accessibility.getFullAXTree, the root first.
    boxes: of `boxes_in_window`.
  """
  by_id = {}
  for node in nodes:
    by_id.setdefault(node["nodeId"], node)
  lines: list[str] = []
  shown: dict[int, Node] = {}
  stack = [(nodes[0]["nodeId"], 0)]
  while stack:  # pages are deeper than Python's stack
    node_id, depth = stack.pop()
    node = by_id[node_id]
    text = _describe(node)
    if text is not None and _is_in_window(node, boxes):
      number = len(shown) + 1
      shown[number] = Node(node["backendDOMNodeId"], _value(node, "role"), boxes.get(node["backendDOMNodeId"]))
      lines.append("\t" * depth + f"[{number}] {text}")
      depth += 1
    stack.extend((child, depth) for child in reversed(node.get("childIds", ())) if child in by_id)
  return "\n".join(_without_repeats(lines)), shown


def _is_in_window(node: Mapping[str, Any], boxes: Mapping[int, Box | None]) -> bool:
  backend_id = node.get("backendDOMNodeId")
  if backend_id is None:
    return False
  if _value(node, "role") == "RootWebArea":
    return True
  if backend_id not in boxes:
    return _value(node, "role") == "option"
  return boxes[backend_id] is not None


def _describe(node: Mapping[str, Any]) -> str | None:
  """Returns role, name and properties, or None where there is nothing to show."""
  role, name = _value(node, "role"), _value(node, "name")
  if node.get("ignored") or role is None or name is None:
    return None
  properties = [f"{p['name']}: {p['value']['value']}" for p in node.get("properties", ())
                if p["name"] not in _IGNORED_PROPERTIES and "value" in p.get("value", {})]
  if not name.strip() and (role in _EMPTY_ROLES and not properties or role == "listitem"):
    return None
  return " ".join([role, repr(name), *properties])


def _value(node: Mapping[str, Any], key: str) -> Any:
  return node.get(key, {}).get("value")


def _without_repeats(lines: Sequence[str]) -> list[str]:
  """Leaves texts out that one of the last three lines says already."""
  kept: list[str] = []
  for line in lines:
    match = _STATIC.search(line)
    text = match[1][1:-1] if match else ""
    if match is None or text and all(text not in before for before in kept[-3:]):
      kept.append(line)
  return kept
