"""One table: however a run is cut and wherever it is stopped, it is the same run.

                                                           data order   losses and gradients' norms of 20 steps
  the same mesh of 8 devices: 1, 2 and 4 processes         the same     1e-6, relative (a float32's last bit: sums over
                                                                        processes are taken in another order)
  one device, and 8 by data, fsdp, context and tensor      the same     1e-5
  kill -9 of one of 4, started again: 4, the same mesh     the same     bit for bit
  ... 2, the same mesh                                     the same     1e-6
  ... 2, another mesh                                      the same     1e-5

Beside it: `test_kills` (a hundred kills of one process, bit for bit), `test_sharding` (checkpoints onto other meshes),
`test_step` (one step on meshes, packed or not), `test_data` (who reads which rows).
"""

import json
import os
import random
import signal

import launched
import pytest
from training_samples import save_packed

MESHES = {
    "data8": {"mesh.data": 8, "mesh.fsdp": 1},
    "fsdp8": {},
    "data2 fsdp2 tensor2": {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2},
    "fsdp2 tensor4": {"mesh.fsdp": 2, "mesh.tensor": 4},
    "fsdp4 context2": {"mesh.fsdp": 4, "mesh.context": 2},
    "fsdp2 context2 tensor2": {"mesh.fsdp": 2, "mesh.context": 2, "mesh.tensor": 2},
}
STEPS = {"train.steps": 20}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  return save_packed(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def one_device(packed, tmp_path_factory):
  folder = tmp_path_factory.mktemp("one")
  launched.finish(launched.train(folder / "run", packed, 1, 1, STEPS))
  return folder / "run"


@pytest.mark.parametrize("mesh", MESHES)
def test_meshes_and_processes(mesh, packed, one_device, tmp_path):
  for processes in (1, 2, 4):
    launched.finish(launched.train(tmp_path / str(processes), packed, processes, 8 // processes, STEPS | MESHES[mesh]))
  assert len(launched.lines(tmp_path / "1")) == 20
  launched.assert_same(tmp_path / "1", one_device, rtol=1e-5)
  for processes in (2, 4):
    launched.assert_same(tmp_path / str(processes), tmp_path / "1", rtol=1e-6)


@pytest.mark.parametrize("processes, mesh, rtol", [
    (4, "fsdp8", 0), (2, "fsdp8", 1e-6), (2, "data2 fsdp2 tensor2", 1e-5), (1, "fsdp4 context2", 1e-5)])
def test_one_of_four_is_killed(processes, mesh, rtol, packed, tmp_path):
  settings = STEPS | {"train.checkpoint_every": 4}
  launched.finish(launched.train(tmp_path / "unbroken", packed, 4, 2, settings))
  same = processes == 4
  launcher = launched.train(tmp_path / "killed", packed, 4, 2, settings, restarts=3 if same else 0)
  launched.wait_for_step(tmp_path / "killed", random.randint(9, 16), launcher)  # the checkpoint of step 4 is complete
  os.kill(launched.processes_of(launcher)[random.randrange(4)], signal.SIGKILL)
  out = launched.finish(launcher, code=0 if same else 137)  # the launcher itself starts the four again
  assert "was killed by SIGKILL or lost (exit code 137)" in out
  if not same:
    launched.finish(launched.train(tmp_path / "killed", packed, processes, 8 // processes, settings | MESHES[mesh]))
  summary = json.loads((tmp_path / "killed" / "run" / "summary.json").read_text())
  assert summary["resumed_from"] >= 4
  assert summary["goodput"]["steps_redone"] > 0 or summary["resumed_from"] >= 8
  assert sum(summary["goodput"]["shares"].values()) == pytest.approx(1)
  launched.assert_same(tmp_path / "killed", tmp_path / "unbroken", rtol=rtol)
