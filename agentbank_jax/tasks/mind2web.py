"""What the tasks on Mind2Web share: candidates, how they are read, what they score, expert and random agent.

Candidates. The published evaluation lets the 50 elements through that a fine-tuned DeBERTa ranks highest, and asks
about five at a time. Here the agent sees all candidates of a step at once, at most `CANDIDATES`. Where the rows have
the ranker's `rank`, the 50 highest are taken and the right one may be missing, as published. Where they have none,
the right ones are kept and the rest are drawn, by the step's id: then nothing is lost to the ranker (whose recall is
0.85 to 0.89 in the paper), wrong candidates are easier, and scores are not comparable with published ones.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
import random
import re
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.mind2web import OPERATIONS, Mind2WebEnv
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

CANDIDATES = 50

_INSTRUCTIONS = """\
Complete a task on a website. Each turn you see the elements of the page; think, then choose one and what to do:
Thought: ...
Action: CLICK [number], TYPE [number] text, or SELECT [number] option"""


def choose_candidates(right: Sequence[Any], wrong: Sequence[Any], key: str) -> set[Any]:
  """Returns the right ones and as many of the wrong ones as fit, drawn by `key`."""
  rest = list(wrong)
  random.Random(f"mind2web {key}").shuffle(rest)
  return {*right, *rest[:max(0, CANDIDATES - len(right))]}


def expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Plays the annotated actions; where the element is not among the candidates it chooses the first."""
  del observation
  for step in instance.data["steps"]:
    number = step["targets"][0] if step["targets"] else 0
    value = f" {step['value']}" if step["operation"] != "CLICK" else ""
    yield (f"Thought: The element is {step['candidates'][number]}.\n"
           f"Action: {step['operation']} [{number}]{value}")


def random_turn(rng: random.Random, observation: str) -> str:
  """Chooses an element and an operation; what it types is a word of the page."""
  numbers = re.findall(r"^\[(\d+)\]", observation, re.MULTILINE) or ["0"]
  operation = rng.choice(OPERATIONS)
  value = f" {rng.choice(observation.split() or ['x'])}" if operation != "CLICK" else ""
  return f"Thought: hm.\nAction: {operation} [{rng.choice(numbers)}]{value}"


def make_task(name: str, instances: Callable[[str, int, int], Iterator[Instance]], source: Source,
              definition: str, packages: tuple[str, ...] = ()) -> Task:
  """Returns a task on the offline evaluation; `definition` says what its score is."""
  return Task(
      name=name,
      skill="web",
      held_in=True,
      instructions=_INSTRUCTIONS,
      grammar=Grammar(has_answer=False),
      max_steps=60,  # the longest annotated task has half as many
      metric=MetricCard(
          reward_range=(0.0, 1.0),
          success="every step has the right element and operation (task success); the reward is the share of steps "
                  "that have (step success), so its mean is the published macro average",
          definition=definition),
      make_env=Mind2WebEnv,
      instances=instances,
      expert=expert,
      source=source,
      random_turn=random_turn,
      runs="offline choice of elements and operations",
      packages=packages,
      stands_in_for="" if name == "mind2web" else "mind2web",
      problem="task",
      progress="share of the task's steps that are right so far",
  )


def make_step(candidates: Sequence[str], targets: Sequence[int], operation: str, value: str,
              action: str) -> Mapping[str, Any]:
  """Returns a step of `Mind2WebEnv`."""
  return {"candidates": list(candidates), "targets": list(targets), "operation": operation, "value": value,
          "action": action}
