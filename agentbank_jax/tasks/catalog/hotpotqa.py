"""HotpotQA (Yang et al. 2018, arXiv:1809.09600): questions that need two pages, on ReAct's search environment.

The pages are those of all rows' contexts together, ten a row: the two that hold the answer among all the others.
The expert opens the pages of the supporting facts. HotpotQA's development set is the test split here; the answers
of its test set are not published.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import pathlib
from typing import Any

from agentbank_jax.envs.answer_match import Match, hotpot_match
from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.corpus import Corpus, Page
from agentbank_jax.envs.search import SearchEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import rows, search, splits
from agentbank_jax.tasks.task import MetricCard, Source, Task

_SOURCE = "hotpotqa.github.io (hotpot_train_v1.1.json, hotpot_dev_distractor_v1.json, CC BY-SA 4.0)"
_FILES = {"train": ("hotpot_train_v1.1.json", "train*.jsonl"),
          "test": ("hotpot_dev_distractor_v1.json", "dev*.jsonl")}


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  _open()  # before the first episode, which has no minutes to wait for it
  return splits.choose("hotpotqa", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  def parsed() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path in rows.find_all("hotpotqa", _FILES[split], _SOURCE):
      for place, row in rows.read_rows(path):
        try:
          yield place, row.get("_id") or row["id"], _data(row)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
          raise _bad_row(place, e) from None
  return rows.unique(parsed())


def _data(row: Mapping[str, Any]) -> dict[str, Any]:
  context = dict(row["context"])
  wanted: dict[str, list[str]] = {}
  for title, number in row["supporting_facts"]:
    sentences = wanted.setdefault(title, [])
    if number < len(context[title]):  # a few facts of the data are numbers of sentences that do not exist
      sentences.append(context[title][number])
  path = [search.stop(f"I need the page of {title}.", title, read) for title, read in wanted.items()]
  return {"question": row["question"], "gold": row["answer"], "type": row["type"], "level": row["level"],
          "pages": list(wanted), "path": path, "conclusion": "This answers the question."}


def _pages(files: Sequence[pathlib.Path]) -> Iterator[Page]:
  for file in files:
    for place, row in rows.read_rows(file):
      try:
        yield from [Page(title, tuple(sentences)) for title, sentences in row["context"]]
      except (KeyError, TypeError, ValueError) as e:
        raise _bad_row(place, e) from None


def _bad_row(place: str, error: Exception) -> UserError:
  return UserError(f"{place}: not a HotpotQA row with context ({error}); get the file again")


def _own() -> search.OwnPages:
  files = rows.find_all("hotpotqa", _FILES["train"] + _FILES["test"], _SOURCE)
  return search.OwnPages(files, lambda files: search.one_page_a_title(_pages(files)), "hotpotqa-1")


def _open() -> Corpus:
  return search.open_pages("hotpotqa", _own)


def _score(answer: str, data: Mapping[str, Any]) -> Match:
  return hotpot_match(answer, data["gold"])


TASK = Task(
    name="hotpotqa",
    skill="reasoning",
    held_in=True,
    instructions=search.INSTRUCTIONS.format(answer="it alone, in as few words as it takes", example="Marie Curie"),
    grammar=search.GRAMMAR,
    max_steps=search.MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="exact match with the gold answer after HotpotQA's normalisation; the reward is the answer's F1",
        definition="hotpot_evaluate_v1.py of hotpotqa/hotpot: EM, and F1 with its rule for yes, no and noanswer; "
                   "over all questions of the development set (distractor), on the pages of all rows and not on "
                   "the ten of each"),
    make_env=functools.partial(SearchEnv, _open, _score, has_progress=True),
    instances=_instances,
    runs=search.RUNS,
    packages=search.PACKAGES,
    expert=search.expert,
    random_turn=search.random_turn,
    progress=search.PROGRESS,
    source=Source(
        where=_SOURCE,
        licence="CC-BY-SA-4.0",
        contamination="The test split is the public development set. What is searched depends on the rows given: "
                      "fewer rows make an easier search.",
        checksums={
            "66ee4068c2aba3822a03b15aebd79515eb4525009c8702b8cfd0044302adbe80":
                "250 rows of the training set with their contexts, as KnowAgent (zjunlp) publishes them",
            "c63f0bee251ae3b8dbeb0179f669b45d66a90a2b560c86b64a2fff85de11f382":
                "100 rows of the training set, of level medium, with their contexts, as KnowAgent publishes them",
        }),
)
