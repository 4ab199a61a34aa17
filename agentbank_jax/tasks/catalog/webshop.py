"""WebShop (Yao et al. 2022, arXiv:2207.01206) on the user's catalogue: real products and instructions people wrote.

The split is the published one: the instructions, shuffled with WebShop's seed, from 0 on test, from 500 on develop
(not used here), from 1,500 on train.
"""

from collections.abc import Iterator, Mapping
import functools
import random
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.webshop import WebShopEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, splits
from agentbank_jax.tasks.task import Source
from agentbank_jax.tasks.webshop import make_task

_ITEMS, _ATTRIBUTES, _HUMAN = "items_shuffle*.json", "items_ins_v2*.json", "items_human_ins.json"
_COLOURS = "normalize.py"
_SOURCE = ("princeton-nlp/WebShop on GitHub: setup.sh downloads items_shuffle[_1000].json, items_ins_v2[_1000].json "
           "and items_human_ins.json; web_agent_site/engine/normalize.py beside them brings the reward's own list of "
           "colours (Princeton's licence: research only; products from Amazon)")
_SEED = 233  # of the published shuffle
_RANGES = {"test": slice(0, 500), "train": slice(1_500, None)}
_NO_LIMIT = 1_000_000.0  # dollars; where no price is asked for


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("webshop", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  from agentbank_jax.envs.webshop_catalogue import read_json

  products = _catalogue().products
  path = published.find("webshop", _HUMAN, _SOURCE)
  human = read_json(path, dict)
  goals = []
  for asin in (asin for asin in products if asin in human):
    for number, row in enumerate(human[asin]):
      try:
        if row["instruction_attributes"]:  # as published: one without is no goal
          goals.append((f"{asin}-{number}", _goal(products[asin], f"{asin}-{number}", row)))
      except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path}, {asin}, row {number}: not an instruction of WebShop ({type(e).__name__}: {e}); "
                        "get the file again") from None
  random.Random(_SEED).shuffle(goals)
  return goals[_RANGES[split]]


def _goal(product, key: str, row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `Instance.data`.

  The price is asked for as published: the higher of two of the next four multiples of ten dollars. WebShop draws
  them anew in every process; here they belong to the row.
  """
  steps = [10.0 * i for i in range(1, 100) if 10.0 * i > product.price][:4]
  price_upper, price_text = _NO_LIMIT, ""
  if len(steps) >= 2:
    price_upper = max(random.Random(f"webshop goal {key}").sample(steps, 2))
    price_text = f", and price lower than {price_upper:.2f} dollars"
  options = row["instruction_options"]
  options = list(options.values()) if isinstance(options, dict) else list(options)
  attributes = list(row["instruction_attributes"])
  return {
      "instruction": row["instruction"].strip(".") + price_text,
      "goal": {"asin": product.asin, "attributes": attributes, "options": options, "price_upper": price_upper},
      "searches": [" ".join([product.query, *attributes, *options]), product.title.lower()],
  }


def _catalogue(data: Mapping[str, Any] | None = None):
  """Returns the catalogue of the user's files, whatever the instance; a process reads it once."""
  del data
  colours = published.find_all("webshop", _COLOURS)
  return _read(published.find("webshop", _ITEMS, _SOURCE), published.find("webshop", _ATTRIBUTES, _SOURCE),
               colours[0] if colours else None)


@functools.lru_cache(maxsize=1)
def _read(items, attributes, colours):
  from agentbank_jax.envs.webshop_catalogue import BASIC_COLOURS, Catalogue, read_colours, read_products
  return Catalogue(read_products(items, attributes), read_colours(colours) if colours else BASIC_COLOURS)


TASK = make_task(
    name="webshop",
    make_env=functools.partial(WebShopEnv, _catalogue),
    instances=_instances,
    source=Source(
        where=_SOURCE,
        licence="Princeton's, research only (code and instructions); the products' texts are Amazon's",
        contamination="The published trajectories of WebShop (AgentBank's and AgentInstruct's among them) are of its "
                      "training range; scores depend on the catalogue: 1,000 products are easier to search than "
                      "1.18 million",
        checksums={}),
    note="titles are compared by their words in place of spaCy's nouns, and tantivy searches in place of Lucene; "
         "without WebShop's normalize.py, options of colour are compared by the twelve basic colours",
)
