"""Words to repeat: what a small model with random weights learns first, in place of the pretraining that others bring.

An agent copies all the time: names, numbers and objects out of questions and observations. A model learns to copy in
some hundred steps of nothing else, and hardly at all from the few copied words of a trajectory.
"""

from collections.abc import Iterable, Iterator
import pathlib
import random
import re

from agentbank_jax import __version__
from agentbank_jax.errors import UserError
from agentbank_jax.tokenizer import Tokenizer
from agentbank_jax.trajectory import Provenance, Trajectory, Turn
from agentbank_jax.trajectory_io import write_trajectories

SOURCE = "recitation"


def write_recitations(path: pathlib.Path, texts: Iterable[str], tokenizer: Tokenizer, count: int,
                      words: tuple[int, int], seed: int) -> int:
  """Writes conversations in which the user says words at random and the assistant repeats them.

  Args:
    path: of the file; it appears whole or not at all.
    texts: where the words come from: those of them that are one token are used, each as often as any other.
    tokenizer: of the model.
    count: conversations.
    words: fewest and most words of one.
    seed: of the draw.

  Returns:
    How many different words there are.

  Raises:
    UserError: none of the words is one token.
  """
  found = {word for text in texts for word in re.findall(r"\S+", text)}
  known = sorted(w for w in found if len(tokenizer.backend.encode(f" {w}", add_special_tokens=False).ids) == 1)
  if not known:
    raise UserError(f"{path}: no word is one token of the tokenizer; raise tokenizer.vocab_size")
  write_trajectories(path, _conversations(known, count, words, seed))
  return len(known)


def _conversations(known: list[str], count: int, words: tuple[int, int], seed: int) -> Iterator[Trajectory]:
  rng = random.Random(seed)
  provenance = Provenance(source=f"{SOURCE} (agentbank-jax {__version__})", technique="generated", seed=seed,
                          licence="Apache-2.0")
  for i in range(count):
    text = " ".join(rng.choices(known, k=rng.randint(*words)))
    yield Trajectory(id=f"{SOURCE}-{i:06d}", task=SOURCE, provenance=provenance,
                     turns=(Turn("user", text), Turn("assistant", text)))
