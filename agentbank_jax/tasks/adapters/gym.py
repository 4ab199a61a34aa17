"""Text environments of gymnasium's registry: `gym:package:EnvId-v0`, and options behind a `?`.

An instance is a seed for `reset`. Seeds of the two splits differ; whether the environment makes different problems
of different seeds is its own affair.
"""

from collections.abc import Iterator
import functools
import random
import re
from typing import Any

from agentbank_jax.envs.base import Env, Instance
from agentbank_jax.tasks import adapter_options, splits
from agentbank_jax.tasks.task import SKILLS, Grammar, MetricCard, Source, Task

_OPTIONS = {
    "actions": lambda text: tuple(text.split(",")),
    "success": float,
    "max_steps": int,
    "skill": adapter_options.one_of(*SKILLS),
}
_SEEDS = 2**31


def make_task(name: str, what: str) -> Task:
  """Returns the task that plays `gymnasium.make(what)`.

  Options:
    actions: names of discrete actions, for an environment that has none of its own ("left,right").
    success: the least sum of rewards of a solved episode; 1 where it is not given.
    max_steps: 50 where it is not given; the environment's own limit holds too.
    skill: embodied where it is not given.
  """
  id, options = adapter_options.parse(name, what, _OPTIONS)
  success, actions = options.get("success", 1.0), options.get("actions", ())
  return Task(
      name=name,
      skill=options.get("skill", "embodied"),
      held_in=True,
      instructions="""\
Act in the environment. Each turn, think, then write one action:
Thought: ...
Action: ...""",
      grammar=Grammar(has_answer=False),
      max_steps=options.get("max_steps", 50),
      metric=MetricCard(
          reward_range=(0.0, max(1.0, success)),
          success="the environment ends the episode, and its info says success or, where it does not say, the "
                  f"rewards sum to {success:g} or more",
          definition="the environment's own rewards, summed"),
      make_env=functools.partial(_make_env, id, success, actions),
      instances=functools.partial(_instances, name),
      expert=None,
      source=Source(where=f"gymnasium's registry: {id}", licence="of the environment's package"),
      random_turn=_random_turn,
      processes=True,
      runs="an environment of gymnasium's registry",
      packages=("gymnasium",),
      problem="")


def _make_env(id: str, success: float, actions: tuple[str, ...]) -> Env:
  from agentbank_jax.envs.gym_text import GymTextEnv
  return GymTextEnv(id, success, actions)


def _instances(name: str, split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.generate(name, _draw, split, count, seed)


def _draw(rng: random.Random) -> tuple[str, dict[str, Any]]:
  seed = rng.randrange(_SEEDS)
  return str(seed), {"seed": seed}


def _random_turn(rng: random.Random, observation: str) -> str:
  """Writes one of the actions that the first observation names, else a word that it has just read."""
  _, _, listed = observation.rpartition("\n\nActions: ")
  choices = listed.split(", ") if listed != observation else re.findall(r"\w+", observation)
  return f"Action: {rng.choice(choices or ['wait'])}"
