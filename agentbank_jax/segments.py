"""A chat format's layout, cut into ids that are known beforehand and text that is still to be tokenized."""

from collections.abc import Iterable
import itertools
import re
from typing import NamedTuple

import numpy as np

from agentbank_jax.chat_template import ChatTemplate, Layout
from agentbank_jax.text_encoder import TextEncoder
from agentbank_jax.tokenizer import Tokenizer


class Fixed(NamedTuple):
  """Ids that do not depend on contents."""

  ids: np.ndarray  # int32 [n]
  ends: int = -1  # the agent's message this is the terminator of


class Run(NamedTuple):
  """Text that is tokenized as one piece."""

  parts: tuple[str | int, ...]  # literal text, or the index of a message
  start: bool  # whether a SentencePiece-like tokenizer puts its space in front
  reply: bool  # an agent's content


class Plan(NamedTuple):
  """How conversations with a given sequence of roles are encoded."""

  layout: Layout
  pieces: tuple[Fixed | Run, ...]


class Segmenter:
  """Cuts layouts: at control tokens, as every tokenizer does, and around every agent's content."""

  def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, controls: re.Pattern[str],
               encoder: TextEncoder):
    self._template = template
    self._tokenizer = tokenizer
    self._controls = controls
    self._encoder = encoder
    self._plans: dict[tuple[tuple[str, ...], bool], Plan] = {}

  def plan(self, roles: tuple[str, ...], generation: bool) -> Plan:
    """Returns the plan for these roles, with or without the header of a further agent's turn; made once.

    Raises:
      ChatError: see `ChatTemplate.layout`.
    """
    if (roles, generation) not in self._plans:
      layout = self._template.layout(roles, generation)
      self._plans[roles, generation] = Plan(layout, _joined(map(self._settle, self._cut(roles, layout))))
    return self._plans[roles, generation]

  def _cut(self, roles: tuple[str, ...], layout: Layout) -> list[Fixed | Run]:
    pieces: list[Fixed | Run] = []
    parts: list[str | int] = []
    start = self._tokenizer.prefix != "never"
    start_after_control = self._tokenizer.prefix == "always"

    def text_ends(reply: bool = False):
      nonlocal start
      if parts:
        pieces.append(Run(tuple(parts), start, reply))
        parts.clear()
        start = False

    def control(token: str, ends: int = -1):
      nonlocal start
      text_ends()
      pieces.append(Fixed(np.array([self._tokenizer.backend.token_to_id(token)], np.int32), ends))
      start = start_after_control

    def literal(text: str):
      for j, bit in enumerate(self._controls.split(text)):
        if j % 2:
          control(bit.strip())
        elif bit:
          parts.append(bit)

    before, behind = self._template.reply
    terminator = self._template.terminator
    for i, text in enumerate(layout.literals):
      if i and roles[i - 1] == "assistant":
        text = text.removeprefix(behind + terminator)
        text = text.lstrip() if self._tokenizer.added[terminator].rstrip else text
      if i < len(roles) and roles[i] == "assistant":
        literal(text.removesuffix(before))
        text_ends()
        parts += [before, i, behind]
        text_ends(reply=True)
        control(terminator, ends=i)
      else:
        literal(text)
        parts += [i] if i < len(roles) else []
    text_ends()
    return pieces

  def _settle(self, piece: Fixed | Run) -> Fixed | Run:
    """Encodes text without contents right away."""
    if isinstance(piece, Fixed) or any(isinstance(p, int) for p in piece.parts):
      return piece
    return Fixed(np.array(self._encoder.encode("".join(piece.parts), piece.start), np.int32))


def _joined(pieces: Iterable[Fixed | Run]) -> tuple[Fixed | Run, ...]:
  """Makes neighbouring ids one piece where they are nobody's terminator."""
  joined: list[Fixed | Run] = []
  for is_header, group in itertools.groupby(pieces, lambda p: isinstance(p, Fixed) and p.ends < 0):
    neighbours = list(group)
    joined += [Fixed(np.concatenate([p.ids for p in neighbours]))] if is_header else neighbours
  return tuple(joined)


def control_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
  """Returns what matches every added token that is not white space, with the white space it swallows."""
  patterns = []
  for name in sorted((t for t in tokenizer.added if t.strip()), key=len, reverse=True):
    token = tokenizer.added[name]
    patterns.append((r"\s*" if token.lstrip else "") + re.escape(name) + (r"\s*" if token.rstrip else ""))
  return re.compile(f"({'|'.join(patterns)})")
