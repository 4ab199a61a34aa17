"""Packing, from trajectory files to records on disk, against the renderer's own ids."""

import dataclasses
import errno
import filecmp
import json
import os
import resource
import sys

from array_record.python import array_record_module
from fake_tasks import COUNT
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
import numpy as np
from packing_samples import make_config, save_tokenizer, trajectories, write_rows
import pytest
import tensorflow_datasets as tfds

from agentbank_jax import tasks
from agentbank_jax.chat import make_renderer
from agentbank_jax.errors import UserError
from agentbank_jax.files import whole_folder
from agentbank_jax.tokenizer import load_tokenizer
from agentbank_jax.trajectory import Trajectory
from data_prep import encode, pack, packed_writer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def rows():
  return trajectories(60)


@pytest.fixture
def source(tmp_path, rows):
  return write_rows(tmp_path / "source.jsonl", rows)


def _read(folder, split="train"):
  return list(tfds.builder_from_directory(str(folder)).as_data_source(split))


def _segments(record):
  """Yields `(trajectory id, task index, ids, train)` of each segment: the shift undone."""
  for number, name in enumerate(json.loads(record["trajectory_ids"]), start=1):
    where = record["segment_ids"] == number
    np.testing.assert_array_equal(record["positions"][where], np.arange(where.sum()))
    np.testing.assert_array_equal(record["tokens"][where][1:], record["targets"][where][:-1])
    ids = np.append(record["tokens"][where][:1], record["targets"][where])
    yield name, record["segment_tasks"][number - 1], ids, np.append(False, record["loss_mask"][where])


def _json(folder, name):
  return json.loads((folder / name).read_text())


def test_every_record_holds_what_the_renderer_made(tmp_path, tokenizer, source, rows):
  result = pack.run(make_config(tokenizer, source, eval_share=0.0), tmp_path / "out")
  folder = tmp_path / "out" / "packed"
  assert result["packed"] == str(folder)
  renderer = make_renderer(load_tokenizer(tokenizer), "llama3")
  expected = {row["id"]: renderer.encode(Trajectory.from_json(row)) for row in rows}
  task = {row["id"]: row["task"] for row in rows}
  tasks = _json(folder, "pack.json")["tasks"]
  seen = []
  for record in _read(folder):
    used = record["segment_ids"] > 0
    # From the left without holes; nothing in the padding.
    assert (np.diff(used.astype(int)) <= 0).all()
    assert not record["loss_mask"][~used].any()
    assert (record["segment_tasks"] >= 0).sum() == record["segment_ids"].max()
    for name, task_index, ids, train in _segments(record):
      np.testing.assert_array_equal(ids, expected[name].tokens)
      np.testing.assert_array_equal(train, expected[name].train)
      assert tasks[task_index] == task[name]
      assert train.any()
      seen.append(name)
  assert sorted(seen) == sorted(expected)
  assert "tensorflow" not in sys.modules


def test_a_record_has_the_contracts_types(tmp_path, tokenizer, source):
  pack.run(make_config(tokenizer, source), tmp_path)
  record = _read(tmp_path / "packed")[0]
  most = _json(tmp_path / "packed", "pack.json")["max_segments"]
  assert isinstance(record.pop("trajectory_ids"), bytes)
  assert {k: (v.dtype, v.shape) for k, v in record.items()} == {
      "tokens": (np.int32, (1024,)), "targets": (np.int32, (1024,)), "segment_ids": (np.int32, (1024,)),
      "positions": (np.int32, (1024,)), "loss_mask": (np.bool_, (1024,)),
      "segment_tasks": (np.int32, (most,))}


def test_the_terminator_is_trained_where_pad_is_eos(tmp_path, tokenizer, source):
  tok = load_tokenizer(tokenizer)
  assert tok.pad_id == tok.eos_id
  pack.run(make_config(tokenizer, source), tmp_path)
  stop = make_renderer(tok, "llama3").stop_ids
  for record in _read(tmp_path / "packed"):
    trained = record["loss_mask"]
    ends = trained & ~np.append(trained[1:], False)
    assert np.isin(record["targets"][ends], stop).all()
    begins = trained & ~np.append(False, trained[:-1])
    assert begins.sum() == ends.sum()


