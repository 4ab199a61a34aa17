"""ALFWorld's text games (Shridhar et al. 2021, arXiv:2010.03768) in their own engine: alfworld on TextWorld.

The engine decides what happens and what is read; what it computes more than once is remembered
(`alfworld_memo.py`). It captures `sys.stdout` while it loads a game, and its memory grows with every game: it
belongs into a worker process that is replaced from time to time (`Task.processes`).
"""

import json
import pathlib
from typing import Any

from agentbank_jax.envs.alfworld_goal import Goal
from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.household import NOTHING, current_command
from agentbank_jax.errors import UserError

# Engines that no environment uses. Each has a copy of the planner's library, which cannot be unloaded: after
# `fast_downward.close_lib`, the next copy crashes the process. To load a game is to forget the one before.
_idle: list[Any] = []

_WELCOME = "-= Welcome to TextWorld, ALFRED! =-\n\n"


class AlfworldEnv:
  """One game at a time. `Instance.data`: `game`, the folder of a `game.tw-pddl`.

  Commands are those of ALFWorld 0.4; "put X in/on Y", as it was before, is "move X to Y", and `Step.info` says
  so ("translated"). The reward is 1 when the engine says that the game is won, else 0. `Step.info` has
  "progress": see `Goal.progress`.
  """

  def __init__(self, games: pathlib.Path):
    """`games` is the folder that has "train", "valid_seen" and "valid_unseen"."""
    self._games = games
    self._engine: Any = None

  def reset(self, instance: Instance) -> str:
    path = self._games / instance.data["game"] / "game.tw-pddl"
    self._engine = self._engine or (_idle.pop() if _idle else _new_engine())
    self._engine.load(str(path))
    text = self._engine.reset().feedback
    self._goal = Goal(json.loads(path.read_text())["pddl_problem"], self._facts())
    room, _, task = text.removeprefix(_WELCOME).partition("\n\n")
    return f"{room}\n{task}"

  def step(self, action: Action) -> Step:
    command = current_command(action.text)
    state, _, won = self._engine.step(command)
    observation = state.feedback
    info = {"progress": self._goal.progress(self._facts()), "invalid": observation == NOTHING}
    if command != action.text.strip():
      info["translated"] = command
    if won:
      info["solved"] = True
    return Step(observation, float(won), won, False, info)

  def close(self) -> None:
    if self._engine:
      engine, self._engine = self._engine, None
      _idle.append(engine)

  def _facts(self) -> list[tuple[str, ...]]:
    """Returns what holds: predicates with their arguments."""
    return [(fact.name, *(argument.name for argument in fact.arguments))
            for fact in self._engine.unwrapped._pddl_state.facts]


def _new_engine() -> Any:
  """Returns ALFWorld's engine as the package itself puts it together, without what serves its own experts."""
  try:
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld import EnvInfos
    from textworld.envs.pddl.pddl import PddlEnv
  except ImportError as e:
    raise UserError(f"alfworld: {e}; pip install 'agentbank-jax[envs]'") from None
  from agentbank_jax.envs import alfworld_memo
  alfworld_memo.install()
  return AlfredDemangler()(PddlEnv(EnvInfos(won=True)))
