"""WebArena (Zhou et al. 2023, arXiv:2307.13854): 812 tasks on websites that the user hosts, in a real browser.

A task is ready where the sites it needs are hosted: their addresses are in SHOPPING, SHOPPING_ADMIN, REDDIT, GITLAB,
WIKIPEDIA, MAP and HOMEPAGE. Tasks that need a login need the file that WebArena's auto_login.py writes, in the folder
`webarena/.auth`. Answers that only a language model can judge need one: WEBARENA_JUDGE names a Python function,
MODULE:NAME, called as `webarena_eval.Judge` says.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
import functools
import importlib
import json
import os
import pathlib
import random
import re
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.browser import PROGRAMS
from agentbank_jax.envs.webarena import GRAMMAR, WebArenaEnv
from agentbank_jax.envs.webarena_eval import Judge, make_evaluator
from agentbank_jax.envs.webarena_sites import hosted_sites, placeholders
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published, splits
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

_CONFIGS = "test*.json"
_SOURCE = ("web-arena-x/webarena on GitHub (config_files/test.raw.json, Apache-2.0; also in the Python package "
           "libwebarena), with its websites hosted from its Docker images")
_JUDGE = "WEBARENA_JUDGE"
_KEYS = ("intent", "start_url", "storage_state", "eval")


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  if split == "train":
    raise UserError("webarena: no train instances, WebArena is for evaluation alone; use test")
  rows = _rows()
  missing = [_missing(data) for _, data in rows]
  ready = [row for row, lacks in zip(rows, missing, strict=True) if not lacks]
  if count > len(ready):
    reasons = Counter(reason for lacks in missing for reason in lacks)
    needs = "; ".join(f"{number} need {reason}" for reason, number in reasons.most_common())
    raise UserError(f"webarena: {count} test instances asked for, but only {len(ready)} of {len(rows)} are ready: "
                    f"{needs}")
  return splits.choose("webarena", lambda: ready, split, count, seed)


def _rows() -> list[tuple[str, Mapping[str, Any]]]:
  """Returns all tasks of the file, ready or not.

  Raises:
    UserError: one is not of the published form.
  """
  path = published.find("webarena", _CONFIGS, _SOURCE)
  rows = []
  try:
    for row in json.loads(path.read_text()):
      make_evaluator(row["intent"], row["eval"])
      sites = {"sites": [f"__{site.upper()}__" for site in row["sites"]]}
      rows.append((f"{int(row['task_id']):04d}", {key: row[key] for key in _KEYS} | sites))
  except (ValueError, KeyError, TypeError) as e:
    raise UserError(f"{path}, row {len(rows)}: not a task of WebArena ({type(e).__name__}: {e}); "
                    "get the file again") from None
  return rows


def _missing(data: Mapping[str, Any]) -> list[str]:
  """Returns what a task lacks, in words."""
  lacks = [f"{name}=http://..." for name in sorted(placeholders(data) - set(hosted_sites()))]
  folder = _auth_folder()
  if data["storage_state"] is not None:
    name = pathlib.PurePosixPath(data["storage_state"]).name
    if folder is None or not (folder / name).is_file():
      lacks.append(f"the login file webarena/.auth/{name}, from WebArena's auto_login.py")
  if make_evaluator(data["intent"], data["eval"]).needs_judge and _judge() is None:
    lacks.append(f"a judge of free answers ({_JUDGE}=MODULE:FUNCTION)")
  return lacks


def _auth_folder() -> pathlib.Path | None:
  folder = pathlib.Path(os.environ.get(published.VARIABLE, ""), "webarena", ".auth")
  return folder if folder.is_dir() else None


def _judge() -> Judge | None:
  """Returns the user's judge, or None.

  Raises:
    UserError: there is no such function.
  """
  name = os.environ.get(_JUDGE)
  if not name:
    return None
  module, _, function = name.partition(":")
  try:
    return getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError, ValueError) as e:
    raise UserError(f"{_JUDGE}={name!r} is no function ({type(e).__name__}: {e}); expected MODULE:FUNCTION") from None


def _random_turn(rng: random.Random, observation: str) -> str:
  """Clicks, types, scrolls, goes back or stops."""
  numbers = re.findall(r"^\t*\[(\d+)\]", observation, re.MULTILINE) or ["1"]
  number, word = rng.choice(numbers), rng.choice(re.findall(r"\w+", observation) or ["x"])
  action = rng.choice((f"click [{number}]", f"click [{number}]", f"type [{number}] [{word}]", "scroll [down]",
                       "go_back", f"stop [{word}]"))
  return f"Thought: hm.\nAction: {action}"


TASK = Task(
    name="webarena",
    skill="web",
    held_in=True,
    instructions=f"""\
Reach an objective on websites. Each turn you see the tabs and what the window shows of the page, as \
[id] role 'name'; think, then act:
Thought: ...
Action: one of {GRAMMAR}
Typing presses Enter at the end unless you say [0]. When the objective is reached, or the answer known, end with \
stop [answer]; the answer may be empty, and is N/A where the objective cannot be reached.""",
    grammar=Grammar(has_answer=False),
    max_steps=30,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="all evaluators of the task hold when the agent stops",
        definition="WebArena's functional correctness (Zhou et al. 2023, arXiv:2307.13854, section 3.2), over the "
                   "tasks whose sites are hosted. An episode that runs out of its 30 steps fails, where the published "
                   "code still looks at the sites. Free answers are judged by the user's judge, not by GPT-4"),
    make_env=functools.partial(WebArenaEnv, _auth_folder, _judge),
    instances=_instances,
    expert=None,
    source=Source(
        where=_SOURCE,
        licence="Apache-2.0",
        contamination="WebArena has no training split: AgentBank's webarena trajectories are of its test sites and "
                      "tasks, and a model trained on them has seen the benchmark. Tasks change the sites, which are "
                      "not reset between episodes here: reset them between runs, as WebArena's authors ask",
        checksums={"7b50386fd69163dbc05d615d834df4c6ed2c35596e97a1b10d17451c02537652":
                   "config_files/test.raw.json, 812 tasks"}),
    random_turn=_random_turn,
    processes=True,
    runs="headless Chromium on the sites you host",
    packages=("selenium",),
    programs=PROGRAMS,
    problem="intent",
)
