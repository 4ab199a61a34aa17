"""Plays episodes: many conversations at once, each with an environment of its own.

One thread talks to the player; it never waits for an environment while a conversation awaits a reply.
Every environment lives its whole life in one daemon thread (`seats.py`): connections that belong to a
thread stay valid, and an environment that hangs can be left behind without holding up the run or the
process's exit. Where a task asks for processes, what lives in the thread stands for an environment in a
worker process (`envs/worker_pool.py`), which can be killed.

What an episode is depends on the task, the instance, the player and the seed, and on nothing else: not
on the number of slots, not on timing, not on what happens in another episode.
"""

import collections
from collections.abc import Iterable, Iterator
import dataclasses
import functools
import hashlib
import json
import math
import time
from typing import NamedTuple

from absl import logging

from agentbank_jax import __version__
from agentbank_jax.agents import Player, Reply
from agentbank_jax.envs.base import Action, Env, Instance, Step
from agentbank_jax.envs.worker_pool import PoolSize, WorkerPool
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate.seats import Failure, Seats
from agentbank_jax.tasks.task import ActionError, Task
from agentbank_jax.trajectory import Outcome, Provenance, Trajectory, Turn

_NEVER_BEGAN = "(the environment failed before the episode began)"


@dataclasses.dataclass(frozen=True)
class Limits:
  """What ends an episode, apart from the task's own `max_steps`.

  Attributes:
    step_seconds: how long an environment may take to answer one reset or step; less where the task says so.
    invalid_actions: invalid actions in a row after which an episode ends as `invalid_action`.
    retries: how often an episode is begun again after an error of the environment or of the agent.
  """

  step_seconds: float
  invalid_actions: int
  retries: int

  def __post_init__(self):
    if not self.step_seconds > 0:
      raise UserError(f"limits.step_seconds is {self.step_seconds}, expected a positive number of seconds")
    if self.invalid_actions < 1:
      raise UserError(f"limits.invalid_actions is {self.invalid_actions}, expected 1 or more")
    if self.retries < 0:
      raise UserError(f"limits.retries is {self.retries}, expected 0 or more")


class Conversation(NamedTuple):
  """The key under which a player knows one attempt at one episode."""

  task: str
  instance: str
  attempt: int


def derive_seed(*parts: str | int) -> int:
  """Returns a seed in [0, 2**31) that depends on `parts` alone, the same on every machine."""
  digest = hashlib.sha256(json.dumps(parts).encode()).digest()
  return int.from_bytes(digest[:4], "big") >> 1


def prompt_hash(task: Task) -> str:
  """Returns 16 hex digits that stand for what every agent of `task` is told: instructions and few-shot turns."""
  return hashlib.sha256(json.dumps([(t.role, t.content) for t in task.prompt]).encode()).hexdigest()[:16]


def episode_id(task: str, instance: str, seed: int, model: str) -> str:
  """Returns the id of the one episode that `model` plays on an instance with a seed."""
  return f"{task}/{instance}/seed{seed}/{model}"


def play(task: Task, instances: Iterable[Instance], player: Player, *, seed: int, limits: Limits,
         technique: str = "sampling", workers: PoolSize | None = None) -> Iterator[Trajectory]:
  """Plays every instance once and yields the episodes in the order in which they end.

  An episode's turns are what the agent was sent and what it said. An observation that the agent was
  never sent, because the episode was over, is `metadata["final_observation"]`. The reward is the
  environment's last; the lowest of the task's range where the environment gave none before the
  episode ended; None where the outcome is not scored.

  Args:
    task: its `make_env` is called once for every slot, and again after an error or a time-out.
    instances: no id twice.
    player: asked for up to `player.slots` conversations at once, in this thread only.
    seed: of the run. The seed of a reply is derived from it, the task, the instance and the step.
    limits: what ends an episode.
    technique: of `Provenance`: "sampling", "expert" or "random".
    workers: how many processes hold the environments of a task that asks for processes.

  Raises:
    UserError: an environment raised it (data or a program that it needs is missing).
    ValueError: the task asks for processes, and `workers` is None.
  """
  return _Rollout(task, instances, player, seed, limits, technique, workers).episodes()


