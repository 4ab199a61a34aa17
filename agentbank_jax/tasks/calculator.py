"""What all tasks on the calculator share: how they are read, what they score, the expert and the random agent."""

from collections.abc import Generator
import random
import re

from agentbank_jax.envs.base import Instance
from agentbank_jax.tasks.task import Grammar, MetricCard

GRAMMAR = Grammar(has_answer=True)
METRIC = MetricCard(
    reward_range=(0.0, 1.0),
    success="the final answer is the gold number, exactly",
    definition="exact match of the number: '72', '72.0', '$72' and '1,000' are read; words and units are not",
)


def expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Plays `data["steps"]`, pairs of thought and expression, and answers with what the last one gave.

  `{r1}` in an expression stands for the first observation, `{r2}` for the second, and so on.
  """
  results: dict[str, str] = {}
  for n, (thought, expression) in enumerate(instance.data["steps"], start=1):
    observation = yield f"Thought: {thought}\nAction: {expression.format(**results)}"
    results[f"r{n}"] = observation
  yield f"Final Answer: {observation}"


def random_turn(rng: random.Random, observation: str) -> str:
  """Writes an operation on two numbers that it has just read, or one of them for the answer."""
  numbers = re.findall(r"[0-9]+(?:\.[0-9]+)?", observation) or ["1"]
  if rng.random() < 0.3:
    return f"Final Answer: {rng.choice(numbers)}"
  return f"Action: {rng.choice(numbers)} {rng.choice('+-*/')} {rng.choice(numbers)}"
