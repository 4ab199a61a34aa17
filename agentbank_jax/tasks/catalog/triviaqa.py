"""TriviaQA (Joshi et al. 2017, arXiv:1705.03551): trivia questions, on ReAct's search environment.

The pages are the Wikipedia pages of the release (`evidence/wikipedia`), where they are there; else they must come
from a Wikipedia (`agentbank_jax.tasks.search`). There is no gold path: the expert opens the page that the question
was matched with, or searches for the question, and knows the answer.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import os
import pathlib
from typing import Any

from agentbank_jax.envs.answer_match import Match, trivia_match, trivia_normalise
from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.corpus import Corpus, Page
from agentbank_jax.envs.search import SearchEnv
from agentbank_jax.envs.wikipedia import sentences
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, rows, search, splits
from agentbank_jax.tasks.task import MetricCard, Source, Task

_SOURCE = "nlp.cs.washington.edu/triviaqa (triviaqa-unfiltered.tar.gz, or triviaqa-rc.tar.gz with its evidence)"
_FILES = {"train": ("unfiltered-web-train.json", "qa/wikipedia-train.json", "wikipedia-train.json"),
          "test": ("unfiltered-web-dev.json", "qa/wikipedia-dev.json", "wikipedia-dev.json", "triviaqa_*.json")}
_EVIDENCE = "evidence/wikipedia"


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  _open()  # before the first episode, which has no minutes to wait for it
  return splits.choose("triviaqa", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  def parsed() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path in rows.find_all("triviaqa", _FILES[split], _SOURCE):
      for place, row in rows.read_rows(path):
        try:
          yield place, row.get("QuestionId") or row["qid"], _data(row)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
          raise UserError(f"{place}: not a TriviaQA row with its answer ({e}); get the file again") from None
  return rows.unique(parsed())


def _data(row: Mapping[str, Any]) -> dict[str, Any]:
  """Reads a row of the release, or one of `{qid, question, gold_answer, aliases}`."""
  if "Answer" in row:
    question, answer = row["Question"], row["Answer"]
    gold = answer["Value"]
    aliases = [*answer["NormalizedAliases"], *answer.get("HumanAnswers", [])]
    titles = [page["Title"] for page in row.get("EntityPages", [])]
  else:
    question, gold, titles = row["question"], row["gold_answer"], []
    aliases = [*row["aliases"], gold]
  aliases = list(dict.fromkeys(filter(None, map(trivia_normalise, aliases))))
  if not aliases:
    raise ValueError("no answer of it has a letter or a digit")
  if not trivia_match(gold, aliases).exact:
    gold = aliases[0]
  return {"question": question, "gold": gold, "aliases": aliases,
          "path": [search.stop("I look for a page on this.", (titles or [question])[0])],
          "conclusion": "This answers the question."}


def _pages(files: Sequence[pathlib.Path]) -> Iterator[Page]:
  """Yields the evidence: a text for every page, called after its title."""
  for file in files:
    yield Page(file.stem.replace("_", " "), sentences(file.read_text(encoding="utf-8")))


def _own() -> search.OwnPages | None:
  if not pathlib.Path(os.environ.get(published.VARIABLE, ""), "triviaqa", _EVIDENCE).is_dir():
    return None
  folder = published.find("triviaqa", _EVIDENCE, _SOURCE)
  return search.OwnPages(sorted(folder.glob("*.txt")), _pages, "triviaqa-1")


def _open() -> Corpus:
  return search.open_pages("triviaqa", _own)


def _score(answer: str, data: Mapping[str, Any]) -> Match:
  return trivia_match(answer, data["aliases"])


TASK = Task(
    name="triviaqa",
    skill="reasoning",
    held_in=True,
    instructions=search.INSTRUCTIONS.format(answer="it alone, in as few words as it takes", example="Marie Curie"),
    grammar=search.GRAMMAR,
    max_steps=search.MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="exact match with one of the aliases after TriviaQA's normalisation; the reward is the best F1",
        definition="triviaqa_evaluation.py of mandarjoshi90/triviaqa: EM and F1, each the best over the normalised "
                   "aliases and human answers; over all questions of the file"),
    make_env=functools.partial(SearchEnv, _open, _score, has_progress=False),
    instances=_instances,
    runs=search.RUNS,
    packages=search.PACKAGES,
    expert=search.expert,
    random_turn=search.random_turn,
    source=Source(
        where=_SOURCE,
        licence="not stated by the authors (University of Washington); questions from trivia sites",
        contamination="The test split is the public development set. A file triviaqa_*.json is a sample whose split "
                      "is not stated: it counts as test here, and may be in training data.",
        checksums={"8c7a5d254a91e32ffefcb2283985ff5ac7d9702e06717e692b90e9842df99d00":
                   "75 questions with aliases, split not stated, as persona-hallucination-study publishes them (MIT)"}),
)
