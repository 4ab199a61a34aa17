"""Generated word problems of one to three steps, in the form of AgentBank's GSM8K trajectories.

A problem is a chain of events, each with one operation: "Mia fills 12 boxes with 7 pens each. Then Mia sells
5 pens." The operands stand in the problem or in an earlier observation; the calculator does the arithmetic.
"""

from collections.abc import Iterator, Sequence
import random
import re
from typing import Any, NamedTuple

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.calculator import CalculatorEnv
from agentbank_jax.envs.calculator_eval import evaluate
from agentbank_jax.tasks import calculator, splits
from agentbank_jax.tasks.task import Source, Task
from agentbank_jax.tasks.words import NAMES

_THINGS = ("apples", "balls", "books", "cakes", "cards", "coins", "cups", "eggs", "hats", "maps", "nuts",
           "pears", "pens", "rings", "shells", "stamps", "toys")
_LARGEST = 999  # result


class _Event(NamedTuple):
  """A sentence and what it does.

  Attributes:
    text: `{x}` and `{y}` are people, `{u}` is what is counted, `{things}` are other things, `{a}` and
      `{b}` numbers; of `[one|another]` one is chosen.
    expression: of the numbers, and of `{r}`, what there was before.
  """

  text: str
  expression: str


# By what is counted: how a story starts, and how it goes on.
_STARTS = {
    "things": (
        _Event("{x} has {a} {u} and [finds|gets] {b} more.", "{a} + {b}"),
        _Event("{x} has {a} {u} and {y} has {b}.", "{a} + {b}"),
        _Event("{x} has {a} {u} and [loses|sells] {b}.", "{a} - {b}"),
        _Event("{x} fills {a} [boxes|bags|jars] with {b} {u} each.", "{a} * {b}"),
        _Event("{x} keeps one of {b} equal parts of {a} {u}.", "{a} / {b}"),
    ),
    "dollars": (
        _Event("{x} has {a} dollars and [finds|gets] {b} more.", "{a} + {b}"),
        _Event("{x} has {a} dollars and [pays|spends] {b}.", "{a} - {b}"),
        _Event("{x} sells {a} {things} for {b} dollars each.", "{a} * {b}"),
        _Event("{x} works {a} hours for {b} dollars an hour.", "{a} * {b}"),
        _Event("{x} keeps one of {b} equal parts of {a} dollars.", "{a} / {b}"),
    ),
    "pages": (
        _Event("{x} [reads|writes] {a} pages on Monday and {b} on Friday.", "{a} + {b}"),
        _Event("{x} [reads|writes] {a} pages a day for {b} days.", "{a} * {b}"),
    ),
    "miles": (
        _Event("{x} walks {a} miles and [drives|rides] {b}.", "{a} + {b}"),
        _Event("{x} [drives|rides] {a} miles an hour for {b} hours.", "{a} * {b}"),
    ),
}
_MORE = {
    "things": (
        _Event("Then {x} [finds|gets] {b} {u} more.", "{r} + {b}"),
        _Event("Then {x} [loses|sells] {b} {u}.", "{r} - {b}"),
        _Event("Then {y} has {b} times as many {u}.", "{r} * {b}"),
        _Event("Then {x} keeps one of {b} equal parts.", "{r} / {b}"),
        _Event("Then {y} gets the rest of {b} {u}.", "{b} - {r}"),
    ),
    "dollars": (
        _Event("Then {x} [finds|gets] {b} dollars more.", "{r} + {b}"),
        _Event("Then {x} [pays|spends] {b} dollars.", "{r} - {b}"),
        _Event("Then {y} has {b} times as many dollars.", "{r} * {b}"),
        _Event("Then {x} keeps one of {b} equal parts.", "{r} / {b}"),
        _Event("Then {y} gets the rest of {b} dollars.", "{b} - {r}"),
    ),
    "pages": (
        _Event("Then {x} [reads|writes] {b} pages more.", "{r} + {b}"),
        _Event("Then {y} [reads|writes] {b} times as many pages.", "{r} * {b}"),
        _Event("Then {y} [reads|writes] the rest of {b} pages.", "{b} - {r}"),
    ),
    "miles": (
        _Event("Then {x} [drives|rides] {b} miles more.", "{r} + {b}"),
        _Event("Then {x} goes {b} miles back.", "{r} - {b}"),
        _Event("Then {y} goes {b} times as many miles.", "{r} * {b}"),
        _Event("Then {y} goes the rest of {b} miles.", "{b} - {r}"),
    ),
}
_ADD_BOTH = _Event("Then they add both.", "{r1} + {r2}")
_QUESTION = "How many {u} is that [now|in the end|after all]?"
_LENGTHS = (1, 2, 2, 3, 3)  # steps of a story, by weight
_TWO_STARTS = 0.2  # share of the stories of three


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.generate("arithmetic", _make, split, count, seed)


