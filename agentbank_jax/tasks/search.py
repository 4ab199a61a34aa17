"""What all tasks on a corpus share: what they search in, how they are told to, the expert, the random agent.

They search the pages in `wikipedia` in the folder of published data, where there is such a folder; else each the
pages that its own rows bring.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
import os
import pathlib
import random
import re
from typing import Any, NamedTuple

from absl import logging

from agentbank_jax.envs import wikipedia
from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.corpus import Corpus, Page, open_corpus
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published
from agentbank_jax.tasks.task import Grammar

GRAMMAR = Grammar(has_answer=True)
MAX_STEPS = 10  # ReAct allows 7; the longest gold path of the rows we know takes 5
RUNS = "ReAct's search and lookup on a local index (tantivy)"
PACKAGES = ("tantivy",)
PROGRESS = "share of the pages of the gold path that were opened"

WIKIPEDIA = "wikipedia"  # name of the folder

INSTRUCTIONS = """\
Answer the question by looking it up. Each turn, think, then do one of these:
Thought: ...
Action: search[title]
opens the page of that title and shows its first sentences, or names titles that are similar;
Thought: ...
Action: lookup[word]
shows the next sentence of the open page with that word in it. When you know the answer, write {answer}:
Final Answer: {example}"""


class OwnPages(NamedTuple):
  """The pages that a task's rows bring; the arguments of `open_corpus`."""

  files: Sequence[pathlib.Path]
  read: Callable[[Sequence[pathlib.Path]], Iterable[Page]]
  reader: str


def open_pages(task: str, own: Callable[[], OwnPages | None]) -> Corpus:
  """Returns what `task` searches in; builds its index, which may take minutes, where there is none yet.

  Raises:
    UserError: there are no pages, or they cannot be read.
  """
  folder = pathlib.Path(os.environ.get(published.VARIABLE, ""), WIKIPEDIA)
  if published.VARIABLE in os.environ and folder.is_dir():
    published.find("", WIKIPEDIA, wikipedia.FORMS)
    pages = OwnPages(wikipedia.page_files(folder), wikipedia.read_pages, wikipedia.READER)
  elif (pages := own()) is None:
    raise UserError(f"{task}: its rows bring no pages to search in; put a Wikipedia into {folder}: {wikipedia.FORMS}")
  corpus = open_corpus(*pages)
  logging.info("%s searches %d pages of %s", task, corpus.about["pages"], ", ".join(f.name for f in pages.files[:3]))
  return corpus


def one_page_a_title(pages: Iterable[Page]) -> Iterable[Page]:
  """Yields the first page of every title: rows that share a page bring it more than once."""
  seen: set[str] = set()
  for page in pages:
    if page.title not in seen:
      seen.add(page.title)
      yield page


def stop(thought: str, page: str, read: Sequence[str] = ()) -> dict[str, Any]:
  """Returns one stop of a gold path, for `Instance.data["path"]`: a page to open, and the sentences to read on it."""
  return {"thought": thought, "page": page, "read": list(read)}


def expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Walks `data["path"]`: opens each page, looks up what its first sentences do not show, answers `data["gold"]`."""
  for halt in instance.data["path"]:
    observation = yield f"Thought: {halt['thought']}\nAction: search[{halt['page']}]"
    if observation.startswith("Could not find"):
      continue
    for sentence in halt["read"]:
      sentence = " ".join(sentence.split())
      word = max(re.findall(r"\w+", sentence), key=len, default=sentence)
      while sentence not in observation and observation != "No more results.":
        observation = yield f"Thought: I need to find {word} on this page.\nAction: lookup[{word}]"
  yield f"Thought: {instance.data['conclusion']}\nFinal Answer: {instance.data['gold']}"


def random_turn(rng: random.Random, observation: str, answers: Sequence[str] = ()) -> str:
  """Searches and looks up words of what it reads, and answers with a few of them or with one of `answers`."""
  words = re.findall(r"\w+", observation) or ["it"]
  start = rng.randrange(len(words))
  some = " ".join(words[start:start + rng.randint(1, 3)])
  action = rng.choices(("search", "lookup", "answer"), (5, 3, 2))[0]
  if action == "answer":
    return f"Final Answer: {rng.choice(answers) if answers else some}"
  return f"Thought: I try this.\nAction: {action}[{some}]"
