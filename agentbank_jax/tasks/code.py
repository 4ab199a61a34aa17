"""What the tasks on Python code share: how they are read, what they score, the expert and the random agent."""

from collections.abc import Callable, Generator, Iterator
import random

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.code import CodeEnv
from agentbank_jax.tasks import requirements
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task
from agentbank_jax.trajectory import Turn

_MAX_STEPS = 10

_INSTRUCTIONS = """\
Solve the problem in Python 3, with the standard library. Each turn, think, then write the whole program in one block:
Thought: ...
Action:
```python
def double(x):
  return 2 * x
```
It runs on the tests that are shown, and you see what came of them. Hidden tests may follow, so solve the problem, not
the tests. You can hand in once: when you are sure of the program that ran last, end with:
Action: submit"""

_FEW_SHOT = (
    Turn("user", 'Write a function to count the vowels of a word.\n\nassert count_vowels("tree") == 2\n'
                 'assert count_vowels("Oak") == 2', train=False),
    Turn("assistant", "Thought: I count the letters that are one of a, e, i, o, u.\nAction:\n```python\n"
                      'def count_vowels(word):\n  return sum(letter in "aeiou" for letter in word)\n```', train=False),
    Turn("user", "Observation: 1 of 2 tests passed. Failed:\nassert count_vowels(\"Oak\") == 2\n"
                 "  count_vowels(...) returned 1", train=False),
    Turn("assistant", "Thought: Capital letters count too, so I compare in lower case.\nAction:\n```python\n"
                      'def count_vowels(word):\n  return sum(letter in "aeiou" for letter in word.lower())\n```',
         train=False),
    Turn("user", "Observation: 2 of 2 tests passed.", train=False),
    Turn("assistant", "Thought: It passes and handles capitals.\nAction: submit", train=False),
)


def expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Knows the data's own solutions, `data["gold"]`, and hands in the first that does well on the visible tests."""
  del observation
  for solution in instance.data["gold"][:_MAX_STEPS - 1]:
    observation = yield f"Thought: This solves it.\nAction:\n```python\n{solution.rstrip()}\n```"
    if not ("does not run" in observation or "Failed" in observation):
      break
  yield "Thought: I hand it in.\nAction: submit"


def random_turn(rng: random.Random, observation: str) -> str:
  """Writes a short program that has nothing to do with the problem, or hands in."""
  del observation
  if rng.random() < 0.3:
    return "Action: submit"
  name = rng.choice(("solve", "main", "f"))
  return f"Action:\n```python\ndef {name}(*args):\n  return {rng.randint(0, 9)}\nprint({name}())\n```"


def make_task(name: str, instances: Callable[[str, int, int], Iterator[Instance]], source: Source,
              definition: str) -> Task:
  """Returns a task scored by pass@1; `definition` says by which tests, and where they come from."""
  return Task(
      name=name,
      skill="programming",
      held_in=True,
      instructions=_INSTRUCTIONS,
      grammar=Grammar(has_answer=False),
      max_steps=_MAX_STEPS,
      metric=MetricCard(
          reward_range=(0.0, 1.0),
          success="the one program handed in passes all tests of the benchmark (pass@1); nothing handed in is a "
                  "failure",
          definition=f"{definition}. The agent sees how its programs do on the visible tests before it hands one in, "
                     "so its score is an agent's, and not that of one sample without feedback"),
      make_env=CodeEnv,
      instances=instances,
      expert=expert,
      source=source,
      few_shot=_FEW_SHOT,
      random_turn=random_turn,
      # A submission may be hundreds of runs, and wait for those of other episodes; sandboxes end.
      step_seconds=3_600.0,
      runs="Python in a sandbox, and the benchmark's own tests",
      packages=requirements.SANDBOX_PACKAGES,
      programs=requirements.SANDBOX_PROGRAMS)