def _make(rng: random.Random) -> tuple[str, dict[str, Any]]:
  """Returns a problem. Its content is events and numbers: no test problem is a train problem renamed."""
  while True:
    unit, length = rng.choice(list(_STARTS)), rng.choice(_LENGTHS)
    if length == 3 and rng.random() < _TWO_STARTS:
      events = [*rng.choices(_STARTS[unit], k=2), _ADD_BOTH]
    else:
      events = [rng.choice(_STARTS[unit]), *rng.choices(_MORE[unit], k=length - 1)]
    numbers = _draw_numbers(rng, events)
    if numbers:
      break
  things, others = rng.sample(_THINGS, 2)
  words = {"u": things if unit == "things" else unit, "things": others}
  words["x"], words["y"] = rng.sample(NAMES, 2)
  sentences, expressions = [], []
  for i, (event, known) in enumerate(zip(events, numbers, strict=True)):
    if i == 1 and events[-1] is _ADD_BOTH:
      words["x"], words["y"] = words["y"], words["x"]  # the second story is the other one's
    sentences.append(_choose(rng, event.text).format(**words, **known))
    # Results are not known before they are observed: the expert fills them in.
    unknown = {"r": f"{{r{i}}}", "r1": "{r1}", "r2": "{r2}"}
    expressions.append(event.expression.format_map(known | unknown))
  question = _choose(rng, _QUESTION).format(**words)
  content = " ".join([*(event.text for event in events), *expressions])
  return content, {"question": " ".join([*sentences, question]), "answer": numbers[-1]["result"],
                   "steps": [list(step) for step in zip(sentences, expressions, strict=True)]}


def _draw_numbers(rng: random.Random, events: Sequence[_Event]) -> list[dict[str, str]] | None:
  """Returns `a`, `b` and `result` of each event, as far as it has them, or None where they do not work out.

  All numbers differ: no operand stands for another by accident, and the answer is not in the problem.
  """
  drawn: list[dict[str, int]] = []
  results: dict[str, int] = {}
  for i, (_, expression) in enumerate(events, start=1):
    before = results.get("r", 0)
    a = b = rng.randint(2, 99)
    match expression:
      case "{a} + {b}":
        a = rng.randint(2, 99)
      case "{a} - {b}":
        a = b + rng.randint(2, 99)
      case "{a} * {b}":
        a, b = rng.randint(2, 60), rng.randint(2, 15)
      case "{a} / {b}":
        b = rng.randint(2, 12)
        a = b * rng.randint(2, 60)
      case "{r} * {b}":
        b = rng.randint(2, 9)
      case "{r} / {b}":
        b = rng.choice([n for n in range(2, 13) if before % n == 0] or [2])
      case "{b} - {r}":
        b += before
    numbers = {name: n for name, n in (("a", a), ("b", b)) if f"{{{name}}}" in expression}
    value = evaluate(expression.format(**numbers, **results))
    if not 2 <= value <= _LARGEST or value != int(value):
      return None
    results |= {"r": int(value), f"r{i}": int(value)}
    drawn.append(numbers | {"result": int(value)})
  values = [n for numbers in drawn for n in numbers.values()]
  if len(set(values)) < len(values):
    return None
  return [{name: str(n) for name, n in numbers.items()} for numbers in drawn]


def _choose(rng: random.Random, text: str) -> str:
  return re.sub(r"\[([^]]*)\]", lambda match: rng.choice(match[1].split("|")), text)


TASK = Task(
    name="arithmetic",
    skill="math",
    held_in=True,
    instructions="",
    grammar=calculator.GRAMMAR,
    max_steps=8,
    metric=calculator.METRIC,
    make_env=CalculatorEnv,
    instances=_instances,
    expert=calculator.expert,
    random_turn=calculator.random_turn,
    runs="a calculator",
    stands_in_for="gsm8k",
    source=Source(where="generated", licence="Apache-2.0"),
)
