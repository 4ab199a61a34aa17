"""Lint: what published trajectories get wrong, found by rule, counted, and dropped where the config says so.

The rules come from audits of released agent data: AgentBank's own known rows, and the findings that
users of AgentInstruct, ETO and others reported.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
import re
from typing import Any

from rich.console import Console

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.trajectory import Trajectory, Turn
from data_prep.ledger import MAX_EXAMPLES

ACTIONS = ("report", "drop")

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_ACTION = re.compile(r"^Action:", re.MULTILINE)


def empty_turn(t: Trajectory) -> bool:
  """A turn of white space alone."""
  return any(not turn.content.strip() for turn in t.turns)


def role_order(t: Trajectory) -> bool:
  """A system turn that is not the first, no user turn in front of the agent's, or two of one kind in a row.

  Several tool turns may follow each other: they answer several calls.
  """
  kinds = [turn.role for turn in t.turns]
  if kinds[0] == "system":
    kinds = kinds[1:]
  repeated = any(a == b != "tool" for a, b in zip(kinds, kinds[1:], strict=False))
  return not kinds or kinds[0] != "user" or "system" in kinds or repeated


def observation_count(t: Trajectory) -> bool:
  """In text with `Action:` and `Observation:` marks: not one observation for every action but the last."""
  actions = sum(len(_ACTION.findall(turn.content)) for turn in t.turns if turn.role == "assistant")
  observations = sum(turn.content.startswith("Observation:") for turn in t.turns if turn.role != "assistant")
  return observations > 0 and observations not in (actions, actions - 1)


def truncated_observation(t: Trajectory) -> bool:
  """An observation that ends in "..." or "…": somebody cut it, and the agent was shown more."""
  return any(turn.content.rstrip().endswith(("...", "…")) for turn in _observations(t))


def ansi_escape(t: Trajectory) -> bool:
  """A terminal's colour codes."""
  return any(_ANSI.search(turn.content) for turn in t.turns)


def calculator_error(t: Trajectory) -> bool:
  """A gsm8k observation that reports an error, as those of AgentBank's rows 2480 and 5563 do."""
  return t.task == "gsm8k" and any("error" in turn.content.lower() for turn in _observations(t))


def single_action(t: Trajectory) -> bool:
  """An agent with one turn: no interaction to learn from."""
  return sum(turn.role == "assistant" for turn in t.turns) == 1


def last_turn(t: Trajectory) -> bool:
  """The last turn is not the agent's."""
  return t.turns[-1].role != "assistant"


def no_trained_turn(t: Trajectory) -> bool:
  """No turn has loss: nothing to train on."""
  return not any(turn.train for turn in t.turns)


RULES: dict[str, Callable[[Trajectory], bool]] = {
    rule.__name__: rule
    for rule in (empty_turn, role_order, observation_count, truncated_observation, ansi_escape,
                 calculator_error, single_action, last_turn, no_trained_turn)}


def _observations(t: Trajectory) -> Iterator[Turn]:
  """Yields the environment's turns behind the agent's first."""
  started = False
  for turn in t.turns:
    if turn.role == "assistant":
      started = True
    elif started:
      yield turn


class Linter:
  """Applies the rules to the trajectories of one data set, and counts what they find.

  Beside `RULES` there is `duplicate_id`, which needs to see them all.
  """

  def __init__(self, actions: Mapping[str, str]):
    """Takes "report" or "drop" for every rule.

    Raises:
      UserError: a rule is missing or unknown, or its action is.
    """
    names = (*RULES, "duplicate_id")
    for name, action in actions.items():
      if name not in names:
        close = did_you_mean(name, names)
        raise UserError(f"lint: unknown rule {name!r}{close} (known: {', '.join(names)})")
      if action not in ACTIONS:
        raise UserError(f"lint.{name} is {action!r}, expected {' or '.join(ACTIONS)}")
    for name in names:
      if name not in actions:
        raise UserError(f"lint.{name} is missing: say {' or '.join(ACTIONS)}")
    if actions["duplicate_id"] != "drop":
      raise UserError("lint.duplicate_id must be drop: a data set cannot hold one id twice")
    self.actions = dict(actions)
    self.counts: Counter[str] = Counter()
    self.examples: defaultdict[str, list[str]] = defaultdict(list)
    self._seen: set[str] = set()

  def check(self, trajectory: Trajectory) -> str | None:
    """Returns the first rule that drops `trajectory`, or None. Counts every rule that it breaks."""
    broken = [name for name, rule in RULES.items() if rule(trajectory)]
    if trajectory.id in self._seen:
      broken.append("duplicate_id")
    self._seen.add(trajectory.id)
    for name in broken:
      self.counts[name] += 1
      if len(self.examples[name]) < MAX_EXAMPLES:
        self.examples[name].append(trajectory.id)
    return next((name for name in broken if self.actions[name] == "drop"), None)

  def to_json(self) -> dict[str, Any]:
    """Returns action, count and example ids of every rule."""
    return {name: {"action": action, "count": self.counts[name], "examples": self.examples.get(name, [])}
            for name, action in self.actions.items()}

  def print(self, console: Console | None = None) -> None:
    """Prints the rules that found something, with example ids."""
    console = console or Console()
    for name, count in self.counts.most_common():
      ids = ", ".join(self.examples[name])
      line = f"lint {name} ({self.actions[name]}): {count:,} rows; for example {ids}"
      console.print(line, markup=False, highlight=False)
