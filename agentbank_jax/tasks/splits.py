"""Train and test that share no problem.

Generated tasks draw problems until enough of them belong to the split that was asked for, by a hash of
their content. So no seed, however chosen, puts a problem into both. Tasks on published data keep the
published splits, in an order that depends on the seed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
import json
import random
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.errors import UserError

SPLITS = ("train", "test")
TEST_SHARE = 4  # one problem in four is a test problem
_PATIENCE = 10_000  # draws in a row without a new problem, after which there are none left


class TooFewInstances(UserError):
  """More instances are asked for than there are.

  Attributes:
    have: how many there are.
  """

  def __init__(self, task: str, split: str, count: int, have: int):
    super().__init__(f"{task}: {count} {split} instances asked for, but there are only {have}; ask for fewer")
    self.have = have


def split_of(content: str) -> str:
  """Returns the split that a problem belongs to, the same on every machine."""
  return "test" if hashlib.sha256(content.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def generate(task: str, make: Callable[[random.Random], tuple[str, Mapping[str, Any]]],
             split: str, count: int, seed: int) -> Iterator[Instance]:
  """Yields `count` different generated instances of `split`.

  Args:
    task: name of the task; tasks draw from different streams.
    make: draws one problem: its content, which decides its split, and `Instance.data`. What two problems
      of different splits must not have in common belongs into the content, and nothing else.
    split: one of `SPLITS`.
    count: how many.
    seed: selects another stream of problems. The splits stay apart whatever the seed.

  Raises:
    UserError: no such split, or the task has fewer different problems than `count`.
  """
  _check(task, split, count)
  rng = random.Random(f"{task}/{split}/{seed}")
  seen: set[bytes] = set()
  for n in range(count):
    for _ in range(_PATIENCE):
      content, data = make(rng)
      digest = hashlib.sha256(json.dumps(data).encode()).digest()
      if split_of(content) == split and digest not in seen:
        break
    else:
      raise TooFewInstances(task, split, count, n)
    seen.add(digest)
    yield Instance(f"{split}-{seed}-{n:06d}", split, data)


def choose(task: str, read: Callable[[], Sequence[tuple[str, Mapping[str, Any]]]],
           split: str, count: int, seed: int) -> Iterator[Instance]:
  """Yields `count` of the published rows of `split`, in an order set by `seed`.

  Args:
    task: name of the task.
    read: returns the rows, each `(key, Instance.data)`. The key names the row: its instance has the same
      id under every seed.
    split: one of `SPLITS`.
    count: how many.
    seed: of the order.

  Raises:
    UserError: no such split, or fewer rows than `count`.
  """
  _check(task, split, count)
  rows = read()
  if count > len(rows):
    raise TooFewInstances(task, split, count, len(rows))
  order = list(range(len(rows)))
  random.Random(f"{task}/{split}/{seed}").shuffle(order)
  for i in order[:count]:
    key, data = rows[i]
    yield Instance(f"{split}-{key}", split, data)


def _check(task: str, split: str, count: int) -> None:
  if split not in SPLITS:
    raise UserError(f"{task}: unknown split {split!r} (known: {', '.join(SPLITS)})")
  if count < 0:
    raise UserError(f"{task}: {count} instances asked for; ask for 0 or more")
