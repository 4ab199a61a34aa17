"""EM and F1 against the published definitions, on cases worked out by hand and on random texts."""

from collections import Counter
import re
import string

import hypothesis
from hypothesis import strategies as st
import pytest

from agentbank_jax.envs.answer_match import (
    hotpot_match,
    hotpot_normalise,
    trivia_match,
    trivia_normalise,
    yes_no_match,
)

TEXTS = st.text(alphabet="aAnN theTHE_-.,'’`!1é", max_size=12)


def squad_words(text):
  """SQuAD's order of the rules: small letters, then no punctuation, then no articles, then spaces."""
  text = text.lower().translate({ord(mark): None for mark in string.punctuation})
  return re.sub(r"\b(a|an|the)\b", " ", text).split()


def trivia_words(text):
  """TriviaQA's: underscores and punctuation become spaces, four more quotation marks among it."""
  marks = string.punctuation + "‘’´`"
  text = text.replace("_", " ").lower().translate({ord(mark): " " for mark in marks})
  return re.sub(r"\b(a|an|the)\b", " ", text).split()


def harmonic_f1(ours, theirs):
  same = sum((Counter(ours) & Counter(theirs)).values())
  if not same:
    return 0.0
  precision, recall = same / len(ours), same / len(theirs)
  return 2 * precision * recall / (precision + recall)


@hypothesis.given(TEXTS, TEXTS)
def test_hotpot_is_the_published_definition(answer, gold):
  ours, theirs = squad_words(answer), squad_words(gold)
  assert hotpot_normalise(answer) == " ".join(ours)
  if theirs:
    match = hotpot_match(answer, gold)
    assert match.exact == (ours == theirs)
    assert match.f1 == pytest.approx(harmonic_f1(ours, theirs))


@hypothesis.given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_trivia_is_the_published_definition(answer, aliases):
  ours = trivia_words(answer)
  assert trivia_normalise(answer) == " ".join(ours)
  golds = [trivia_words(alias) for alias in aliases]
  if all(golds):
    match = trivia_match(answer, aliases)
    assert match.exact == (ours in golds)
    assert match.f1 == pytest.approx(max(harmonic_f1(ours, gold) for gold in golds))


@pytest.mark.parametrize("answer, gold, exact, f1", [
    ("the Eiffel Tower!", "Eiffel tower", True, 1.0),
    ("Eiffel", "Eiffel Tower", False, 2 / 3),
    ("Tower Eiffel", "Eiffel Tower", False, 1.0),  # F1 does not see the order
    ("York York", "New York", False, 0.5),  # a word counts as often as both have it
    ("U.S.", "US", True, 1.0),
    ("twenty-one", "twenty one", False, 0.0),  # punctuation goes and leaves no space
    ("yes", "Yes.", True, 1.0),
    ("yes it is", "yes", False, 0.0),  # HotpotQA's rule: yes, no and noanswer share no words
    ("no", "no one", False, 0.0),
    ("noanswer", "noanswer given", False, 0.0),
    ("Paris or London", "Paris", False, 0.5),
    ("not Paris", "Paris", False, 2 / 3),
    ("Paris, Texas", "Paris", False, 2 / 3),
    ("", "Paris", False, 0.0),
    ("a", "The The", False, 0.0), ("the  the", "The The", True, 1.0),  # our departure: nothing is left of the gold
])
def test_hotpot_cases(answer, gold, exact, f1):
  assert hotpot_match(answer, gold) == (exact, pytest.approx(f1))


@pytest.mark.parametrize("answer, aliases, exact, f1", [
    ("Sunset_Blvd.", ["sunset boulevard", "sunset blvd"], True, 1.0),
    ("twenty-one", ["twenty one"], True, 1.0),  # here punctuation leaves a space
    ("O‘Neill’s", ["o neill s"], True, 1.0),
    ("the west", ["west sunset boulevard", "sunset blvd"], False, 0.5),  # the best alias counts
    ("Sunset Boulevard or Vine Street", ["sunset boulevard"], False, 4 / 7),
    ("yes it is", ["yes"], False, 0.5),  # no rule for yes and no
])
def test_trivia_cases(answer, aliases, exact, f1):
  assert trivia_match(answer, aliases) == (exact, pytest.approx(f1))


@pytest.mark.parametrize("answer, gold, exact", [
    ("yes", True, True), ("Yes.", True, True), ("the yes", True, True), ("no", False, True), ("NO!", False, True),
    ("no", True, False), ("yes", False, False), ("yes or no", True, False), ("yes and no", False, False),
    ("yes, it is", True, False), ("true", True, False), ("not no", True, False), ("", False, False), ("y", True, False),
])
def test_yes_and_no(answer, gold, exact):
  assert yes_no_match(answer, gold) == (exact, float(exact))
