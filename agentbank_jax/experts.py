"""The players that a task brings itself, its expert and one at random, and the trajectories that an expert makes."""

from collections.abc import Generator, Iterable, Sequence
import pathlib
import random
from typing import Any

from absl import logging
import tqdm

from agentbank_jax.agents import Reply
from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.worker_pool import PoolSize
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate.rollout import Conversation, Limits, play
from agentbank_jax.tasks.task import Task
from agentbank_jax.trajectory import Outcome, Turn
from agentbank_jax.trajectory_io import write_trajectories


class _TaskPlayer:
  """Answers at the next poll with what a task itself brings, from the last observation."""

  def __init__(self, slots: int):
    if slots < 1:
      raise UserError(f"slots is {slots}, expected 1 or more")
    self.slots = slots
    self._asked: dict[Conversation, tuple[str, int]] = {}  # the observation that awaits a reply, and the seed

  def send(self, conversation: Conversation, turns: Sequence[Turn], seed: int) -> None:
    self._asked[conversation] = turns[-1].content, seed

  def poll(self) -> list[tuple[Conversation, Reply]]:
    asked, self._asked = self._asked, {}
    return [(conversation, self._reply(conversation, *what)) for conversation, what in asked.items()]

  def end(self, conversation: Conversation) -> None:
    self._asked.pop(conversation, None)

  def _reply(self, conversation: Conversation, text: str, seed: int) -> Reply:
    raise NotImplementedError


class ExpertPlayer(_TaskPlayer):
  """Plays by `Task.expert`, which sees the instance, gold answer included.

  An expert that raises, or that has nothing more to say before the episode is over, is an agent error.
  """

  name = "expert"

  def __init__(self, problems: Iterable[tuple[Task, Sequence[Instance]]], slots: int):
    """Takes every task with the instances that may be asked for.

    Raises:
      UserError: a task has no expert.
    """
    super().__init__(slots)
    self._problems: dict[tuple[str, str], tuple[Task, Instance]] = {}
    for task, instances in problems:
      if task.expert is None:
        raise UserError(f"task {task.name!r} has no expert; leave it out, or choose another player")
      self._problems |= {(task.name, instance.id): (task, instance) for instance in instances}
    self._experts: dict[Conversation, Generator[str, str, None]] = {}

  def end(self, conversation: Conversation) -> None:
    super().end(conversation)
    self._experts.pop(conversation, None)

  def _reply(self, conversation: Conversation, text: str, seed: int) -> Reply:
    task, instance = self._problems[conversation.task, conversation.instance]
    try:
      if conversation not in self._experts:
        self._experts[conversation] = task.expert(instance, text)
        answer = next(self._experts[conversation])
      else:
        answer = self._experts[conversation].send(_without_label(task, text))
    except StopIteration:
      return Reply("", 0, "error", "the expert has nothing more to say, and the episode is not over")
    except Exception as e:
      return Reply("", 0, "error", f"the expert raised {type(e).__name__}: {e}")
    return Reply(answer, 0, "stop")


class RandomPlayer(_TaskPlayer):
  """Plays by `Task.random_turn`, from the last observation and the seed of the reply alone."""

  name = "random"

  def __init__(self, tasks: Iterable[Task], slots: int):
    """Takes the tasks that may be asked for.

    Raises:
      UserError: a task has no random agent.
    """
    super().__init__(slots)
    self._tasks = {task.name: task for task in tasks}
    for task in self._tasks.values():
      if task.random_turn is None:
        raise UserError(f"task {task.name!r} has no random agent; leave it out, or choose another player")

  def _reply(self, conversation: Conversation, text: str, seed: int) -> Reply:
    task = self._tasks[conversation.task]
    try:
      return Reply(task.random_turn(random.Random(seed), _without_label(task, text)), 0, "stop")
    except Exception as e:
      return Reply("", 0, "error", f"the random agent raised {type(e).__name__}: {e}")


def _without_label(task: Task, text: str) -> str:
  """Returns what the environment said, without the words that `Task.observe` puts before it."""
  return text.removeprefix(task.observe("").content)


def make_trajectories(task: Task, split: str, count: int, seed: int, path: pathlib.Path, *, limits: Limits,
                      slots: int, workers: PoolSize | None = None) -> dict[str, Any]:
  """Plays the task's expert and writes the episodes it solved, in the order of the instances.

  The same arguments give the same bytes: unlike an episode log, the file holds no times.

  Args:
    task: a held-in one.
    split, count, seed: which instances, as `Task.instances` takes them.
    path: of the file of trajectories; it appears whole or not at all.
    limits: what ends an episode.
    slots: how many episodes are played at once.
    workers: see `rollout.play`.

  Returns:
    `task`, `attempted`, `written`, and `not_written`: instance, outcome and errors of every episode
    that the expert did not solve.

  Raises:
    UserError: the task is held out, or has no expert or not that many instances.
  """
  if not task.held_in:
    raise UserError(f"task {task.name!r} is held out for evaluation: no trajectories to train on are made")
  instances = tuple(task.instances(split, count, seed))
  order = {instance.id: i for i, instance in enumerate(instances)}
  player = ExpertPlayer([(task, instances)], slots)
  episodes = play(task, instances, player, seed=seed, limits=limits, technique="expert", workers=workers)
  episodes = sorted(tqdm.tqdm(episodes, total=len(instances), desc=f"{task.name} expert", unit="episode"),
                    key=lambda e: order[e.metadata["instance"]])
  solved = [e for e in episodes if e.outcome == Outcome.SOLVED]
  not_written = [{"instance": e.metadata["instance"], "outcome": str(e.outcome),
                  "errors": e.metadata.get("errors", [])} for e in episodes if e.outcome != Outcome.SOLVED]
  for missing in not_written:
    logging.warning("%s %s is not written: %s", task.name, missing["instance"], missing["outcome"])
  for episode in solved:
    del episode.metadata["seconds"]
  written = write_trajectories(path, solved)
  return {"task": task.name, "attempted": len(instances), "written": written, "not_written": not_written}
