"""What TextWorld computes and copies again and again in ALFWorld's games, done once.

A step of a stock game takes ten times what it must: TextWorld parses each piece of its text grammar with a general
parser every time it is used, copies names and bindings deeply for every piece, and translates the game's PDDL four
times to load and reset it once. `install` puts memos before these functions of the installed packages, in this
process and without touching their files. The functions depend on their arguments alone, and what is no longer
copied is never written to, so what is observed does not change; tests compare it with the stock engine's.
"""

from collections.abc import Callable
import copy
import functools
import sys
from typing import Any

_GAMES = 2  # translations kept: those of the game that is being loaded and of the one before it
_TEXTS = 10_000  # parsed pieces of grammar kept; a game has some two hundred


@functools.cache
def install() -> None:
  """Puts the memos in place. Does nothing the second time."""
  import fast_downward
  from textworld.envs.pddl import textgen
  from textworld.logic import Rule

  fast_downward.pddl2sas = _translate_once(fast_downward.pddl2sas)
  textgen._parse_and_convert = _parse_once(textgen._parse_and_convert)
  textgen.copy_context = _copy_context
  textgen.Symbol.__deepcopy__ = _copy_symbol
  Rule.parse_conjunctive_query = staticmethod(functools.lru_cache(_TEXTS)(Rule.parse_conjunctive_query))


def _translate_once(pddl2sas: Callable[..., Any]) -> Callable[..., Any]:
  """The translation to the planner's form, of which nothing here reads the second, `optimize`d kind.

  That kind serves the engine's own planner (`policy_commands`), which is not asked for anything.
  """
  @functools.lru_cache(_GAMES)
  def translate(domain: str, problem: str) -> Any:
    arguments = sys.argv
    try:
      return pddl2sas(domain, problem)
    finally:
      sys.argv = arguments  # the translator sets it

  def memo(domain: str, problem: str, verbose: bool = False, optimize: bool = False) -> Any:
    del verbose, optimize
    return translate(domain, problem)

  return memo


def _parse_once(parse: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
  """The parser of a piece of grammar. Its symbols are written to by those who use them: each gets copies."""
  @functools.lru_cache(_TEXTS)
  def symbols(text: str, rule_name: str) -> list[Any]:
    return parse(text, rule_name=rule_name)

  def memo(text: str, rule_name: str, trace: bool = False) -> list[Any]:
    del trace
    return copy.deepcopy(symbols(text, rule_name))

  return memo


def _copy_context(context: dict[str, Any]) -> dict[str, Any]:
  """A context of its own, into which its owner may bind more names; the things that are named are shared."""
  return context | {"variables": dict(context["variables"]), "mapping": dict(context["mapping"])}


def _copy_symbol(symbol: Any, memo: dict[int, Any]) -> Any:
  """A symbol of its own; its context, which whoever copies it replaces, is shared."""
  twin = copy.copy(symbol)
  for name, value in vars(symbol).items():
    if name != "context":
      setattr(twin, name, copy.deepcopy(value, memo))
  return twin
