"""WebArena (Zhou et al. 2023, arXiv:2307.13854): a real browser on websites that the user hosts.

Actions, observation and evaluation are the published ones (browser_env/actions.py and processors.py,
evaluation_harness/evaluators.py of web-arena-x/webarena). What differs: the sites have their own addresses, not those
of the sites they stand for; the reward is given for `stop` alone, so that an episode that runs out of steps has none;
a browser goes to the hosted sites and nowhere else.
"""

from collections.abc import Callable
import pathlib
import re
from typing import Any

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.browser import browser_errors, first_line
from agentbank_jax.envs.webarena_eval import Context, Judge, make_evaluator
from agentbank_jax.envs.webarena_sites import MagentoShop, fill_in, hosted_sites
from agentbank_jax.errors import UserError

AND = " |AND| "  # between the pages that a task starts on

GRAMMAR = ("click [id], type [id] [text] [1 for Enter at the end, or 0], hover [id], press [keys], scroll [down] or "
           "[up], new_tab, tab_focus [number], close_tab, goto [url], go_back, go_forward or stop [answer]")

_MAX_CHARACTERS = 16_000  # of a tree
_EPISODES = 100  # that one browser plays
_NUMBER = r"\[?(\d{1,9})\]?"
_FORMS = {verb: re.compile(form, re.DOTALL) for verb, form in {
    "click": _NUMBER,
    "hover": _NUMBER,
    "type": r"\[(\d{1,9})\]\s*\[(.*?)\](?:\s*\[?(?:press_enter_after=)?([01])\]?)?",
    "press": r"\[(.+)\]",
    "scroll": r"\[?(?:direction=)?(up|down)\]?",
    "new_tab": "",
    "tab_focus": _NUMBER,
    "close_tab": "",
    "goto": r"\[(.+)\]",
    "go_back": "",
    "go_forward": "",
    "stop": r"(?:\[(.*)\])?",
}.items()}
_ACTION = re.compile(r"([a-z_]+)\s*(.*)", re.DOTALL)


class WebArenaEnv:
  """One task at a time; the browser stays open from one episode to the next, and forgets everything between them.

  `Instance.data`: of a config `intent`, `start_url`, `storage_state` (a file's name, or None) and `eval`, with the
  placeholders of the sites.
  """

  def __init__(self, auth: Callable[[], pathlib.Path | None], judge: Callable[[], Judge | None],
               settle_seconds: float = 0.5):
    """Prepares an environment.

    Args:
      auth: returns the folder with the `storage_state` files, or None where there is none.
      judge: returns who judges free answers, or None.
      settle_seconds: waited after every action, for what a page does on its own.
    """
    self._auth, self._load_judge, self._settle_seconds = auth, judge, settle_seconds
    self._browser: Any = None

  def reset(self, instance: Instance) -> str:
    data = instance.data
    sites = hosted_sites()
    self._evaluator = make_evaluator(data["intent"], fill_in(data["eval"], sites))
    self._judge = self._load_judge()
    if self._evaluator.needs_judge and self._judge is None:
      raise UserError(f"webarena, {instance.id}: its answer needs a judge")
    self._shop = MagentoShop(sites["SHOPPING"]) if "SHOPPING" in sites else None
    state = self._read_state(data["storage_state"])
    urls = fill_in(data["start_url"], sites).split(AND)
    if self._browser is None or self._sites != sites or self._episodes >= _EPISODES:
      self._open_browser(sites)
    self._episodes += 1
    try:
      self._browser.start(urls, state)
    except browser_errors():  # it died since the last episode
      self._open_browser(sites)
      self._browser.start(urls, state)
    return f"OBJECTIVE: {data['intent']}\n{self._show()}"

  def step(self, action: Action) -> Step:
    found = _ACTION.fullmatch(action.text)
    form = _FORMS.get(found[1]) if found else None
    match = form.fullmatch(found[2].strip()) if form else None
    if not match:
      return self._invalid(f"An action is {GRAMMAR}.")
    verb, parts = found[1], [(part or "").encode(errors="replace").decode() for part in match.groups()]
    if verb == "stop":
      context = Context(self._browser, self._shop, self._judge)
      solved = self._evaluator.succeeds(parts[0], context)
      return Step("The task has ended.", float(solved), True, False, {"solved": solved})
    try:
      error = self._act(verb, parts)
    except browser_errors() as e:
      error = first_line(e)
    self._browser.settle()  # raises where the browser is gone
    if error:
      return self._invalid(error)
    if foreign := self._browser.leave_foreign_page():
      return self._invalid(f"{foreign[:200]!r} is not on this task's websites. You are back at {self._browser.url}")
    return Step(self._show(), 0.0, False, False, {})

  def close(self) -> None:
    if self._browser is not None:
      self._browser.close()
      self._browser = None

  def _act(self, verb: str, parts: list[str]) -> str | None:
    """Carries an action out; returns why it could not be, or None."""
    browser = self._browser
    if verb in ("click", "hover", "type"):
      number = int(parts[0])
      if not browser.has(number):
        return f"There is no element [{number}] in the window."
      if verb == "type":
        browser.type(number, parts[1], enter=parts[2] != "0")
      else:
        getattr(browser, verb)(number)
    elif verb == "press":
      return None if browser.press(parts[0]) else f"There are no such keys as {parts[0][:80]!r}."
    elif verb == "scroll":
      browser.scroll(down=parts[0] == "down")
    elif verb == "tab_focus":
      return None if browser.focus_tab(int(parts[0])) else f"There is no tab {parts[0]}."
    elif verb == "goto":
      if not browser.may_open(parts[0]):
        return f"{parts[0][:200]!r} is not on this task's websites."
      browser.open(parts[0])
    elif verb in ("go_back", "go_forward"):
      browser.go(forward=verb == "go_forward")
    else:
      getattr(browser, verb)()  # new_tab, close_tab
    return None

  def _open_browser(self, sites: dict[str, str]) -> None:
    try:
      from agentbank_jax.envs.webarena_browser import WebArenaBrowser
    except ImportError as e:
      raise UserError(f"WebArena needs a package ({e}); pip install 'agentbank-jax[envs]'") from None
    self.close()
    self._browser, self._sites, self._episodes = WebArenaBrowser(
        list(sites.values()), self._settle_seconds), sites, 0

  def _read_state(self, name: str | None) -> Any:
    if name is None:
      return None
    from agentbank_jax.envs.webarena_browser import read_state
    return read_state(self._auth() / pathlib.PurePosixPath(name).name)

  def _invalid(self, why: str) -> Step:
    return Step(f"Error: {why}", 0.0, False, False, {"invalid": True})

  def _show(self) -> str:
    text = self._browser.observe()
    if len(text) > _MAX_CHARACTERS:
      text = f"{text[:_MAX_CHARACTERS]}... ({_MAX_CHARACTERS} of {len(text)} characters shown; scroll)"
    return f"URL: {self._browser.url}\n{text}"
