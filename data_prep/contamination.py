"""Whether a training conversation holds the text of a problem that models are evaluated on.

The rule is GPT-3's (Brown et al. 2020, arXiv:2005.14165, appendix C), which lm-evaluation-harness follows: texts are
made lower case, punctuation is ignored, and a conversation is contaminated where one of its turns has `ngram` words
in a row in common with a problem. A problem of fewer words is looked for as a whole, down to `shortest` words; one
that is shorter still cannot be told from common speech: it is not looked for, and counted. Words in a row that more
than `common` problems of a task share are its form ("Write a function to find the ..."), not a problem's text.

Only the problem's own text counts (`Task.problem`), not the documents or worlds that come with it. Memory grows with
the evaluation instances alone, by half a kB for every word of a problem, in each worker: 60 MB for ten thousand
problems of 23 words. Six thousand conversations of 600 words are searched per second and core, ten times as many as
are packed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
import dataclasses
import re
from typing import NamedTuple

from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task
from agentbank_jax.tasks.splits import TooFewInstances
from agentbank_jax.trajectory import Trajectory

_WORD = re.compile(r"\w+")

Gram = tuple[str, ...]


class Match(NamedTuple):
  """What a conversation has in common with a problem.

  Attributes:
    turn: of the conversation, from 0.
    task, instance: whose problem it is.
    words: the words in a row.
  """

  turn: int
  task: str
  instance: str
  words: str


def words_of(text: str) -> list[str]:
  """Returns the words of a text, in lower case, without punctuation."""
  return _WORD.findall(text.lower())


@dataclasses.dataclass
class Screen:
  """What is looked for. Picklable: every worker gets it.

  Attributes:
    shortest: words in a row that every gram has at least.
    grams: by their first `shortest` words: the whole gram, its task and instance. Of a gram that several problems
      have, the first problem is named.
    counts: by task: `instances`, `too_short` ones, and `common_grams` that are not looked for.
  """

  shortest: int
  grams: dict[Gram, list[tuple[Gram, str, str]]]
  counts: dict[str, dict[str, int]]

  def find(self, trajectory: Trajectory) -> Match | None:
    """Returns the first that a conversation has in common with a problem."""
    size, grams = self.shortest, self.grams
    for number, turn in enumerate(trajectory.turns):
      words = words_of(turn.content)
      for i in range(len(words) - size + 1):
        for gram, task, instance in grams.get(tuple(words[i:i + size]), ()):
          if tuple(words[i:i + len(gram)]) == gram:
            return Match(number, task, instance, " ".join(gram))
    return None


def make_screen(tasks: Sequence[str], *, split: str, instances: int, ngram: int, shortest: int, common: int) -> Screen:
  """Draws the evaluation instances and gathers their words.

  Args:
    tasks: names.
    split: of the instances.
    instances: of each task, or as many as there are.
    ngram, shortest, common: see the module.

  Raises:
    UserError: an unknown task, one whose data are not there, or one whose problems are no text.
  """
  if not 1 <= shortest <= ngram:
    raise UserError(f"contamination.shortest is {shortest}, expected 1 to contamination.ngram={ngram}")
  grams: defaultdict[Gram, list[tuple[Gram, str, str]]] = defaultdict(list)
  counts = {}
  for name in tasks:
    problems = [(id_, words_of(text)) for id_, text in _problems(name, split, instances)]
    shared = Counter(gram for _, words in problems for gram in set(_grams(words, ngram)))
    seen: set[Gram] = set()
    for id_, words in problems:
      for gram in _grams(words, ngram) if len(words) >= shortest else ():
        if shared[gram] <= common and gram not in seen:
          seen.add(gram)
          grams[gram[:shortest]].append((gram, name, id_))
    counts[name] = {"instances": len(problems), "too_short": sum(len(words) < shortest for _, words in problems),
                    "common_grams": sum(n > common for n in shared.values())}
  return Screen(shortest, dict(grams), counts)


def _grams(words: Sequence[str], size: int) -> Iterator[Gram]:
  """Yields the runs of `size` words; of fewer words, all of them as one."""
  for i in range(max(1, len(words) - size + 1)):
    yield tuple(words[i:i + size])


def _problems(name: str, split: str, count: int) -> Iterator[tuple[str, str]]:
  """Yields id and problem text of up to `count` instances."""
  task = get_task(name)
  if not task.problem:
    raise UserError(f"contamination.tasks: the problems of {name!r} are no text that training data could be searched "
                    "for; leave it out")
  try:
    drawn = list(task.instances(split, count, 0))
  except TooFewInstances as e:
    drawn = list(task.instances(split, e.have, 0))
  for instance in drawn:
    text = instance.data.get(task.problem)
    if not isinstance(text, str):
      raise UserError(f"contamination.tasks: {name} {instance.id} has no text {task.problem!r}; mend the "
                      "task's `problem`")
    yield instance.id, text
