"""Reads Mind2Web's published layout (osunlp/Mind2Web, CC-BY-4.0): tasks with the pages that were annotated."""

from collections.abc import Iterator, Mapping
import json
from typing import Any

from absl import logging

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.mind2web import OPERATIONS
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, splits
from agentbank_jax.tasks.mind2web import CANDIDATES, choose_candidates, make_step, make_task
from agentbank_jax.tasks.task import Source, Task

_SOURCE = ("osunlp/Mind2Web on Hugging Face: data/train and, unpacked from test.zip, test_task, test_website and "
           "test_domain, each a folder of JSON files (CC-BY-4.0)")
_NOTHING = "(the page has no candidates)"  # a step with it has no right answer
_WORDS = 20  # of an element's text and attributes that are shown


def make_pages_task(name: str, test: str) -> Task:
  """Returns the task whose test instances are in the folder `test`.

  All its tasks use the folder `mind2web`, and the same training instances.
  """
  def instances(split: str, count: int, seed: int) -> Iterator[Instance]:
    return splits.choose(name, lambda: read_tasks("train" if split == "train" else test), split, count, seed)

  return make_task(
      name, instances,
      Source(
          where=_SOURCE,
          licence="CC-BY-4.0",
          contamination="Training is on Mind2Web's own training tasks. Its authors ask that the test files are not "
                        "put where crawlers find them, so models may still have seen them; check before you compare."),
      definition=f"step and task success rate on {test} (Deng et al. 2023, arXiv:2306.06070, section 4.1): the element "
                 "is one of the annotated ones and the F1 of the operation's words is 1. All candidates are shown at "
                 "once, not five at a time; without the published ranker's ranks in the rows the right element is "
                 "always among them, so the score is no published one",
      packages=("lxml",))


def read_tasks(folder: str) -> list[tuple[str, Mapping[str, Any]]]:
  """Returns all tasks of a published folder, each `(annotation_id, Instance.data)`, reading a file at a time.

  A page has some hundred kilobytes: the 27 files of `train` take minutes, what is kept of them some 40 MB.

  Raises:
    UserError: a file is not of this layout; it names the row.
  """
  rows = []
  for path in sorted(published.find("mind2web", folder, _SOURCE).glob("*.json")):
    in_file = 0
    try:
      for row in json.loads(path.read_text()):
        steps = [_read_step(action, text) for action, text in zip(row["actions"], row["action_reprs"], strict=True)]
        if not steps:
          raise ValueError("no actions")
        rows.append((row["annotation_id"],
                     {"task": row["confirmed_task"], "website": row["website"], "steps": steps}))
        in_file += 1
    except (KeyError, TypeError, ValueError) as e:
      raise UserError(f"{path}, row {in_file}: not a task of Mind2Web ({type(e).__name__}: {e}); "
                      "get the file again") from None
  if not rows:
    raise UserError(f"mind2web: no JSON files in its folder {folder}; get them from {_SOURCE}")
  return rows


def _read_step(action: Mapping[str, Any], text: str) -> Mapping[str, Any]:
  operation, value = action["operation"]["op"], action["operation"]["value"]
  if operation not in OPERATIONS:
    raise ValueError(f"operation {operation!r}")
  right = [c["backend_node_id"] for c in action["pos_candidates"]]
  every = [*action["pos_candidates"], *action["neg_candidates"]]
  if every and all("rank" in candidate for candidate in every):
    chosen = {c["backend_node_id"] for c in sorted(every, key=lambda c: c["rank"])[:CANDIDATES]}
  else:
    chosen = choose_candidates(right, [c["backend_node_id"] for c in action["neg_candidates"]], action["action_uid"])
  shown = [(i, element) for i, element in _elements(action["cleaned_html"]) if i in chosen]
  if len(shown) < len(chosen):  # the published code passes over them in silence
    logging.warning("mind2web: action %s: %d of %d candidates are not on its page", action["action_uid"],
                    len(chosen) - len(shown), len(chosen))
  targets = [n for n, (i, _) in enumerate(shown) if i in right]
  return make_step([_describe(element) for _, element in shown] or [_NOTHING], targets, operation, value, text)


def _elements(html: str) -> Iterator[tuple[str, Any]]:
  """Yields the elements of a cleaned page that have an id, in the order of the page."""
  import lxml.etree  # slow to import

  parser = lxml.etree.XMLParser(recover=True, huge_tree=True, resolve_entities=False, no_network=True)
  try:
    root = lxml.etree.fromstring(html.encode(), parser)
  except lxml.etree.XMLSyntaxError as e:
    raise ValueError(f"cleaned_html: {e}") from None
  for element in root.iter():
    if "backend_node_id" in element.attrib:
      yield element.attrib["backend_node_id"], element


def _describe(element: Any) -> str:
  """Returns an element as `<button aria_label=Search> Go </button>`, cut after some words."""
  attributes = " ".join(f"{name}={' '.join(value.split())}" for name, value in element.attrib.items()
                        if name != "backend_node_id" and value.strip())
  words = [*attributes.split()[:_WORDS], ">", *" ".join(element.itertext()).split()[:_WORDS]]
  return f"<{element.tag} {' '.join(words)} </{element.tag}>".replace(" > ", "> ")