@pytest.mark.parametrize("changes", [dict(block_size=7), dict(workers=1), dict(workers=2, block_size=5)],
                         ids=str)
def test_workers_and_block_size_change_no_byte(tmp_path, tokenizer, source, changes):
  for name, change in [("one", {}), ("other", changes)]:
    pack.run(make_config(tokenizer, source, eval_share=0.1, seq_len=300, **change), tmp_path / name)
  one, other = (tmp_path / name / "packed" for name in ("one", "other"))
  names = sorted(str(p.relative_to(one)) for p in one.rglob("*") if p.is_file())
  assert names == sorted(str(p.relative_to(other)) for p in other.rglob("*") if p.is_file())
  assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


# Without shrinking: a failing example is small enough, and each costs a whole run.
@settings(max_examples=10, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(st.fixed_dictionaries({
    "seq_len": st.integers(16, 400), "overlong": st.sampled_from(["drop", "cut_at_turn", "window"]),
    "total": st.sampled_from(["all", "500", "20000"]), "eval_share": st.sampled_from([0.0, 0.2]),
    "format": st.sampled_from(["llama3", "plain"]), "refuse_tasks": st.sampled_from([(), ("sums",)])}))
def test_the_ledger_adds_up_whatever_the_settings(tmp_path_factory, tokenizer, changes):
  folder, rows = tmp_path_factory.mktemp("ledger"), trajectories(60)
  data = write_rows(folder / "source.jsonl", rows)
  config = make_config(tokenizer, data, max_dropped_share=1.0, **changes)
  try:
    pack.run(config, folder)
  except UserError as e:  # with the shortest rows, nothing may be left
    assert "no trajectory to mix in" in str(e) or "is empty" in str(e)
    assert not (folder / "packed").exists()
    return
  packed = folder / "packed"
  ledger = _json(packed, "ledger.json")
  assert ledger["rows_in"] == len(rows) == ledger["rows_kept"] + sum(ledger["rows_dropped"].values())
  tokens_dropped = sum(ledger["tokens_dropped"].values())
  assert ledger["tokens_in"] == ledger["tokens_trained"] + ledger["tokens_masked"] + tokens_dropped
  renderer = make_renderer(load_tokenizer(tokenizer), config.format)
  kept = [row for row in rows if row["task"] not in config.refuse_tasks]
  assert ledger["tokens_in"] == sum(len(renderer.encode(Trajectory.from_json(row)).tokens) for row in kept)
  sizes = _json(packed, "pack.json")["splits"]
  for split, size in sizes.items():
    records = _read(packed, split)
    assert len(records) == size["rows"]
    assert sum(int(r["loss_mask"].sum()) for r in records) == size["trained_tokens"]
    assert sum(int((r["segment_ids"] > 0).sum()) for r in records) == size["tokens"]
    for record in records:
      for name, _, ids, train in _segments(record):
        assert train.any(), name
        assert len(ids) <= config.seq_len + 1
  assert sizes["train"]["trained_tokens"] == _json(packed, "mixture.json")["total"]["trained_tokens"]
  if config.total == "all":  # nothing is repeated
    assert sum(size["trained_tokens"] for size in sizes.values()) == ledger["tokens_trained"]


@pytest.mark.parametrize("unit", ["rows", "trained_tokens"])
def test_a_smaller_total_trains_on_a_subset(tmp_path, tokenizer, rows, unit):
  a = write_rows(tmp_path / "a.jsonl", rows)
  b = write_rows(tmp_path / "b.jsonl", trajectories(50, prefix="b"))
  chosen = []
  for share in (0.2, 0.5):
    total = {"rows": 50, "trained_tokens": 4000}[unit] * share
    config = make_config(tokenizer, a, b, unit=unit, total=str(total))
    config.sources[0].weight, config.sources[1].weight = 3.0, 1.0
    pack.run(config, tmp_path / str(share))
    records = _read(tmp_path / str(share) / "packed")
    chosen.append({name for record in records for name in json.loads(record["trajectory_ids"])})
    shares = _json(tmp_path / str(share) / "packed", "mixture.json")["sources"]
    assert shares["a.jsonl"]["requested_share"] == 0.75
    assert shares["a.jsonl"][unit]["share"] == pytest.approx(0.75, abs=0.08)
  assert chosen[0] < chosen[1]


def test_splits_share_no_text_even_where_it_is_repeated(tmp_path, tokenizer, rows):
  copies = [row | {"id": f"copy {i}"} for i, row in enumerate(rows)]
  data = write_rows(tmp_path / "twice.jsonl", rows + copies)
  pack.run(make_config(tokenizer, data, eval_share=0.25, max_dropped_share=0.1), tmp_path)
  texts = {split: {ids.tobytes() for r in _read(tmp_path / "packed", split) for _, _, ids, _ in _segments(r)}
           for split in ("train", "eval")}
  assert texts["train"] and texts["eval"]
  assert not texts["train"] & texts["eval"]


def test_eval_sources_are_taken_whole_and_never_trained_on(tmp_path, tokenizer, rows):
  train = write_rows(tmp_path / "train.jsonl", rows)
  held_out = write_rows(tmp_path / "eval.jsonl", rows[:3] + trajectories(5, prefix="e"))
  config = make_config(tokenizer, train, eval_share=0.0, eval_sources=(str(held_out),), max_dropped_share=0.1)
  pack.run(config, tmp_path)
  names = {split: {n for r in _read(tmp_path / "packed", split) for n in json.loads(r["trajectory_ids"])}
           for split in ("train", "eval")}
  assert names["eval"] == {"t0", "t1", "t2", "e0", "e1", "e2", "e3", "e4"}
  assert names["train"] == {row["id"] for row in rows[3:]}
  assert _json(tmp_path / "packed", "ledger.json")["rows_dropped"] == {"also_in_eval": 3}


def test_held_out_tasks_of_the_registry_are_refused(tmp_path, tokenizer, rows, monkeypatch):
  held_out = {"scienceworld": False, "bamboogle": False, "arithmetic": True}
  task = lambda name: dataclasses.replace(COUNT, name=name, held_in=held_out[name])
  monkeypatch.setattr(tasks, "task_names", lambda: tuple(held_out))
  monkeypatch.setattr(tasks, "get_task", task)
  tasks.held_out_names.cache_clear()
  refused = trajectories(4, prefix="r", tasks=("scienceworld", "bamboogle"))
  data = write_rows(tmp_path / "mixed.jsonl", rows + refused)
  pack.run(make_config(tokenizer, data), tmp_path)
  assert _json(tmp_path / "packed", "ledger.json")["rows_dropped"] == {"refused_task": 4}
  tasks.held_out_names.cache_clear()
  assert _json(tmp_path / "packed", "pack.json")["tasks"] == ["embodied_sim", "sums"]


def test_what_a_format_cannot_hold_is_counted_and_explained(tmp_path, tokenizer, rows):
  odd = {"id": "odd", "task": "sums", "turns": [{"role": "assistant", "content": "I begin."}]}
  data = write_rows(tmp_path / "source.jsonl", [*rows, odd])
  pack.run(make_config(tokenizer, data), tmp_path)
  ledger = _json(tmp_path / "packed", "ledger.json")
  assert ledger["rows_dropped"] == {encode.UNRENDERABLE: 1}
  assert ledger["unrenderable"][0].startswith("odd: ")


def test_too_much_dropped_aborts_and_leaves_nothing(tmp_path, tokenizer, source):
  config = make_config(tokenizer, source, overlong="drop", max_dropped_share=0.02, seq_len=200)
  with pytest.raises(UserError, match=r"source.jsonl: .* were dropped \(overlong \d+\), more than"):
    pack.run(config, tmp_path / "out")
  assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("key, value", [
    ("overlong", "windows"), ("unit", "row"), ("seq_len", 1), ("workers", -1), ("block_size", 0),
    ("eval_share", 1.5), ("total", "many"), ("total", "-3"), ("total", "1"), ("sources", ()),
    ("sources", ("x",)), ("refuse_tasks", ("sumz",)), ("tokenizer", "/nowhere"), ("format", "llama9"),
])
def test_a_config_that_cannot_be_met_is_refused(tmp_path, tokenizer, source, key, value):
  config = make_config(tokenizer, source)
  config[key] = value
  with pytest.raises(UserError):
    pack.run(config, tmp_path / "out")
  assert not (tmp_path / "out" / "packed").exists()


def test_an_existing_data_set_is_replaced_only_on_request(tmp_path, tokenizer, source):
  pack.run(make_config(tokenizer, source), tmp_path / "out")
  with pytest.raises(UserError, match="overwrite"):
    pack.run(make_config(tokenizer, source), tmp_path / "out")
  pack.run(make_config(tokenizer, source, overwrite=True, seq_len=300), tmp_path / "out")
  assert _json(tmp_path / "out" / "packed", "pack.json")["seq_len"] == 300
  assert [p.name for p in (tmp_path / "out").iterdir()] == ["packed"]


@pytest.mark.parametrize("error, raised, told", [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), UserError, "packed was not written: No space left on device"),
    (RuntimeError("write() failed: No space left on device; at byte 65536"), UserError, "packed was not written: No"),
    (OSError("8469 requested and 4096 written"), UserError, "packed was not written: No space left"),
    (KeyboardInterrupt(), KeyboardInterrupt, ""),  # the exit code is Ctrl-C's
], ids=["filesystem", "array_record", "numpy", "ctrl-c"])
def test_a_full_disk_or_ctrl_c_leaves_nothing_behind(tmp_path, tokenizer, source, monkeypatch, error, raised, told):
  class Writer:
    def __init__(self, *_):
      pass

    def write(self, _):
      raise error

  monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Writer)
  with pytest.raises(raised, match=told):
    pack.run(make_config(tokenizer, source), tmp_path / "out")
  assert list((tmp_path / "out").iterdir()) == []


