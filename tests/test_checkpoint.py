"""Checkpoints that are damaged: what is gone back to, what is said, and what becomes of them."""

import shutil

import jax
import numpy as np
import pytest
from training_samples import make_training, save_packed

from agentbank_jax import train
from agentbank_jax.bundle import Bundle

pytestmark = pytest.mark.usefixtures("compile_cache", "one_device")
EVERY = {"train.steps": 4, "train.checkpoint_every": 1, "train.keep_last": 4}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  return make_training(save_packed(tmp_path_factory.mktemp("data"), count=40), EVERY, {"num_layers": 1})


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
  """A run with the checkpoints of all its four steps."""
  workdir = tmp_path_factory.mktemp("whole")
  train.run(config, workdir)
  return workdir


def _damage(checkpoint):
  """Cuts every file in half: what a disk does that fails."""
  for path in checkpoint.rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


@pytest.mark.parametrize("keep_last", [1, 4])
def test_a_damaged_newest_is_passed_over_said_so_and_written_anew(config, whole, tmp_path, caplog, capfd, keep_last):
  workdir = tmp_path / "run"
  shutil.copytree(whole, workdir)
  damaged = [workdir / "checkpoints" / str(step) for step in (4, 3)]
  for checkpoint in damaged:
    _damage(checkpoint)
  config = config.copy_and_resolve_references()
  config.train.keep_last = keep_last
  assert train.run(config, workdir)["resumed_from"] == 2
  told = [message for message in caplog.messages if "cannot be read" in message]
  assert len(told) == 3
  for checkpoint, message in zip(damaged, told, strict=False):
    assert message.startswith(f"checkpoint {checkpoint} cannot be read (ValueError: damaged metadata")
    assert message.endswith("); trying the one before")
  assert told[2] == "going on from step 2; moved aside what cannot be read: " + ", ".join(
      str(workdir / "checkpoints" / f"damaged-{step}") for step in (4, 3))
  assert "resuming at step 2 of 4" in capfd.readouterr().out
  # What is there now is whole: started again, the run is at its end, with the weights of the undisturbed one.
  caplog.clear()
  assert train.run(config, workdir)["resumed_from"] == 4
  assert not [message for message in caplog.messages if "cannot be read" in message]
  ours, theirs = (jax.tree.leaves(Bundle.open(folder / "model").load_params()) for folder in (workdir, whole))
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(a, b)
