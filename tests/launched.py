"""Runs that are really executed: `python -m launch run` with several processes of this machine.

They share no compilation cache: process 0 alone would find its programs there, and gloo waits no longer than 30 s for
those that still compile.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
from training_samples import write_training_config

ROOT = pathlib.Path(__file__).parents[1]


def launch(folder, command, processes, devices, *flags, restarts=0):
  """Starts a launcher of `processes` with `devices` each. Returns it, a Popen."""
  environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
  return subprocess.Popen(
      [sys.executable, "-m", "launch", "run", "--config=launch/configs/local.py", f"--workdir={folder / 'launch'}",
       f"--config.processes={processes}", f"--config.devices={devices}", f"--config.max_restarts={restarts}",
       f"--config.command={command}", *flags],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
      env=environment | {"PYTHONPATH": str(ROOT)})


def train(folder, packed, processes, devices, settings=(), restarts=3, before=""):
  """Starts a run of a one-layer model; `before` is put before each process's command.

  On a machine that is too busy, gloo gives up after 30 s of waiting for a process that compiles: so it may restart.
  """
  folder.mkdir(exist_ok=True)
  config = write_training_config(folder / "config.py", packed, {"train.steps": 2} | dict(settings), {"num_layers": 1})
  command = (f"{before}exec {sys.executable} -m agentbank_jax.cli train --config={config} --workdir={folder / 'run'} "
             f"--config.distributed.start_seconds=300 --config.distributed.heartbeat_seconds=100")
  return launch(folder, command, processes, devices, restarts=restarts)


def finish(launcher, code=0):
  """Waits for a launcher's end, which must have this exit code. Returns what it said."""
  out, _ = launcher.communicate()
  assert launcher.returncode == code, out
  return out


def logs(folder):
  """Returns the last attempt's logs by process."""
  attempts = sorted((folder / "launch" / "logs").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
  return {path.stem: path.read_text() for path in attempts[-1].iterdir()}


def lines(folder):
  """Returns the metrics lines of a run's steps."""
  found = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
  return [line for line in found if "loss" in line]


def assert_same(folder, expected, rtol):
  """Two runs read the same rows in the same order, and their losses and gradients' norms agree at every step.

  The numbers of tokens and of trained tokens stand for a batch: hardly two batches have the same.
  """
  ours, theirs = lines(folder), lines(expected)
  assert [line["step"] for line in ours] == [line["step"] for line in theirs]
  batches = [(line["tokens"], line["trained_tokens"]) for line in theirs]
  assert len(set(batches)) > 0.8 * len(batches)
  assert [(line["tokens"], line["trained_tokens"]) for line in ours] == batches
  for name in ("loss", "grad_norm"):
    np.testing.assert_allclose([line[name] for line in ours], [line[name] for line in theirs], rtol=rtol)


def processes_of(launcher):
  """Returns the process ids of a launcher's children, in the processes' order."""
  import psutil
  return [child.pid for child in sorted(psutil.Process(launcher.pid).children(), key=lambda child: child.pid)]


def wait_for_step(folder, step, launcher):
  log = folder / "run" / "metrics.jsonl"
  while not (log.exists() and log.read_bytes().count(b"\n") >= step):
    assert launcher.poll() is None, launcher.communicate()
    time.sleep(0.05)
