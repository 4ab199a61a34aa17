"""WebShop's environment on generated shops of about a hundred products, one shop for every instruction."""

from collections.abc import Iterator, Mapping
import functools
import random
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.webshop import WebShopEnv
from agentbank_jax.tasks import splits
from agentbank_jax.tasks.task import Source
from agentbank_jax.tasks.webshop import make_task


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.generate("webshop_generated", _make, split, count, seed)


def _make(rng: random.Random) -> tuple[str, dict[str, Any]]:
  """Returns a problem. Its content is the kind, the attributes and the options: a price or a shop makes it no other."""
  from agentbank_jax.envs.webshop_goods import make_goal

  seed = rng.randrange(2**32)
  data = make_goal(rng, _shop(seed))
  goal = data["goal"]
  return f"{data['searches'][0]}: {goal['options']}", {"shop": seed} | data


def _catalogue(data: Mapping[str, Any]):
  return _shop(data["shop"])


@functools.lru_cache(maxsize=64)  # read-only, and the environments of a process may ask for one more than once
def _shop(seed: int):
  from agentbank_jax.envs.webshop_goods import make_catalogue
  return make_catalogue(seed)


TASK = make_task(
    name="webshop_generated",
    make_env=functools.partial(WebShopEnv, _catalogue),
    instances=_instances,
    source=Source(where="generated", licence="Apache-2.0"),
    note="on generated shops, so not its score",
)
