"""StrategyQA (Geva et al. 2021, arXiv:2101.02235): yes or no, by steps that the question does not name.

The pages are the paragraphs that the annotators found (`strategyqa_train_paragraphs.json`), where that file is
there; else one page for every term, made of the facts that its questions' authors wrote. The expert follows the
decomposition: it opens the page of each step's evidence, or the term's.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import json
import os
import pathlib
from typing import Any

from absl import logging

from agentbank_jax.envs.answer_match import Match, yes_no_match
from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.corpus import Corpus, Page
from agentbank_jax.envs.search import SearchEnv
from agentbank_jax.envs.wikipedia import sentences
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, rows, search, splits
from agentbank_jax.tasks.task import MetricCard, Source, Task

_SOURCE = ("allenai.org/data/strategyqa (strategyqa_train.json, strategyqa_train_paragraphs.json), or "
           "eladsegal/strategyqa on GitHub (data/strategyqa/train.json, dev.json), MIT")
_FILES = {"train": ("strategyqa_train.json", "train.json"), "test": ("strategyqa_dev.json", "dev.json")}
_PARAGRAPHS = "strategyqa_train_paragraphs.json"


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  _open()  # before the first episode, which has no minutes to wait for it
  return splits.choose("strategyqa", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  paragraphs = _paragraphs() is not None
  kept = rows.unique(_parsed(split, paragraphs))
  if split == "train" and _is_there("test"):
    # The development set was drawn from the official training set.
    test = {key for _, key, _ in _parsed("test", paragraphs)}
    overlap = sum(key in test for key, _ in kept)
    kept = [(key, data) for key, data in kept if key not in test]
    logging.info("strategyqa: %d train rows that are test rows are left out, %d are kept", overlap, len(kept))
  return kept


def _is_there(split: str) -> bool:
  folder = pathlib.Path(os.environ.get(published.VARIABLE, ""), "strategyqa")
  return any((folder / name).is_file() for name in _FILES[split])


def _parsed(split: str, paragraphs: bool) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
  for path in rows.find_all("strategyqa", _FILES[split], _SOURCE):
    for place, row in rows.read_rows(path):
      try:
        yield place, row["qid"], _data(row, paragraphs)
      except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        raise _bad_row(place, e) from None


def _bad_row(place: str, error: Exception) -> UserError:
  return UserError(f"{place}: not a StrategyQA row with facts and steps ({error}); get the file again")


def _data(row: Mapping[str, Any], paragraphs: bool) -> dict[str, Any]:
  if not isinstance(row["answer"], bool):
    raise TypeError("'answer' is not true or false")
  steps, path = row["decomposition"], []
  if paragraphs:
    for i, step in enumerate(steps):
      if title := _evidence_title(row["evidence"], i):
        path.append(search.stop(step, title))
    conclusion = "I have what the steps of the question need."
  else:
    path.append(search.stop(steps[0], row["term"], row["facts"]))
    conclusion = " ".join(steps[1:]) or "This answers the question."
  return {"question": row["question"], "gold": "yes" if row["answer"] else "no", "term": row["term"],
          "pages": list(dict.fromkeys(halt["page"] for halt in path)), "path": path, "conclusion": conclusion}


def _evidence_title(evidence: Sequence[Sequence[Any]], step: int) -> str | None:
  """Returns the title of the first paragraph that an annotator gave for a step, or None: it needs none, or has none.

  `evidence[annotator][step]` has lists of ids such as "Albany, Georgia-1", and "operation" or "no_evidence".
  """
  ids = [name for annotator in evidence for group in annotator[step] if isinstance(group, list) for name in group]
  return ids[0].rpartition("-")[0] if ids else None


def _paragraphs() -> pathlib.Path | None:
  folder = pathlib.Path(os.environ.get(published.VARIABLE, ""), "strategyqa")
  return published.find("strategyqa", _PARAGRAPHS, _SOURCE) if (folder / _PARAGRAPHS).is_file() else None


def _paragraph_pages(files: Sequence[pathlib.Path]) -> Iterator[Page]:
  """Yields the paragraphs of `{id: {title, content, para_index, ...}}`, those of one page in their order."""
  for file in files:
    try:
      found = json.loads(file.read_text(encoding="utf-8")).values()
      for row in sorted(found, key=lambda row: (row["title"], row["para_index"])):
        yield Page(row["title"], sentences(row["content"]))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
      raise UserError(f"{file}: not StrategyQA's paragraphs ({e}); get the file again") from None


def _fact_pages(files: Sequence[pathlib.Path]) -> Iterator[Page]:
  facts: dict[str, dict[str, None]] = {}
  for file in files:
    for place, row in rows.read_rows(file):
      try:
        facts.setdefault(row["term"], {}).update(dict.fromkeys(row["facts"]))
      except (KeyError, TypeError, AttributeError) as e:
        raise _bad_row(place, e) from None
  for term, texts in facts.items():
    yield Page(term, tuple(texts))


def _own() -> search.OwnPages:
  if paragraphs := _paragraphs():
    return search.OwnPages([paragraphs], _paragraph_pages, "strategyqa-paragraphs-1")
  files = rows.find_all("strategyqa", _FILES["train"] + _FILES["test"], _SOURCE)
  return search.OwnPages(files, _fact_pages, "strategyqa-facts-1")


def _open() -> Corpus:
  return search.open_pages("strategyqa", _own)


def _score(answer: str, data: Mapping[str, Any]) -> Match:
  return yes_no_match(answer, data["gold"] == "yes")


TASK = Task(
    name="strategyqa",
    skill="reasoning",
    held_in=True,
    instructions=search.INSTRUCTIONS.format(answer="yes or no", example="yes"),
    grammar=search.GRAMMAR,
    max_steps=search.MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="the answer is the right one of yes and no; guessing reaches one half",
        definition="accuracy, as in the paper, over all questions of the development set that eladsegal/strategyqa "
                   "drew from the training set; the answers of the test set are not published"),
    make_env=functools.partial(SearchEnv, _open, _score, has_progress=True),
    instances=_instances,
    runs=search.RUNS,
    packages=search.PACKAGES,
    expert=search.expert,
    random_turn=functools.partial(search.random_turn, answers=("yes", "no")),
    progress=search.PROGRESS,
    source=Source(
        where=_SOURCE,
        licence="MIT",
        contamination="The test split is a part of the official strategyqa_train.json: its rows are left out of the "
                      "train split where both files are given. Pages made of facts hold what the questions' authors "
                      "thought of, and make the task easier than Wikipedia does.",
        checksums={"46826d2faeaa55fef2e32b57d60c2dfa56c510b9a9eb3327151ebdbea0631377":
                   "120 rows of the development set (dev.json of eladsegal/strategyqa), as FireAct publishes it"}),
)
