"""Scripts that solve some of MiniWoB++'s pages, from what an agent sees.

A script is a generator: it is given the instruction and the first page, yields actions and is sent the next pages.
"""

from collections.abc import Callable, Generator, Sequence
import json
import re
from typing import NamedTuple


class Element(NamedTuple):
  """A line of an observation; `rest` is what stands behind ref, tag and text."""

  ref: str
  tag: str
  text: str
  rest: str


Page = Sequence[Element]
Script = Generator[str, Page, None]

_LINE = re.compile(r'^ *(?:\[(\d+)\] (\S+) ?)?("(?:[^"\\]|\\.)*")? ?(.*)$')
_QUOTED = re.compile(r'"([^"]*)"')


def read_page(observation: str) -> list[Element]:
  """Returns the elements of an observation, in order; texts between elements have no ref and the tag "t"."""
  lines = observation.split("Page:\n", 1)[-1].splitlines()
  page = []
  for line in lines:
    ref, tag, text, rest = _LINE.match(line).groups()
    page.append(Element(ref or "", tag or "t", json.loads(text) if text else "", rest))
  return page


def _find(page: Page, tag: str = "", text: str | None = None, rest: str = "") -> Element:
  """Returns the first element that fits; `tag` is the beginning of one."""
  return next(e for e in page if e.ref and e.tag.startswith(tag) and rest in e.rest
              and (text is None or e.text == text))


def _all(page: Page, tag: str) -> list[Element]:
  return [e for e in page if e.tag.startswith(tag)]


def _click(element: Element) -> str:
  return f"CLICK [{element.ref}]"


def _type(element: Element, text: str) -> str:
  return f"TYPE [{element.ref}] {text}"


def _quoted(instruction: str) -> list[str]:
  return _QUOTED.findall(instruction)


def _button(instruction: str, page: Page) -> Script:
  """The one button there is, or the one whose name is quoted."""
  name = _quoted(instruction)
  yield _click(_find(page, "button", *name[:1]))


def _test_2(instruction: str, page: Page) -> Script:
  yield _click(_find(page, "button", re.search(r"button (\w+)", instruction)[1]))


def _named(tag: str) -> Callable[[str, Page], Script]:
  """The element of a tag whose text is quoted."""
  def script(instruction: str, page: Page) -> Script:
    yield _click(_find(page, tag, _quoted(instruction)[0]))
  return script


def _button_sequence(instruction: str, page: Page) -> Script:
  yield _click(_find(page, "button", "ONE"))
  yield _click(_find(page, "button", "TWO"))


def _dialog(instruction: str, page: Page) -> Script:
  yield _click(_find(page, "button"))


def _dialog_2(instruction: str, page: Page) -> Script:
  wanted = _quoted(instruction)[0]
  buttons = _all(page, "button")
  yield _click(buttons[0] if wanted == "x" else _find(page, "button", wanted))


def _option(instruction: str, page: Page) -> Script:
  wanted = re.search(r"Select (.*) and click", instruction)[1]
  yield _click(_before(page, "input_radio", wanted))
  yield _click(_find(page, "button"))


def _before(page: Page, tag: str, text: str) -> Element:
  """Returns the last element of a tag that stands before a text."""
  at = next(i for i, e in enumerate(page) if e.text == text)
  return [e for e in page[:at] if e.tag == tag][-1]


def _checkboxes(instruction: str, page: Page) -> Script:
  wanted = re.search(r"Select (.*) and click", instruction)[1]
  for name in [] if wanted == "nothing" else wanted.split(", "):
    yield _click(_before(page, "input_checkbox", name))
  yield _click(_find(page, "button"))


def _tab(instruction: str, page: Page) -> Script:
  yield _click(_find(page, "a", f"Tab #{re.search(r'[0-9]+', instruction)[0]}"))


def _tab_2(instruction: str, page: Page) -> Script:
  """Looks behind every tab for the link."""
  wanted = _quoted(instruction)[0]
  for tab in [e for e in _all(page, "a") if e.text.startswith("Tab #")]:
    page = yield _click(tab)
    if links := [e for e in page if e.tag == "span" and e.text == wanted]:
      yield _click(links[0])


def _collapsible(instruction: str, page: Page) -> Script:
  page = yield _click(_find(page, "h3"))
  yield _click(_find(page, "button"))


