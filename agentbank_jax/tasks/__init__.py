"""The registry. A task is one file in `catalog/`, called as the task is, that says `TASK = Task(...)`.

A task's file is imported when the task is asked for, not before.
"""

import functools
import importlib
import pkgutil

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.tasks import catalog
from agentbank_jax.tasks.task import Task


@functools.cache
def task_names() -> tuple[str, ...]:
  """Returns the names of all tasks."""
  return tuple(sorted(module.name for module in pkgutil.iter_modules(catalog.__path__)))


def get_task(name: str) -> Task:
  """Returns the task called `name`.

  Raises:
    UserError: there is none.
  """
  if name not in task_names():
    raise UserError(f"unknown task {name!r}{did_you_mean(name, task_names())} (known: {', '.join(task_names())})")
  task = importlib.import_module(f"{catalog.__name__}.{name}").TASK
  assert task.name == name, f"catalog/{name}.py calls its task {task.name!r}"
  return task
