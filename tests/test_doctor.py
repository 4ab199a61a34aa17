"""`agentbank doctor` and the table of tasks: whatever a task does, it is said, quickly and without a crash."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import time

from fake_tasks import COUNT
import pytest

import agentbank_jax
from agentbank_jax import cache, doctor, tasks
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate import run
from agentbank_jax.report.tables import Table, markdown
from agentbank_jax.tasks import get_task, published, requirements, task_names
from agentbank_jax.tasks.task import SKILLS

README = pathlib.Path(agentbank_jax.__file__).parents[1] / "README.md"


def broken(how, split, count, seed):
  """Instances that cannot be drawn."""
  if how == "crash":
    os.kill(os.getpid(), 11)
  if how == "hang":
    time.sleep(600)
  raise {"absent": UserError(f"{how}: get the games from there"), "error": OSError("disk full")}[how]


def train_alone(split, count, seed):
  if split == "test":
    raise UserError("train: get the test games from there")
  return COUNT.instances(split, count, seed)


TASKS = {how: dataclasses.replace(COUNT, name=how, skill="web", instances=functools.partial(broken, how))
         for how in ("crash", "hang", "absent", "error")}
TASKS["train"] = dataclasses.replace(COUNT, name="train", instances=train_alone)
TASKS["late"] = dataclasses.replace(COUNT, name="late", held_in=False)
TASKS["count"] = COUNT
TASKS["package"] = dataclasses.replace(COUNT, name="package", packages=("numpy", "no-such-package"))
TASKS["program"] = dataclasses.replace(COUNT, name="program", programs={"no-such-program": "apt-get install it"})


@pytest.fixture
def registry(monkeypatch):
  """The tasks above, in this process and in the probe's."""
  monkeypatch.setattr(doctor, "task_names", lambda: tuple(TASKS))
  monkeypatch.setattr(doctor, "get_task", TASKS.__getitem__)
  monkeypatch.setattr(doctor, "_Probe", Probe)
  monkeypatch.setattr(doctor, "_SECONDS", 3.0)


class Probe(doctor._Probe):
  """The probe, told of the tasks above: it runs in another process."""

  def reset(self, instance):
    run.get_task = TASKS.__getitem__
    return super().reset(instance)


def test_every_state_is_said(registry):
  states = doctor.task_states()
  assert states.pop("error").startswith("fails: OSError: disk full (test_doctor.py:")
  assert states == {
      "count": "ready", "late": "ready",
      "train": "ready, with train instances alone: get the test games from there",
      "absent": "get the games from there",
      "crash": "fails: the worker process died in reset: killed by signal 11",
      "hang": "fails: no answer within 3 s; its process was killed",
      "package": "needs no-such-package: pip install 'agentbank-jax[envs]'",
      "program": "needs no-such-program: apt-get install it"}


def test_tasks_are_grouped(registry):
  rows = [line.split(" | ") for line in doctor.task_table("long").splitlines()[2:]]
  assert [row[0].strip("| ") for row in rows] == ["math"] * 5 + ["web"] * 4
  assert [row[1:3] for row in rows[3:6]] == [["`train`", "held-in"], ["`late`", "held-out"], ["`absent`", "held-in"]]


def test_what_is_not_installed_is_told_before_anything_runs():
  with pytest.raises(UserError, match="package: needs no-such-package: pip install"):
    requirements.check(TASKS["package"])
  requirements.check(COUNT)


def test_cells_of_a_markdown_table_cannot_break_it():
  assert markdown(Table("t", ("a", "b"), [["x|y", "<db>"]])) == "| a | b |\n|---|---|\n| x&#124;y | &lt;db> |"


@pytest.mark.parametrize("kind, page", [("short", "README.md"), ("long", "agentbank_jax/tasks/README.md")])
def test_the_readmes_have_the_tables_of_the_registry(kind, page):
  assert doctor.task_table(kind) in (README.parent / page).read_text(), (
      f"{page} is behind the registry: agentbank doctor --config.markdown={kind} prints its table")


def test_agentbanks_tasks_are_all_there():
  """Sixteen held in, over five skills, and one held out of each skill; beside them what stands in for some."""
  registry = [get_task(name) for name in task_names()]
  ours = [task for task in registry if not task.stands_in_for]
  count = lambda held_in: [sum(t.skill == skill and t.held_in == held_in for t in ours) for skill in SKILLS]
  assert (count(True), count(False)) == ([3, 3, 4, 3, 3], [1] * 5)
  assert all(get_task(task.stands_in_for) in ours for task in registry if task.stands_in_for)


def test_every_task_of_the_catalog_says_what_runs():
  assert not [name for name in task_names() if not get_task(name).runs]
  assert set(tasks.held_out_names()) == {name for name in task_names() if not get_task(name).held_in}


# Which files were used.


@pytest.fixture
def data(tmp_path, monkeypatch):
  folder = tmp_path / "count"
  (folder / "worlds" / "deep").mkdir(parents=True)
  (folder / "rows.jsonl").write_bytes(b"abc")
  (folder / "worlds" / "a").write_bytes(b"")
  (folder / "worlds" / "deep" / "b").write_bytes(b"abc")
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  return folder


ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's example
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_checksums_of_files_and_folders(data):
  assert published.checksum(data / "rows.jsonl") == ABC
  lines = f"{EMPTY}  a\n{ABC}  deep/b\n"
  assert published.checksum(data / "worlds") == hashlib.sha256(lines.encode()).hexdigest()
  (data / "rows.jsonl").write_bytes(b"")
  assert published.checksum(data / "rows.jsonl") == EMPTY


def test_a_large_file_is_read_once(data, tmp_path, monkeypatch):
  """By any process: each has a `functools.cache` of its own."""
  monkeypatch.setattr(cache, "_LARGE", 3)
  monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
  read = []
  monkeypatch.setattr(cache, "_read", lambda path: read.append(path) or f"sum {len(read)}")
  file = data / "rows.jsonl"
  for _ in range(2):
    cache._checksum.cache_clear()
    assert published.checksum(file) == "sum 1" and read == [file]
  file.write_bytes(b"abcd")
  cache._checksum.cache_clear()
  assert published.checksum(file) == "sum 2"
  cache._checksum.cache_clear()
  assert published.checksum(data / "worlds" / "a") == "sum 3"  # small
  assert len(list((tmp_path / "cache" / "checksums").iterdir())) == 2
  cache._checksum.cache_clear()


def test_files_are_noted_where_they_are_found(data):
  published.find("count", "worlds", "there")
  with published.files_used() as used:
    published.find("count", "rows*", "there")
  assert used == {data / "rows.jsonl"}


def test_a_file_that_is_not_known_is_warned_of_once(data, caplog, monkeypatch):
  monkeypatch.setattr(published, "_warned", set())
  source = dataclasses.replace(COUNT.source, checksums={ABC: "the rows of 2021"})
  task = dataclasses.replace(COUNT, source=source)
  assert published.describe(task, {data / "rows.jsonl"}) == {
      "count/rows.jsonl": {"sha256": ABC, "known_as": "the rows of 2021"}}
  assert not caplog.text
  for _ in range(2):
    assert published.describe(task, {data / "worlds"})["count/worlds"]["known_as"] is None
  assert caplog.text.count("worlds is none of the published files that this task knows") == 1
