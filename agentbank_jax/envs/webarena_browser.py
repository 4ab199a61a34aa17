"""The browser of a WebArena episode: tabs, mouse, keys, and the page as a tree. Imports selenium."""

from collections.abc import Mapping, Sequence
import json
import time
from typing import Any
import urllib.parse

from selenium.common.exceptions import JavascriptException, NoSuchWindowException, TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from agentbank_jax.envs.browser import Browser
from agentbank_jax.envs.webarena_eval import ScriptError
from agentbank_jax.envs.webarena_tree import Node, boxes_in_window, show_tree

_WIDTH, _HEIGHT = 1280, 720  # as published
_LOAD_SECONDS = 30.0
_BLANK = "about:blank"

# Names of keys as Playwright has them, which the published actions use.
_KEYS = {"control": Keys.CONTROL, "meta": Keys.META, "shift": Keys.SHIFT, "alt": Keys.ALT, "enter": Keys.ENTER,
         "tab": Keys.TAB, "backspace": Keys.BACKSPACE, "delete": Keys.DELETE, "escape": Keys.ESCAPE,
         "space": Keys.SPACE, "insert": Keys.INSERT, "home": Keys.HOME, "end": Keys.END, "pageup": Keys.PAGE_UP,
         "pagedown": Keys.PAGE_DOWN, "arrowup": Keys.ARROW_UP, "arrowdown": Keys.ARROW_DOWN,
         "arrowleft": Keys.ARROW_LEFT, "arrowright": Keys.ARROW_RIGHT} | {
             f"f{n}": getattr(Keys, f"F{n}") for n in range(1, 13)}
# Keys and wheels scroll when the next frame is drawn; a tab behind others draws none.
_TWO_FRAMES = """
const done = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(done));
setTimeout(done, 100);"""
_CHOOSE = """
function() {
  const list = this.closest("select");
  if (list === null) { this.click(); return; }
  this.selected = true;
  list.dispatchEvent(new Event("input", {bubbles: true}));
  list.dispatchEvent(new Event("change", {bubbles: true}));
}"""


