"""Interactive question answering in text rooms: IQUAD V1's questions (Gordon et al. 2018, arXiv:1712.03316).

The expert sees the text alone.
"""

from collections.abc import Generator, Iterator
import dataclasses
import random
import re

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.household_world import kind
from agentbank_jax.envs.iqa import IqaEnv
from agentbank_jax.tasks import iquad, splits, thor_rooms
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

_MAX_STEPS = 100

# How questions name what they are about; "loaf of bread" has bread, and "heads of lettuce" lettuce.
_PLURALS = {"potatoes": "potato", "tomatoes": "tomato", "knives": "knife"}
_CONTAINER = re.compile(r"\bin (?:the|an?) (garbage can|microwave|fridge|cabinet)\b")


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  for instance in splits.choose("iqa", lambda: iquad.rows(split), split, count, seed):
    yield dataclasses.replace(instance, data=iquad.room(instance.data))


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Looks wherever the thing can be, until the answer is certain; knows only what it has read."""
  del instance
  room, _, question = observation.partition("\nQuestion: ")
  places = re.findall(r"\ba (\w+ \d+)", room)
  wanted, container, is_count = read_question(question)
  count = 0
  for place in places:
    if container and kind(place) != container:
      continue
    view = yield f"Thought: I must know whether there is a {wanted} at {place}.\nAction: go to {place}"
    if "is closed." in view:
      view = yield f"Thought: I must look into {place}.\nAction: open {place}"
    count += len(re.findall(rf"\ba {wanted} \d+", view))
    if count and not is_count:
      break
  if is_count:
    yield f"Thought: I have looked everywhere and seen {count}.\nFinal Answer: {count}"
  elif count:
    yield f"Thought: There is a {wanted}.\nFinal Answer: yes"
  else:
    yield f"Thought: I have looked everywhere and seen no {wanted}.\nFinal Answer: no"


def read_question(question: str) -> tuple[str, str, bool]:
  """Returns the kind of thing a question is about, the kind of container or "", and whether it asks for a number."""
  text = question.lower()
  within = _CONTAINER.search(text)
  words = re.findall(r"[a-z]+", text[:within.start()] if within else text)
  singular = [_PLURALS.get(word, word.removesuffix("s")) for word in words]
  wanted = next(word for word in singular if word in iquad.OBJECTS.values())
  is_count = bool(re.search(r"how many|count", text))
  return wanted, within[1].replace(" ", "") if within else "", is_count


def _random_turn(rng: random.Random, observation: str) -> str:
  """Goes to or opens what it has just read of, or answers."""
  names = re.findall(r"\b[a-z]+ [0-9]+\b", observation)
  if not names or rng.random() < 0.1:
    return f"Final Answer: {rng.choice(('yes', 'no', '0', '1', '2', '3'))}"
  return f"Action: {rng.choice(('go to', 'open', 'close', 'examine'))} {rng.choice(names)}"


TASK = Task(
    name="iqa",
    skill="embodied",
    held_in=True,
    instructions="""\
You are in a kitchen, in text. Look around and answer the question. Each turn, think, then act:
Thought: ...
Action: go to PLACE, open PLACE, close PLACE, examine PLACE or look
When you know the answer, end with yes or no, or with a number:
Final Answer: yes""",
    grammar=Grammar(has_answer=True),
    max_steps=_MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="the answer is right (reward 1); guessing has 50, 25 and 50% (existence, counting, contains)",
        definition="IQUAD V1's accuracy (Gordon et al. 2018, arXiv:1712.03316), in a text room: a real AI2-THOR "
                   "kitchen's receptacles, filled by us so that the published answers are true; no images, ways or "
                   f"physics. Not comparable with scores on IQUAD. {_MAX_STEPS} steps: the largest kitchen has 47 "
                   "places, 42 of them to be opened"),
    make_env=IqaEnv,
    instances=_instances,
    expert=_expert,
    random_turn=_random_turn,
    source=Source(where=f"{iquad.SOURCE}, in the folder iqa; rooms from the package alfworld",
                  licence="Apache-2.0 (IQUAD), MIT (layouts)"),
    runs="text rooms on AI2-THOR's layouts, with IQUAD's questions",
    packages=thor_rooms.PACKAGES,
)
