"""A page of the `miniwob` package in our browser. Imports the package: import this where a page is opened."""

from collections.abc import Iterator
import json
import time
from typing import Any

from miniwob.constants import WEBDRIVER_SPECIAL_KEYS
from miniwob.reward import get_raw_reward
from miniwob.selenium_actions import (
    execute_click_coords,
    execute_mousedown_coords,
    execute_mouseup_coords,
    execute_move_coords,
    execute_press_key,
    execute_type_text,
)
from miniwob.selenium_instance import SeleniumInstance

_NO_CLOCK = 3_600_000  # milliseconds, of an episode
_READY_SECONDS = 5.0
_WAIT_SECONDS = 0.5  # of WAIT
_STYLE_CLASSES = ("ui-", "SVG_CLASS")  # say how an element looks; SVG_CLASS is the package's word for unknown

# All that is done to an element by its ref. `core` is the package's; it returns an error as text, or true.
_SELECT = """
const element = core.previousDOMInfo[arguments[0]], wanted = arguments[1].trim();
const option = Array.from(element.options || []).find(o => o.text.trim() === wanted);
if (!option) return "There is no such option.";
element.value = option.value;
element.dispatchEvent(new Event("input", {bubbles: true}));
element.dispatchEvent(new Event("change", {bubbles: true}));
return true;"""
_CLEAR = """
const element = core.previousDOMInfo[arguments[0]];
if ("value" in element && !["BUTTON", "LI", "OPTION", "SELECT"].includes(element.tagName)) element.value = "";"""
_SCROLL = """
const element = core.previousDOMInfo[arguments[0]];
element.scrollTop += arguments[1] * Math.max(20, element.clientHeight * 0.8);
return true;"""
_OPTIONS = """
const options = {};
for (const [ref, element] of Object.entries(core.previousDOMInfo))
  if (element.tagName === "SELECT") options[ref] = Array.from(element.options).map(o => o.text.trim());
return options;"""


class MiniWobPage(SeleniumInstance):
  """The package's page, in a browser that is already open, without a clock and without pictures."""

  def __init__(self, name: str, driver: Any):
    """Loads the page `name` anew: nothing of an earlier episode is left in it."""
    super().__init__(0, name, headless=True, reward_processor=get_raw_reward, data_mode="test")
    self.record_screenshots = False
    self.driver = driver
    driver.get(self.url)
    deadline = time.monotonic() + _READY_SECONDS
    while not driver.execute_script("return !!document.getElementById(arguments[0])", self.SYNC_SCREEN_ID):
      if time.monotonic() > deadline:
        raise RuntimeError(f"the page {name} did not load within {_READY_SECONDS:g} s")
      time.sleep(0.01)

  def begin(self, seed: str) -> None:
    """Starts the problem of a seed."""
    self.driver.execute_script(f"core.EPISODE_MAX_TIME = {_NO_CLOCK};")
    self.begin_task(seed=seed)
    self._look()

  def utterance(self) -> str:
    """Returns what the page asks for."""
    return " ".join(self._utterance.split())

  def outcome(self) -> tuple[bool, float]:
    """Returns whether the problem is done, and its raw reward."""
    metadata = self.get_metadata()
    return bool(metadata["done"]), self.reward_processor(metadata) if metadata["done"] else 0.0

  def act(self, verb: str, *parts: str) -> str | None:
    """Carries an action out; returns why it could not be, or None.

    Raises:
      WebDriverException: the browser would not.
    """
    # Whatever is not text that JSON can hold becomes "?".
    first, *rest = [part.encode(errors="replace").decode() for part in parts] or [""]
    if verb in ("CLICK", "TYPE", "SELECT", "SCROLL"):
      if int(first) not in self._elements:
        return f"There is no element [{first}] on the page."
      return self._act_on(verb, int(first), rest[0].strip() if rest else "")
    if verb == "PRESS":
      if first.lstrip("CSAM-")[:1] == "<" and first[first.index("<"):] not in WEBDRIVER_SPECIAL_KEYS:
        return f"There is no such key. Special keys are {', '.join(WEBDRIVER_SPECIAL_KEYS)}."
      execute_press_key(first, self.driver)
    elif verb == "WAIT":
      time.sleep(_WAIT_SECONDS)
    elif verb == "CLICK_AT":
      execute_click_coords(*_numbers(parts), self.driver)
    else:
      x, y, to_x, to_y = _numbers(parts)
      execute_mousedown_coords(x, y, self.driver)
      execute_move_coords((x + to_x) / 2, (y + to_y) / 2, self.driver)
      execute_mouseup_coords(to_x, to_y, self.driver)
    return None

  def _act_on(self, verb: str, ref: int, text: str) -> str | None:
    run = self.driver.execute_script
    if verb == "SELECT":
      result = run(_SELECT, ref, text)
    elif verb == "SCROLL":
      result = run(_SCROLL, ref, 1 if text == "down" else -1)
    else:
      result = run("return core.elementClick(arguments[0])", ref)
      if verb == "TYPE" and result is True:
        run(_CLEAR, ref)
        execute_type_text(text, self.driver)
    return None if result is True else str(result)

  def lines(self) -> Iterator[str]:
    """Looks at the page again and yields a line for every visible element."""
    self._look()
    options = self.driver.execute_script(_OPTIONS)
    yield from self._describe(self._root, options, depth=0, drawn=False)

  def _look(self) -> None:
    observation, extra = self.get_observation(use_cached_fields=False)
    self._utterance, self._root = observation["utterance"], extra["root_dom"]
    self._elements = {element.ref for element in self._root.subtree_elements}

  def _describe(self, element: Any, options: dict[str, list[str]], depth: int, drawn: bool) -> Iterator[str]:
    """Yields an element and those in it. `drawn`: it is part of a picture, so that its place matters."""
    pad = "  " * depth
    if element.tag == "t":
      yield pad + json.dumps(element.text, ensure_ascii=False)
      return
    parts = [f"[{element.ref}] {element.tag}"]
    if element.text:
      parts.append(json.dumps(element.text, ensure_ascii=False))
    classes = " ".join(name for name in element.classes.split() if not name.startswith(_STYLE_CLASSES))
    parts += [f"{name}={value}" for name, value in (("id", element.id), ("class", classes)) if value]
    if element.value not in (None, ""):
      parts.append(f"value={json.dumps(element.value, ensure_ascii=False)}")
    if str(element.ref) in options:
      parts.append(f"options={json.dumps(options[str(element.ref)], ensure_ascii=False)}")
    drawn = drawn or element.tag in ("svg", "canvas")
    if drawn:
      parts.append(f"at x={element.left:.0f} y={element.top:.0f} w={element.width:.0f} h={element.height:.0f}")
    if element.focused:
      parts.append("focused")
    yield pad + " ".join(parts)
    for child in element.children:
      yield from self._describe(child, options, depth + 1, drawn)


def _numbers(parts: tuple[str, ...]) -> list[float]:
  return [float(part) for part in parts]
