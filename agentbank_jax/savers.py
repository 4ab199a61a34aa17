"""Which change of a config makes it fit: the search, given someone who tries a config."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ml_collections import ConfigDict

from agentbank_jax.errors import UserError

Program = TypeVar("Program")

# What is tried, one after the other and each on top of the last. Ordered by what it costs: recomputation, precision of
# a moment, smaller micro-batches, at last adapters in place of all weights; in decoding, fewer conversations at once.
_DOUBLE, _HALF = "twice", "half"
SAVERS = {
    "train": (
        ("execution.remat", "full"),
        ("execution.compute_dtype", "bfloat16"),
        ("optim.mu_dtype", "bfloat16"),
        ("data.micro_batches", _DOUBLE),
        ("data.micro_batches", _DOUBLE),
        ("model.lora.rank", 16),
        ("model.lora.base", "int8"),
    ),
    "decode": (
        ("execution.compute_dtype", "bfloat16"),
        ("compile.slots", _HALF),
        ("compile.slots", _HALF),
        ("compile.slots", _HALF),
    ),
}


class OutOfMemory(Exception):
  """A program does not fit; the message is the compiler's reason."""


def nearest_that_fits(config: ConfigDict, attempt: Callable[[ConfigDict], Program]
                      ) -> tuple[dict[str, Any], Program | None]:
  """Looks for the cheapest changes after which a config fits.

  Args:
    config: one that does not fit.
    attempt: compiles a config; raises OutOfMemory, or UserError where the config cannot be.

  Returns:
    (changes, their program): of `SAVERS`, and none that could be left out; ({}, None) where all together do not do.
  """
  flat, changes = dict(_flatten(config)), {}
  for key, value in SAVERS[config.compile.step]:
    now = changes.get(key, flat[key])
    value = now * 2 if value == _DOUBLE else now // 2 if value == _HALF else value
    if flat[key] == value or (key == "model.lora.rank" and flat[key]) or _without_meaning(key, flat, changes):
      continue
    program = _tried(config, changes | {key: value}, attempt)
    if isinstance(program, UserError):
      continue
    changes[key] = value
    if program is not None:
      return _needed(config, changes, program, attempt)
  return {}, None


def changed(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
  """Returns a copy of `config` with changes, named as on the command line."""
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(changes)
  return config


def as_flags(changes: dict[str, Any]) -> str:
  return " ".join(f"--config.{key}={value}" for key, value in changes.items())


def _without_meaning(key: str, flat: dict[str, Any], changes: dict[str, Any]) -> bool:
  """Whether a setting is read only with adapters, and there are none."""
  return key == "model.lora.base" and not (flat | changes)["model.lora.rank"]


def _needed(config, changes, program, attempt):
  """Leaves out what later changes made needless, the dearest first; the last one is needed."""
  for key in list(changes)[-2::-1]:
    fewer = {k: v for k, v in changes.items() if k != key}
    found = _tried(config, fewer, attempt)
    if found is not None and not isinstance(found, UserError):
      changes, program = fewer, found
  return changes, program


def _tried(config, changes, attempt):
  """Returns the program, None where it does not fit, or the UserError of a config that cannot be."""
  print(f"trying {as_flags(changes)}", flush=True)
  try:
    return attempt(changed(config, changes))
  except OutOfMemory as e:
    print(f"does not fit: {str(e)[:160]}", flush=True)
    return None
  except UserError as e:
    print(f"cannot be: {e}", flush=True)
    return e


def _flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _flatten(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
