"""`agentbank doctor`: what is installed, which accelerators, which tasks are ready, and how to get the rest."""

import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
from typing import Any

from agentbank_jax.errors import UserError
from agentbank_jax.report.tables import Table, print_table
from agentbank_jax.summary import versions
from agentbank_jax.tasks import get_task, task_names

# Packages that only some uses need: what for, and the extra that brings them.
OPTIONAL = {
    "torch": ("parity checks against transformers' own models", "pip install torch"),
    "tensorboardX": ("train.tensorboard", "pip install tensorboardX"),
    "libtpu": ("TPUs", "pip install 'agentbank-jax[tpu]'"),
    "jax_cuda12_plugin": ("NVIDIA GPUs", "pip install 'agentbank-jax[gpu]'"),
}


def run(config, workdir: pathlib.Path) -> dict[str, Any]:
  """Looks around and says what there is. Never fails for what is missing: it says how to get it."""
  import jax
  devices = [f"{d.platform}: {d.device_kind}" for d in jax.local_devices()]
  packages = versions()
  optional = {name: _version(name) for name in OPTIONAL}
  tasks = {name: _task_state(name) for name in task_names()}
  disk = shutil.disk_usage(_existing(workdir))
  machine = {"cpus": len(os.sched_getaffinity(0)), "memory_gib": _memory_gib(),
             "free_disk_gib": round(disk.free / 2**30, 1), "platforms": os.environ["JAX_PLATFORMS"], "devices": devices}

  print_table(Table("machine", ("what", "found"), [
      ["processors", str(machine["cpus"])], ["memory", f"{machine['memory_gib']} GiB"],
      ["free disk", f"{machine['free_disk_gib']} GiB at {_existing(workdir)}"],
      ["jax devices", f"{len(devices)} x {devices[0]}"]]))
  print_table(Table("packages", ("package", "version", "for", "how to get it"), [
      *([name, version, "", ""] for name, version in packages.items()),
      *([name, optional[name] or "absent", use, "" if optional[name] else how]
        for name, (use, how) in OPTIONAL.items())]))
  print_table(Table("tasks", ("task", "skill", "held in", "state"), [
      [name, get_task(name).skill, "yes" if get_task(name).held_in else "no", state]
      for name, state in tasks.items()], prose=True))
  return {"machine": machine, "optional": optional, "tasks": tasks}


def _task_state(name: str) -> str:
  """Returns "ready" where an instance can be drawn and an environment opened, else what is missing."""
  task = get_task(name)
  try:
    instance = next(iter(task.instances("test", 1, 0)))
    env = task.make_env()
    try:
      env.reset(instance)
    finally:
      env.close()
  except UserError as e:
    return str(e)
  return "ready"


def _version(package: str) -> str | None:
  if importlib.util.find_spec(package) is None:
    return None
  try:
    return importlib.metadata.version(package.replace("_", "-"))
  except importlib.metadata.PackageNotFoundError:
    return "installed"


def _memory_gib() -> float:
  return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _existing(path: pathlib.Path) -> pathlib.Path:
  """Returns the nearest folder above `path` that exists."""
  path = path.resolve()
  return path if path.exists() else _existing(path.parent)
