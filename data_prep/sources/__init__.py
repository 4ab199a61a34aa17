"""Importers, by name: one module a published format, raw row to `Trajectory` or a reason to drop it."""

import importlib

from agentbank_jax.errors import UserError, did_you_mean

# Where each format stands: a module of `data_prep`, and its name there.
_FORMATS = {
    "adp": ("sources.adp", "FORMAT"),
    "agent_flan": ("sources.agent_flan", "FORMAT"),
    "agentbank": ("sources.agentbank", "FORMAT"),
    "agentinstruct": ("sources.agentinstruct", "FORMAT"),
    "agenttraj": ("sources.agenttraj", "FORMAT"),
    "fireact": ("sources.fireact", "FORMAT"),
    "gsm8k": ("annotate.reformat", "GSM8K"),
    "intercode": ("sources.intercode", "FORMAT"),
    "lumos": ("sources.lumos", "FORMAT"),
    "openai": ("sources.openai_messages", "FORMAT"),
    "sharegpt": ("sources.sharegpt", "FORMAT"),
    "spider": ("annotate.reformat", "SPIDER"),
    "transcript": ("sources.transcript", "FORMAT"),
    "xlam": ("sources.xlam", "FORMAT"),
}


def format_names() -> tuple[str, ...]:
  """Returns the names of all formats."""
  return tuple(_FORMATS)


def get_format(name: str) -> "Format":  # noqa: F821  # of data_prep.sources.source, whose modules import this one
  """Returns the format called `name`.

  Raises:
    UserError: there is none.
  """
  if name not in _FORMATS:
    raise UserError(f"unknown format {name!r}{did_you_mean(name, _FORMATS)} (known: {', '.join(_FORMATS)})")
  module, attribute = _FORMATS[name]
  return getattr(importlib.import_module(f"data_prep.{module}"), attribute)
