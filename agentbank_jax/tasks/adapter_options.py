"""The options in a name such as `gym:package:EnvId-v0?max_steps=30&skill=web`."""

from collections.abc import Callable, Mapping
from typing import Any
import urllib.parse

from agentbank_jax.errors import UserError, did_you_mean


def parse(name: str, what: str, known: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
  """Splits what stands behind an adapter's colon.

  Args:
    name: of the task, for messages.
    what: `TARGET`, or `TARGET?key=value&key=value`.
    known: the keys, each with what makes a value of its text and raises ValueError where it cannot.

  Returns:
    The target, and the values that are given.

  Raises:
    UserError: no target, or a key or value that is wrong.
  """
  target, _, query = what.partition("?")
  if not target:
    raise UserError(f"task {name!r}: nothing stands behind the colon")
  values = {}
  for key, text in urllib.parse.parse_qsl(query, keep_blank_values=True):
    if key not in known:
      raise UserError(f"task {name!r}: unknown option {key!r}{did_you_mean(key, known)} (known: {', '.join(known)})")
    try:
      values[key] = known[key](text)
    except ValueError as e:
      raise UserError(f"task {name!r}: {key} is {text!r}: {e}") from None
  return target, values


def one_of(*choices: str) -> Callable[[str], str]:
  """Returns what takes one of `choices` and nothing else."""
  def check(text: str) -> str:
    if text not in choices:
      raise ValueError(f"expected one of {', '.join(choices)}")
    return text
  return check
