"""Where a result was measured; results are lines of `results/cpu.jsonl`."""

import datetime
import json
import os
import pathlib

from agentbank_jax.summary import git_revision, versions

_FILE = pathlib.Path(__file__).parent / "results" / "cpu.jsonl"


def append(result: dict) -> None:
  """Adds a result with its date, machine, load, revision and versions."""
  _FILE.parent.mkdir(exist_ok=True)
  about = {"date": datetime.date.today().isoformat(), "machine": f"{_cpu()}, {os.cpu_count()} processors",
           "load": os.getloadavg()[0], "revision": git_revision(), "versions": versions()}
  with _FILE.open("a") as file:
    file.write(json.dumps(result | about) + "\n")


def _cpu() -> str:
  lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
