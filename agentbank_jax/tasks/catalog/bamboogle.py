"""Bamboogle (Press et al. 2022, arXiv:2210.03350): two-hop questions that a search engine does not answer at once.

Held out. Its rows are questions and answers alone: the pages come from a Wikipedia (`agentbank_jax.tasks.search`),
and there is no gold path: the expert searches for the question, and knows the answer.
"""

from collections.abc import Iterator, Mapping
import functools
from typing import Any

from agentbank_jax.envs.answer_match import Match, hotpot_match
from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.corpus import Corpus
from agentbank_jax.envs.search import SearchEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import rows, search, splits
from agentbank_jax.tasks.task import MetricCard, Source, Task

_SOURCE = "the authors' table, linked from ofirpress/self-ask on GitHub, as test.csv with columns Question and Answer"


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  if split == "train":
    raise UserError("bamboogle: no train instances, it is held out for evaluation; use test")
  _open()  # before the first episode, which has no minutes to wait for it
  return splits.choose("bamboogle", _rows, split, count, seed)


def _rows() -> list[tuple[str, Mapping[str, Any]]]:
  def parsed() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path in rows.find_all("bamboogle", ("test*.csv",), _SOURCE):
      for number, (place, row) in enumerate(rows.read_rows(path)):
        question, answer = row.get("Question"), row.get("Answer")
        if not question or not answer:
          raise UserError(f"{place}: no text in 'Question' or 'Answer'; get the file again")
        yield place, f"{number:05d}", {
            "question": question, "gold": answer,
            "path": [search.stop("I look for a page on this.", question)], "conclusion": "This answers the question."}
  return rows.unique(parsed())


def _open() -> Corpus:
  return search.open_pages("bamboogle", lambda: None)


def _score(answer: str, data: Mapping[str, Any]) -> Match:
  return hotpot_match(answer, data["gold"])


TASK = Task(
    name="bamboogle",
    skill="reasoning",
    held_in=False,
    instructions=search.INSTRUCTIONS.format(answer="it alone, in as few words as it takes", example="Marie Curie"),
    grammar=search.GRAMMAR,
    max_steps=search.MAX_STEPS,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="exact match with the gold answer after HotpotQA's normalisation; the reward is the answer's F1",
        definition="EM and F1 as FireAct computes them (tasks/bamboogle.py of anchen1011/FireAct, Chen et al. 2023, "
                   "arXiv:2310.05915); over all 125 questions. The authors published no evaluation program"),
    make_env=functools.partial(SearchEnv, _open, _score, has_progress=False),
    instances=_instances,
    runs=search.RUNS,
    packages=search.PACKAGES,
    expert=search.expert,
    random_turn=search.random_turn,
    source=Source(
        where=_SOURCE,
        licence="MIT",
        contamination="The table's program has rewritten some dates ('29-May-32', '6-Nov-05'): an agent that answers "
                      "those in full is scored wrong, as in every EM on this file.",
        checksums={"d81278b1148fffc0bfe4a05f9dfc18dbd603d9319c40f6a2efa1e2aa7bc54899":
                   "59 of the 125 questions, as FireAct publishes them"}),
)
