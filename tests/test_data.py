"""The loader: one global batch per (seed, step), whoever reads it and from wherever it resumes."""

import itertools
import json
import shutil
import subprocess
import sys
import threading

import numpy as np
from packing_samples import make_config, save_tokenizer, trajectories, write_rows
import pytest

from agentbank_jax.data import PackedDataset, batches, num_steps
from agentbank_jax.errors import UserError
from data_prep import pack


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  source = write_rows(folder / "source.jsonl", trajectories(120))
  pack.run(make_config(save_tokenizer(folder / "tokenizer"), source, eval_share=0.1), folder)
  return folder / "packed"


@pytest.fixture(scope="module")
def dataset(packed):
  return PackedDataset.open(packed)


def _take(count, *args, **kwargs):
  return list(itertools.islice(batches(*args, **kwargs), count))


def _rows(batch_list):
  """Returns one hashable value a row."""
  return [row.tobytes() for batch in batch_list for row in batch["tokens"]]


def _assert_equal(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for name in x:
      np.testing.assert_array_equal(x[name], y[name], err_msg=name)


def test_the_metadata(dataset, packed):
  size = json.loads((packed / "pack.json").read_text())["splits"]
  assert dataset.num_rows == {"train": size["train"]["rows"], "eval": size["eval"]["rows"]}
  assert (dataset.seq_len, dataset.vocab_size, dataset.format) == (1024, 261, "llama3")
  assert dataset.tasks == ("embodied_sim", "sums")
  assert len(dataset.skills) == 2
  assert dataset.fingerprint


def test_types_and_shapes(dataset):
  batch, = _take(1, dataset, "train", 4, seed=0)
  assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
      "tokens": (np.int32, (4, 1024)), "targets": (np.int32, (4, 1024)), "loss_mask": (np.bool_, (4, 1024)),
      "segment_ids": (np.int32, (4, 1024)), "positions": (np.int32, (4, 1024)),
      "segment_tasks": (np.int32, (4, dataset.max_segments))}


@pytest.mark.parametrize("count", [2, 4])
def test_the_blocks_of_all_processes_make_the_global_batch(dataset, count):
  whole = _take(12, dataset, "train", 8, seed=3)
  parts = [_take(12, dataset, "train", 8, seed=3, process_index=p, process_count=count) for p in range(count)]
  joined = [{name: np.concatenate([part[name] for part in step]) for name in whole[0]}
            for step in zip(*parts, strict=True)]
  _assert_equal(joined, whole)


@pytest.mark.parametrize("start", [0, 1, 7, 19])
def test_resuming_at_a_step_equals_the_unbroken_run(dataset, start):
  _assert_equal(_take(20, dataset, "train", 4, seed=1)[start:],
                _take(20 - start, dataset, "train", 4, seed=1, start_step=start))


def test_every_epoch_has_every_row_once_in_an_order_of_its_own(dataset):
  rows = dataset.num_rows["train"]
  seen = _rows(_take(num_steps(rows, 4, 3), dataset, "train", 4, seed=0))[:3 * rows]
  epochs = [seen[i:i + rows] for i in range(0, 3 * rows, rows)]
  stored = sorted(row["tokens"].tobytes() for row in dataset.source("train"))
  assert [sorted(epoch) for epoch in epochs] == [stored] * 3
  assert epochs[0] != epochs[1] != epochs[2]


def test_the_seed_changes_the_order(dataset):
  assert _rows(_take(3, dataset, "train", 4, seed=0)) != _rows(_take(3, dataset, "train", 4, seed=1))


def test_without_a_seed_rows_come_as_stored_and_the_last_batch_is_filled_up(dataset):
  rows, size = dataset.num_rows["eval"], 4
  assert rows % size  # or this test tests nothing
  found = list(batches(dataset, "eval", size, seed=None, epochs=1))
  assert len(found) == num_steps(rows, size, 1) == -(-rows // size)
  assert _rows(found)[:rows] == [row["tokens"].tobytes() for row in dataset.source("eval")]
  for batch in found:
    assert {len(array) for array in batch.values()} == {size}
  padding = {name: array[rows % size:] for name, array in found[-1].items()}
  assert not padding["segment_ids"].any()
  assert not padding["loss_mask"].any()
  assert (padding["segment_tasks"] == -1).all()
  assert sum(int(batch["loss_mask"].sum()) for batch in found) == dataset.num_trained["eval"]


def test_eval_rows_are_shared_by_processes_without_loss(dataset):
  parts = [list(batches(dataset, "eval", 8, seed=None, epochs=1, process_index=p, process_count=4))
           for p in range(4)]
  assert len({len(part) for part in parts}) == 1  # or a collective would hang
  trained = sum(int(batch["loss_mask"].sum()) for part in parts for batch in part)
  assert trained == dataset.num_trained["eval"]


def test_a_run_past_its_last_step_yields_nothing(dataset):
  assert _take(1, dataset, "eval", 4, seed=0, epochs=1, start_step=10_000) == []


def test_reading_ahead_stops_with_the_reader(dataset):
  before = threading.active_count()
  iterator = batches(dataset, "train", 4, seed=0)
  next(iterator)
  iterator.close()
  del iterator
  for thread in threading.enumerate():
    if thread is not threading.current_thread() and not thread.daemon:
      thread.join(timeout=5)
  assert threading.active_count() <= before + 4  # no more than one pool, whatever is left of it


def test_a_batch_that_cannot_be_shared_is_refused_at_once(dataset):
  with pytest.raises(UserError, match="multiple"):
    batches(dataset, "train", 6, seed=0, process_count=4)
  with pytest.raises(UserError, match="no split 'test'.*train"):
    batches(dataset, "test", 4, seed=0)


def _truncate(folder):
  shard = next(folder.glob("*-train.array_record-*"))
  shard.write_bytes(shard.read_bytes()[:-5000])


_DAMAGE = {
    "a shard cut short": (_truncate, "damaged or cut short"),
    "a shard lost": (lambda folder: next(folder.glob("*-eval.array_record-*")).unlink(), "is missing"),
    "pack.json lost": (lambda f: (f / "pack.json").unlink(), "not a packed data set"),
    "pack.json garbled": (lambda f: (f / "pack.json").write_text("{"), "cannot be read"),
    "pack.json of another kind": (lambda f: (f / "pack.json").write_text("[]"), "not of this version"),
    "renderer.json emptied": (lambda f: (f / "renderer.json").write_text("{}"), "not of this version"),
    "features.json lost": (lambda f: (f / "features.json").unlink(), "features.json"),
    "dataset_info.json lost": (lambda f: (f / "dataset_info.json").unlink(), "dataset_info.json"),
}


@pytest.mark.parametrize("kind", _DAMAGE)
def test_a_damaged_directory_is_told(tmp_path, packed, kind):
  damage, told = _DAMAGE[kind]
  folder = tmp_path / "copy"
  shutil.copytree(packed, folder)
  damage(folder)
  with pytest.raises(UserError, match=told):
    PackedDataset.open(folder)


def test_foreign_directories_are_told(tmp_path):
  with pytest.raises(UserError, match="no such directory"):
    PackedDataset.open(tmp_path / "nowhere")
  with pytest.raises(UserError, match="not a packed data set"):
    PackedDataset.open(tmp_path)


def test_opening_needs_neither_jax_nor_tensorflow(packed):
  code = ("import sys; from agentbank_jax.data import PackedDataset; "
          f"PackedDataset.open({str(packed)!r}).source('train')[0]; "
          "print([m for m in ('jax', 'tensorflow', 'torch') if m in sys.modules])")
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert run.stdout == "[]\n"
