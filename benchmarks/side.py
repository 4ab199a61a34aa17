"""One side of a comparison: a process of its own that does a case again and again (`worker.py`)."""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


class Side:
  """One side, set up and warm.

  Args:
    name: shown in tables.
    module: of the cases, which `worker.py` imports.
    case: what its `setup` gets.
    cpus: processors that it is pinned to.
  """

  def __init__(self, name: str, module: str, case: dict, cpus: list[int]):
    self.name, self.case = name, case
    env = dict(os.environ, THREADS=str(len(cpus)), OMP_NUM_THREADS=str(len(cpus)), HF_HUB_OFFLINE="1")
    self._process = subprocess.Popen([sys.executable, HERE / "worker.py", module], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
                                     preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    self.tokens = self.ask(op="setup", case=case)["tokens"]
    self.wall, self.cpu = [], []

  def ask(self, **request):
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    reply = self._process.stdout.readline()
    if not reply:
      raise SystemExit(f"{self.name} died with {self._process.wait()} at {request}")
    return json.loads(reply)

  def run(self) -> None:
    reply = self.ask(op="run")
    self.wall.append(reply["wall"])
    self.cpu.append(reply["cpu"])

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait()
