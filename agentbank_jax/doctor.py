"""`agentbank doctor`: what is installed, which accelerators, which tasks are ready, and how to get the rest."""

import contextlib
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
from typing import Any

from absl import logging

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.worker_pool import PoolSize, WorkerError, WorkerPool
from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.evaluate.run import draw_from_any
from agentbank_jax.report.tables import Table, markdown, print_table
from agentbank_jax.summary import versions
from agentbank_jax.tasks import adapter_names, get_task, requirements, task_names
from agentbank_jax.tasks.task import SKILLS, Task

READY = "ready"
_SECONDS = 30.0  # for one task to begin an episode

# Packages that only some uses need: what for, and the extra that brings them.
OPTIONAL = {
    "torch": ("parity checks against transformers' own models", "pip install torch"),
    "tensorboardX": ("train.tensorboard", "pip install tensorboardX"),
    "libtpu": ("TPUs", "pip install 'agentbank-jax[tpu]'"),
    "jax_cuda12_plugin": ("NVIDIA GPUs", "pip install 'agentbank-jax[gpu]'"),
}


def run(config, workdir: pathlib.Path) -> dict[str, Any]:
  """Looks around and says what there is. Never fails for what is missing: it says how to get it."""
  if config.markdown:
    print(task_table(config.markdown))
    return {"tasks": list(task_names())}
  import jax
  devices = [f"{d.platform}: {d.device_kind}" for d in jax.local_devices()]
  packages = versions()
  optional = {name: _version(name) for name in OPTIONAL}
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
  states = task_states()
  published = [task for task in _tasks() if not task.stands_in_for]
  stand_ins = [task for task in _tasks() if task.stands_in_for]
  ready = lambda tasks: f"{sum(states[task.name].startswith(READY) for task in tasks)} of {len(tasks)} are ready"
  print_table(Table(f"published tasks: {ready(published)}", ("skill", "task", "split", "state"), [
      [task.skill, task.name, _split(task), states[task.name]] for task in published], prose=True))
  print_table(Table(f"their stand-ins and other cuts: {ready(stand_ins)}", ("skill", "task", "for", "state"), [
      [task.skill, task.name, task.stands_in_for, states[task.name]] for task in stand_ins], prose=True,
      note=f"Environments of other packages are tasks by name: {', '.join(f'{name}:...' for name in adapter_names())} "
           "(agentbank_jax/tasks/README.md)."))
  return {"machine": machine, "optional": optional, "tasks": states}


def _tasks() -> list[Task]:
  """Returns the tasks of the catalog by skill, held in before held out."""
  return sorted(map(get_task, task_names()), key=lambda t: (SKILLS.index(t.skill), not t.held_in, t.name))


def _split(task: Task) -> str:
  return "held-in" if task.held_in else "held-out"


def task_table(kind: str) -> str:
  """Returns the registry as a Markdown table: "short", README.md's, or "long", that of agentbank_jax/tasks/README.md.

  Raises:
    UserError: another kind.
  """
  cells = {
      "skill": lambda t: t.skill,
      "task": lambda t: f"`{t.name}`" + (f", for `{t.stands_in_for}`" if t.stands_in_for else ""),
      "split": _split,
      "what runs": lambda t: t.runs,
      "instances": lambda t: t.source.where,
      "an episode is solved when": lambda t: t.metric.success,
      "definition": lambda t: t.metric.definition,
  }
  shown = {"short": ("skill", "task", "split", "what runs"), "long": tuple(cells)}
  if kind not in shown:
    raise UserError(f"markdown is {kind!r}; choose one of {', '.join(shown)}{did_you_mean(kind, shown)}")
  rows = [[" ".join(cells[column](task).split()) for column in shown[kind]] for task in _tasks()]
  return markdown(Table("tasks", shown[kind], rows))


def task_states() -> dict[str, str]:
  """Returns, by name, "ready" or what a task lacks and how to get it.

  A task is ready where an instance can be drawn and an episode begun. That is tried in a process of its own:
  whatever a task does there, it harms nothing and takes no longer than `_SECONDS`.
  """
  states = {task.name: "; ".join(requirements.missing(task)) for task in _tasks()}
  pool = WorkerPool("doctor", _Probe, PoolSize(processes=1, episodes=len(states)), _SECONDS)
  try:
    for name in [name for name, lacks in states.items() if not lacks]:
      probe = pool.make_env()
      try:
        states[name] = probe.reset(Instance(name, "test", {}))
      except UserError as e:
        states[name] = str(e).removeprefix(f"{name}: ")
      except (WorkerError, TimeoutError) as e:
        states[name] = f"fails: {e}"
      finally:
        probe.close()
  finally:
    pool.close()
  return states


class _Probe:
  """Begins an episode of the task that an instance is named after."""

  def reset(self, instance: Instance) -> str:
    logging.set_verbosity(logging.ERROR)  # what is returned says it
    (task, (first,), files), lacks = draw_from_any(instance.id, 1, 0)
    with contextlib.closing(task.make_env()) as env:
      env.reset(first)
    state = f"{READY}, with train instances alone: {lacks.removeprefix(f'{task.name}: ')}" if lacks else READY
    if unknown := [name for name, file in files.items() if file["known_as"] is None]:
      state += f"{'; ' if lacks else ', '}on files that are none of the published ones: {', '.join(unknown)}"
    return state

  def close(self) -> None:
    """Nothing to release."""


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
