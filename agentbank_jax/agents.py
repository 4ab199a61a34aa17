"""Who plays: anything that answers many conversations at once."""

from collections.abc import Hashable, Sequence
import dataclasses
from typing import Protocol

from agentbank_jax.trajectory import Turn


@dataclasses.dataclass(frozen=True)
class Reply:
  """An agent's turn.

  Attributes:
    text: the content of the turn, stop marks removed.
    tokens: how many tokens were sampled.
    finish: "stop" (the agent ended its turn), "length" (cut at the token limit of a turn),
      "context" (the conversation no longer fits the model; no text), "error".
    error: what went wrong, where `finish` is "error".
  """

  text: str
  tokens: int
  finish: str
  error: str = ""


class Player(Protocol):
  """Answers up to `slots` conversations at once. A conversation is any hashable key.

  Attributes:
    name: identifies the model in the episode log, whose fingerprint has the sampling settings.
    slots: how many conversations may be open.
  """

  name: str
  slots: int

  def send(self, conversation: Hashable, turns: Sequence[Turn], seed: int) -> None:
    """Adds `turns`, those since the last reply, and asks for a reply. The first call opens the conversation."""

  def poll(self) -> list[tuple[Hashable, Reply]]:
    """Works for a while and returns the replies that are ready, perhaps none. Never waits for other callers."""

  def end(self, conversation: Hashable) -> None:
    """Closes a conversation and frees its slot."""
