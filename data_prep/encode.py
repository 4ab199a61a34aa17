"""Trajectories to token ids: blocks, worker processes, and a flat file that keeps memory small.

Blocks of trajectories are rendered and fitted to the row length, in this process or in several, and
taken back in the order of the input, so that the result does not depend on the number of workers or
on the block size. Token ids go to a temporary flat file on disk. What stays in memory is 60 bytes per
trajectory, 28 per segment (a conversation, or one window of it; 16 of them while it is packed), the same
again for a moment when the blocks are joined, and a few blocks per worker: measured, 200 bytes per
conversation, 2 GB for ten million.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import concurrent.futures
from concurrent.futures import process
import contextlib
import dataclasses
import gc
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import threading
from typing import Any

import numpy as np

from agentbank_jax import chat
from agentbank_jax.errors import UserError
from agentbank_jax.tokenizer import load_tokenizer
from agentbank_jax.trajectory import Trajectory
from data_prep import overlong
from data_prep.contamination import Match, Screen

REFUSED_TASK = "refused_task"
CONTAMINATED = "contaminated"
MATCHES = "matches.jsonl"
UNRENDERABLE = "does_not_fit_the_chat_format"

_PENDING = 8  # blocks per worker, done or not: one that is slow to start holds nobody up
_TRAIN_BIT = np.uint32(1 << 31)  # ids and loss flags share one 32-bit word of the flat file


@dataclasses.dataclass(frozen=True)
class Encoder:
  """What turns a trajectory into segments. Picklable: each worker builds its own renderer from it.

  Attributes:
    tokenizer: path.
    format: chat format.
    seq_len: positions in a row.
    policy: one of `overlong.POLICIES`.
    refuse_tasks: tasks whose trajectories are dropped.
    seed: seeds the keys that order the mixture.
    screen: what no conversation may hold, or None.
  """

  tokenizer: str
  format: str
  seq_len: int
  policy: str
  refuse_tasks: tuple[str, ...]
  seed: int
  screen: Screen | None = None

  def make_renderer(self) -> chat.Renderer:
    return chat.make_renderer(load_tokenizer(self.tokenizer), self.format)


# Per trajectory. `key` orders the mixture and finds a trajectory that is in both splits; `reason` is an
# index into `Corpus.reasons`, 0 for kept; `ids` is the length as rendered, and where those ids went;
# `joined_turns` were made one with the turn before them, for a format of strict alternation.
_TRAJECTORY = np.dtype([("key", "<u8"), ("source", "<i2"), ("task", "<i4"), ("reason", "<i2"),
                        ("segments", "<i4"), ("ids", "<i4"), ("trained", "<i4"), ("masked", "<i4"),
                        ("dropped", "<i4"), ("joined_turns", "<i4"), ("id_bytes", "<i4")])


@dataclasses.dataclass
class _Block:
  """One block, encoded: what a worker sends back."""

  rows: np.ndarray  # _TRAJECTORY [n]; task and reason are filled in by the parent
  ids: list[str]
  tasks: list[str]
  reasons: list[str | None]
  notes: list[str]
  matches: list[dict[str, Any]]  # of the contaminated: the lines of the report
  lengths: list[int]  # ids in each segment
  words: np.ndarray  # uint32, all segments end to end


def encode_block(renderer: chat.Renderer, encoder: Encoder, source: int,
                 block: Sequence[Trajectory]) -> _Block:
  """Renders a block by one `encode_batch` and fits each conversation to the row length."""
  with _collector_paused():
    return _encode_block(renderer, encoder, source, block)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
  """A block is a hundred thousand small objects that all go together: looking for cycles takes a sixth of the time."""
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if enabled:
      gc.enable()


def _encode_block(renderer: chat.Renderer, encoder: Encoder, source: int, block: Sequence[Trajectory]) -> _Block:
  refusals = [_refusal(encoder, trajectory) for trajectory in block]
  wanted = [t for t, refusal in zip(block, refusals, strict=True) if refusal is None]
  rendered = iter(renderer.encode_batch(wanted))
  out = _Block(np.zeros(len(block), _TRAJECTORY), [t.id for t in block], [t.task for t in block], [], [], [], [],
               np.empty(0, np.uint32))
  out.rows["source"] = source
  words = []
  for trajectory, row, refusal in zip(block, out.rows, refusals, strict=True):
    row["key"] = trajectory_key(trajectory, encoder.seed)
    row["id_bytes"] = len(trajectory.id.encode())
    if isinstance(refusal, Match):
      out.matches.append({"trajectory": trajectory.id, **refusal._asdict()})
    if refusal is not None:
      out.reasons.append(CONTAMINATED if isinstance(refusal, Match) else refusal)
      continue
    result = next(rendered)
    if isinstance(result, chat.ChatError):
      out.reasons.append(UNRENDERABLE)
      out.notes.append(f"{trajectory.id}: {result}")
      continue
    is_assistant = np.array([turn.role == "assistant" for turn in trajectory.turns])
    pieces = overlong.fit(result.tokens, result.train, result.turn, is_assistant, encoder.seq_len + 1,
                          encoder.policy)
    out.reasons.append(pieces.reason)
    row["ids"], row["joined_turns"] = len(result.tokens), result.merged_turns
    row["segments"] = len(pieces.segments)
    row["trained"], row["masked"], row["dropped"] = pieces.trained, pieces.masked, pieces.dropped
    for ids, train in pieces.segments:
      out.lengths.append(len(ids))
      words.append(ids.view(np.uint32) | train * _TRAIN_BIT)
  out.words = np.concatenate([out.words, *words])
  return out


def _refusal(encoder: Encoder, trajectory: Trajectory) -> str | Match | None:
  """Returns why a conversation may not be trained on, if it may not."""
  if trajectory.task in encoder.refuse_tasks:
    return REFUSED_TASK
  return encoder.screen.find(trajectory) if encoder.screen else None


def trajectory_key(trajectory: Trajectory, seed: int) -> int:
  """Returns 64 bits that depend on the text and the seed alone, not on file, order, id or tokenizer."""
  digest = hashlib.blake2b(seed.to_bytes(8, "little", signed=True), digest_size=8)
  for turn in trajectory.turns:
    digest.update(f"{turn.role}\0{len(turn.content)}\0{turn.content}".encode())
  return int.from_bytes(digest.digest(), "little")


class Corpus:
  """All trajectories of a run: counts in memory, ids on disk.

  Attributes:
    rows: structured array [N] (`key source task reason segments ids trained masked dropped joined_turns`).
    tasks: names, in order of appearance.
    reasons: names; 0 is "", kept.
    notes: the first few `id: why` of conversations that the chat format cannot hold.
    lengths: int32 [S], ids in each segment; trajectory i has segments `first_segment[i]` onwards.
    first_segment: int64 [N + 1].
  """

  def __init__(self, rows, tasks, reasons, notes, lengths, folder: pathlib.Path):
    self.rows, self.tasks, self.reasons, self.notes, self.lengths = rows, tasks, reasons, notes, lengths
    self.first_segment = np.concatenate([[0], np.cumsum(rows["segments"], dtype=np.int64)])
    self._word_start = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    self._id_start = np.concatenate([[0], np.cumsum(rows["id_bytes"], dtype=np.int64)])
    # An empty file cannot be mapped.
    self._words = np.memmap(folder / "words", np.uint32, "r") if len(lengths) else np.empty(0, np.uint32)
    self._ids = np.memmap(folder / "ids", np.uint8, "r") if len(rows) else np.empty(0, np.uint8)

  @property
  def tokens(self) -> np.ndarray:
    """int64 [N], the positions that each trajectory takes in packed rows."""
    ends = np.concatenate([[0], np.cumsum(self.lengths - 1, dtype=np.int64)])[self.first_segment]
    return np.diff(ends)

  def drop(self, trajectories: np.ndarray, reason: str) -> None:
    """Marks trajectories as dropped."""
    if reason not in self.reasons:
      self.reasons.append(reason)
    self.rows["reason"][trajectories] = self.reasons.index(reason)

  def segments_of(self, trajectories: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the segments of trajectories, in order, and the trajectory of each: two int64 [S]."""
    counts = self.rows["segments"][trajectories].astype(np.int64)
    owners = np.repeat(trajectories, counts)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return self.first_segment[owners] + within, owners

  def segment(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(ids int32 [n], train bool [n])`."""
    words = self._words[self._word_start[index]:self._word_start[index + 1]]
    return (words & ~_TRAIN_BIT).astype(np.int32), words >= _TRAIN_BIT

  def trajectory_id(self, index: int) -> str:
    return self._ids[self._id_start[index]:self._id_start[index + 1]].tobytes().decode()


def encode(encoder: Encoder, renderer: chat.Renderer, sources: Sequence[Iterable[Trajectory]], folder: pathlib.Path,
           workers: int, block_size: int) -> Corpus:
  """Encodes all trajectories of all sources, in order.

  Args:
    encoder: what to do.
    renderer: made by `encoder`, for this process; workers make their own.
    sources: trajectories of each source.
    folder: for the two flat files, which must outlive the result, and `matches.jsonl`, the contaminated
      conversations with what they have in common with which problem.
    workers: processes beside this one, which encodes too.
    block_size: trajectories per block.

  Raises:
    UserError: a worker died.
  """
  tasks: dict[str, int] = {}
  reasons: dict[str, int] = {"": 0}
  notes: list[str] = []
  rows, lengths = [np.empty(0, _TRAJECTORY)], [np.empty(0, np.int32)]
  with (folder / "words").open("wb") as words, (folder / "ids").open("wb") as ids, \
      (folder / MATCHES).open("w") as matches:
    for block in _encoded_blocks(encoder, renderer, _blocks(sources, block_size), workers):
      block.rows["task"] = [tasks.setdefault(task, len(tasks)) for task in block.tasks]
      block.rows["reason"] = [reasons.setdefault(reason or "", len(reasons)) for reason in block.reasons]
      matches.writelines(json.dumps({"source": int(block.rows["source"][0]), **match}, ensure_ascii=False) + "\n"
                         for match in block.matches)
      notes += block.notes[:max(0, 5 - len(notes))]
      rows.append(block.rows)
      lengths.append(np.array(block.lengths, np.int32))
      block.words.tofile(words)
      ids.write("".join(block.ids).encode())
  return Corpus(np.concatenate(rows), list(tasks), list(reasons), notes, np.concatenate(lengths), folder)


def _blocks(sources: Sequence[Iterable[Trajectory]], size: int) -> Iterator[tuple[int, list[Trajectory]]]:
  """Yields `(source, trajectories)`; no block spans two sources."""
  for source, trajectories in enumerate(sources):
    iterator = iter(trajectories)
    while block := list(itertools.islice(iterator, size)):
      yield source, block


def _encoded_blocks(encoder: Encoder, renderer: chat.Renderer, blocks: Iterator[tuple[int, list[Trajectory]]],
                    workers: int) -> Iterator[_Block]:
  """Yields encoded blocks in the order of `blocks`; this process encodes too while the workers have enough to do."""
  if not workers:
    for source, block in blocks:
      yield encode_block(renderer, encoder, source, block)
    return
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, (encoder,)) as pool:
    pending: collections.deque[concurrent.futures.Future[_Block]] = collections.deque()
    try:
      for source, block in blocks:
        if sum(not future.done() for future in pending) < 2 * workers:
          pending.append(pool.submit(_work, source, block))
        else:
          pending.append(concurrent.futures.Future())
          pending[-1].set_result(encode_block(renderer, encoder, source, block))
        while pending and (pending[0].done() or len(pending) >= _PENDING * workers):
          yield pending.popleft().result()
      while pending:
        yield pending.popleft().result()
    except process.BrokenProcessPool:
      raise UserError("a worker process died while encoding, probably for want of memory; "
                      "lower config.workers or config.block_size") from None
    finally:
      pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[chat.Renderer, Encoder] | None = None  # of a worker process; set once, when it starts


def _start_worker(encoder: Encoder) -> None:
  global _worker
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's business
  os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
  threading.Thread(target=_die_with_parent, daemon=True).start()
  _worker = encoder.make_renderer(), encoder


def _die_with_parent() -> None:
  multiprocessing.parent_process().join()  # a killed parent would leave its workers waiting for ever
  os._exit(1)


def _work(source: int, block: list[Trajectory]) -> _Block:
  return encode_block(*_worker, source, block)
