"""What a task is: instances, an environment, an action grammar, and what its score means."""

from collections.abc import Callable, Generator, Iterator, Mapping
import dataclasses
import random
import re

from agentbank_jax.envs.base import Action, Env, Instance
from agentbank_jax.trajectory import Turn

SKILLS = ("reasoning", "math", "programming", "web", "embodied")

# An expert is a generator: it is sent observations (the first by the argument) and yields the agent's turns.
Expert = Callable[[Instance, str], Generator[str, str, None]]
# What somebody writes who knows the form of an action and nothing else, from the last observation: a lower bound.
RandomTurn = Callable[[random.Random, str], str]


class ActionError(ValueError):
  """The agent's turn holds no action; the message is the observation it gets back."""


@dataclasses.dataclass(frozen=True)
class Grammar:
  """ReAct text: `Thought: ...` then `Action: ...`, or `Final Answer: ...` where the task has answers.

  Attributes:
    has_answer: whether `Final Answer:` ends an episode of this task.
  """

  has_answer: bool

  def parse(self, text: str) -> Action:
    """Returns the action of an agent's turn: the last marker at the start of a line, and all that follows it.

    Raises:
      ActionError: no marker, more than one marker, or nothing behind it.
    """
    kinds = {"Action": "act"} | ({"Final Answer": "answer"} if self.has_answer else {})
    found = list(re.finditer(rf"^({'|'.join(kinds)}):[ \t]*", text, re.MULTILINE))
    wanted = " or ".join(f"'{k}: ...'" for k in kinds)
    if not found:
      raise ActionError(f"No action found. Write 'Thought: ...' and then {wanted}.")
    if len(found) > 1:
      raise ActionError(f"More than one action found. Write exactly one of {wanted}.")
    content = text[found[0].end():].strip()
    if not content:
      raise ActionError(f"The action is empty. Write {wanted}.")
    return Action(kinds[found[0][1]], content)


@dataclasses.dataclass(frozen=True)
class MetricCard:
  """What the score of a task means.

  Attributes:
    reward_range: lowest and highest reward.
    success: when an episode counts as solved, in words.
    definition: where that comes from.
  """

  reward_range: tuple[float, float]
  success: str
  definition: str


@dataclasses.dataclass(frozen=True)
class Source:
  """Where the instances of a task come from.

  Attributes:
    where: how people get them, in a line; "generated" for those that we make.
    licence: of the instances.
    contamination: what training on this task does to which benchmark, and what else a reader of a score must
      know about its instances; "" for nothing.
    checksums: sha256 of published files and folders (`published.checksum`) -> what they are. Any file of the form
      is read; a score on one that is not listed says so.
  """

  where: str
  licence: str
  contamination: str = ""
  checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Task:
  """One row of the registry.

  Attributes:
    name: as in `--config.tasks`.
    skill: one of `SKILLS`.
    held_in: False where the task is for evaluation only and must never be trained on.
    instructions: the system turn; "" for none.
    grammar: how the agent's turns are read.
    max_steps: environment steps after which an episode ends as `step_limit`.
    metric: what the score means.
    make_env: builds an environment; called once for every concurrent episode.
    instances: `(split, count, seed)` to instances. Deterministic; the first n of a larger count
      are the instances of count n; splits never share a problem. Raises UserError where the
      count or the data is not to be had.
    expert: plays an instance to its end, or None where there is no expert.
    source: of the instances.
    few_shot: turns of an example that go before the first observation, alternating user and assistant.
    random_turn: writes an agent's turn at random, or None.
    progress: what `info["progress"]` of a step counts, in words; "" where the environment reports none.
    step_seconds: how long one reset or step may take here, where that is less than the run allows; None for that.
    processes: whether environments run in worker processes of their own (programs that can hang, crash or leak)
      and not in threads of this one. `make_env` is then sent there: a function of a module, or a partial of one.
    runs: what really runs, in a few words for the table of tasks: "SQLite, read-only and time-limited".
    packages: distributions whose versions can change what the environment does; they are in the fingerprint of
      every score. Those that are not dependencies of this package come with `agentbank-jax[envs]`.
    programs: what must be on PATH -> how to get it ("apt-get install bubblewrap"); "chromium|google-chrome" for the
      first that is there. What they say of their versions is in the fingerprint of every score too.
    stands_in_for: the published task whose place it takes where that one's data are not at hand, or of which it is
      another cut; "" where it is one of AgentBank's tasks itself.
    problem: key of `Instance.data` with the problem's text, as one finds it on the web: what training data are
      searched for. "" where the problem is no text (a house, a page).
  """

  name: str
  skill: str
  held_in: bool
  instructions: str
  grammar: Grammar
  max_steps: int
  metric: MetricCard
  make_env: Callable[[], Env]
  instances: Callable[[str, int, int], Iterator[Instance]]
  expert: Expert | None
  source: Source
  few_shot: tuple[Turn, ...] = ()
  random_turn: RandomTurn | None = None
  progress: str = ""
  step_seconds: float | None = None
  processes: bool = False
  runs: str = ""
  packages: tuple[str, ...] = ()
  programs: Mapping[str, str] = dataclasses.field(default_factory=dict)
  stands_in_for: str = ""
  problem: str = "question"

  @property
  def prompt(self) -> tuple[Turn, ...]:
    """What every agent is told before the first observation. No agent said it, so that nothing of it is trained on."""
    system = (Turn("system", self.instructions),) if self.instructions else ()
    return (*system, *(Turn(turn.role, turn.content, train=False) for turn in self.few_shot))

  def opening(self, observation: str) -> tuple[Turn, ...]:
    """Returns the turns that open an episode, from the environment's first observation."""
    return (*self.prompt, Turn("user", observation))

  def observe(self, observation: str) -> Turn:
    """Returns the turn that answers an agent's action."""
    return Turn("user", f"Observation: {observation}")