def _enter_text(instruction: str, page: Page) -> Script:
  yield _type(_find(page, "input_text"), _quoted(instruction)[0])
  yield _click(_find(page, "button"))


def _enter_text_2(instruction: str, page: Page) -> Script:
  word = _quoted(instruction)[0]
  yield _type(_find(page, "input_text"), word.upper() if "upper" in instruction else word.lower())
  yield _click(_find(page, "button"))


def _enter_password(instruction: str, page: Page) -> Script:
  for field in _all(page, "input_password"):
    yield _type(field, _quoted(instruction)[0])
  yield _click(_find(page, "button"))


def _login(instruction: str, page: Page) -> Script:
  name, password = _quoted(instruction)
  yield _type(_find(page, "input_text"), name)
  yield _type(_find(page, "input_password"), password)
  yield _click(_find(page, "button"))


def _login_popup(instruction: str, page: Page) -> Script:
  """As `_login`; a box that asks whether to stay may appear at any time, and is answered first."""
  name, password = _quoted(instruction)
  for tag, text in (("input_text", name), ("input_password", password)):
    field = _find(page, tag)
    page = yield _type(field, text)
    if popup := [e for e in page if e.text == "Cancel"]:
      yield _click(popup[0])
      page = yield _type(field, text)
  yield _click(_find(page, "button", rest="id=subbtn"))


def _focus(instruction: str, page: Page) -> Script:
  number = re.search(r"(\d+)(?:st|nd|rd|th)", instruction)
  yield _click(_all(page, "input_text")[int(number[1]) - 1 if number else 0])


def _arithmetic(instruction: str, page: Page) -> Script:
  a, sign, b = re.match(r"(\d+) ?([-+x*]) ?(\d+)", _find(page, "div", rest="id=math-problem").text).groups()
  result = {"+": int(a) + int(b), "-": int(a) - int(b)}.get(sign, int(a) * int(b))
  yield _type(_find(page, "input_text"), str(result))
  yield _click(_find(page, "button"))


def _guess(instruction: str, page: Page) -> Script:
  """Halves the range until the page is done."""
  low, high = 0, 9
  while True:
    guess = (low + high) // 2
    yield _type(_find(page, "input"), str(guess))
    page = yield _click(_find(page, "button"))
    if any("higher" in e.text for e in page):
      low = guess + 1
    else:
      high = guess - 1


def _choose_list(instruction: str, page: Page) -> Script:
  wanted = re.search(r"Select (.*) from the list", instruction)[1]
  yield f"SELECT [{_find(page, 'select').ref}] {wanted}"
  yield _click(_find(page, "button"))


def _read_table(instruction: str, page: Page) -> Script:
  wanted = re.search(r"value of (.*) into", instruction)[1]
  cells = [e.text for e in page if e.tag == "td"]
  yield _type(_find(page, "input_text"), cells[cells.index(wanted) + 1])
  yield _click(_find(page, "button"))


def _widget(instruction: str, page: Page) -> Script:
  kind = _quoted(instruction)[0]
  tag = {"checkbox": "input_checkbox", "radio": "input_radio", "text": "input_text"}.get(kind, kind)
  yield _click(_find(page, tag))


SCRIPTS: dict[str, Callable[[str, Page], Script]] = {
    "choose-list": _choose_list,
    "click-button": _button,
    "click-button-sequence": _button_sequence,
    "click-checkboxes": _checkboxes,
    "click-checkboxes-large": _checkboxes,
    "click-checkboxes-transfer": _checkboxes,
    "click-collapsible-nodelay": _collapsible,
    "click-dialog": _dialog,
    "click-dialog-2": _dialog_2,
    "click-link": _named("span"),
    "click-option": _option,
    "click-tab": _tab,
    "click-tab-2": _tab_2,
    "click-tab-2-easy": _tab_2,
    "click-test": _button,
    "click-test-2": _test_2,
    "click-test-transfer": _test_2,
    "click-widget": _widget,
    "enter-password": _enter_password,
    "enter-text": _enter_text,
    "enter-text-2": _enter_text_2,
    "enter-text-dynamic": _enter_text,
    "focus-text": _focus,
    "focus-text-2": _focus,
    "guess-number": _guess,
    "login-user": _login,
    "login-user-popup": _login_popup,
    "read-table": _read_table,
    "simple-arithmetic": _arithmetic,
}