def test_array_record_reports_a_failed_write(tmp_path):
  """The writer must not swallow the system's error: a file-size limit stands in for a full disk."""
  features = packed_writer.make_features(4096, 1)
  noise = np.random.default_rng(0).integers(0, 2**31 - 1, 4096).astype(np.int32)
  row = {name: noise for name in ("tokens", "targets", "segment_ids", "positions")}
  row |= {"loss_mask": noise > 0, "segment_tasks": np.zeros(1, np.int32), "trajectory_ids": "[]"}
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
  try:
    with pytest.raises(UserError, match="was not written: File too large"), whole_folder(tmp_path / "packed") as folder:
      packed_writer.write_split(folder, "train", iter([row] * 200), 200, features)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_is_told_not_waited_for(tmp_path, tokenizer, source, monkeypatch):
  monkeypatch.setattr(encode, "_work", _die)
  with pytest.raises(UserError, match="worker process died"):
    pack.run(make_config(tokenizer, source, workers=1), tmp_path / "out")
  assert list((tmp_path / "out").iterdir()) == []


def _die(*_):
  os._exit(1)


def test_many_tiny_conversations_share_a_row(tmp_path, tokenizer):
  turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
  rows = [{"id": str(i), "task": "sums", "turns": turns} for i in range(300)]
  tiny = write_rows(tmp_path / "tiny.jsonl", rows)
  pack.run(make_config(tokenizer, tiny, eval_share=0.0, seq_len=4096), tmp_path)
  size = _json(tmp_path / "packed", "pack.json")
  assert size["splits"]["train"]["segments"] == 300
  record = _read(tmp_path / "packed")[0]
  assert record["segment_ids"].max() == size["max_segments"] > 100
