"""A full disk, a real one: every verb ends in one line and exit code 2, and what it leaves behind is whole."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from training_samples import save_model, save_packed, write_training_config

from agentbank_jax.convert.to_hf import export_hf
from agentbank_jax.trajectory_io import read_trajectories

ROOT = pathlib.Path(__file__).parents[1]
# A disk of $1 kilobytes at $2, that only this shell and its children see; what is on it at the end is copied to $3.
SCRIPT = ('mount -t tmpfs -o size=$1k none "$2" && out="$3" disk="$2" && shift 3 && "$@"; code=$?; '
          'cp -r "$disk/." "$out"; exit $code')
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh")


@pytest.fixture(scope="module", autouse=True)
def small_disks(tmp_path_factory):
  """Skips where a user may not mount a disk in a namespace of their own."""
  folder = tmp_path_factory.mktemp("try")
  try:
    subprocess.run([*NAMESPACE, "16", folder, folder, "true"], check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as e:
    pytest.skip(f"no disk can be mounted in a user namespace here ({e})")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """A folder with a packed data set, a model, and its export."""
  folder = tmp_path_factory.mktemp("inputs")
  packed = save_packed(folder, count=40)
  export_hf(save_model(folder / "model", packed), folder / "hf")
  write_training_config(folder / "config.py", packed, {"train.steps": 6, "train.checkpoint_every": 2})
  return folder


@pytest.fixture
def fails(tmp_path):
  """Runs a verb with its workdir on a disk of so many kilobytes; returns its one line and the workdir it left."""
  def run(kilobytes, verb, *args):
    disk, left = tmp_path / "disk", tmp_path / "left"
    for folder in (disk, left):
      shutil.rmtree(folder, ignore_errors=True)
      folder.mkdir()
    command = [sys.executable, "-m", "agentbank_jax.cli", verb, *args, f"--workdir={disk / 'run'}"]
    done = subprocess.run([*NAMESPACE, str(kilobytes), disk, left, *map(str, command)], cwd=ROOT, text=True,
                          capture_output=True, env=os.environ | {"XLA_FLAGS": ""})
    lines = done.stderr.replace("\r", "\n").splitlines()  # progress bars go back to the start of their line
    told = [line for line in lines if line.startswith("agentbank: ")]
    assert (done.returncode, len(told)) == (2, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert told[0].startswith("agentbank: error: ") and "No space left on device" in told[0]
    assert lines[-1] == told[0]
    return told[0], left / "run"
  return run


def _files(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kilobytes", [8, 16])  # in the middle of the rows; rows written, the ledger not
def test_import(fails, kilobytes):
  _, left = fails(kilobytes, "import", "--config=configs/import_samples.py")
  assert _files(left) == []


def test_only_the_summary_does_not_fit(fails):
  _, left = fails(32, "import", "--config=configs/import_samples.py")
  assert _files(left) == ["ledger.json", "lint.json", "trajectories.jsonl"]
  assert len(list(read_trajectories(left / "trajectories.jsonl"))) == json.loads(
      (left / "ledger.json").read_text())["rows_kept"]


@pytest.mark.parametrize("kilobytes", [16, 250])  # while encoding; while writing shards
def test_pack(fails, inputs, kilobytes):
  line, left = fails(kilobytes, "pack", f"--config.sources[0].path={inputs / 'source.jsonl'}", "--config.format=llama3",
                     f"--config.tokenizer={inputs / 'tokenizer'}", "--config.seq_len=256", "--config.eval_share=0.1")
  assert "packed was not written" in line
  assert _files(left) == []


@pytest.mark.parametrize("direction, source", [("from_hf", "hf"), ("to_hf", "model")])
def test_convert(fails, inputs, tmp_path, direction, source):
  target = tmp_path / "disk" / "target"
  line, left = fails(100, "convert", f"--config.direction={direction}", f"--config.source={inputs / source}",
                     f"--config.target={target}")
  assert f"{target} was not written" in line
  assert list(left.parent.iterdir()) == []


@pytest.mark.parametrize("kilobytes, steps", [pytest.param(300, [], marks=pytest.mark.slow), (700, ["2"])])
def test_train(fails, inputs, kilobytes, steps):
  line, left = fails(kilobytes, "train", f"--config={inputs / 'config.py'}")
  assert "cannot write a checkpoint" in line
  assert [path.name for path in (left / "checkpoints").iterdir()] == steps  # whole ones
  for metrics in (left / "metrics.jsonl").read_text().splitlines(keepends=True):
    assert metrics.endswith("}\n") and json.loads(metrics)


@pytest.mark.parametrize("kilobytes", [8, 20])
def test_evaluate_keeps_whole_episodes_and_the_same_command_plays_the_rest(fails, kilobytes):
  args = "--config.player=expert", "--config.tasks=('household',)", "--config.episodes=20"
  line, left = fails(kilobytes, "evaluate", *args)
  log = left / "episodes" / "household.jsonl"
  assert "household.jsonl: No space left on device; what was written before is kept" in line
  kept = log.read_bytes()
  assert kept.endswith(b"\n") or kilobytes == 8
  episodes = len(list(read_trajectories(log)))
  assert episodes < 20 and _files(left) == ["episodes/household.fingerprint.json", "episodes/household.jsonl"]
  done = subprocess.run([sys.executable, "-m", "agentbank_jax.cli", "evaluate", *args, f"--workdir={left}"], cwd=ROOT,
                        capture_output=True, text=True)
  assert done.returncode == 0 and "torn" not in done.stderr, done.stderr
  assert log.read_bytes().startswith(kept) and len(list(read_trajectories(log))) == 20


def test_inspect(fails, inputs):
  _, left = fails(8, "inspect", f"--config.data={inputs / 'packed'}")
  assert _files(left) == []