@dataclasses.dataclass(eq=False)
class _Episode:
  """An attempt at an episode; the next attempt is a new object that takes over `errors` and `started`."""

  instance: Instance
  reward: float
  started: float  # seconds of the monotonic clock
  errors: tuple[str, ...] = ()  # of the attempts that failed
  turns: list[Turn] = dataclasses.field(default_factory=list)
  opened: bool = False  # the player knows the conversation
  steps: int = 0
  tokens: int = 0
  invalid: int = 0
  invalid_in_a_row: int = 0
  cut: int = 0  # turns that reached the token limit of a turn
  progress: float = 0.0  # the best of all steps
  final_observation: str | None = None


class _Rollout:
  """The state of one `play`. An episode awaits either the player or its environment, never both."""

  def __init__(self, task: Task, instances: Iterable[Instance], player: Player, seed: int, limits: Limits,
               technique: str, workers: PoolSize | None):
    self._task, self._player, self._seed, self._limits = task, player, seed, limits
    self._provenance = Provenance(
        source=f"{task.name} (agentbank-jax {__version__})", technique=technique, teacher=player.name,
        prompt_hash=prompt_hash(task), seed=seed, licence=task.source.licence)
    self._todo = collections.deque(instances)
    self._retries: collections.deque[_Episode] = collections.deque()
    seconds = min(limits.step_seconds, task.step_seconds or math.inf)
    self._pool = WorkerPool(task.name, task.make_env, workers, seconds) if task.processes else None
    # Workers share their time among environments, so that the pool looks after it.
    self._seats = Seats(self._pool.make_env, math.inf) if self._pool else Seats(task.make_env, seconds)
    self._talking: dict[Conversation, _Episode] = {}  # awaits a reply
    self._ended: list[Trajectory] = []

  def episodes(self) -> Iterator[Trajectory]:
    try:
      while True:
        while (episode := self._next()) is not None:
          self._seats.call(episode, functools.partial(_reset, instance=episode.instance))
        if not self._talking and not self._seats.busy:
          return
        for episode, answer in self._seats.answers(wait=not self._talking):
          self._on_answer(episode, answer)
        if self._talking:
          for conversation, reply in self._player.poll():
            self._on_reply(self._talking.pop(conversation), reply)
        yield from self._ended
        self._ended.clear()
    finally:
      for episode in (*self._talking.values(), *self._seats.busy):
        self._hang_up(episode)
      self._seats.close()
      if self._pool:
        self._pool.close()

  def _next(self) -> _Episode | None:
    """Returns the episode to begin now, or None: no slot is free, or there is none left."""
    if len(self._talking) + len(self._seats.busy) >= self._player.slots:
      return None
    if self._retries:
      return self._retries.popleft()
    return self._new(self._todo.popleft(), time.monotonic()) if self._todo else None

  def _new(self, instance: Instance, started: float, errors: tuple[str, ...] = ()) -> _Episode:
    return _Episode(instance, float(self._task.metric.reward_range[0]), started, errors)

  def _conversation(self, episode: _Episode) -> Conversation:
    return Conversation(self._task.name, episode.instance.id, len(episode.errors))

  def _hang_up(self, episode: _Episode) -> None:
    if episode.opened:
      self._player.end(self._conversation(episode))
      episode.opened = False

  def _ask(self, episode: _Episode, *turns: Turn) -> None:
    """Sends `turns` to the player and so asks for a reply."""
    episode.turns.extend(turns)
    episode.opened = True
    conversation = self._conversation(episode)
    self._talking[conversation] = episode
    # The attempt is no part of the seed: a retry plays the episode that the failed attempt would have been.
    self._player.send(conversation, turns,
                      derive_seed(self._seed, self._task.name, episode.instance.id, episode.steps))

  def _on_answer(self, episode: _Episode, answer: str | Step | Failure) -> None:
    """The environment's answer to reset (text) or step, or how it failed."""
    if isinstance(answer, Failure):
      if isinstance(answer.error, UserError):
        raise answer.error
      self._fail(episode, Outcome.ENVIRONMENT_ERROR, str(answer))
    elif isinstance(answer, Step):
      episode.reward = float(answer.reward)
      episode.progress = max(episode.progress, answer.info.get("progress", 0.0))
      if answer.terminated:
        episode.final_observation = answer.observation
        self._end(episode, Outcome.SOLVED if answer.info["solved"] else Outcome.FAILED)
      elif answer.truncated:
        episode.final_observation = answer.observation
        self._end(episode, Outcome.STEP_LIMIT)
      else:
        self._observe(episode, answer.observation, bool(answer.info.get("invalid")))
    else:
      self._ask(episode, *self._task.opening(answer))

  def _on_reply(self, episode: _Episode, reply: Reply) -> None:
    if reply.finish == "error":
      self._fail(episode, Outcome.AGENT_ERROR, reply.error)
      return
    if reply.finish == "context":
      self._end(episode, Outcome.CONTEXT_LIMIT)
      return
    text = _encodable(reply.text)
    episode.turns.append(Turn("assistant", text))
    episode.steps += 1
    episode.tokens += reply.tokens
    episode.cut += reply.finish == "length"
    try:
      action = self._task.grammar.parse(text)
    except ActionError as e:
      self._observe(episode, str(e), invalid=True)
    else:
      self._seats.call(episode, functools.partial(_step, action=action, has_progress=bool(self._task.progress)))

  def _observe(self, episode: _Episode, observation: str, invalid: bool) -> None:
    """Hands an observation to the agent, unless the episode has reached a limit."""
    episode.invalid += invalid
    episode.invalid_in_a_row = episode.invalid_in_a_row + 1 if invalid else 0
    if episode.invalid_in_a_row >= self._limits.invalid_actions:
      limit = Outcome.INVALID_ACTION
    elif episode.steps >= self._task.max_steps:
      limit = Outcome.STEP_LIMIT
    else:
      self._ask(episode, self._task.observe(observation))
      return
    episode.final_observation = observation
    self._end(episode, limit)

  def _fail(self, episode: _Episode, outcome: Outcome, error: str) -> None:
    """Begins the episode again, or ends it where that was the last attempt."""
    self._hang_up(episode)
    errors = (*episode.errors, _encodable(f"{outcome}: {error}"))
    logging.warning("%s %s, attempt %d of %d, step %d: %s", self._task.name, episode.instance.id, len(errors),
                    self._limits.retries + 1, episode.steps, errors[-1])
    if len(errors) <= self._limits.retries:
      self._seats.leave(episode)
      self._retries.append(self._new(episode.instance, episode.started, errors))
    else:
      episode.errors = errors
      self._end(episode, outcome)

  def _end(self, episode: _Episode, outcome: Outcome) -> None:
    self._hang_up(episode)
    self._seats.leave(episode)
    metadata = {
        "instance": episode.instance.id,
        "split": episode.instance.split,
        "steps": episode.steps,
        "tokens": episode.tokens,
        "invalid_actions": episode.invalid,
        "cut_turns": episode.cut,
        "attempts": len(episode.errors) + outcome.is_scored,
        "seconds": round(time.monotonic() - episode.started, 3),
    }
    if self._task.progress:
      metadata["progress"] = episode.progress
    if episode.errors:
      metadata["errors"] = list(episode.errors)
    if episode.final_observation is not None:
      metadata["final_observation"] = episode.final_observation
    self._ended.append(Trajectory(
        id=episode_id(self._task.name, episode.instance.id, self._seed, self._player.name),
        task=self._task.name,
        turns=tuple(episode.turns) or self._task.opening(_NEVER_BEGAN),
        reward=episode.reward if outcome.is_scored else None,
        outcome=outcome,
        provenance=self._provenance,
        metadata=metadata))


def _encodable(text: str) -> str:
  """Returns `text` as the log can hold it: half a surrogate pair is no text."""
  return text.encode(errors="replace").decode()


def _reset(env: Env, instance: Instance) -> str:
  return _checked(env.reset(instance))


def _step(env: Env, action: Action, has_progress: bool) -> Step:
  """Steps and checks the contract, so that an environment that breaks it fails as an environment."""
  step = Step(*env.step(action))
  _checked(step.observation)
  if not math.isfinite(step.reward):
    raise ValueError(f"the reward is {step.reward}")
  if step.terminated and "solved" not in step.info:
    raise ValueError("the episode terminated, and info has no 'solved'")
  if has_progress != ("progress" in step.info):
    raise ValueError("info has a 'progress' that the task does not declare" if "progress" in step.info else
                     "the task declares progress, and info has no 'progress'")
  if has_progress and not 0 <= step.info["progress"] <= 1:
    raise ValueError(f"the progress is {step.info['progress']}, expected 0 to 1")
  return step


def _checked(observation: str) -> str:
  if not isinstance(observation, str):
    raise TypeError(f"the observation is {type(observation).__name__}, expected text")
  observation.encode()  # raises where the text is none that a tokenizer or a file can hold
  return observation
