"""MiniWoB++ (Liu et al. 2018, arXiv:1802.08802): the pages of the `miniwob` package in a real browser. Held out."""

from collections.abc import Generator, Iterator
import importlib.util
import pathlib
import random
import re

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.browser import PROGRAMS
from agentbank_jax.envs.miniwob import GRAMMAR, MiniWobEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

_SOURCE = "the Python package miniwob (Farama-Foundation/miniwob-plusplus, MIT): pip install 'agentbank-jax[envs]'"
# Pages that the package ships and does not register: they ask for reactions in real time.
_REAL_TIME = frozenset(("button-delay", "chase-circle", "hover-shape", "moving-items", "simon-says"))


def page_names() -> list[str]:
  """Returns the pages of the package: 125 in version 1.1.0.

  Raises:
    UserError: it is not installed.
  """
  found = importlib.util.find_spec("miniwob")
  if found is None:
    raise UserError(f"miniwob: get it with {_SOURCE}")
  pages = {path.stem for path in pathlib.Path(found.origin).parent.glob("html/miniwob/*.html")}
  return sorted(pages - _REAL_TIME)


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  """Yields problems, a page at a time in an order set by the seed, and then the same pages again."""
  if split != "test":
    raise UserError(f"miniwob: no {split} instances, it is held out for evaluation; use test")
  if count < 0:
    raise UserError(f"miniwob: {count} instances asked for; ask for 0 or more")
  pages = page_names()
  random.Random(f"miniwob/{seed}").shuffle(pages)
  for n in range(count):
    page, turn = pages[n % len(pages)], n // len(pages)
    yield Instance(f"test-{page}-{seed}-{turn:03d}", "test", {"page": page, "seed": f"{seed}-{turn}"})


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Plays a script.

  Raises:
    UserError: there is none for the page.
  """
  from agentbank_jax.tasks.miniwob_experts import SCRIPTS, read_page

  page = instance.data["page"]
  if page not in SCRIPTS:
    raise UserError(f"miniwob: no script for the page {page}; there are scripts for {', '.join(SCRIPTS)}")
  script = SCRIPTS[page](observation.split("\n", 1)[0].removeprefix("Instruction: "), read_page(observation))
  action = next(script)
  while True:
    observation = yield f"Thought: This is the next thing to do.\nAction: {action}"
    try:
      action = script.send(read_page(observation))
    except StopIteration:
      return


def _random_turn(rng: random.Random, observation: str) -> str:
  """Clicks or types into an element; what it types is a word of the page."""
  refs = re.findall(r"^ *\[(\d+)\]", observation, re.MULTILINE) or ["1"]
  ref = rng.choice(refs)
  if rng.random() < 0.3:
    return f"Thought: hm.\nAction: TYPE [{ref}] {rng.choice(re.findall(r'[A-Za-z0-9]+', observation))}"
  return f"Thought: hm.\nAction: CLICK [{ref}]"


TASK = Task(
    name="miniwob",
    skill="web",
    held_in=False,
    instructions=f"""\
Do what the instruction says on a web page. Each turn you see the page's elements with their refs; think, then act:
Thought: ...
Action: one of {GRAMMAR}""",
    grammar=Grammar(has_answer=False),
    max_steps=20,
    metric=MetricCard(
        reward_range=(-1.0, 1.0),
        success="the page gives a raw reward above 0",
        definition="MiniWoB++ (Liu et al. 2018, arXiv:1802.08802), success as Humphreys et al. 2022 (arXiv:2202.08137) "
                   "count it; without the pages' clock of ten seconds, so that no reward depends on speed; over the "
                   "125 pages of the miniwob package that it registers, every page the same weight"),
    make_env=MiniWobEnv,
    instances=_instances,
    expert=_expert,
    source=Source(
        where=_SOURCE,
        licence="MIT",
        contamination="Held out: never trained on here. The pages are public since 2017, and published agent data "
                      "(AgentTuning's evaluation prompts, RCI's) hold solutions of many"),
    random_turn=_random_turn,
    processes=True,
    runs="the miniwob package in headless Chromium",
    packages=("miniwob", "selenium"),
    programs=PROGRAMS,
    problem="",
)
