"""What the tasks on mathematical problems share: how the tools are explained, and the random agent."""

from collections.abc import Sequence
import random
import re

from agentbank_jax.tasks.requirements import SANDBOX_PACKAGES
from agentbank_jax.tasks.task import Grammar

GRAMMAR = Grammar(has_answer=True)
MAX_STEPS = 15
RUNS = "a calculator, and Python in a sandbox"
PACKAGES = (*SANDBOX_PACKAGES, "math-verify", "latex2sympy2_extended", "sympy")  # these compare answers by value

INSTRUCTIONS = """\
Solve the problem. Each turn, think, then use a calculator or run a Python program, which must print what you want \
to see:
Thought: ...
Action: (48 + 2) * 3
or
Thought: ...
Action:
```python
print(sum(range(10)))
```
When you know the answer, write {answer}:
Final Answer: {example}"""


def random_turn(rng: random.Random, observation: str, answers: Sequence[str] = ()) -> str:
  """Calculates with the numbers it reads, and answers with one of them or with one of `answers`."""
  numbers = re.findall(r"\d+(?:\.\d+)?", observation)[:20] or ["1"]
  if rng.random() < 0.3:
    return f"Final Answer: {rng.choice(answers or numbers)}"
  return f"Thought: I try this.\nAction: {rng.choice(numbers)} {rng.choice('+-*/')} {rng.choice(numbers)}"
