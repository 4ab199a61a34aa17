"""Packed rows as a TFDS data set in ArrayRecord shards, readable without TensorFlow.

Arrays are stored as raw bytes in a `tf.train.Example` (`Encoding.BYTES`) and compressed per record by
ArrayRecord. TFDS's own default (varints, one Python number at a time) writes 12 times and its `ZLIB`
14 times slower; both give smaller raw records, but not smaller than zstd makes these.
"""

from collections.abc import Iterator
import json
import os
import pathlib

import numpy as np

from data_prep.binpack import Packing
from data_prep.encode import Corpus

NAME = "agentbank_packed"
_ROWS_PER_SHARD = 8192  # about 100 MB of rows of 4096
_WRITER_OPTIONS = "group_size:1,zstd:1"  # group size 1: random access reads one record


def make_features(seq_len: int, max_segments: int):
  """Returns the `FeaturesDict` of a packed row."""
  import tensorflow_datasets as tfds

  def array(length: int, dtype: type) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=(length,), dtype=dtype, encoding=tfds.features.Encoding.BYTES)

  return tfds.features.FeaturesDict({
      "tokens": array(seq_len, np.int32),
      "targets": array(seq_len, np.int32),
      "loss_mask": array(seq_len, np.bool_),
      "segment_ids": array(seq_len, np.int32),
      "positions": array(seq_len, np.int32),
      "segment_tasks": array(max_segments, np.int32),
      "trajectory_ids": tfds.features.Text(),
  })


def rows(corpus: Corpus, segments: np.ndarray, trajectories: np.ndarray, tasks: np.ndarray, packing: Packing,
         seq_len: int, max_segments: int) -> Iterator[dict]:
  """Yields the packed rows.

  Args:
    corpus: encoded trajectories.
    segments: int64 [S], the segments of `corpus` that are packed.
    trajectories: int64 [S], the trajectory of each.
    tasks: int32 [N], the task's index of every trajectory of `corpus`.
    packing: where each lies.
    seq_len: positions in a row.
    max_segments: length of `segment_tasks`.
  """
  order = np.lexsort((packing.start, packing.row))
  bounds = np.searchsorted(packing.row[order], np.arange(packing.num_rows + 1))
  for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
    row = {name: np.zeros(seq_len, np.int32) for name in ("tokens", "targets", "segment_ids", "positions")}
    row["loss_mask"] = np.zeros(seq_len, np.bool_)
    row["segment_tasks"] = np.full(max_segments, -1, np.int32)
    names = []
    for number, item in enumerate(order[begin:end]):
      ids, train = corpus.segment(segments[item])
      where = slice(packing.start[item], packing.start[item] + len(ids) - 1)
      row["tokens"][where] = ids[:-1]
      row["targets"][where] = ids[1:]
      row["loss_mask"][where] = train[1:]
      row["segment_ids"][where] = number + 1
      row["positions"][where] = np.arange(len(ids) - 1)
      row["segment_tasks"][number] = tasks[trajectories[item]]
      names.append(corpus.trajectory_id(trajectories[item]))
    row["trajectory_ids"] = json.dumps(names)
    yield row


def write_split(folder: pathlib.Path, split: str, packed: Iterator[dict], num_rows: int, features):
  """Writes the shards of one split and returns its `tfds.core.SplitInfo`."""
  from array_record.python import array_record_module
  import tensorflow_datasets as tfds
  serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
  num_shards = -(-num_rows // _ROWS_PER_SHARD)
  lengths = [len(part) for part in np.array_split(np.arange(num_rows), num_shards)]
  num_bytes = 0
  for shard, length in enumerate(lengths):
    path = folder / f"{NAME}-{split}.array_record-{shard:05d}-of-{num_shards:05d}"
    writer = array_record_module.ArrayRecordWriter(os.fspath(path), _WRITER_OPTIONS)
    for _ in range(length):
      writer.write(serializer.serialize_example(features.encode_example(next(packed))))
    writer.close()
    num_bytes += path.stat().st_size
  return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=num_bytes)


def write_metadata(folder: pathlib.Path, features, splits: list, description: str) -> None:
  """Writes what `tfds.builder_from_directory` reads."""
  import tensorflow_datasets as tfds
  tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=splits, check_data=False,
                                     description=description)
