"""A small task with injected trouble, and players for it, for the tests of evaluation."""

from collections.abc import Callable
import dataclasses
import hashlib
import random
import threading
import time

from agentbank_jax.agents import Reply
from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task


class CountEnv:
  """Say the numbers up to `goal`. "skip" is invalid; "give up" and a wrong number end the episode."""

  opened: list = []  # every environment ever made; a test clears it

  def __init__(self):
    self.closed = False
    self.threads = {threading.get_ident()}
    CountEnv.opened.append(self)

  def reset(self, instance: Instance) -> str:
    self.threads.add(threading.get_ident())
    self.goal, self.said = instance.data["goal"], 0
    return f"Count to {self.goal}."

  def step(self, action: Action) -> Step:
    self.threads.add(threading.get_ident())
    if action.text == "skip":
      return Step("Numbers cannot be skipped.", self.said / self.goal, False, False, {"invalid": True})
    if action.text != str(self.said + 1):
      return Step("Wrong.", self.said / self.goal, True, False, {"solved": False})
    self.said += 1
    done = self.said == self.goal
    info = {"solved": True} if done else {}
    return Step(f"You said {self.said}.", self.said / self.goal, done, False, info)

  def close(self) -> None:
    self.threads.add(threading.get_ident())
    self.closed = True


class Injected(CountEnv):
  """Calls `trouble(instance id, number of the call, number of the attempt)` before every reset and step."""

  attempts: dict[str, int] = {}

  def __init__(self, trouble: Callable[[str, int, int], None]):
    super().__init__()
    self._trouble = trouble

  def reset(self, instance: Instance) -> str:
    self.id, self.call = instance.id, 0
    Injected.attempts[self.id] = self.attempt = Injected.attempts.get(self.id, -1) + 1
    self._trouble(self.id, 0, self.attempt)
    return super().reset(instance)

  def step(self, action: Action) -> Step:
    self.call += 1
    self._trouble(self.id, self.call, self.attempt)
    return super().step(action)


def _instances(split: str, count: int, seed: int):
  for i in range(count):
    yield Instance(f"{split}-{i:06d}", split, {"goal": 1 + i % 4})


def _expert(instance: Instance, observation: str):
  assert observation == f"Count to {instance.data['goal']}."
  for n in range(1, instance.data["goal"] + 1):
    observation = yield f"Thought: next.\nAction: {n}"
    assert observation == f"You said {n}."


COUNT = Task(
    name="count", skill="math", held_in=True, instructions="Count aloud.", grammar=Grammar(has_answer=False),
    max_steps=6, metric=MetricCard((0.0, 1.0), "all numbers said", "this test"), make_env=CountEnv,
    instances=_instances, expert=_expert, source=Source("generated", "CC0-1.0"))


def task_with(trouble: Callable[[str, int, int], None], **changes) -> Task:
  """`COUNT` with injected trouble."""
  Injected.attempts = {}
  return dataclasses.replace(COUNT, make_env=lambda: Injected(trouble), **changes)


def delays(seed: int) -> Callable[[str, int, int], None]:
  """Trouble that only costs time."""
  return lambda *call: time.sleep(random.Random(f"{seed}{call}").random() * 0.004)


@dataclasses.dataclass
class FakePlayer:
  """Answers by `policy(turns so far, seed)`; ready replies come in a shuffled order, some a poll later."""

  policy: Callable
  slots: int = 4
  name: str = "fake"
  shuffle: int | None = None

  def __post_init__(self):
    self.open, self.asked, self.most = {}, {}, 0
    self._random = random.Random(self.shuffle)

  def send(self, conversation, turns, seed):
    assert conversation not in self.asked
    self.open.setdefault(conversation, []).extend(turns)
    self.asked[conversation] = seed
    self.most = max(self.most, len(self.open))
    assert self.most <= self.slots

  def poll(self):
    ready = list(self.asked)
    if self.shuffle is not None:
      self._random.shuffle(ready)
      ready = ready[:self._random.randint(0, len(ready))]
    replies = []
    for conversation in ready:
      reply = self.policy(tuple(self.open[conversation]), self.asked.pop(conversation))
      reply = reply if isinstance(reply, Reply) else Reply(reply, len(reply), "stop")
      replies.append((conversation, reply))
    return replies

  def end(self, conversation):
    del self.open[conversation]
    self.asked.pop(conversation, None)


def count_up(turns, seed) -> str:
  """Always right. `turns` are those that were sent, so no assistant turns."""
  return f"Thought: next.\nAction: {sum(t.role == 'user' for t in turns)}"


def gamble(turns, seed) -> str:
  """Right, invalid, unreadable or wrong, by the seed and the text."""
  lot = hashlib.sha256(repr((turns, seed)).encode()).digest()[0] % 10
  number = 1 + sum("You said" in t.content for t in turns)
  return {0: "Thought: hm.", 1: "Action: skip", 2: "Action: skip", 3: "Action: give up"}.get(
      lot, f"Thought: {seed}\nAction: {number}")
