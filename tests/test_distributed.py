"""Several processes: how they find each other, what is said of the missing ones, and that they do what one does."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time

import jax
import launched
import metadata_server
from ml_collections import ConfigDict
import pytest
from training_samples import save_packed, write_training_config

from agentbank_jax import data, distributed, roll_call
from agentbank_jax.errors import ProcessesMissing, UserError
from configs.base import several_processes

ROOT = pathlib.Path(__file__).parents[1]
ALONE = {"HOME": "/root"}
ENV = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}


def _settings(**changes):
  config = ConfigDict()
  several_processes(config)
  config.distributed.update(changes)
  return config.distributed


# Who is there.


@pytest.mark.parametrize("key", ["start_seconds", "heartbeat_seconds", "simulated_devices"])
def test_a_time_or_number_that_cannot_be_is_said(key):
  config = ConfigDict()
  several_processes(config)
  config.distributed[key] = 0
  with pytest.raises(UserError, match=f"distributed.{key} is 0; it must be at least 1"):
    distributed.join(config, shared=True)


@pytest.mark.parametrize("settings, environ, place", [
    ({}, ALONE, None),
    ({}, ENV, ("host:1234", 4, 2, None)),
    ({"process_id": 3}, ENV, ("host:1234", 4, 3, None)),  # the config comes first
    ({"coordinator": "a:1", "num_processes": 2, "process_id": 0}, ALONE, ("a:1", 2, 0, None)),
    ({"local_device_ids": "0,1"}, ENV, ("host:1234", 4, 2, (0, 1))),
    ({}, ENV | {"JAX_LOCAL_DEVICE_IDS": "3"}, ("host:1234", 4, 2, (3,))),
    ({"cluster": "none"}, ENV, None),
    ({}, ENV | {"JAX_NUM_PROCESSES": "1"}, None),
])
def test_a_process_finds_its_place(settings, environ, place, monkeypatch):
  monkeypatch.setattr(os, "environ", environ)
  assert distributed.find(_settings(**settings), environ) == place


SLURM = {"SLURM_JOB_ID": "17", "SLURM_STEP_NODELIST": "node[003-004],x", "SLURM_NTASKS": "4", "SLURM_PROCID": "1",
         "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2"}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_SIZE": "4",
            "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}


@pytest.mark.parametrize("environ, host", [(SLURM, "node003"), (OPEN_MPI, "10.96.0.1")])
def test_clusters_are_found(environ, host, monkeypatch):
  monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": "cuda,cpu"} | environ)
  place = distributed.find(_settings(), os.environ)
  assert (place.num_processes, place.process_id, place.local_device_ids) == (4, 1, (1,))
  assert place.coordinator.startswith(f"{host}:")


def test_tpu_slices_on_gke_are_found(monkeypatch):
  from jax._src.clusters import cloud_tpu_cluster
  monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
  monkeypatch.setattr(os, "environ", {
      "JAX_PLATFORMS": "tpu,cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost,b",
      "TPU_WORKER_ID": "1", "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1",
      "MEGASCALE_COORDINATOR_ADDRESS": "localhost"})
  assert distributed.find(_settings(), os.environ) == ("localhost:8482", 4, 3, None)


@pytest.mark.parametrize("settings, environ, told", [
    ({}, {"JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}, "distributed.coordinator is not: set it, or JAX_COORD"),
    ({"process_id": 4}, ENV, "distributed.process_id is 4; with 4 processes it is 0 to 3"),
    ({}, ENV | {"JAX_PROCESS_ID": "two"}, "JAX_PROCESS_ID is 'two'; expected a number"),
    ({"coordinator": "host"}, ENV, "distributed.coordinator is 'host'; expected HOST:PORT"),
    ({"cluster": "slrum"}, ENV, "distributed.cluster is 'slrum'"),
    ({"cluster": "none", "process_id": 1}, ALONE, "must be None"),
    ({"local_device_ids": "0"}, ALONE, "this process is alone"),
])
def test_what_cannot_be_is_said(settings, environ, told, monkeypatch):
  monkeypatch.setattr(os, "environ", environ)
  with pytest.raises(UserError, match=re.escape(told)):
    distributed.find(_settings(**settings), environ)


# The roll call.


def _free_port():
  with socket.create_server(("localhost", 0)) as server:
    return server.getsockname()[1]


def _report(number, host=None, **run):
  return roll_call.Report(number, host or f"host-{number}", {"jax": "0.10"} | run)


class _Calls:
  """Processes 1, 2, ... as threads; `said` is what each of them was answered."""

  def __init__(self, port, reports, seconds=20.0):
    self.said = {}
    self._threads = [threading.Thread(target=self._answer, args=(port, report, seconds)) for report in reports]
    for thread in self._threads:
      thread.start()

  def _answer(self, port, report, seconds):
    try:
      roll_call.answer(f"localhost:{port}", report, seconds)
      self.said[report.process_id] = "go"
    except (UserError, ProcessesMissing) as e:
      self.said[report.process_id] = e

  def join(self):
    for thread in self._threads:
      thread.join()
    return self.said


def test_all_come_in_any_order_and_before_process_0():
  port = _free_port()
  calls = _Calls(port, [_report(n) for n in (3, 1, 2)])
  assert roll_call.hold(port, 4, _report(0), 20) == {n: f"host-{n}" for n in range(4)}
  assert calls.join() == {1: "go", 2: "go", 3: "go"}


def test_those_that_do_not_come_are_named_to_all():
  assert _settings().start_seconds <= 60  # unless one says otherwise, within a minute
  port = _free_port()
  calls = _Calls(port, [_report(2)])
  with pytest.raises(ProcessesMissing) as told:
    roll_call.hold(port, 4, _report(0), 3)
  assert str(told.value) == ("2 of 4 processes did not report in within 3 s: 1, 3. Here are: 0 on host-0, 2 on host-2. "
                             "Look at the logs of the missing ones")
  assert str(calls.join()[2]) == str(told.value)


def test_one_that_reports_in_and_leaves_is_missing():
  port = _free_port()

  def leave():
    with contextlib.suppress(OSError):
      for _ in range(100):
        try:
          with socket.create_connection(("localhost", port)) as connection:
            connection.sendall(json.dumps(_report(1)._asdict()).encode() + b"\n")
            time.sleep(0.1)
            return
        except ConnectionRefusedError:
          time.sleep(0.05)

  thread = threading.Thread(target=leave)
  thread.start()
  with pytest.raises(ProcessesMissing, match="2 of 3 processes did not report in within 3 s: 1, 2"):
    roll_call.hold(port, 3, _report(0), 3)
  thread.join()


def test_a_coordinator_that_cannot_be_reached():
  port = _free_port()
  with pytest.raises(ProcessesMissing, match=f"process 3 on host-3 cannot reach the coordinator at localhost:{port} "
                                             "within 1 s .*refused"):
    roll_call.answer(f"localhost:{port}", _report(3), 1)


@pytest.mark.parametrize("reports, told", [
    ([_report(1, jax="0.9")], "process 1 on host-1 has jax 0.9, process 0 on host-0 has 0.10; start all alike"),
    ([_report(7)], "process 7 on host-7 reported in, but the processes are 0 to 2, and 0 is on host-0"),
    ([_report(1), _report(1, "other")], "two processes have number 1: on "),
])
def test_processes_that_do_not_belong_together(reports, told):
  port = _free_port()
  calls = _Calls(port, reports)
  with pytest.raises(UserError, match=re.escape(told)):
    roll_call.hold(port, 3, _report(0), 20)
  calls.join()


def test_a_port_that_is_taken_and_a_stranger_at_the_door():
  with socket.create_server(("", 0)) as server:
    with pytest.raises(UserError, match="process 0 on host-0 cannot listen on port .*in use"):
      roll_call.hold(server.getsockname()[1], 2, _report(0), 5)
  port = _free_port()

  def knock():
    for _ in range(100):
      try:
        with socket.create_connection(("localhost", port)) as stranger:
          stranger.sendall(b"GET / HTTP/1.1\n")
        return
      except ConnectionRefusedError:
        time.sleep(0.05)

  thread = threading.Thread(target=knock)
  thread.start()
  calls = _Calls(port, [_report(1)])
  assert roll_call.hold(port, 2, _report(0), 20) == {0: "host-0", 1: "host-1"}
  thread.join()
  calls.join()


# Who reads what.


class _Device:
  def __init__(self, process_index):
    self.process_index = process_index


class _Cut:
  """A sharding of rows over devices that need not exist: block `blocks[i]` of `of` is on device i."""

  def __init__(self, blocks, of, processes):
    self._blocks, self._of, self.num_devices = blocks, of, len(blocks)
    self._devices = [_Device(i * processes // len(blocks)) for i in range(len(blocks))]
    self.mesh = type("Mesh", (), {"shape": {"fsdp": len(blocks)}})

  def devices_indices_map(self, shape):
    size = shape[0] // self._of
    return {device: (slice(block * size, (block + 1) * size),)
            for device, block in zip(self._devices, self._blocks, strict=True)}


@pytest.mark.parametrize("blocks, of, processes, expected", [
    ([0, 1, 2, 3, 4, 5, 6, 7], 8, 4, [(0, 4), (1, 4), (2, 4), (3, 4)]),
    ([0, 1, 2, 3, 4, 5, 6, 7], 8, 1, [(0, 1)]),
    ([0, 0, 0, 0, 1, 1, 1, 1], 2, 4, [(0, 2), (0, 2), (1, 2), (1, 2)]),  # the tensor axis reaches over two processes
    ([0] * 8, 1, 2, [(0, 1), (0, 1)]),
    ([4, 5, 0, 1, 6, 7, 2, 3], 8, 4, [(2, 4), (0, 4), (3, 4), (1, 4)]),  # as a mesh may order its hosts
])
def test_processes_that_hold_the_same_rows_read_the_same(blocks, of, processes, expected, monkeypatch):
  found = []
  for process in range(processes):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    found.append(distributed.batch_block(_Cut(blocks, of, processes)))
  assert found == expected


def test_a_mesh_that_gives_processes_uneven_rows_is_refused(monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 0)
  with pytest.raises(UserError, match="does not give each process its own equal part"):
    distributed.batch_block(_Cut([0, 1, 1, 2], 4, 2))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  return save_packed(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_process_reads_its_own_rows_alone(packed, count, monkeypatch):
  dataset = data.PackedDataset.open(packed)
  rows = dataset.source("train")
  read = []

  class Counting:
    def __len__(self):
      return len(rows)

    def __getitem__(self, index):
      read.append(index)
      return rows[index]

  monkeypatch.setattr(data.PackedDataset, "source", lambda self, split: Counting())
  of_process, steps = [], set()
  for process in range(count):
    read.clear()
    batches = list(data.batches(dataset, "train", 8, seed=3, epochs=1, process_index=process, process_count=count))
    steps.add(len(batches))
    of_process.append(sorted(read))
  assert len(steps) == 1  # where one runs out before the others, it goes on with empty rows
  assert sorted(sum(of_process, [])) == list(range(len(rows)))  # each row once, by one process
  assert max(map(len, of_process)) <= -(-len(rows) // 8) * 8 // count


# Really executed, see `launched`.


def test_two_processes_do_what_one_does_and_one_of_them_prints(packed, tmp_path):
  launchers = [launched.train(tmp_path / name, packed, processes, 2 // processes)
               for name, processes in (("one", 1), ("two", 2))]
  for launcher in launchers:
    launched.finish(launcher)
  launched.assert_same(tmp_path / "two", tmp_path / "one", rtol=1e-5)
  logs = launched.logs(tmp_path / "two")
  assert "summary: " in logs["process-0"] and "train: 100%" in logs["process-0"]
  assert "summary: " not in logs["process-1"] and "train:" not in logs["process-1"]
  summary = json.loads((tmp_path / "two" / "run" / "summary.json").read_text())
  assert summary["steps"] == 2
  assert (tmp_path / "two" / "run" / "model" / "config.json").exists()


def test_what_one_process_cannot_read_is_passed_over_by_all(packed, tmp_path):
  """A part of the newest checkpoint that process 1 alone reads is cut short."""
  settings = {"train.steps": 4, "train.checkpoint_every": 2}
  launched.finish(launched.train(tmp_path, packed, 2, 1, settings))
  checkpoints = tmp_path / "run" / "checkpoints"
  parts = [path for path in (checkpoints / "4").rglob("ocdbt.process_1/d/*")]
  assert parts
  for path in parts:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
  launched.finish(launched.train(tmp_path, packed, 2, 1, settings))
  logs = launched.logs(tmp_path)
  assert "resuming at step 2 of 4" in logs["process-0"] and "going on from step 2" in logs["process-1"]
  assert sorted(path.name for path in checkpoints.iterdir()) == ["2", "4", "damaged-4"]


def test_one_process_that_cannot_start_stops_all_with_its_reason(packed, tmp_path):
  """Process 1 stands where the data is not, as on a host whose disk was not mounted."""
  for number in range(2):
    (tmp_path / str(number)).mkdir()
  (tmp_path / "0" / "packed").symlink_to(packed)
  config = write_training_config(tmp_path / "config.py", "packed")
  command = (f"cd {tmp_path}/$JAX_PROCESS_ID && exec {sys.executable} -m agentbank_jax.cli train --config={config} "
             f"--workdir={tmp_path / 'run'} --config.distributed.start_seconds=300")
  out = launched.finish(launched.launch(tmp_path, command, 2, 1), code=2)
  host, logs = socket.gethostname(), launched.logs(tmp_path)
  assert logs["process-0"].endswith(f"agentbank: error: process 1 on {host}: packed: no such directory; "
                                    "`agentbank pack` writes packed data sets\n")
  assert logs["process-1"].endswith("agentbank: error: packed: no such directory; `agentbank pack` writes packed data "
                                    "sets\n")
  assert "another start would not help" in out


def test_processes_that_do_not_come_end_the_others_with_69(packed, tmp_path):
  config = write_training_config(tmp_path / "config.py", packed)
  command = (f"[ $JAX_PROCESS_ID != 1 ] || exec sleep 600; exec {sys.executable} -m agentbank_jax.cli train "
             f"--config={config} --workdir={tmp_path / 'run'} --config.distributed.start_seconds=5")
  launched.finish(launched.launch(tmp_path, command, 2, 1, "--config.grace_seconds=1"), code=69)
  assert launched.logs(tmp_path)["process-0"].endswith(
      f"agentbank: 1 of 2 processes did not report in within 5 s: 1. Here are: 0 on {socket.gethostname()}. "
      "Look at the logs of the missing ones\n")


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_after_the_same_step(packed, tmp_path):
  settings = {"train.steps": 400, "train.checkpoint_every": 0}
  launcher = launched.train(tmp_path / "run", packed, 4, 2, settings, restarts=0)
  launched.wait_for_step(tmp_path / "run", 5, launcher)
  os.kill(launched.processes_of(launcher)[2], signal.SIGTERM)  # as a machine that is to be preempted, alone
  out = launched.finish(launcher, code=75)
  assert out.count("was stopped and has saved (exit code 75)") >= 4
  told = re.search(r"agentbank: stopped at step (\d+) of 400; saved", launched.logs(tmp_path / "run")["process-0"])
  assert [path.name for path in (tmp_path / "run" / "run" / "checkpoints").iterdir()] == [told[1]]


@pytest.mark.slow
def test_a_notice_to_one_machine_stops_all_after_the_same_step(packed, tmp_path):
  """The metadata server of process 1's machine says that it is about to go; the others have none."""
  with metadata_server.serve() as server:
    before = f"[ $JAX_PROCESS_ID != 1 ] || export GCE_METADATA_HOST={server.host}; "
    launcher = launched.train(tmp_path / "run", packed, 4, 2, {"train.steps": 400, "train.checkpoint_every": 0},
                              restarts=0, before=before)
    launched.wait_for_step(tmp_path / "run", 5, launcher)
    server.answers["preempted"] = "TRUE"
    out = launched.finish(launcher, code=75)
  assert out.count("was stopped and has saved (exit code 75)") >= 4
  logs = launched.logs(tmp_path / "run")
  assert "this machine is about to go (preempted: TRUE)" in logs["process-1"]
  told = re.search(r"agentbank: stopped at step (\d+) of 400; saved", logs["process-0"])
  assert [path.name for path in (tmp_path / "run" / "run" / "checkpoints").iterdir()] == [told[1]]
