"""Rearrangement in text rooms: RoomR's rooms and changes (Weihs et al. 2021, arXiv:2103.16544), without its images.

The expert sees the text alone.
"""

from collections.abc import Generator, Iterator
import dataclasses
import random
import re

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.rearrange import RearrangeEnv
from agentbank_jax.tasks import roomr, splits, thor_rooms
from agentbank_jax.tasks.rearrange_expert import Rearranger
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

_MAX_STEPS = 150


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  for instance in splits.choose("rearrange", lambda: roomr.rows(split), split, count, seed):
    yield dataclasses.replace(instance, data=roomr.room(instance.data))


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Sees the text alone; see `Rearranger`."""
  del instance
  yield from Rearranger(observation).solve()


def _random_turn(rng: random.Random, observation: str) -> str:
  """Writes a command about what it has just read of."""
  names = re.findall(r"\b[a-z]+ [0-9]+\b", observation) or ["cabinet 1"]
  numbers = re.findall(r"-?\d+\.\d+", observation) or ["0.00"]
  point = " ".join(rng.choice(numbers) for _ in "xyz")
  return "Action: " + rng.choice((
      f"go to {rng.choice(names)}", f"take {rng.choice(names)}", f"put {rng.choice(names)} at {point}",
      f"open {rng.choice(names)} to {rng.randrange(101)}%", "look", "done"))


TASK = Task(
    name="rearrange",
    skill="embodied",
    held_in=True,
    instructions="""\
You are in a room, in text. First walk through it and remember where things are and how far doors are open; you can \
only go and look. Then say done: something is changed. Put back what has changed, leave the rest as it is, and say \
done again. Each turn, think, then act:
Thought: ...
Action: go to PLACE, look, take THING, put THING at X Y Z, open PLACE to N%, close PLACE, inventory or done
Positions are in metres: x, height and z. You see and reach what is within 1.5 metres of where you stand.""",
    grammar=Grammar(has_answer=False),
    max_steps=_MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="at the end every object is within 5 cm of its goal and every door within 20 points of its openness "
                "(RoomR's success); the reward is RoomR's % fixed strict: the share of changed things that are back, "
                "0 where a thing that was right is not any more",
        definition="RoomR's metrics for its two-phase track (Weihs et al. 2021, arXiv:2103.16544), in a text room: "
                   "real receptacles, standing points, positions and openness of AI2-THOR; no images, ways, rotations, "
                   "hidden things or physics, and 5 cm in place of overlapping boxes. Not comparable with scores on "
                   f"RoomR. {_MAX_STEPS} steps: a walk through the largest room, and back, takes some 100"),
    make_env=RearrangeEnv,
    instances=_instances,
    expert=_expert,
    random_turn=_random_turn,
    source=Source(where=f"{roomr.SOURCE}, in the folder roomr; rooms from the package alfworld",
                  licence="Apache-2.0 (RoomR), MIT (layouts)"),
    progress="share of the changed things that are back in place",
    runs="text rooms on AI2-THOR's layouts, with RoomR's changes",
    packages=thor_rooms.PACKAGES,
    problem="",
)
