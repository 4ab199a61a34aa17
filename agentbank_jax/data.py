"""Packed rows -> batches. The iterator's state is one integer: the step.

The global batch of a step is a pure function of (seed, step), however many processes share it: each
reads only its own rows, a contiguous block of the batch. So a run resumes at any step, on any number
of hosts, from the step alone.

Shapes: L = positions in a row, S = most segments in a row, B = rows of the global batch.
"""

from collections.abc import Iterator
import dataclasses
import functools
import json
import os
import sys
from typing import Any

import numpy as np

from agentbank_jax.errors import UserError
from agentbank_jax.paths import AnyPath, as_path

_ARRAYS = ("tokens", "targets", "loss_mask", "segment_ids", "positions", "segment_tasks")


@dataclasses.dataclass(frozen=True)
class PackedDataset:
  """A packed data set on disk, as `agentbank pack` writes it.

  Attributes:
    path: its directory; the tokenizer lies in `tokenizer/`.
    seq_len: L.
    max_segments: S.
    vocab_size: of the tokenizer.
    format: chat format.
    fingerprint: of the renderer, format and tokenizer together.
    tasks: names; `segment_tasks` are indices into it.
    skills: the skill of each task.
    num_rows: rows of each split.
    num_trained: trained tokens of each split.
  """

  path: AnyPath
  seq_len: int
  max_segments: int
  vocab_size: int
  format: str
  fingerprint: str
  tasks: tuple[str, ...]
  skills: tuple[str, ...]
  num_rows: dict[str, int]
  num_trained: dict[str, int]

  @classmethod
  def open(cls, path: str | os.PathLike) -> "PackedDataset":
    """Reads the metadata and looks at every shard.

    Raises:
      UserError: no such directory, not a packed data set, or a damaged one.
    """
    path = as_path(path)
    if not path.is_dir():
      raise UserError(f"{path}: no such directory; `agentbank pack` writes packed data sets")
    pack, renderer = (_read_json(path, name) for name in ("pack.json", "renderer.json"))
    try:
      dataset = cls(path, pack["seq_len"], pack["max_segments"], renderer["vocab_size"], renderer["format"],
                    renderer["fingerprint"], tuple(pack["tasks"]), tuple(pack["skills"]),
                    {split: size["rows"] for split, size in pack["splits"].items()},
                    {split: size["trained_tokens"] for split, size in pack["splits"].items()})
    except (KeyError, TypeError, AttributeError) as e:
      raise UserError(f"{path}: pack.json or renderer.json is not of this version ({e!r}); "
                      "pack again") from None
    for split in dataset.num_rows:
      dataset._check_shards(split)
    return dataset

  def source(self, split: str) -> Any:
    """Returns the rows of a split: `len()`, and `[i]` gives a dict of arrays.

    Raises:
      UserError: there is no such split.
    """
    if split not in self.num_rows:
      raise UserError(f"{self.path} has no split {split!r} (there are: {', '.join(self.num_rows)})")
    return self._builder.as_data_source(split)

  @functools.cached_property
  def _builder(self) -> Any:
    import tensorflow_datasets as tfds
    try:
      return tfds.builder_from_directory(os.fspath(self.path))
    except Exception as e:  # TFDS raises what its parsers raise
      raise UserError(f"{self.path}: dataset_info.json or features.json is missing or damaged "
                      f"({type(e).__name__}); pack again") from None

  def _check_shards(self, split: str) -> None:
    """A shard that was cut short or lost shows here, not in the middle of training."""
    from array_record.python import array_record_module
    if split not in self._builder.info.splits:
      raise UserError(f"{self.path}: dataset_info.json lacks the split {split!r}; pack again")
    info = self._builder.info.splits[split]
    if info.num_examples != self.num_rows[split]:
      raise UserError(f"{self.path}: {split} has {info.num_examples} rows by dataset_info.json and "
                      f"{self.num_rows[split]} by pack.json; pack again")
    for shard, expected in zip(info.filepaths, info.shard_lengths, strict=True):
      if not shard.exists():
        raise UserError(f"{shard} is missing; copy the whole directory, or pack again")
      try:
        reader = array_record_module.ArrayRecordReader(os.fspath(shard))
        found = reader.num_records()
        reader.close()
      except (RuntimeError, ValueError):
        raise UserError(f"{shard} is damaged or cut short; copy it again, or pack again") from None
      if found != expected:
        raise UserError(f"{shard} has {found} rows, {expected} expected; copy it again, or pack again")


