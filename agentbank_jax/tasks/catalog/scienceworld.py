"""ScienceWorld (Wang et al. 2022, arXiv:2203.07540): 30 tasks of elementary science in its own simulator.

The expert plays the simulator's gold path, made with full knowledge of the world. All of them reach 100; a few, which
watch a block slide down a rough plane, are longer than an episode may be.
"""

from collections.abc import Generator, Iterator
import functools
import importlib.metadata
import itertools
import json
import random
from typing import Any

from agentbank_jax import cache
from agentbank_jax.envs.base import Env, Instance
from agentbank_jax.envs.java_machine import PROGRAMS
from agentbank_jax.errors import UserError
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

# The simulator's own test variations, by task: the first one and how many follow each other from there.
TEST_VARIATIONS = {
    "boil": (21, 9),
    "change-the-state-of-matter-of": (21, 9),
    "chemistry-mix": (24, 8),
    "chemistry-mix-paint-secondary-color": (27, 9),
    "chemistry-mix-paint-tertiary-color": (27, 9),
    "find-animal": (225, 75),
    "find-living-thing": (225, 75),
    "find-non-living-thing": (225, 75),
    "find-plant": (225, 75),
    "freeze": (21, 9),
    "grow-fruit": (93, 33),
    "grow-plant": (93, 33),
    "identify-life-stages-1": (9, 5),
    "identify-life-stages-2": (6, 4),
    "inclined-plane-determine-angle": (126, 42),
    "inclined-plane-friction-named-surfaces": (1038, 348),
    "inclined-plane-friction-unnamed-surfaces": (120, 42),
    "lifespan-longest-lived": (93, 32),
    "lifespan-longest-lived-then-shortest-lived": (93, 32),
    "lifespan-shortest-lived": (93, 32),
    "measure-melting-point-known-substance": (327, 109),
    "measure-melting-point-unknown-substance": (225, 75),
    "melt": (21, 9),
    "mendelian-genetics-known-plant": (90, 30),
    "mendelian-genetics-unknown-plant": (360, 120),
    "power-component": (15, 5),
    "power-component-renewable-vs-nonrenewable-energy": (15, 5),
    "test-conductivity": (675, 225),
    "test-conductivity-of-unknown-substances": (450, 150),
    "use-thermometer": (405, 135),
}
_PACKAGES = ("scienceworld", "py4j")
_MAX_STEPS = 200
_VERBS = ("activate", "close", "deactivate", "eat", "flush", "focus on", "go to", "look at", "look in", "mix", "open",
          "pick up", "put down", "read", "use")


def _make_env() -> Env:
  from agentbank_jax.envs.scienceworld import ScienceWorldEnv
  return ScienceWorldEnv()


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  """Yields test variations, the tasks in turn: 30 instances have one of each; small tasks run out first."""
  if split != "test":
    raise UserError(f"scienceworld: no {split!r} instances, the task is held out for evaluation; use test")
  if count < 0:
    raise UserError(f"scienceworld: {count} instances asked for; ask for 0 or more")
  have = sum(number for _, number in TEST_VARIATIONS.values())
  if count > have:
    raise UserError(f"scienceworld: {count} test instances asked for, but there are only {have}; ask for fewer")
  orders = []
  for task, (first, number) in TEST_VARIATIONS.items():
    order = list(range(first, first + number))
    random.Random(f"scienceworld/{task}/{seed}").shuffle(order)
    orders.append([(task, variation) for variation in order])
  in_turn = (row for rows in itertools.zip_longest(*orders) for row in rows if row)
  for task, variation in itertools.islice(in_turn, count):
    yield Instance(f"test-{task}-{variation:04d}", split, {"task": task, "variation": variation})


@functools.cache
def _simulator() -> Any:
  """Returns the simulator that gold paths are made in; its Java machine lasts as long as this process."""
  from agentbank_jax.envs.scienceworld import new_simulator
  return new_simulator()


def gold_path(task: str, variation: int) -> list[str]:
  """Returns the gold path, made once and kept in the cache (`cache.py`)."""
  from agentbank_jax.envs import scienceworld
  from agentbank_jax.files import atomic_path

  version = importlib.metadata.version("scienceworld")
  path = cache.folder("scienceworld") / f"gold-{version}" / f"{task}-{variation}.json"
  if not path.exists():
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
      temporary.write_text(json.dumps(scienceworld.gold_path(_simulator(), task, variation)))
  return json.loads(path.read_text())


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Plays the gold path."""
  del observation
  for command in gold_path(**instance.data):
    yield f"Thought: This is the next step of the plan.\nAction: {command}"


def _random_turn(rng: random.Random, observation: str) -> str:
  """Writes a verb and something that it has just read of."""
  phrases = [line.strip().removeprefix("a ").split(",")[0].split("(")[0].split(".")[0].strip()
             for line in observation.splitlines() if line.startswith("\t")]
  things = [phrase.removeprefix("A ") for phrase in phrases if phrase]
  if not things or rng.random() < 0.1:
    return f"Action: {rng.choice(('look around', 'inventory', 'wait', '0'))}"
  return f"Action: {rng.choice(_VERBS)} {rng.choice(things)}"


TASK = Task(
    name="scienceworld",
    skill="embodied",
    held_in=False,
    instructions="""\
You are in a house with a kitchen, a workshop, a greenhouse and more. Carry out the task. Each turn, think, then act:
Thought: ...
Action: look around, look at THING, look in THING, inventory, go to PLACE, open or close THING, pick up THING, \
put down THING, move THING to THING, pour THING in THING, dunk THING in THING, mix THING, activate or deactivate \
THING, connect THING to THING, disconnect THING, use THING on THING, focus on THING, read THING, eat THING, \
flush THING, wait or wait1
Focus on something only when the task asks for it: the wrong thing ends the episode. A list of numbers asks which \
thing you mean: answer with a number alone.""",
    grammar=Grammar(has_answer=False),
    max_steps=_MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success=f"the simulator's score is 100 of 100 within {_MAX_STEPS} steps; the reward is the score / 100, 0 for "
                "a score below 0, which ends the episode",
        definition="ScienceWorld's own score (Wang et al. 2022, arXiv:2203.07540). The package stops after 100 steps "
                   f"where it is not told otherwise; {_MAX_STEPS}, for gold paths have up to 194, but for a few that "
                   "watch a block slide for hundreds of steps. No simplifications"),
    make_env=_make_env,
    instances=_instances,
    expert=_expert,
    random_turn=_random_turn,
    source=Source(
        where="the package scienceworld, its own test variations (1819), the tasks in turn", licence="Apache-2.0"),
    progress="the simulator's score",
    processes=True,
    runs="ScienceWorld's simulator on Java",
    packages=_PACKAGES,
    programs=PROGRAMS,
    problem="",
)
