"""WebShop's reward (Yao et al. 2022, arXiv:2207.01206, equation 1).

  reward = type * (attributes found + options chosen + [price is right]) / (attributes + options + 1)

As in the published code (princeton-nlp/WebShop, web_agent_site/engine/goal.py), with two differences. The published
code compares the titles' nouns, as spaCy's en_core_web model tags them; that model is on no package registry. Here
the nouns of a title are its words without function words and without words that hold a digit: in the titles of
products nearly every such word is a noun. And the published list of colours is not ours to pass on (`Catalogue`).
"""

from collections.abc import Iterable, Sequence
import dataclasses
import re

from agentbank_jax.envs.webshop_catalogue import BASIC_COLOURS, Product

_MATCH = 85  # of 100; what is more alike than this is the same

_FUNCTION_WORDS = frozenset("""\
a about all an and any are as at be been by can each every for from has have in into is it its more most no not of off
on one or our out over per so some such than that the their these this those to two under up very when which while with
without you your""".split())


@dataclasses.dataclass(frozen=True)
class Goal:
  """What the instruction asks for.

  Attributes:
    product: what the instruction was written for.
    attributes: what a product must have, at least one.
    options: values to choose ("navy", "x-large").
    price_upper: what it may cost at most, in dollars.
  """

  product: Product
  attributes: tuple[str, ...]
  options: tuple[str, ...]
  price_upper: float


def reward(bought: Product, chosen: Iterable[str], goal: Goal, colours: Sequence[str] = BASIC_COLOURS) -> float:
  """Returns the reward, in [0, 1], for buying a product with the `chosen` values of its options."""
  attributes = sum(_has(bought, attribute) for attribute in goal.attributes)
  options = _options(list(chosen), goal.options, colours)
  price = bought.price <= goal.price_upper
  return type_reward(bought, goal.product) * (attributes + options + price) / (
      len(goal.attributes) + len(goal.options) + 1)


def type_reward(bought: Product, wanted: Product) -> float:
  """Returns 0, 0.1, 0.5 or 1: how far a product is of the kind that was wanted (`get_type_reward`)."""
  share = title_score(bought.title, wanted.title)
  if share == 0:
    return 0.0
  if share < 0.1:
    return 0.1
  category = len(_levels(bought.category) & _levels(wanted.category)) >= 2
  return 1.0 if bought.query == wanted.query or category or share > 0.2 else 0.5


def title_score(bought: str, wanted: str) -> float:
  """Returns which share of the nouns of the wanted title the bought title has; 0.2 where there are none."""
  nouns = _nouns(wanted)
  return len(set(_nouns(bought)) & set(nouns)) / len(nouns) if nouns else 0.2


def alike(a: str, b: str) -> int:
  """Returns how alike two texts are, 0 to 100: what the published code calls the token set ratio."""
  from thefuzz import fuzz
  return fuzz.token_set_ratio(a, b)


def same_option(chosen: str, wanted: str, colours: Sequence[str] = BASIC_COLOURS) -> bool:
  """Whether a chosen value is the one that was wanted; shades of one of `colours` are that colour."""
  return alike(_plain_colour(chosen, colours), _plain_colour(wanted, colours)) > _MATCH


def _options(chosen: Sequence[str], wanted: Sequence[str], colours: Sequence[str]) -> int:
  return sum(any(same_option(c, w, colours) for c in chosen) for w in wanted)


def _has(product: Product, attribute: str) -> bool:
  return any(alike(own, attribute) > _MATCH for own in product.attributes) or any(
      attribute in text.lower() for text in (product.title, " ".join(product.features), product.description))


def _plain_colour(value: str, colours: Sequence[str]) -> str:
  return next((colour for colour in colours if colour in value), value)


def _levels(category: str) -> set[str]:
  return {level.strip() for level in category.split("›")}


def _nouns(title: str) -> list[str]:
  words = re.findall(r"\w+(?:[.'’]\w+)*", title.lower())
  return [word for word in words if word not in _FUNCTION_WORDS and not any(c.isdigit() for c in word)]