def num_steps(num_rows: int, batch_size: int, epochs: int) -> int:
  """Returns the steps of `epochs` passes; the last batch may be partial.

  An epoch is `num_rows / batch_size` steps, which need not be whole: a batch may end one epoch and
  begin the next.
  """
  return -(-num_rows * epochs // batch_size)


def batches(dataset: PackedDataset, split: str, batch_size: int, *, seed: int | None, start_step: int = 0,
            process_index: int = 0, process_count: int = 1,
            epochs: int | None = None) -> Iterator[dict[str, np.ndarray]]:
  """Yields this process's part of the global batches `start_step`, `start_step + 1`, ...

  Every epoch has every row once, in an order of its own. A partial last batch is filled up with empty
  rows (`segment_ids` 0, no loss), never dropped.

  Args:
    dataset: what to read.
    split: "train" or "eval".
    batch_size: B, rows of the global batch.
    seed: of the order; None keeps the stored order, in every epoch.
    start_step: the first step to yield.
    process_index: which block of `B / process_count` rows.
    process_count: processes that share the batch.
    epochs: passes over the split; None: without end.

  Yields:
    tokens, targets, segment_ids, positions int32 [B / process_count, L]; loss_mask bool [.., L];
    segment_tasks int32 [.., S], the task of each segment or -1.

  Raises:
    UserError: no such split, or a batch that the processes cannot share.
  """
  if batch_size < 1 or batch_size % process_count:
    raise UserError(f"a batch of {batch_size} rows cannot be shared by {process_count} processes: "
                    "make the batch size a multiple of their number")
  if not (0 <= process_index < process_count and start_step >= 0):
    raise ValueError(f"process {process_index} of {process_count}, step {start_step}")
  return _iterate(dataset, dataset.source(split), batch_size, seed, start_step, process_index, process_count,
                  epochs)


def _iterate(dataset: PackedDataset, source: Any, batch_size: int, seed: int | None, start_step: int,
             process_index: int, process_count: int, epochs: int | None) -> Iterator[dict[str, np.ndarray]]:
  import grain
  # Only the order is a grain data set of rows: it is indexed, so that a row that belongs to another
  # process is never read.
  order = grain.MapDataset.range(len(source))
  if seed is not None:
    order = order.seed(seed).shuffle()
  order = order.repeat(None)
  local_size = batch_size // process_count
  stop_row = sys.maxsize if epochs is None else len(source) * epochs
  stop_step = sys.maxsize if epochs is None else num_steps(len(source), batch_size, epochs)

  def load(step: int) -> dict[str, np.ndarray]:
    first = step * batch_size + process_index * local_size
    indices = range(first, first + local_size)
    rows = [source[int(order[i])] if i < stop_row else _empty_row(dataset) for i in indices]
    return {name: np.stack([row[name] for row in rows]) for name in _ARRAYS}

  if start_step < stop_step:
    steps = grain.MapDataset.range(start_step, stop_step).map(load)
    yield from steps.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))


def _empty_row(dataset: PackedDataset) -> dict[str, np.ndarray]:
  zeros = np.zeros(dataset.seq_len, np.int32)
  return {"tokens": zeros, "targets": zeros, "loss_mask": zeros.astype(np.bool_), "segment_ids": zeros,
          "positions": zeros, "segment_tasks": np.full(dataset.max_segments, -1, np.int32)}


def _read_json(path: AnyPath, name: str) -> dict:
  try:
    return json.loads((path / name).read_text())
  except FileNotFoundError:
    raise UserError(f"{path}: no {name}, so this is not a packed data set; "
                    "`agentbank pack` writes them") from None
  except (OSError, ValueError) as e:
    raise UserError(f"{path / name} cannot be read ({e}); pack again") from None
