"""The one renderer: conversations to token ids, for training and for sampling.

A conversation becomes segments: control tokens, which are single ids; runs of text between them, which are
tokenized as one piece as Hugging Face does; and every agent's content, trained or not, cut off as a segment
of its own. The cut makes what the agent is asked (`prompt`) a prefix of what it is trained on (`encode`) at
every turn, whatever the contents are. Ids equal `apply_chat_template`'s wherever that has the property too;
it loses it where the tokenizer merges the end of a header with the start of a content (ChatML and a content
that starts with a line break: the header's own break stays a token here).
"""

import bisect
from collections.abc import Iterator, Sequence
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np

from agentbank_jax.chat_template import FORMATS, ChatError, ChatTemplate, Layout
from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.files import atomic_path
from agentbank_jax.paths import as_path
from agentbank_jax.segments import Fixed, Plan, Run, Segmenter, control_pattern
from agentbank_jax.tokenizer import Tokenizer, load_tokenizer
from agentbank_jax.trajectory import Trajectory, Turn

__all__ = ["FORMATS", "ChatError", "Encoded", "Renderer", "load_renderer", "make_renderer"]

# Stands between consecutive user turns that a format with strict alternation makes one.
JOINT = "\n\n"


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A conversation as ids.

  Attributes:
    tokens: int32 [T].
    train: bool [T], whether the loss covers this token as a target: a trained turn's content and terminator.
    turn: int32 [T], index of the turn whose text this is part of, an agent's terminator included; text around
      a content that is tokenized with it counts as the turn's. -1: none's (BOS, control tokens, headers).
    merged_turns: how many turns were joined to the turn before them.
  """

  tokens: np.ndarray
  train: np.ndarray
  turn: np.ndarray
  merged_turns: int = 0


class _Message(NamedTuple):
  """What the template sees: a turn, or user turns that were made one."""

  role: str
  content: str
  turns: tuple[int, ...]
  starts: tuple[int, ...]  # where each turn's text starts in content


class Renderer:
  """Renders conversations in one chat format with one tokenizer.

  Attributes:
    tokenizer: see `tokenizer.Tokenizer`.
    format: "llama2", "llama3", "chatml", "mistral", "plain" or "template".
    control_ids: the control tokens the format uses, by text.
    stop_ids: tokens that end an agent's turn when sampling, its terminator first.
    stop_strings: text that ends it, where a base model writes on instead.
    fingerprint: sha256 over format and tokenizer; equal fingerprints give equal ids.
  """

  def __init__(self, tokenizer: Tokenizer, format: str):
    self.tokenizer = tokenizer
    self.format = format
    if format == "template":
      if not tokenizer.chat_template:
        raise UserError(f"the tokenizer has no chat template; choose one of {', '.join(FORMATS)}")
      if "strftime_now" in tokenizer.chat_template:
        raise UserError("the tokenizer's chat template writes today's date, so training and serving would "
                        "differ; put a fixed date into the template")
      text, self.stop_strings = tokenizer.chat_template, ()
    elif format in FORMATS:
      text, self.stop_strings = FORMATS[format].template, FORMATS[format].stop_strings
      missing = [t for t in FORMATS[format].control_tokens if t not in tokenizer.added]
      if missing:
        raise UserError(f"chat format {format!r} needs the special token {missing[0]!r}, which the tokenizer "
                        "does not have; choose format 'plain' or train a tokenizer with it")
      if format in ("llama2", "mistral") and tokenizer.bos_id is None:
        raise UserError(f"chat format {format!r} needs a bos token; choose format 'plain'")
    else:
      raise UserError(f"unknown chat format {format!r} (known: {', '.join(FORMATS)}, template)"
                      f"{did_you_mean(format, [*FORMATS, 'template'])}")
    controls = control_pattern(tokenizer)
    self._template = template = ChatTemplate(text, tokenizer.special, controls)
    self._holds_tool = template.supports("user", "assistant", "tool", "assistant")
    self._holds_system = template.supports("system", "user", "assistant")
    self._holds_late_system = template.supports("user", "assistant", "system", "user", "assistant")
    self._joins_users = not template.supports("user", "user", "assistant")
    self._holds_replies = template.supports("user", "assistant", "assistant")
    used = dict.fromkeys(m[0].strip() for text in template.literals() for m in controls.finditer(text))
    self.control_ids = {t: tokenizer.backend.token_to_id(t) for t in used}
    self.stop_ids = tuple(dict.fromkeys((self.control_ids[template.terminator], tokenizer.eos_id)))
    self._text = tokenizer.text_encoder(used)
    self._segmenter = Segmenter(template, tokenizer, controls, self._text)
    self.fingerprint = hashlib.sha256(
        json.dumps([format, text, JOINT, tokenizer.fingerprint]).encode()).hexdigest()
    # A SentencePiece decoder takes the first space away; then there is none to remove in `parse`.
    before = template.reply[0]
    self._heard = before if tokenizer.decode(self.reply("x")).startswith(before) else ""
    self._check()

  def __reduce__(self):
    return Renderer, (self.tokenizer, self.format)

  def encode(self, trajectory: Trajectory) -> Encoded:
    """Returns the ids of a conversation with its loss flags.

    Raises:
      ChatError: the format cannot hold it.
    """
    encoded, = self.encode_batch([trajectory])
    if isinstance(encoded, ChatError):
      raise encoded
    return encoded

  def encode_batch(self, trajectories: Sequence[Trajectory]) -> list[Encoded | ChatError]:
    """Encodes many conversations at once, with one call of the tokenizer for each kind of text.

    Returns:
      For each trajectory its ids, or why the format cannot hold it.
    """
    texts: list[tuple[str, bool]] = []
    prepared: list[tuple[Plan, list[_Message]] | ChatError] = []
    for trajectory in trajectories:
      try:
        self._check_stops(trajectory.turns)
        messages = self._messages(trajectory.turns)
        plan = self._plan(messages, False)
        texts += _texts(plan.layout, plan.pieces, messages)
        prepared.append((plan, messages))
      except ChatError as e:
        prepared.append(e)
    ids = iter(self._text.encode_batch(texts))
    return [p if isinstance(p, ChatError) else self._encoded(t.turns, *p, ids)
            for t, p in zip(trajectories, prepared, strict=True)]

  def prompt(self, turns: Sequence[Turn]) -> list[int]:
    """Returns the ids up to and including the agent's header: what the model is asked to continue.

    Raises:
      ChatError: the format cannot hold the turns.
    """
    messages = self._asked(turns)
    plan = self._plan(messages, True)
    return self._ids(plan, plan.pieces, messages)

  def reply(self, content: str) -> list[int]:
    """Returns the ids of an agent's content as `encode` has them, without the terminator."""
    messages = self._messages((Turn("user", ""), Turn("assistant", content)))
    plan = self._plan(messages, False)
    return self._ids(plan, [p for p in plan.pieces if isinstance(p, Run) and p.reply], messages)

  def continuation(self, turns: Sequence[Turn], after: int) -> list[int]:
    """Returns the ids between two replies: prompt(turns[:after]) + reply + these = prompt of what follows.

    Args:
      turns: a conversation; what comes after the next agent's turn does not matter.
      after: index of the agent's turn that has just been sampled.

    Returns:
      From the turn's terminator up to and including the next agent's header.

    Raises:
      ChatError: the format cannot hold the turns, or `after` is not an agent's turn.
    """
    if turns[after].role != "assistant":
      raise ChatError(after, f"is a {turns[after].role} turn, not the agent's")
    end = next((i for i in range(after + 1, len(turns)) if turns[i].role == "assistant"), len(turns))
    messages = self._asked(turns[:end])
    plan = self._plan(messages, True)
    message = next(i for i, m in enumerate(messages) if m.turns == (after,))
    first = next(i for i, p in enumerate(plan.pieces) if isinstance(p, Fixed) and p.ends == message)
    return self._ids(plan, plan.pieces[first:], messages)

  def parse(self, text: str) -> str:
    """Returns the content of an agent's turn from sampled text: undoes what `encode` puts around it."""
    for stop in self.stop_strings:
      text = text.split(stop, 1)[0]
    text = text.removeprefix(self._heard).removesuffix(self._template.reply[1])
    left, right = self._template.reply_trims
    text = text.lstrip() if left else text
    return text.rstrip() if right else text

  def save(self, folder: str | os.PathLike[str]) -> None:
    """Writes the tokenizer with this format's chat template, and chat.json for `load_renderer`."""
    self.tokenizer.save(folder, self._template.text)
    with atomic_path(pathlib.Path(folder) / "chat.json") as path:
      path.write_text(json.dumps({"format": self.format, "fingerprint": self.fingerprint}, indent=2) + "\n")

  def _encoded(self, turns: Sequence[Turn], plan: Plan, messages: list[_Message],
               run_ids: Iterator[np.ndarray]) -> Encoded:
    """Puts a conversation together; takes the ids of its runs from `run_ids`."""
    parts, lengths, owners, train = [], [], [], []
    for piece in plan.pieces:
      if isinstance(piece, Fixed):
        ids, trained = piece.ids, piece.ends >= 0
        shares = ((len(ids), messages[piece.ends].turns[0] if trained else -1),)
      else:
        ids, trained = next(run_ids), piece.reply
        shares = self._shares(piece, plan.layout, messages, len(ids))
      parts.append(ids)
      for length, turn in shares:
        lengths.append(length)
        owners.append(turn)
        train.append(trained and turns[turn].train)
    return Encoded(np.concatenate(parts), np.repeat(np.array(train, bool), lengths),
                   np.repeat(np.array(owners, np.int32), lengths), len(turns) - len(messages))

  def _shares(self, run: Run, layout: Layout, messages: list[_Message], length: int) -> list[tuple[int, int]]:
    """Returns (tokens, turn) pairs for a run; text between two contents counts as the first one's."""
    turns = [turn for part in run.parts if isinstance(part, int) for turn in messages[part].turns]
    if len(turns) == 1:
      return [(length, turns[0])]
    text, starts = "", []
    for part in run.parts:
      if isinstance(part, int):
        message, content = messages[part], layout.trim(part, messages[part].content)
        cut = message.content.index(content)
        starts += [len(text) + max(start - cut, 0) for start in message.starts]
        text += content
      else:
        text += part
    _, offsets = self._text.encode_with_offsets(text, run.start)
    bounds = [0, *(bisect.bisect_left(offsets, start) for start in starts[1:]), length]
    return [(end - begin, turn) for (begin, end), turn in zip(itertools.pairwise(bounds), turns, strict=True)]

  def _ids(self, plan: Plan, pieces: Sequence[Fixed | Run], messages: list[_Message]) -> list[int]:
    runs = iter(self._text.encode_batch(_texts(plan.layout, pieces, messages)))
    return np.concatenate([p.ids if isinstance(p, Fixed) else next(runs) for p in pieces]).tolist()

  def _messages(self, turns: Sequence[Turn]) -> list[_Message]:
    """Returns what the template is to see: roles it knows, alternating where it must."""
    messages: list[_Message] = []
    for i, turn in enumerate(turns):
      role = "user" if turn.role == "tool" and not self._holds_tool else turn.role
      last = messages[-1].role if messages else None
      if not turn.content.isascii():
        try:
          turn.content.encode()
        except UnicodeEncodeError:
          raise ChatError(i, "the content is not valid Unicode (a lone surrogate); mend the source") from None
      if role == "system" and not (self._holds_late_system if i else self._holds_system):
        raise ChatError(i, f"chat format {self.format!r} " + (
            "holds a system turn only at the start" if i else "has no system turn"))
      if role == "assistant" and last in (None, "system"):
        raise ChatError(i, "the agent's turn comes first; a user turn must open the conversation")
      if role == last == "assistant" and not self._holds_replies:
        raise ChatError(i, f"chat format {self.format!r} cannot hold two agent's turns in a row")
      if role == last == "user" and self._joins_users:
        before = messages.pop()
        start = len(before.content) + len(JOINT)
        messages.append(_Message(role, before.content + JOINT + turn.content,
                                 (*before.turns, i), (*before.starts, start)))
      else:
        messages.append(_Message(role, turn.content, (i,), (0,)))
    return messages

  def _asked(self, turns: Sequence[Turn]) -> list[_Message]:
    """Returns the messages that the agent is to answer; ChatError where it is not its turn."""
    return self._messages([*turns, Turn("assistant", "")])[:-1]

  def _check_stops(self, turns: Sequence[Turn]) -> None:
    for stop in self.stop_strings:
      for i, turn in enumerate(turns):
        if turn.train and stop in turn.content:
          raise ChatError(i, f"the trained content holds {stop!r}, which ends the agent's turn when sampling")

  def _plan(self, messages: list[_Message], generation: bool) -> Plan:
    """Returns the plan for these roles; a foreign template is asked about these contents too."""
    roles = tuple(m.role for m in messages)
    try:
      plan = self._segmenter.plan(roles, generation)
      if self.format == "template":
        self._compare(plan.layout, messages, generation)
    except ChatError as e:
      raise ChatError(messages[e.turn].turns[0] if messages else 0, e.reason) from None
    return plan

  def _compare(self, layout: Layout, messages: list[_Message], generation: bool) -> None:
    """Raises ChatError where the template treats these contents in a way of its own."""
    contents = [m.content for m in messages]
    ours, theirs = layout.compose(contents), self._template.render([m[:2] for m in messages], generation)
    if ours == theirs:
      return
    same = len(os.path.commonprefix([ours, theirs]))
    ends = [len(Layout(layout.literals[:i + 2], layout.trims[:i + 1]).compose(contents[:i + 1]))
            for i in range(len(messages))]
    turn = next((i for i, end in enumerate(ends) if same < end), len(messages) - 1)
    raise ChatError(turn, "the chat template changes this content or what stands around it, "
                          f"at {ours[same:same + 40]!r}")

  def _check(self) -> None:
    """Proves on a probe that ids are those of the tokenizer on the whole prompt."""
    turns = (Turn("user", "Find the key.\n\nObservation: 2 doors, été"),)
    if self._holds_system:
      turns = (Turn("system", "You are an agent."), *turns)
    whole = self._template.render([(t.role, t.content) for t in turns], True)
    if self.prompt(turns) != self.tokenizer.backend.encode(whole, add_special_tokens=False).ids:
      raise UserError(f"chat format {self.format!r} cannot be rendered piece by piece with this tokenizer: "
                      "training and serving could differ; choose another format")


