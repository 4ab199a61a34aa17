"""How much of an ALFWorld game's goal holds: its PDDL goal, read against the engine's facts."""

from collections.abc import Iterable, Iterator, Mapping
import re
from typing import Any

# What an agent can change. All else (what a thing is, where a place is) says which things a goal is about.
_CHANGEABLE = frozenset("atlocation checked holds holdsany inreceptacle isclean iscool ishot ison issliced istoggled "
                        "opened wasinreceptacle".split())

_Facts = Mapping[str, set[tuple[str, ...]]]
_Binding = Mapping[str, str]


class Goal:
  """The goal of one game.

  It is a formula of `and`, `exists`, `not =` and atoms; alfred's games have no other.
  """

  def __init__(self, problem: str, facts: Iterable[tuple[str, ...]]):
    """Reads the goal.

    Args:
      problem: a PDDL problem.
      facts: what holds at the start, predicate first.
    """
    tokens = re.findall(r"[()]|[^\s()]+", problem[problem.index("(:goal"):].lower())
    self._formula = _parse(iter(tokens[1:]))[1]  # without its ":goal"
    self._at_start = max(1, self._unmet(facts))

  def progress(self, facts: Iterable[tuple[str, ...]]) -> float:
    """Returns the share of the conditions that did not hold at the start and now do, from 0 to 1.

    Conditions are the goal's changeable atoms, for the things with which the fewest are still to be met: a
    game of "put a clean mug in a cabinet" has two for each mug.
    """
    return max(0.0, 1 - self._unmet(facts) / self._at_start)

  def _unmet(self, facts: Iterable[tuple[str, ...]]) -> int:
    index: dict[str, set[tuple[str, ...]]] = {}
    for name, *arguments in facts:
      index.setdefault(name.lower(), set()).add(tuple(arguments))
    fewest = _fewest_unmet(self._formula, {}, index)
    if fewest is None:
      raise ValueError("the goal is about things that are not there")
    return fewest


def _parse(tokens: Iterator[str]) -> list[Any]:
  """Returns what stands up to the next closing parenthesis, as nested lists."""
  items: list[Any] = []
  for token in tokens:
    if token == ")":
      break
    items.append(_parse(tokens) if token == "(" else token)
  return items


def _fewest_unmet(formula: list[Any], binding: _Binding, facts: _Facts) -> int | None:
  """Returns the least number of changeable atoms that do not hold, or None where no things fit the formula."""
  if formula[0] == "exists":  # its variables are bound by the atoms that they stand in
    return _fewest_unmet(formula[2], binding, facts) if len(formula) > 2 else 0
  parts = formula[1:] if formula[0] == "and" else [formula]
  nested = [part for part in parts if part[0] in ("and", "exists")]
  atoms = [part for part in parts if part[0] not in ("and", "exists")]
  fixed = [atom for atom in atoms if atom[0] not in _CHANGEABLE and atom[0] != "not"]
  counts = []
  for bound in _bindings(fixed, binding, facts):
    if any(_is_same(atom, bound) for atom in atoms if atom[0] == "not"):
      continue
    inner = [_fewest_unmet(part, bound, facts) for part in nested]
    if None not in inner:
      unmet = sum(not _holds(atom, bound, facts) for atom in atoms if atom[0] in _CHANGEABLE)
      counts.append(unmet + sum(inner))
  return min(counts, default=None)


def _bindings(atoms: list[list[str]], binding: _Binding, facts: _Facts) -> Iterator[_Binding]:
  """Yields the bindings of the atoms' variables under which all of them hold."""
  if not atoms:
    yield binding
    return
  (name, *variables), *others = atoms
  for arguments in facts.get(name, ()):
    bound = _unify(variables, arguments, binding)
    if bound is not None:
      yield from _bindings(others, bound, facts)


def _unify(variables: list[str], arguments: tuple[str, ...], binding: _Binding) -> _Binding | None:
  bound = dict(binding)
  for variable, argument in zip(variables, arguments, strict=True):
    if not variable.startswith("?"):
      if variable != argument.lower():
        return None
    elif bound.setdefault(variable, argument) != argument:
      return None
  return bound


def _holds(atom: list[str], binding: _Binding, facts: _Facts) -> bool:
  """Whether an atom holds for some value of the variables that are not bound (the one agent)."""
  return any(_unify(atom[1:], arguments, binding) is not None for arguments in facts.get(atom[0], ()))


def _is_same(atom: list[Any], binding: _Binding) -> bool:
  """Whether what `(not (= ?a ?b))` forbids is the case, as far as both are bound."""
  _, (_, first, second) = atom
  return first in binding and binding.get(first) == binding.get(second)
