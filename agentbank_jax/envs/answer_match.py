"""Exact match and F1 of short answers, as the question-answering benchmarks define them.

- SQuAD and HotpotQA: `normalize_answer`, `f1_score`, `exact_match_score` of hotpot_evaluate_v1.py (hotpotqa/hotpot,
  Yang et al. 2018, arXiv:1809.09600), which takes SQuAD's (Rajpurkar et al. 2016, arXiv:1606.05250) and adds that
  "yes", "no" and "noanswer" have no F1 but their own.
- TriviaQA: triviaqa_evaluation.py (mandarjoshi90/triviaqa, Joshi et al. 2017, arXiv:1705.03551): its own
  normalisation, and the best of all aliases.

One departure: a gold answer of which the normalisation leaves nothing ("The The", "A", "!") would be matched by
every such answer; there the lower-cased text itself is compared.
"""

from collections import Counter
from collections.abc import Callable, Iterable
import re
import string
from typing import NamedTuple

_NO_WORDS = ("yes", "no", "noanswer")  # HotpotQA: answers that share no words with others
_TRIVIA_MARKS = frozenset(string.punctuation + "‘’´`")


class Match(NamedTuple):
  """How well an answer agrees with the gold answer.

  Attributes:
    exact: whether they are the same after normalisation.
    f1: of their words, from 0 to 1.
  """

  exact: bool
  f1: float


def hotpot_normalise(text: str) -> str:
  """Returns `text` lower-cased, without punctuation and articles, with single spaces: "The U.S." is "us"."""
  return _without_articles("".join(c for c in text.lower() if c not in string.punctuation))


def trivia_normalise(text: str) -> str:
  """The same, but punctuation and underscores part words: "The U.S." is "u s"."""
  return _without_articles("".join(" " if c in _TRIVIA_MARKS else c for c in text.lower()))


def hotpot_match(answer: str, gold: str) -> Match:
  """Scores an answer as HotpotQA's evaluation does."""
  ours, theirs = _normalised(answer, gold, hotpot_normalise)
  if ours != theirs and (ours in _NO_WORDS or theirs in _NO_WORDS):
    return Match(False, 0.0)
  return Match(ours == theirs, _f1(ours, theirs))


def trivia_match(answer: str, aliases: Iterable[str]) -> Match:
  """Scores an answer as TriviaQA's evaluation does: EM and F1 each the best over `aliases`."""
  matches = []
  for alias in aliases:
    ours, theirs = _normalised(answer, alias, trivia_normalise)
    matches.append(Match(ours == theirs, _f1(ours, theirs)))
  return Match(any(m.exact for m in matches), max(m.f1 for m in matches))


def yes_no_match(answer: str, gold: bool) -> Match:
  """Scores a yes/no answer: it must be the one word, apart from case, punctuation and articles."""
  exact = hotpot_normalise(answer) == ("yes" if gold else "no")
  return Match(exact, float(exact))


def _without_articles(text: str) -> str:
  return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _normalised(answer: str, gold: str, normalise: Callable[[str], str]) -> tuple[str, str]:
  theirs = normalise(gold)
  if not theirs:
    normalise = lambda text: " ".join(text.lower().split())
  return normalise(answer), normalise(gold)


def _f1(answer: str, gold: str) -> float:
  ours, theirs = answer.split(), gold.split()
  same = (Counter(ours) & Counter(theirs)).total()
  return 2 * same / (len(ours) + len(theirs)) if same else 0.0
