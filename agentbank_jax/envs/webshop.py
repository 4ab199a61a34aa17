"""WebShop's text environment (Yao et al. 2022, arXiv:2207.01206): search a shop, choose options, buy.

Pages, buttons and their texts are those of WebShop's own text environment (web_agent_site/envs/
web_agent_text_env.py); so is the observation, mode "text_rich", or "text" as published trajectories have it. An
action that cannot be carried out gets an error that says what can be clicked, where WebShop shows the page again.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import re
from typing import Any, Literal, NamedTuple

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.webshop_catalogue import Catalogue, Product
from agentbank_jax.envs.webshop_reward import Goal, reward

PAGE = 10  # products on a page of results

_SEARCH, _BACK, _NEXT, _PREV, _BUY = "Search", "Back to Search", "Next >", "< Prev", "Buy Now"
_SUB_PAGES = ("Description", "Features", "Reviews")
_ACTION = re.compile(r"(search|click)\s*\[(.+)\]", re.IGNORECASE | re.DOTALL)
_MAX_SHOWN = 30  # clickables that an error lists


class _Element(NamedTuple):
  """A piece of a page. `kind` is text, button, link (a product) or option; `marked`: it was clicked before."""

  kind: Literal["text", "button", "link", "option"]
  text: str
  marked: bool = False


@dataclasses.dataclass
class _Session:
  """Where the agent is. `results` are asins; `sub` is the page of the product that is open, "" for its own."""

  page: Literal["search", "results", "item"] = "search"
  results: tuple[str, ...] = ()
  number: int = 1  # of the page of results
  product: Product | None = None
  chosen: dict[str, str] = dataclasses.field(default_factory=dict)
  sub: str = ""
  seen: set[str] = dataclasses.field(default_factory=set)  # asins


class WebShopEnv:
  """Actions are `search[words]` and `click[what a button says]`; `Buy Now` ends the episode.

  `Instance.data`: `instruction`, which the agent is told, and `goal`: `asin`, `attributes`, `options` (values) and
  `price_upper`. `Step.info` has "progress": the reward that buying now would give, 0 where no product is open.
  """

  def __init__(self, catalogue: Callable[[Mapping[str, Any]], Catalogue],
               mode: Literal["text_rich", "text"] = "text_rich"):
    """Prepares an environment.

    Args:
      catalogue: returns the shop's catalogue for an instance's data.
      mode: of the observation. "text_rich" marks what can be clicked; "text" joins the page's texts by [SEP].
    """
    self._open_catalogue, self._mode = catalogue, mode
    self._catalogue: Catalogue | None = None

  def reset(self, instance: Instance) -> str:
    data, goal = instance.data, instance.data["goal"]
    self._catalogue = self._open_catalogue(data)
    self._instruction = data["instruction"]
    self._goal = Goal(self._catalogue.products[goal["asin"]], tuple(goal["attributes"]), tuple(goal["options"]),
                      goal["price_upper"])
    self._session = _Session()
    return self._show()

  def step(self, action: Action) -> Step:
    match = _ACTION.fullmatch(action.text)
    if not match:
      return self._invalid("An action is search[words] or click[button].")
    verb, argument = match[1].lower(), match[2].strip().lower()
    if verb == "search":  # on any page, as in WebShop
      self._session = _Session("results", tuple(self._catalogue.search(argument)), seen=self._session.seen)
    elif argument == _BUY.lower() and self._session.product and not self._session.sub:
      return self._buy()
    elif not self._click(argument):
      return self._invalid(f"There is no button {argument[:80]!r} here.")
    return Step(self._show(), 0.0, False, False, {"progress": self._progress()})

  def close(self) -> None:
    """Nothing to release; the catalogue may be others' too."""

  def _click(self, name: str) -> bool:
    """Follows a button, and returns whether there is one of that name (in lower case)."""
    session = self._session
    named = [e for e in self._elements() if e.kind != "text" and e.text.lower() == name and e.text != _SEARCH]
    if not named:
      return False
    found = max(named, key=lambda e: e.kind == "option")  # options hide other buttons of their name
    if found.kind == "option":
      # The last of several options that have the value, as in WebShop.
      option = [key for key, values in session.product.options.items() if found.text in values][-1]
      session.chosen[option] = found.text
    elif found.kind == "link":
      session.page, session.product, session.chosen = "item", self._catalogue.products[found.text], {}
      session.seen.add(found.text)
    elif found.text == _BACK:
      self._session = _Session()
    elif found.text == _NEXT:
      session.number += 1
    elif found.text in _SUB_PAGES:
      session.sub = found.text
    elif session.sub:  # "< Prev" of a sub-page
      session.sub = ""
    elif session.page == "item":  # of a product
      session.page, session.product, session.chosen = "results", None, {}
    else:  # of the results
      session.number -= 1
    return True

  def _buy(self) -> Step:
    value = self._progress()
    text = f"Thank you for shopping with us!\nYour score (min 0.0, max 1.0)\n{value}"
    return Step(text, value, True, False, {"solved": value == 1.0, "progress": value})

  def _progress(self) -> float:
    session = self._session
    if session.product is None:
      return 0.0
    return reward(session.product, session.chosen.values(), self._goal, self._catalogue.colours)

  def _invalid(self, why: str) -> Step:
    names = [e.text.lower() for e in self._elements() if e.kind != "text" and e.text != _SEARCH]
    shown = ", ".join(f"click[{name}]" for name in names[:_MAX_SHOWN]) or "nothing to click"
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return Step(f"Error: {why} Possible now: search[words], {shown}{more}.", 0.0, False, False,
                {"invalid": True, "progress": self._progress()})

  def _elements(self) -> Iterator[_Element]:
    """Yields the page from top to bottom."""
    session = self._session
    if session.page == "search":
      yield _Element("text", "WebShop")
    yield _Element("text", "Instruction:")
    yield _Element("text", self._instruction)
    if session.page == "search":
      yield _Element("button", _SEARCH)
      return
    yield _Element("button", _BACK)
    yield from self._results() if session.page == "results" else self._item(session.product)

  def _results(self) -> Iterator[_Element]:
    session = self._session
    total, start = len(session.results), (session.number - 1) * PAGE
    yield _Element("text", f"Page {session.number} (Total results: {total})")
    if session.number > 1:
      yield _Element("button", _PREV)
    if session.number * PAGE < total:
      yield _Element("button", _NEXT)
    for asin in session.results[start:start + PAGE]:
      product = self._catalogue.products[asin]
      yield _Element("link", asin, asin in session.seen)
      yield _Element("text", product.title)
      yield _Element("text", product.price_text)

  def _item(self, product: Product) -> Iterator[_Element]:
    yield _Element("button", _PREV)
    if self._session.sub:
      texts = {"Description": (product.description,), "Features": product.features, "Reviews": ()}
      yield from (_Element("text", text) for text in texts[self._session.sub] if text)
      return
    for name, values in product.options.items():
      yield _Element("text", name)
      yield from (_Element("option", value, self._session.chosen.get(name) == value) for value in values)
    yield _Element("text", product.title)
    yield _Element("text", f"Price: {product.price_text}")
    yield _Element("text", "Rating: N.A.")  # the published data have no reviews
    yield from (_Element("button", name) for name in (*_SUB_PAGES, _BUY))

  def _show(self) -> str:
    """Returns the page as text (`convert_html_to_text`)."""
    if self._mode == "text":
      return " [SEP] ".join(e.text for e in self._elements())
    lines, clicked = [], []
    for kind, text, marked in self._elements():
      if kind == "text":
        lines.append(text)
        continue
      word = "clicked button" if marked else "button"
      lines.append({"button": "", "option": "  ", "link": "\n"}[kind] + f"[{word}] {text} [{word}_]")
      if kind == "option" and marked:
        clicked.insert(0, f"You have clicked {text}.")
    return "\n".join(clicked + lines)
