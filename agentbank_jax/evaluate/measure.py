"""`agentbank measure`: how well experts and random agents play, and how long environments take."""

from collections.abc import Hashable, Sequence
import pathlib
import time
from typing import Any

import ml_collections
import numpy as np
import tqdm

from agentbank_jax.agents import Player, Reply
from agentbank_jax.envs.worker_pool import PoolSize
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate.episode_log import fingerprint
from agentbank_jax.evaluate.rollout import Limits, play
from agentbank_jax.evaluate.run import Problems, draw, draw_from_any, make_player
from agentbank_jax.evaluate.scores import TaskScore, score
from agentbank_jax.evaluate.tables import excluded, rate
from agentbank_jax.files import atomic_path
from agentbank_jax.report.tables import Table, markdown
from agentbank_jax.tasks import get_task, task_names
from agentbank_jax.trajectory import Turn

PLAYERS = ("expert", "random")
ANY = "any"  # split: test, or train where the data of test are not here
COLUMNS = ("task", "split", "agent", "success (95% CI)", "progress (95% CI)", "reward", "excluded (bounds)", "steps",
           "step p50, ms", "step p95, ms", "episodes/min")


class _Stopwatch:
  """A player, and how long it waits from a reply of its own to what the environment makes of it.

  Attributes:
    seconds: of every step.
  """

  def __init__(self, player: Player):
    self._player = player
    self.name, self.slots = player.name, player.slots
    self.seconds: list[float] = []
    self._replied: dict[Hashable, float] = {}

  def send(self, conversation: Hashable, turns: Sequence[Turn], seed: int) -> None:
    self._stop(conversation)
    self._player.send(conversation, turns, seed)

  def poll(self) -> list[tuple[Hashable, Reply]]:
    replies = self._player.poll()
    self._replied |= {conversation: time.perf_counter() for conversation, reply in replies if reply.finish == "stop"}
    return replies

  def end(self, conversation: Hashable) -> None:
    self._stop(conversation)
    self._player.end(conversation)

  def _stop(self, conversation: Hashable) -> None:
    if conversation in self._replied:
      self.seconds.append(time.perf_counter() - self._replied.pop(conversation))


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
  """Measures `config.tasks`; see `configs/measure.py`."""
  for player in config.players:
    if player not in PLAYERS:
      raise UserError(f"players has {player!r}, expected {' and '.join(PLAYERS)}")
  rows, results, lacking = [], [], {}
  for name in config.tasks or task_names():
    try:
      if config.split == ANY:
        problems, _ = draw_from_any(name, config.episodes, config.instance_seed)
      else:
        (problems,) = draw([name], config.split, config.episodes, config.instance_seed)
    except UserError as e:
      if config.tasks:
        raise
      lacking[name] = str(e)
      continue
    for player in config.players:
      if get_task(name).expert is None if player == "expert" else get_task(name).random_turn is None:
        lacking[f"{name}, {player}"] = "the task has none"
        continue
      result = _measure(config, problems, player)
      results.append(result)
      rows.append(_row(**result))
  text = markdown(Table("environments", COLUMNS, rows))
  print(f"{config.episodes} episodes each, {config.slots} at once:\n\n{text}\n")
  for name, why in lacking.items():
    print(f"not measured: {name}: {why}")
  workdir.mkdir(parents=True, exist_ok=True)
  with atomic_path(workdir / "table.md") as temporary:
    temporary.write_text(text + "\n")
  return {"measured": results, "not_measured": lacking, "table": str(workdir / "table.md")}


def _measure(config: ml_collections.ConfigDict, problems: Problems, player: str) -> dict[str, Any]:
  """Plays one task with one player; returns its score, and times in milliseconds and episodes a minute."""
  settings = ml_collections.ConfigDict({"player": player, "slots": config.slots})
  stopwatch = _Stopwatch(make_player(settings, [problems]))
  task, instances, files = problems
  limits = Limits(**config.limits)
  began = time.perf_counter()
  episodes = play(task, instances, stopwatch, seed=config.seed, limits=limits, technique=player,
                  workers=PoolSize(**config.workers))
  episodes = list(tqdm.tqdm(episodes, total=len(instances), desc=f"{task.name} {player}", unit="episode"))
  minutes = (time.perf_counter() - began) / 60
  milliseconds = 1000 * np.array(stopwatch.seconds or [np.nan])
  conditions = fingerprint(task, instances, files, invalid_actions=limits.invalid_actions, sampling={})
  return {"split": instances[0].split, "score": score(task, episodes, conditions),
          "p50": float(np.median(milliseconds)), "p95": float(np.quantile(milliseconds, 0.95)),
          "episodes_per_minute": len(episodes) / minutes}


def _row(split: str, score: TaskScore, p50: float, p95: float, episodes_per_minute: float) -> list[str]:
  number = lambda value: "–" if value is None else f"{value:.3g}"
  return [f"`{score.name}`", split, score.model, rate(score.success, score.ci), rate(score.progress, score.progress_ci),
          number(score.reward), excluded(score), number(score.steps), number(p50), number(p95),
          f"{episodes_per_minute:.0f}"]