def make_renderer(tokenizer: Tokenizer, format: str) -> Renderer:
  """Returns the renderer of a chat format.

  Args:
    tokenizer: of the model.
    format: a name of `FORMATS`, or "template" for the tokenizer's own chat template.

  Raises:
    UserError: an unknown format, one the tokenizer lacks the tokens for, or a template that cannot be used
      for training (the message says why).
  """
  return Renderer(tokenizer, format)


def load_renderer(folder: str | os.PathLike[str]) -> Renderer:
  """Reads what `Renderer.save` wrote.

  Raises:
    UserError: a missing or broken file, or one that was changed since.
  """
  path = as_path(folder) / "chat.json"
  try:
    saved = json.loads(path.read_text(encoding="utf-8"))
    format, fingerprint = saved["format"], saved["fingerprint"]
  except FileNotFoundError:
    raise UserError(f"{path}: not found; give a folder that holds a saved renderer") from None
  except (ValueError, KeyError, TypeError):
    raise UserError(f"{path}: not a chat.json; write the folder again") from None
  renderer = make_renderer(load_tokenizer(folder), format)
  if renderer.fingerprint != fingerprint:
    raise UserError(f"{path}: the tokenizer or chat format is not the one that was saved; "
                    "write the folder again")
  return renderer


def _texts(layout: Layout, pieces: Sequence[Fixed | Run],
           messages: list[_Message]) -> list[tuple[str, bool]]:
  """Returns the runs' texts, and whether each starts or continues text."""
  contents = [layout.trim(i, m.content) for i, m in enumerate(messages)]
  return [("".join([contents[p] if isinstance(p, int) else p for p in piece.parts]), piece.start)
          for piece in pieces if isinstance(piece, Run)]
