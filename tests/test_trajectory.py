"""Trajectories: the schema, and its files."""

import dataclasses
import gzip
import json

import hypothesis
from hypothesis import strategies as st
import pytest

from agentbank_jax.errors import UserError
from agentbank_jax.trajectory import ROLES, Outcome, Provenance, Trajectory, TrajectoryError, Turn
from agentbank_jax.trajectory_io import read_trajectories, write_trajectories

SUFFIXES = ("jsonl", "jsonl.gz", "parquet")

# What has broken somebody's file or chat format before.
ADVERSARIAL = (
    "", " \n\t ", "\r\n and \r", "nul \x00 here", "\x1b[31mred\x1b[0m", "\u2028line\u2029", "\ufeffBOM",
    "</s><s>[INST]<|eot_id|><|im_end|>\nAssistant:", '{"role": "user"}', "\\u0041 \\n '\"`",
    "日本語 🙂 e\u0301", "\uffff")

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
names = text.filter(bool)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2**53, 2**53) | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=5)
turns = st.builds(Turn, st.sampled_from(("system", "user", "assistant", "tool")), text) | st.builds(
    Turn, st.just("assistant"), text, st.booleans())
trajectories = st.builds(
    Trajectory, names, names, st.lists(turns, min_size=1, max_size=5).map(tuple),
    st.none() | finite, st.none() | st.sampled_from(list(Outcome)),
    st.builds(Provenance, st.none() | text, seed=st.none() | st.integers(0, 2**31)),
    st.dictionaries(text, json_values, max_size=3))


