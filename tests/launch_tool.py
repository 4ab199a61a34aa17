"""What the tests of `python -m launch` share: flags of each platform, and ways to call it."""

import pathlib
import time

from launch import __main__ as tool

ROOT = pathlib.Path(__file__).parents[1]
QUICK = ["--config.poll_every=0.1", "--config.max_restarts=2"]
TPU = ["--config=launch/configs/tpu_vm.py", "--config.name=pod", "--config.zone=us-west4-a", "--config.wait_every=0.02",
       "--config.unreachable_polls=3", "--config.grace_seconds=5", *QUICK]
GKE = ["--config=launch/configs/gke.py", "--config.name=pod", "--config.cluster=c", "--config.image=registry/image:1",
       *QUICK]
SLURM = ["--config=launch/configs/slurm.py", "--config.name=pod", "--config.gpus_per_node=2", *QUICK]
LOCAL = ["--config=launch/configs/local.py", "--config.processes=3", "--config.grace_seconds=1",
         "--config.max_restarts=2"]


def launch(verb, flags, workdir, *more):
  return tool.main(["launch", verb, *flags, f"--workdir={workdir}", *more])


def fails(capfd, *args):
  assert tool.main(["launch", *map(str, args)]) == 2
  told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("python -m launch: error: ")]
  assert len(told) == 1
  return told[0]


def wait_for(condition):
  """The test's own time limit is the runner's."""
  while not condition():
    time.sleep(0.05)
