"""The registry: tasks by name. A task's module is imported when the task is asked for, not before."""

import importlib

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.tasks.task import Task

# Where each task stands: a module of this package, and its name there.
_TASKS = {
    "arithmetic": ("arithmetic", "TASK"),
    "gsm8k": ("gsm8k", "TASK"),
    "household": ("household", "TASK"),
    "household_full": ("household", "TASK_FULL"),
    "intercode_sql": ("intercode_sql", "TASK"),
    "sql_tables": ("sql_tables", "TASK"),
}


def task_names() -> tuple[str, ...]:
  """Returns the names of all tasks."""
  return tuple(_TASKS)


def get_task(name: str) -> Task:
  """Returns the task called `name`.

  Raises:
    UserError: there is none.
  """
  if name not in _TASKS:
    raise UserError(f"unknown task {name!r}{did_you_mean(name, _TASKS)} (known: {', '.join(_TASKS)})")
  module, attribute = _TASKS[name]
  return getattr(importlib.import_module(f"agentbank_jax.tasks.{module}"), attribute)