class WebArenaBrowser:
  """A browser that reaches the hosted sites alone. It is an evaluator's `Page`, too."""

  def __init__(self, sites: Sequence[str], settle_seconds: float):
    """Starts it.

    Args:
      sites: addresses of the sites.
      settle_seconds: waited after every action, for what a page does on its own.
    """
    self._origins = {_origin(site) for site in sites}
    self._settle_seconds = settle_seconds
    hosts = {urllib.parse.urlparse(site).hostname for site in sites}
    self._browser = Browser(sorted(hosts), width=_WIDTH, height=_HEIGHT, seconds=_LOAD_SECONDS)
    self._driver = self._browser.driver
    self._nodes: dict[int, Node] = {}

  def close(self) -> None:
    self._browser.close()

  # ---- an episode

  def start(self, urls: Sequence[str], state: Mapping[str, Any] | None) -> None:
    """Forgets everything before, takes a `storage_state` as Playwright writes it, and opens a tab for every url."""
    before = self._driver.window_handles
    self.new_tab()
    fresh = self._driver.current_window_handle
    for handle in before:
      self._driver.switch_to.window(handle)
      self._driver.close()
    self._driver.switch_to.window(fresh)
    self._browser.cdp("Network.clearBrowserCookies")
    self._browser.cdp("Network.clearBrowserCache")
    for origin in sorted(self._origins):
      self._browser.cdp("Storage.clearDataForOrigin", origin=origin, storageTypes="all")
    for cookie in (state or {}).get("cookies", ()):
      # Playwright writes -1 for a cookie that ends with the session.
      self._browser.cdp("Network.setCookie", **{k: v for k, v in cookie.items() if (k, v) != ("expires", -1)})
    for place in (state or {}).get("origins", ()):
      self.open(place["origin"])
      for item in place["localStorage"]:
        self._driver.execute_script("localStorage.setItem(arguments[0], arguments[1])", item["name"], item["value"])
    for n, url in enumerate(urls):
      if n:
        self.new_tab()
      self.open(url)
    self.focus_tab(0)

  def may_open(self, url: str) -> bool:
    """Whether `url` is on a hosted site."""
    return _origin(url) in self._origins

  # ---- an evaluator's page

  @property
  def url(self) -> str:
    return self._driver.current_url

  def content(self) -> str:
    return self._driver.page_source

  def evaluate(self, script: str) -> Any:
    try:
      return self._driver.execute_script(f"return {script.strip()}")
    except JavascriptException as e:
      raise ScriptError(str(e.msg)) from None

  def open(self, url: str) -> None:
    try:
      self._driver.get(url)
    except TimeoutException:  # what has come so far is the page
      self._driver.execute_script("window.stop()")
    self.settle()

  # ---- what the agent sees

  def observe(self) -> str:
    """Returns tabs and tree, after `settle`."""
    handles = self._driver.window_handles
    x, y, title = self._driver.execute_script("return [window.pageXOffset, window.pageYOffset, document.title]")
    if len(handles) == 1:
      tabs = [f"Tab 0 (current): {title}"]
    else:
      tabs, current = [], self._driver.current_window_handle
      for n, handle in enumerate(handles):
        self._driver.switch_to.window(handle)
        tabs.append(f"Tab {n}{' (current)' if handle == current else ''}: {self._driver.title}")
      self._driver.switch_to.window(current)
    snapshot = self._browser.cdp("DOMSnapshot.captureSnapshot", computedStyles=[], includeDOMRects=True)
    nodes = self._browser.cdp("Accessibility.getFullAXTree")["nodes"]
    tree, self._nodes = show_tree(nodes, boxes_in_window(snapshot, (x, y), (_WIDTH, _HEIGHT)))
    return f"{' | '.join(tabs)}\n\n{tree}"

  def settle(self) -> None:
    """Waits until the page has loaded, and then a little; a tab that closed itself gives way to the last one."""
    if self._settle_seconds:
      time.sleep(self._settle_seconds)
    ready = "return document.readyState === 'complete'"
    try:
      done = self._driver.execute_script(ready)
    except NoSuchWindowException:
      self._driver.switch_to.window(self._driver.window_handles[-1])
      done = self._driver.execute_script(ready)
    deadline = time.monotonic() + _LOAD_SECONDS
    while not (done and self._draws()) and time.monotonic() < deadline:
      time.sleep(0.02)
      done = self._driver.execute_script(ready)

  def _draws(self) -> bool:
    """Waits for two frames; returns False where another page took this one's place meanwhile."""
    try:
      self._driver.execute_async_script(_TWO_FRAMES)
    except (JavascriptException, TimeoutException):  # ChromeDriver says either, and at once
      return False
    return True

  def leave_foreign_page(self) -> str | None:
    """Goes back where a page is on no hosted site; returns what it was, or None."""
    url = self.url
    if url == _BLANK or self.may_open(url):
      return None
    self._driver.back()
    self.settle()
    if self.url != _BLANK and not self.may_open(self.url):
      self.open(_BLANK)
    return url

  # ---- what the agent does

  def has(self, number: int) -> bool:
    return number in self._nodes

  def click(self, number: int) -> None:
    node = self._nodes[number]
    if node.box is None or node.role == "option":
      self._choose(node)
    else:
      self._pointer(node).click().perform()

  def hover(self, number: int) -> None:
    if self._nodes[number].box is not None:
      self._pointer(self._nodes[number]).perform()

  def type(self, number: int, text: str, enter: bool) -> None:
    self.click(number)
    ActionChains(self._driver, duration=0).send_keys(text + (Keys.ENTER if enter else "")).perform()

  def press(self, keys: str) -> bool:
    """Presses keys together ("Control+a"); returns whether there are such keys."""
    names = keys.split("+") if keys != "+" else ["+"]
    codes = [_KEYS.get(name.lower(), name) for name in names]
    if not all(len(code) == 1 for code in codes):
      return False
    chain = ActionChains(self._driver, duration=0)
    for code in codes:
      chain.key_down(code)
    for code in reversed(codes):
      chain.key_up(code)
    chain.perform()
    return True

  def scroll(self, down: bool) -> None:
    self._driver.execute_script("(document.scrollingElement || document.body).scrollTop += arguments[0]"
                                " * window.innerHeight", 1 if down else -1)

  def new_tab(self) -> None:
    self._driver.switch_to.new_window("tab")
    self._browser.cdp("Emulation.setDeviceMetricsOverride", width=_WIDTH, height=_HEIGHT, deviceScaleFactor=1,
                      mobile=False)

  def focus_tab(self, number: int) -> bool:
    """Goes to a tab; returns whether there is one of that number."""
    handles = self._driver.window_handles
    if number >= len(handles):
      return False
    self._driver.switch_to.window(handles[number])
    return True

  def close_tab(self) -> None:
    """Closes the tab; the last one left is a new one."""
    if len(self._driver.window_handles) == 1:
      closing = self._driver.current_window_handle
      self.new_tab()
      fresh = self._driver.current_window_handle
      self._driver.switch_to.window(closing)
      self._driver.close()
      self._driver.switch_to.window(fresh)
    else:
      self._driver.close()
      self._driver.switch_to.window(self._driver.window_handles[-1])

  def go(self, forward: bool) -> None:
    (self._driver.forward if forward else self._driver.back)()

  def _pointer(self, node: Node) -> ActionChains:
    """Returns a chain that has moved the mouse to the middle of what is seen of a node."""
    box = node.box
    chain = ActionChains(self._driver, duration=0)
    chain.w3c_actions.pointer_action.move_to_location(box.x + box.width / 2, box.y + box.height / 2)
    return chain

  def _choose(self, node: Node) -> None:
    """Takes an option of a list, which the mouse cannot reach while the list is closed."""
    found = self._browser.cdp("DOM.resolveNode", backendNodeId=node.backend_id)["object"]["objectId"]
    self._browser.cdp("Runtime.callFunctionOn", objectId=found, functionDeclaration=_CHOOSE)


def read_state(path: Any) -> Mapping[str, Any]:
  """Returns a `storage_state` file."""
  return json.loads(path.read_text())


def _origin(url: str) -> str:
  parsed = urllib.parse.urlparse(url)
  return f"{parsed.scheme}://{parsed.netloc}"
