"""ALFWorld (Shridhar et al. 2021, arXiv:2010.03768): its own games, in its own engine.

Two experts: the one below explores, from the text alone; `walkthrough` plays the plan that every game brings, made
with full knowledge of the house. A walkthrough goes straight to a thing that the agent has not seen: as imitation
data it teaches to guess.
"""

from collections.abc import Generator, Iterator

from agentbank_jax.envs.base import Env, Instance
from agentbank_jax.tasks import alfworld_games, splits
from agentbank_jax.tasks.catalog.household import INSTRUCTIONS, random_turn
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

_MAX_STEPS = 50


def _make_env() -> Env:
  from agentbank_jax.envs.alfworld import AlfworldEnv
  return AlfworldEnv(alfworld_games.folder())


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("alfworld", lambda: alfworld_games.rows(split), split, count, seed)


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Explores; see `AlfworldExplorer`."""
  from agentbank_jax.tasks.alfworld_explorer import AlfworldExplorer

  del instance
  yield from AlfworldExplorer(observation).solve()


def walkthrough(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Plays the game's own walkthrough."""
  del observation
  for command in alfworld_games.walkthrough(instance.data["game"]):
    yield f"Thought: This is the next step of the walkthrough.\nAction: {command}"


TASK = Task(
    name="alfworld",
    skill="embodied",
    held_in=True,
    instructions=INSTRUCTIONS,
    grammar=Grammar(has_answer=False),
    max_steps=_MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success=f"the engine says that the game is won within {_MAX_STEPS} steps; reward 1 then, else 0",
        definition="ALFWorld's success rate (Shridhar et al. 2021, arXiv:2010.03768), and its own limit "
                   "(max_nb_steps_per_episode in its configuration); ETO (arXiv:2403.02502) stops after 40"),
    make_env=_make_env,
    instances=_instances,
    expert=_expert,
    random_turn=random_turn,
    source=Source(
        where=alfworld_games.SOURCE,
        licence="MIT",
        contamination="Published trajectories that were made before alfworld 0.4 say 'put X in/on Y' where it now is "
                      "'move X to Y', and read 'On the shelf 1, you see' where it now is 'You arrive at shelf 1. On "
                      "the shelf 1, you see'. The old command is understood."),
    progress="share of the goal's conditions that did not hold at the start and now do, from the engine's state",
    processes=True,
    runs="alfworld's TextWorld engine on its own games",
    packages=("alfworld", "textworld", "fast-downward-textworld"),
    problem="",
)
