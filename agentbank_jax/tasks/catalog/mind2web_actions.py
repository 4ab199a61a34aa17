"""Mind2Web's training tasks without their pages, as WebCanvas has them: `mind2web_raw*.json`.

An action is `[operation, "[role]", text]`. In place of a page, the candidates of a step are elements that the tasks on
the same website act on. So an element has to be told from others of its site, and not be found on a page: scores are
not Mind2Web's. The split is by website: test websites are not trained on.
"""

from collections.abc import Iterator, Mapping
import json
import re
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, splits
from agentbank_jax.tasks.mind2web import choose_candidates, make_step, make_task
from agentbank_jax.tasks.task import Source

_SOURCE = ("iMeanAI/WebCanvas on GitHub (data/mind2web_raw.json, in its history; 1,009 tasks, as mind2web_raw*.json "
           "in the folder mind2web)")
_OPERATION = re.compile(r"(CLICK|TYPE|SELECT|HOVER|ENTER)(?:: (.*))?", re.DOTALL)
_AS_CLICK = {"HOVER": "CLICK", "ENTER": "CLICK"}  # as in the published rows' `op`


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("mind2web_actions", lambda: [
      row for row in _rows() if splits.split_of(row[1]["website"]) == split], split, count, seed)


def _rows() -> list[tuple[str, Mapping[str, Any]]]:
  path = published.find("mind2web", "mind2web_raw*.json", _SOURCE)
  tasks: list[tuple[str, str, list[tuple[str, str, str]]]] = []
  sites: dict[str, set[str]] = {}
  try:
    for row in json.loads(path.read_text()):
      actions = [_read(*action) for action in row["actions"]]
      if not actions:
        raise ValueError("no actions")
      tasks.append((row["website"], row["task"], actions))
      sites.setdefault(row["website"], set()).update(element for element, _, _ in actions)
  except (ValueError, KeyError, TypeError) as e:
    raise UserError(f"{path}, row {len(tasks)}: not a task of mind2web_raw.json ({type(e).__name__}: {e}); "
                    "get the file again") from None
  return [(f"{n:05d}", {"task": task, "website": website,
                        "steps": [_step(action, sites[website], f"{n}-{i}") for i, action in enumerate(actions)]})
          for n, (website, task, actions) in enumerate(tasks)]


def _read(operation: str, role: str, text: str) -> tuple[str, str, str]:
  """Returns element, operation and value."""
  match = _OPERATION.fullmatch(operation)
  if not match:
    raise ValueError(f"operation {operation!r}")
  return " ".join(f"{role} {text}".split()), _AS_CLICK.get(match[1], match[1]), match[2] or ""


def _step(action: tuple[str, str, str], site: set[str], key: str) -> Mapping[str, Any]:
  element, operation, value = action
  # In alphabetical order: that of the file would be that of the actions.
  candidates = sorted(choose_candidates([element], sorted(site - {element}), key))
  said = f"{operation}: {value}" if value else operation
  return make_step(candidates, [candidates.index(element)], operation, value, f"{element} -> {said}")


TASK = make_task(
    "mind2web_actions", _instances,
    Source(
        where=_SOURCE,
        licence="CC-BY-4.0 (Mind2Web); MIT (WebCanvas)",
        contamination="All its tasks are training tasks of Mind2Web: models trained on Mind2Web, or on AgentBank's "
                      "mind2web, have seen the test instances"),
    definition="step and task success rate as Mind2Web defines them (Deng et al. 2023, arXiv:2306.06070, section 4.1), "
               "over up to 50 elements of the same website in place of a page's: not Mind2Web's score",
)
