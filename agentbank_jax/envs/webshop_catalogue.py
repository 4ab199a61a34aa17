"""Products, and the search for them: WebShop's catalogue (Yao et al. 2022, arXiv:2207.01206)."""

import ast
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
import random
import re
from typing import Any

from absl import logging

from agentbank_jax.envs.text_index import TextIndex
from agentbank_jax.errors import UserError

RESULTS = 50  # of a search, best first

# The basic colour terms of English (Berlin and Kay 1969), in alphabetical order.
BASIC_COLOURS = tuple("black blue brown gray green grey orange pink purple red white yellow".split())

_NO_PRICE = 100.0  # dollars, where a product says none
_LONGEST_ASIN = 10


@dataclasses.dataclass(frozen=True)
class Product:
  """One product, as its page shows it and the reward sees it.

  Attributes:
    asin: its identifier, ten letters and digits.
    title, description: texts.
    features: the bullet points.
    price: in dollars.
    price_text: as the page shows it: "$7.8", "$10.99 to $18.99".
    options: name -> values, in lower case.
    attributes: what it is known to be ("gluten free"); the shop does not show them.
    query: what the search that found it in the real shop asked for.
    category: "Electronics › Headphones › Over-Ear".
  """

  asin: str
  title: str
  description: str
  features: tuple[str, ...]
  price: float
  price_text: str
  options: Mapping[str, tuple[str, ...]]
  attributes: tuple[str, ...]
  query: str
  category: str


class Catalogue:
  """Products by asin, and a search over them. Read-only: environments may share one."""

  def __init__(self, products: Sequence[Product], colours: Sequence[str] = BASIC_COLOURS):
    """Takes the products, and what is one colour to the reward: an option is the first of `colours` that it contains.

    WebShop's own list has 107 words, "dark" and "christmas" among them. It is part of a program whose licence (its
    LICENSE.md) allows research only, so it does not come with this package; `read_colours` finds it in that program.
    """
    self.products = {product.asin: product for product in products}
    self.colours = tuple(colours)
    self._order = tuple(self.products)

  @functools.cached_property
  def _index(self) -> TextIndex:  # the first search makes it: who draws goals needs none
    return TextIndex(_document(product) for product in self.products.values())

  def search(self, words: str) -> list[str]:
    """Returns the asins of up to `RESULTS` products, best first.

    WebShop indexes the same texts with Lucene (pyserini: k1 = 0.9, b = 0.4); tantivy's BM25 ranks some
    products differently.
    """
    return [self._order[row] for row in self._index.search(words, RESULTS)]


def _document(product: Product) -> str:
  """Returns what is searched: as search_engine/convert_product_file_format.py of WebShop puts it together."""
  options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
  return " ".join((product.title, product.description, *product.features[:1], options)).lower()


def read_products(items: pathlib.Path, attributes: pathlib.Path) -> list[Product]:
  """Reads the published layout: `items_shuffle*.json` and `items_ins_v2*.json`.

  A product whose price is a range costs a price in it, drawn by its asin (WebShop draws anew in every process).
  Rows without a usable asin, and asins that were there before, are left out, as WebShop does, and counted.

  Raises:
    UserError: not such a file; it names the row.
  """
  known = read_json(attributes, dict)
  products: dict[str, Product] = {}
  left_out = 0
  for number, row in enumerate(read_json(items, list)):
    try:
      asin = row["asin"]
      if asin == "nan" or len(asin) > _LONGEST_ASIN or asin in products:
        left_out += 1
        continue
      price, price_text = _price(asin, row["pricing"])
      features = row["small_description"]
      products[asin] = Product(
          asin=asin, title=row["name"], description=row["full_description"] or "",
          features=tuple(features) if isinstance(features, list) else (features or "",),
          price=price, price_text=price_text, options=dict(_options(row["customization_options"])),
          attributes=tuple(known.get(asin, {}).get("attributes", ())),
          query=row["query"].lower().strip(), category=row["product_category"])
    except (KeyError, TypeError, AttributeError, ValueError) as e:
      raise UserError(f"{items}, row {number}: not a product of WebShop ({type(e).__name__}: {e}); "
                      "get the file again") from None
  if left_out:
    logging.info("%s: %d rows without an asin of their own are left out, %d products kept", items, left_out,
                 len(products))
  return list(products.values())


def read_colours(path: pathlib.Path) -> tuple[str, ...]:
  """Returns `COLOR_SET` of WebShop's web_agent_site/engine/normalize.py, which is read and not run.

  Raises:
    UserError: there is none.
  """
  try:
    for statement in ast.parse(path.read_text()).body:
      if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "COLOR_SET":
        return tuple(map(str, ast.literal_eval(statement.value)))
  except (SyntaxError, ValueError, TypeError) as e:
    raise UserError(f"{path}: not WebShop's normalize.py ({e}); get the file again") from None
  raise UserError(f"{path}: not WebShop's normalize.py (it has no COLOR_SET); get the file again")


def read_json(path: pathlib.Path, kind: type) -> Any:
  """Returns what a JSON file holds.

  Raises:
    UserError: it is no JSON, or holds something that is not a `kind`.
  """
  try:
    value = json.loads(path.read_text())
  except ValueError as e:
    raise UserError(f"{path}: not JSON ({e}); get the file again") from None
  if not isinstance(value, kind):
    raise UserError(f"{path}: holds a {type(value).__name__}, expected a {kind.__name__}; get the file again")
  return value


def _price(asin: str, pricing: str | None) -> tuple[float, str]:
  """Returns what a product costs, and what its page says: of "$5.99$10.99" the page shows the range."""
  numbers = [float(re.sub(r"[^\d.]", "", part)) for part in (pricing or "").split("$")[1:]][:2]
  if not numbers:
    return _NO_PRICE, f"${_NO_PRICE}"
  if len(numbers) == 1:
    return numbers[0], f"${numbers[0]}"
  return random.Random(f"webshop price {asin}").uniform(*numbers), f"${numbers[0]} to ${numbers[1]}"


def _options(customization: Mapping[str, Any] | None) -> Iterable[tuple[str, tuple[str, ...]]]:
  for name, values in (customization or {}).items():
    if values is not None:
      yield name.lower(), tuple(value["value"].strip().replace("/", " | ").lower() for value in values)
