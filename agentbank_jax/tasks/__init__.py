"""The registry. A task is one file in `catalog/`, called as the task is, that says `TASK = Task(...)`.

A task's file is imported when the task is asked for, not before. A name with a colon, `ADAPTER:WHAT`, is a task
that a module of `adapters/` makes from what stands behind the colon.
"""

import functools
import importlib
import pkgutil

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.tasks import adapters, catalog
from agentbank_jax.tasks.task import Task


@functools.cache
def task_names() -> tuple[str, ...]:
  """Returns the names of all tasks of the catalog."""
  return _modules(catalog)


def adapter_names() -> tuple[str, ...]:
  """Returns what may stand before the colon."""
  return _modules(adapters)


@functools.cache
def held_out_names() -> tuple[str, ...]:
  """Returns the names of the tasks that evaluation alone may see."""
  return tuple(name for name in task_names() if not get_task(name).held_in)


@functools.cache
def get_task(name: str) -> Task:
  """Returns the task called `name`.

  Raises:
    UserError: there is none.
  """
  adapter, colon, what = name.partition(":")
  if colon:
    if adapter not in adapter_names():
      raise UserError(f"unknown task {name!r}: no adapter {adapter!r}{did_you_mean(adapter, adapter_names())} "
                      f"(known: {', '.join(adapter_names())})")
    return importlib.import_module(f"{adapters.__name__}.{adapter}").make_task(name, what)
  if name not in task_names():
    raise UserError(f"unknown task {name!r}{did_you_mean(name, task_names())} (known: {', '.join(task_names())})")
  task = importlib.import_module(f"{catalog.__name__}.{name}").TASK
  assert task.name == name, f"catalog/{name}.py calls its task {task.name!r}"
  return task


def _modules(package) -> tuple[str, ...]:
  return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))