def trajectory(id_="a", *contents):
  roles = ("user", "assistant")
  contents = contents or ("2 * 3?", "Action: 2 * 3")
  return Trajectory(id_, "gsm8k", tuple(Turn(roles[i % 2], c) for i, c in enumerate(contents)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@hypothesis.settings(deadline=None, max_examples=30,
                     suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(rows=st.lists(trajectories, max_size=4, unique_by=lambda t: t.id))
def test_what_is_written_is_read_back(tmp_path, suffix, rows):
  path = tmp_path / f"rows.{suffix}"
  assert write_trajectories(path, rows) == len(rows)
  assert list(read_trajectories(path)) == rows


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_content_keeps_its_bytes(tmp_path, suffix):
  path = tmp_path / f"rows.{suffix}"
  write_trajectories(path, [trajectory("a", *ADVERSARIAL)])
  (back,) = read_trajectories(path)
  assert [t.content.encode() for t in back.turns] == [c.encode() for c in ADVERSARIAL]


def test_the_loss_rule():
  assert [role for role in ROLES if Turn(role, "x").train] == ["assistant"]
  assert Turn("assistant", "x", False).train is False
  with pytest.raises(TrajectoryError, match="only assistant turns"):
    Turn("tool", "x", True)


def test_datasets_opens_our_parquet(tmp_path, monkeypatch):
  datasets = pytest.importorskip("datasets")
  monkeypatch.setenv("HF_HOME", str(tmp_path))
  path = tmp_path / "rows.parquet"
  rows = [dataclasses.replace(trajectory("a"), reward=1.0, metadata={"game": 3}), trajectory("b")]
  write_trajectories(path, rows)
  table = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
  assert table["id"][:] == ["a", "b"]
  assert table[0]["conversations"] == [
      {"from": "human", "value": "2 * 3?"}, {"from": "gpt", "value": "Action: 2 * 3"}]
  assert table[0]["train"] == [False, True]
  assert json.loads(table[0]["metadata"]) == {"game": 3}
  table.to_parquet(tmp_path / "theirs.parquet")  # what `datasets` writes, we read
  assert list(read_trajectories(tmp_path / "theirs.parquet")) == rows


def test_parquet_of_others(tmp_path):
  import pyarrow as pa
  import pyarrow.parquet as pq
  path = tmp_path / "train.parquet"
  messages = [{"from": "human", "value": "Go."}, {"from": "gpt", "value": "Action: look"}]
  theirs = {"id": "7", "conversations": messages, "game_file": "g"}
  pq.write_table(pa.Table.from_pylist([theirs | {"task": "alfworld"}]), path)
  (row,) = read_trajectories(path)
  assert (row.id, row.task, row.metadata) == ("7", "alfworld", {"game_file": "g"})
  assert [t.train for t in row.turns] == [False, True]
  pq.write_table(pa.Table.from_pylist([theirs]), path)  # AgentBank's own
  with pytest.raises(UserError, match="no column 'task'.*agentbank import"):
    list(read_trajectories(path))
  pq.write_table(pa.Table.from_pylist([theirs | {"task": "alfworld", "train": True}]), path)
  with pytest.raises(UserError, match=r"row 1 \(id '7'\): train is bool, expected a list"):
    list(read_trajectories(path))


GOOD = trajectory("a3").to_json()


@pytest.mark.parametrize("line, message", [
    ('{"id": "a3", "task"', r"rows.jsonl row 2: not JSON .*cut short"),
    ('{"id": "a3"}', r"row 2 \(id 'a3'\): row has no 'task'"),
    ("[1, 2]", r"row 2: row is list"),
    (json.dumps(GOOD), r"row 2 \(id 'a3'\): this id was used by an earlier row"),
    (json.dumps(GOOD | {"id": "a4", "reward": float("nan")}), r"row 2 \(id 'a4'\): reward is nan, expected a finite"),
    (json.dumps(GOOD | {"id": "a4", "reward": float("inf")}), "reward is inf, expected a finite number"),
    (json.dumps(GOOD | {"id": "a4", "reward": 10**400}), "expected a finite number"),
    (json.dumps(GOOD | {"id": "a4", "provenance": []}), "provenance is list, expected an object"),
    (json.dumps(GOOD | {"id": "a4", "provenance": {"source": 5}}), "provenance.source is 5, expected text"),
    (json.dumps(GOOD | {"id": "a4", "provenance": {"seed": "5"}}), "provenance.seed is '5', expected a number"),
    (json.dumps(GOOD | {"id": "a4", "metadata": 0}), "metadata is int, expected an object"),
    (json.dumps(GOOD | {"id": "a4", "reward": "1"}), "reward is '1', expected a number"),
    (json.dumps(GOOD | {"id": 5}), "id is 5, expected non-empty text"),
    (json.dumps(GOOD | {"id": "a4", "turns": []}), "no turns"),
    (json.dumps(GOOD | {"id": "a4", "loss": 1}), "unknown field 'loss'"),
    (json.dumps(GOOD | {"id": "a4", "outcome": "won"}), "unknown outcome 'won'"),
    (json.dumps(GOOD | {"id": "a4", "turns": [GOOD["turns"][0], {"role": "gpt", "content": "y"}]}),
     r"row 2 \(id 'a4'\): turn 1: unknown role 'gpt'"),
    (json.dumps(GOOD | {"id": "a4", "turns": [{"role": "user", "content": None}]}), "turn 0: content is None"),
    (json.dumps(GOOD | {"id": "a4", "turns": [{"role": "user", "content": "\ud800"}]}), "turn 0.*surrogate"),
    ("[" * 100_000, "not JSON we can read|not JSON"),
])
def test_a_bad_row_is_named(tmp_path, line, message):
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
  with pytest.raises(UserError, match=message) as error:
    list(read_trajectories(path))
  assert "\n" not in str(error.value)


def test_broken_files_are_named(tmp_path):
  rows = [trajectory(str(i), "question " * 50, f"Action: {i}") for i in range(2000)]
  for suffix in ("jsonl.gz", "parquet"):
    path = tmp_path / f"rows.{suffix}"
    write_trajectories(path, rows)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=f"rows.{suffix}.*not a whole"):
      list(read_trajectories(path))
  with pytest.raises(UserError, match="no such file"):
    list(read_trajectories(tmp_path / "none.jsonl"))
  with pytest.raises(UserError, match="must end in .jsonl"):
    write_trajectories(tmp_path / "rows.txt", rows)
  (tmp_path / "plain.jsonl.gz").write_text("{}")
  with pytest.raises(UserError, match="not a whole gzip file"):
    list(read_trajectories(tmp_path / "plain.jsonl.gz"))
  (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
  with pytest.raises(UserError, match="row 1: not UTF-8"):
    list(read_trajectories(tmp_path / "latin.jsonl"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bad, message", [
    (trajectory("a"), "used by an earlier row"),
    (dataclasses.replace(trajectory("b"), metadata={"x": float("inf")}), "metadata"),
    (dataclasses.replace(trajectory("b"), metadata={"x": object()}), "metadata"),
    (trajectory("b", "half \ud83d"), "turn 0.*surrogate"),
])
def test_a_file_appears_whole_or_not_at_all(tmp_path, suffix, bad, message):
  path = tmp_path / f"rows.{suffix}"
  write_trajectories(path, [trajectory("old")])
  with pytest.raises(UserError, match=rf"row 2 .*{message}"):
    write_trajectories(path, [trajectory("a"), bad])
  assert [t.id for t in read_trajectories(path)] == ["old"]
  assert list(tmp_path.iterdir()) == [path]


def test_the_same_rows_give_the_same_bytes(tmp_path):
  for suffix in SUFFIXES:
    for name in ("one", "two"):
      write_trajectories(tmp_path / f"{name}.{suffix}", [trajectory("a"), trajectory("b")])
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
  lines = gzip.decompress((tmp_path / "one.jsonl.gz").read_bytes())
  assert lines == (tmp_path / "one.jsonl").read_bytes()
