"""ReAct's Wikipedia environment on a local corpus: search for a page, look words up in it, answer.

Rules are those of `wikienv.py` of ReAct (ysymyth/ReAct, Yao et al. 2022, arXiv:2210.03629): `search[X]` opens the
page called X and shows its first five sentences, or names five similar titles and leaves the open page open;
`lookup[X]` shows the next sentence of the open page with X in it, as "(Result 1 / 3) ...". What differs: pages are
local, so that there is no disambiguation by Wikipedia's site; sentences keep their full stop, and get no second one;
the answer is `Final Answer:` in place of `finish[...]`; what cannot be carried out says why.
"""

from collections.abc import Callable, Mapping
import re
from typing import Any

from agentbank_jax.envs.answer_match import Match
from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.corpus import Corpus, Page

SENTENCES = 5  # of a page that a search shows
MAX_CHARACTERS = 2_000  # of an observation
_ECHO = 100  # characters of the agent's own text that an observation repeats

_ACTION = re.compile(r"(search|lookup)\[(.*)\]", re.IGNORECASE)


class SearchEnv:
  """`search[...]` and `lookup[...]` until the final answer.

  `Instance.data`: `question`; what `score` needs; and, for a task that reports progress, `pages`, the titles of the
  pages that lead to the answer: progress is the share of them that were opened.

  The reward is the answer's F1, and the episode is solved where the answer matches exactly.
  """

  def __init__(self, open_corpus: Callable[[], Corpus], score: Callable[[str, Mapping[str, Any]], Match],
               has_progress: bool):
    """Prepares an environment.

    Args:
      open_corpus: called when the first episode begins.
      score: compares an answer with the gold answer in `Instance.data`.
      has_progress: whether instances have `pages`.
    """
    self._open_corpus, self._score, self._has_progress = open_corpus, score, has_progress
    self._corpus: Corpus | None = None

  def reset(self, instance: Instance) -> str:
    if self._corpus is None:
      self._corpus = self._open_corpus()
    self._data = instance.data
    self._page: Page | None = None
    self._opened: set[str] = set()
    self._word, self._found, self._shown = "", [], 0
    return instance.data["question"]

  def step(self, action: Action) -> Step:
    if action.kind == "answer":
      match = self._score(action.text, self._data)
      text = "Correct." if match.exact else "Wrong."
      return Step(text, match.f1, True, False, {"solved": match.exact, **self._progress()})
    form = _ACTION.fullmatch(action.text)
    if not form:
      return self._invalid("write one of search[title of a page] and lookup[word], and nothing after it")
    verb, text = form[1].lower(), " ".join(form[2].split())
    if not text:
      return self._invalid(f"{verb}[] is empty")
    if verb == "search":
      observation = self._search(text)
    elif self._page is None:
      return self._invalid("no page is open; search first")
    else:
      observation = self._lookup(text)
    return Step(_cut(observation), 0.0, False, False, self._progress())

  def close(self) -> None:
    self._corpus = None

  def _search(self, title: str) -> str:
    page = self._corpus.page(title)
    if page is None:
      similar = self._corpus.similar(title)
      return f"Could not find {_echo(title)}. " + (f"Similar: {similar}." if similar else "Nothing is similar.")
    self._page, self._word = page, ""
    self._opened.add(page.title)
    return " ".join(page.sentences[:SENTENCES]) or "The page is empty."

  def _lookup(self, word: str) -> str:
    if word != self._word:
      self._word, self._shown = word, 0
      self._found = [s for s in self._page.sentences if word.lower() in s.lower()]
    if self._shown >= len(self._found):
      return "No more results."
    self._shown += 1
    return f"(Result {self._shown} / {len(self._found)}) {self._found[self._shown - 1]}"

  def _progress(self) -> dict[str, float]:
    if not self._has_progress:
      return {}
    wanted = set(self._data["pages"])
    return {"progress": len(wanted & self._opened) / len(wanted) if wanted else 0.0}

  def _invalid(self, why: str) -> Step:
    return Step(f"Invalid action: {why}.", 0.0, False, False, {"invalid": True, **self._progress()})


def _cut(text: str) -> str:
  if len(text) <= MAX_CHARACTERS:
    return text
  return f"{text[:MAX_CHARACTERS]}... ({MAX_CHARACTERS} of {len(text)} characters shown)"


def _echo(text: str) -> str:
  return text if len(text) <= _ECHO else f"{text[:_ECHO]}..."
