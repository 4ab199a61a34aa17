"""Where a result was measured; results are lines of `results/cpu.jsonl` and `results/gpu.jsonl`."""

import datetime
import json
import os
import pathlib

from agentbank_jax.summary import git_revision, versions

_RESULTS = pathlib.Path(__file__).parent / "results"


def append(result: dict, kind: str = "cpu") -> None:
  """Adds a result with its date, machine, load, revision and versions; `kind` names the file."""
  _RESULTS.mkdir(exist_ok=True)
  about = {"date": datetime.date.today().isoformat(), "machine": f"{_cpu()}, {os.cpu_count()} processors",
           "load": os.getloadavg()[0], "revision": git_revision(), "versions": versions()}
  with (_RESULTS / f"{kind}.jsonl").open("a") as file:
    file.write(json.dumps(result | about) + "\n")


def _cpu() -> str:
  lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
