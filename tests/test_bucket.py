"""gs:// paths, on a server with Cloud Storage's JSON API, which gcsfs, TensorStore and ArrayRecord really talk to."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from training_samples import make_training, save_packed, write_training_config

from agentbank_jax import cli, data, files, metrics, paths, train
from agentbank_jax.bundle import Bundle
from agentbank_jax.chat import load_renderer
from agentbank_jax.errors import Interrupted, UserError
from agentbank_jax.files import atomic_path
from agentbank_jax.paths import as_path

pytestmark = pytest.mark.usefixtures("compile_cache", "one_device")

BUCKET = "gs://bucket"
SETTINGS = {"train.steps": 6, "train.checkpoint_every": 2, "train.eval_every": 4}


@pytest.fixture(scope="module")
def server():
  """A storage server with one empty bucket; the variables are those that each library reads."""
  pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
  with socket.create_server(("localhost", 0)) as free:
    port = free.getsockname()[1]
  # A process of its own: libraries that wait for it may hold this one's lock.
  program = pathlib.Path(sys.executable).with_name("gcp-storage-emulator")
  emulated = subprocess.Popen([program, "start", f"--port={port}", "--in-memory", "--default-bucket=bucket"],
                              stderr=subprocess.DEVNULL)
  with pytest.MonkeyPatch.context() as patch:
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL", "CLOUD_STORAGE_EMULATOR_ENDPOINT"):
      patch.setenv(name, f"http://localhost:{port}")
    patch.setenv("GOOGLE_CLOUD_PROJECT", "project")
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # else it asks the real cloud for the bucket's kind
    patch.setenv("NO_GCE_CHECK", "true")
    pytest.importorskip("gcsfs")
    while True:
      with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("localhost", port)).close()
        break
      assert emulated.poll() is None
      time.sleep(0.05)
    yield
  emulated.terminate()
  emulated.wait()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  return save_packed(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stored(server, packed):
  """The packed data set in the bucket."""
  paths.copy(packed, as_path(f"{BUCKET}/packed"))
  return f"{BUCKET}/packed"


def _lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _losses(workdir):
  return [(line["step"], line["loss"]) for line in _lines(workdir) if "loss" in line]


def _params(model):
  return {jax.tree_util.keystr(path): leaf
          for path, leaf in jax.tree.leaves_with_path(Bundle.open(model).load_params())}


def _assert_same_run(workdir, expected):
  assert _losses(workdir) == _losses(expected)
  ours, theirs = _params(workdir / "model"), _params(expected / "model")
  assert ours.keys() == theirs.keys()
  for name, leaf in theirs.items():
    np.testing.assert_array_equal(ours[name], leaf, err_msg=name)


# What a path is.


@pytest.mark.parametrize("text", ["runs/x", "/tmp/x", ".", "a:b", "C:x"])
def test_local_paths_stay_pathlib_s(text):
  assert as_path(text) == pathlib.Path(text)
  assert type(as_path(text)) is type(pathlib.Path(text))
  assert not paths.in_bucket(as_path(text))


@pytest.mark.parametrize("text", ["s3://bucket/run", "gs:/bucket/run", "gs://", "gs:///run", "file:///run"])
def test_other_urls_are_told_and_never_become_a_folder(text, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cli._main(["agentbank", "doctor", f"--workdir={text}"]) == 2
  with pytest.raises(UserError, match="expected a path of this machine, or gs://BUCKET"):
    as_path(text)
  assert list(tmp_path.iterdir()) == []


def test_buckets_without_their_library(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'agentbank-jax\[gcs\]'"):
    as_path(f"{BUCKET}/run")


def test_verbs_that_write_local_files_say_so(server, capsys):
  assert cli._main(["agentbank", "pack", f"--workdir={BUCKET}/run"]) == 2
  assert "pack writes local files; give a folder of this machine, and copy it" in capsys.readouterr().err


@pytest.mark.parametrize("args", [
    ["pack", "--config.sources[0].path=gs://bucket/rows.jsonl", "--config.tokenizer=TOKENIZER",
     "--config.format=llama3"],
    ["import", "--config=configs/import_samples.py", "--config.sources[0].path=gs://bucket/rows.jsonl"],
    ["inspect", "--config.data=gs://bucket/rows.jsonl", "--config.tokenizer=TOKENIZER", "--config.format=llama3"],
], ids=["pack", "import", "inspect"])
def test_verbs_that_read_local_files_say_so(server, packed, tmp_path, monkeypatch, capsys, args):
  monkeypatch.chdir(pathlib.Path(__file__).parents[1])
  args = [arg.replace("TOKENIZER", str(packed / "tokenizer")) for arg in args]
  assert cli._main(["agentbank", *args, f"--workdir={tmp_path / 'run'}"]) == 2
  assert ("gs://bucket/rows.jsonl: this is read from local files alone; copy it to this machine first: gcloud storage "
          "cp -r gs://bucket/rows.jsonl .") in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_told_and_not_made(server, packed):
  with pytest.raises(UserError, match="the bucket cannot be used"):
    train.run(make_training(packed, SETTINGS), as_path("gs://bukcet/run"))
  assert not as_path("gs://bukcet").exists()


# What is written.


def test_files_appear_whole(server):
  path = as_path(f"{BUCKET}/files/a.json")
  with pytest.raises(ZeroDivisionError):
    with atomic_path(path) as temporary:
      temporary.write_text("half")
      1 / 0  # noqa: B018
  assert not path.exists()
  with atomic_path(path) as temporary:
    temporary.write_text("whole")
  assert path.read_text() == "whole"


def test_folders_that_fail_leave_nothing(server):
  target = as_path(f"{BUCKET}/folder")
  with pytest.raises(ZeroDivisionError):
    with files.whole_folder(target) as folder:
      (folder / "part").write_text("half")
      1 / 0  # noqa: B018
  assert not target.exists()
  for text in ("first", "second"):
    with files.whole_folder(target, overwrite=True) as folder:
      (folder / text).write_text(text)
  assert [path.name for path in target.iterdir()] == ["second"]
  with pytest.raises(UserError, match="already there"):
    with files.whole_folder(target):
      pass


def test_lines_are_there_after_sync_and_close(server, monkeypatch):
  path = as_path(f"{BUCKET}/lines.jsonl")
  file = files.line_file(path)
  file.append('{"a": 1}')
  assert not path.exists()
  file.sync()
  file.append('{"a": 2}')
  file.close()
  monkeypatch.setattr(files.BucketLineFile, "_SECONDS", 0.0)
  file = files.line_file(path)
  file.append('{"a": 3}')
  assert files.read_lines(path, "test", "a") == [{"a": 1}, {"a": 2}, {"a": 3}]


# Training.


def test_the_data_are_those_of_the_local_folder(stored, packed):
  ours, theirs = data.PackedDataset.open(stored), data.PackedDataset.open(packed)
  assert ours.num_rows == theirs.num_rows
  pairs = zip(data.batches(ours, "train", 8, seed=0, epochs=1), data.batches(theirs, "train", 8, seed=0, epochs=1),
              strict=True)
  for batch, expected in pairs:
    for name, array in expected.items():
      np.testing.assert_array_equal(batch[name], array)
  assert load_renderer(ours.path / "tokenizer").fingerprint == ours.fingerprint


def test_a_run_in_a_bucket_stops_goes_on_and_equals_the_local_one(stored, packed, tmp_path, monkeypatch):
  train.run(make_training(packed, SETTINGS), tmp_path)
  workdir, write = as_path(f"{BUCKET}/run"), metrics.MetricsLog.write

  def write_and_terminate(log, step, values):
    write(log, step, values)
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(metrics.MetricsLog, "write", write_and_terminate)
    with pytest.raises(Interrupted):
      train.run(make_training(stored, SETTINGS), workdir)
  result = train.run(make_training(stored, SETTINGS), workdir)
  assert result["resumed_from"] in (3, 4, 5)
  _assert_same_run(workdir, tmp_path)
  assert result["goodput"]["starts"] == 2
  # The model in the bucket is one to start from.
  again = {"model.preset": None, "model.init_from": f"{workdir}/model", "train.steps": 1, "optim.learning_rate": 0.0}
  train.run(make_training(stored, again), tmp_path / "again")
  for name, leaf in _params(tmp_path / "model").items():
    np.testing.assert_array_equal(_params(tmp_path / "again/model")[name], leaf)


def test_adapters_in_a_bucket(stored, tmp_path):
  lora = {"model.lora.rank": 2, "train.steps": 1}
  workdir = as_path(f"{BUCKET}/lora")
  train.run(make_training(stored, lora), workdir)
  train.run(make_training(stored, lora), tmp_path)
  name = "adapter/adapter_model.safetensors"
  assert (workdir / name).read_bytes() == (tmp_path / name).read_bytes()


def test_tensorboard_in_a_bucket(server):
  """In a process of its own: tensorboardX's writers upload once more when they are collected, whenever that is."""
  pytest.importorskip("tensorboardX")
  program = ("from agentbank_jax.metrics import MetricsLog; from agentbank_jax.paths import as_path; "
             f"log = MetricsLog(as_path('{BUCKET}/board'), 0, True); log.write(1, {{'loss': 1.0}}); log.close()")
  subprocess.run([sys.executable, "-c", program], cwd=pathlib.Path(__file__).parents[1], check=True)
  event_file, = as_path(f"{BUCKET}/board/tensorboard").iterdir()
  assert b"loss" in event_file.read_bytes()


@pytest.mark.slow
def test_killed_while_it_writes_to_a_bucket(stored, packed, tmp_path):
  """kill -9 in the first moments of a checkpoint: what is not complete is passed over, and the run goes on."""
  settings = {"train.steps": 12, "train.checkpoint_every": 2}
  train.run(make_training(packed, settings), tmp_path)
  config = write_training_config(tmp_path / "config.py", stored, settings)
  program = "import sys, jax; jax.device_count = lambda: 1; from agentbank_jax import cli; cli.main(sys.argv)"
  workdir = as_path(f"{BUCKET}/killed")
  for step in (2, 6, 8):
    victim = subprocess.Popen([sys.executable, "-c", program, "train", f"--config={config}", f"--workdir={workdir}"])
    while not (workdir / "checkpoints" / str(step)).exists():
      assert victim.poll() is None
      time.sleep(0.002)
    victim.kill()
    victim.wait()
  assert cli._main(["agentbank", "train", f"--config={config}", f"--workdir={workdir}"]) == 0
  _assert_same_run(workdir, tmp_path)
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["resumed_from"] >= 4 and summary["goodput"]["starts"] == 4
