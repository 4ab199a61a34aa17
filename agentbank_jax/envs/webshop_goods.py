"""Generated products for a shop in WebShop's manner: some twenty kinds, each offered in several makes.

A product has attributes, of which its title names some and its features the others, and options to choose.
"""

import random
from typing import NamedTuple

from agentbank_jax.envs.webshop_catalogue import Catalogue, Product

_MAKES = 5  # products of a kind in a shop

_COLOURS = ("black", "white", "navy", "red", "green", "grey", "pink", "brown")
_SIZES = ("small", "medium", "large", "x-large", "xx-large")
_FLAVORS = ("vanilla", "strawberry", "cinnamon", "peanut butter", "coconut", "maple")
_SCENTS = ("jasmine", "eucalyptus", "unscented", "cedar", "citrus", "sea salt")
_PACKS = ("pack of 1", "pack of 3", "pack of 6", "pack of 12")

_WEAR = ("machine washable", "quick drying", "moisture wicking", "slim fit", "stretch fabric", "wrinkle resistant",
         "wide fit", "reinforced seams")
_FOOD = ("gluten free", "low sugar", "keto friendly", "high protein", "individually wrapped", "dairy free",
         "plant based", "small batch")
_CARE = ("cruelty free", "paraben free", "fast absorbing", "dermatologist tested", "sulfate free", "travel size",
         "long lasting", "vegan formula")
_HOME = ("easy to clean", "space saving", "heavy duty", "easy to assemble", "stain resistant", "scratch resistant",
         "eco friendly", "lightweight")
_TECH = ("travel friendly", "shock resistant", "water resistant", "long lasting", "tangle free", "ultra thin",
         "scratch resistant", "energy saving")


class _Kind(NamedTuple):
  """A kind of product: its name, its levels of the category above the name, and what it may have."""

  name: str
  levels: str
  attributes: tuple[str, ...]
  options: dict[str, tuple[str, ...]]


_WORN = {"color": _COLOURS, "size": _SIZES}
_KINDS = (
    _Kind("running shoes", "Clothing › Shoes", _WEAR, _WORN),
    _Kind("rain jacket", "Clothing › Outerwear", _WEAR, _WORN),
    _Kind("yoga leggings", "Clothing › Activewear", _WEAR, _WORN),
    _Kind("linen shirt", "Clothing › Shirts", _WEAR, _WORN),
    _Kind("pajama set", "Clothing › Sleepwear", _WEAR, _WORN),
    _Kind("granola bars", "Grocery › Snacks", _FOOD, {"flavor name": _FLAVORS, "size": _PACKS}),
    _Kind("oatmeal cups", "Grocery › Breakfast", _FOOD, {"flavor name": _FLAVORS, "size": _PACKS}),
    _Kind("coffee syrup", "Grocery › Beverages", _FOOD, {"flavor name": _FLAVORS}),
    _Kind("protein powder", "Grocery › Supplements", _FOOD, {"flavor name": _FLAVORS, "size": _PACKS}),
    _Kind("hand cream", "Beauty › Skin Care", _CARE, {"scent": _SCENTS, "size": _PACKS}),
    _Kind("bar soap", "Beauty › Bath", _CARE, {"scent": _SCENTS, "size": _PACKS}),
    _Kind("shampoo", "Beauty › Hair Care", _CARE, {"scent": _SCENTS}),
    _Kind("lip balm", "Beauty › Lip Care", _CARE, {"scent": _SCENTS, "size": _PACKS}),
    _Kind("floor lamp", "Home › Lighting", _HOME, {"color": _COLOURS}),
    _Kind("storage bench", "Home › Furniture", _HOME, {"color": _COLOURS}),
    _Kind("cutting board", "Home › Kitchen", _HOME, {"size": _SIZES}),
    _Kind("laundry basket", "Home › Laundry", _HOME, {"color": _COLOURS, "size": _SIZES}),
    _Kind("wireless earbuds", "Electronics › Audio", _TECH, {"color": _COLOURS}),
    _Kind("phone case", "Electronics › Accessories", _TECH, {"color": _COLOURS}),
    _Kind("usb cable", "Electronics › Cables", _TECH, {"color": _COLOURS, "size": _PACKS}),
    _Kind("tablet stand", "Electronics › Mounts", _TECH, {"color": _COLOURS}),
)
_SYLLABLES = ("al", "bo", "cas", "dor", "el", "fen", "gra", "hol", "is", "jun", "kor", "lum", "mar", "nov", "or")


def make_catalogue(seed: int) -> Catalogue:
  """Returns the shop of a seed, about a hundred products, the same on every machine."""
  rng = random.Random(f"webshop goods {seed}")
  products = [_make(rng, kind) for kind in _KINDS for _ in range(_MAKES)]
  rng.shuffle(products)
  return Catalogue(products)


def make_goal(rng: random.Random, catalogue: Catalogue) -> dict:
  """Draws something to buy: a product, some of its attributes, a value of every option, and a price."""
  product = rng.choice(list(catalogue.products.values()))
  attributes = sorted(rng.sample(product.attributes, rng.randint(1, 2)))
  options = [rng.choice(values) for values in product.options.values()]
  price_upper = 10.0 * (product.price // 10 + rng.randint(1, 3))
  said = ", ".join(f"{name}: {value}" for name, value in zip(product.options, options, strict=True))
  instruction = (f"find me {', '.join(attributes)} {product.query} with {said}, "
                 f"and price lower than {price_upper:.2f} dollars")
  return {"instruction": instruction,
          "goal": {"asin": product.asin, "attributes": attributes, "options": options, "price_upper": price_upper},
          "searches": [" ".join([product.query, *attributes]), product.title.lower()]}


def _make(rng: random.Random, kind: _Kind) -> Product:
  brand = "".join(rng.choices(_SYLLABLES, k=2)).title()
  attributes = rng.sample(kind.attributes, 4)
  titled = rng.randint(1, 3)  # of the attributes
  price = round(rng.uniform(4, 90), 2)
  options = {}
  for name, values in kind.options.items():
    sold_out = rng.choice(values)
    options[name] = tuple(value for value in values if value != sold_out)
  return Product(
      asin="B" + "".join(rng.choices("0123456789ABCDEFGHJKLMNPQRSTUVWXYZ", k=9)),
      title=" ".join([brand, *(a.title() for a in attributes[:titled]), kind.name.title()]),
      description=f"{kind.name.capitalize()} by {brand}, made to be used every day.",
      features=tuple(f"{a.capitalize()}: {brand} tests every piece." for a in attributes[titled:])
      or (f"From {brand}.",),
      price=price,
      price_text=f"${price}",
      options=options,
      attributes=tuple(attributes),
      query=kind.name,
      category=f"{kind.levels} › {kind.name.title()}",
  )
