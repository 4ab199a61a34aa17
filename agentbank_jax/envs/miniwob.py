"""MiniWoB++ (Shi et al. 2017; Liu et al. 2018, arXiv:1802.08802): small web pages in a real browser, by elements.

Pages, problems and rewards are the `miniwob` package's own. What differs from its default: there is no clock. The
package ends an episode after ten seconds and makes the reward smaller as they pass, which measures how fast a model
answers; here an episode has an hour, and the reward is the raw one, as the package calls it.
"""

import re

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.browser import Browser, browser_errors, first_line
from agentbank_jax.errors import UserError

GRAMMAR = ("CLICK [ref], TYPE [ref] text, SELECT [ref] option, PRESS key, SCROLL [ref] up or down, CLICK_AT x y, "
           "DRAG x y x y or WAIT")

_EPISODES = 200  # that one browser plays; then a new one takes its place
_MAX_CHARACTERS = 8_000  # of an observation
_NUMBER = r"(-?\d{1,5}(?:\.\d{1,3})?)"
_FORMS = {verb: re.compile(form, re.DOTALL) for verb, form in {
    "CLICK": r"\[(\d{1,9})\]",
    "TYPE": r"\[(\d{1,9})\](.*)",
    "SELECT": r"\[(\d{1,9})\](.+)",
    "PRESS": r"((?:[CSAM]-)*(?:<\w+>|\S))",
    "SCROLL": r"\[(\d{1,9})\]\s*(up|down)",
    "CLICK_AT": rf"{_NUMBER},?\s+{_NUMBER}",
    "DRAG": rf"{_NUMBER},?\s+{_NUMBER},?\s+{_NUMBER},?\s+{_NUMBER}",
    "WAIT": "",
}.items()}


class MiniWobEnv:
  """One page at a time; the browser stays open from one episode to the next.

  `Instance.data`: `page`, as in the package's html folder without its ending; and `seed`, a text, of the problem.
  Observations list the page's visible elements, nested, each with its ref: `[7] button "ok" id=subbtn`.
  """

  def __init__(self):
    self._browser = None
    self._page = None

  def reset(self, instance: Instance) -> str:
    if self._browser is None or self._episodes >= _EPISODES:
      self._open_browser()
    self._episodes += 1
    try:
      self._start(instance)
    except browser_errors():  # it died since the last episode
      self._open_browser()
      self._start(instance)
    return f"Instruction: {self._page.utterance()}\n{self._show()}"

  def step(self, action: Action) -> Step:
    verb, _, rest = action.text.partition(" ")
    match = _FORMS[verb].fullmatch(rest.strip()) if verb in _FORMS else None
    if not match:
      return self._invalid(f"An action is {GRAMMAR}.")
    try:
      error = self._page.act(verb, *match.groups())
    except browser_errors() as e:
      error = first_line(e)
    done, reward = self._page.outcome()  # raises where the browser is gone
    if done:
      text = f"The page is done. Reward: {reward:g}."
      return Step(text, reward, True, False, {"solved": reward > 0})
    if error:
      return self._invalid(error)
    return Step(self._show(), 0.0, False, False, {})

  def close(self) -> None:
    if self._browser is not None:
      self._browser.close()
      self._browser = self._page = None

  def _open_browser(self) -> None:
    self.close()
    self._browser, self._episodes = Browser(width=500, height=320), 0

  def _start(self, instance: Instance) -> None:
    try:
      from agentbank_jax.envs.miniwob_page import MiniWobPage
    except ImportError as e:
      raise UserError(f"MiniWoB++ needs a package ({e}); pip install 'agentbank-jax[envs]'") from None
    self._page = MiniWobPage(instance.data["page"], self._browser.driver)
    self._page.begin(instance.data["seed"])

  def _invalid(self, why: str) -> Step:
    return Step(f"Error: {why}", 0.0, False, False, {"invalid": True})

  def _show(self) -> str:
    text = "\n".join(self._page.lines())
    if len(text) > _MAX_CHARACTERS:
      text = f"{text[:_MAX_CHARACTERS]}... ({_MAX_CHARACTERS} of {len(text)} characters shown)"
    return f"Page:\n{text}"

