"""Environments with trouble of every kind, for the tests of worker processes; importable by the workers."""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from fake_tasks import COUNT, CountEnv

from agentbank_jax.envs.base import Step
from agentbank_jax.errors import UserError


class TroubleEnv(CountEnv):
  """Counts; what the trouble of an instance is, `data["trouble"]` says: one of the methods below.

  Every trouble comes at the second step, and where the folder `once` has no file of the instance's name, so
  that an episode that is begun again has none. `log` gets a line (process, what) for all that happens.
  """

  def __init__(self, log: str, once: str = ""):
    super().__init__()
    self._log, self._once = log, once
    self._note(f"made in {tempfile.gettempdir()}")

  def reset(self, instance):
    self._instance, self._calls = instance, 0
    self._note(f"reset {instance.id}")
    return super().reset(instance)

  def step(self, action):
    self._calls += 1
    trouble = self._instance.data.get("trouble")
    if trouble and self._calls == 2 and self._first_time():
      self._note(f"{trouble} {self._instance.id}")
      getattr(self, trouble)()
    if action.text == "pid":
      return Step(str(os.getpid()), 0.0, False, False, {})
    return super().step(action)

  def close(self):
    self._note("closed")

  def _first_time(self) -> bool:
    if not self._once:
      return True
    marker = pathlib.Path(self._once, self._instance.id)
    try:
      marker.touch(exist_ok=False)
    except FileExistsError:
      return False
    return True

  def _note(self, what):
    with open(self._log, "a") as file:
      file.write(f"{os.getpid()} {what}\n")

  # Troubles.

  def crash(self):
    os.kill(os.getpid(), 11)

  def leave(self):
    os._exit(3)

  def sleep(self):
    time.sleep(600)

  def hold(self):
    """Hangs without ever letting another thread of the process run."""
    re.match(r"(a+)+$", "a" * 60 + "b")

  def family(self):
    """Starts a child, and one in a process group of its own, and hangs."""
    for new_group in (None, 0):
      subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], process_group=new_group)
    self._note("family started")
    pathlib.Path(tempfile.mkdtemp(), "left").write_text("behind")
    time.sleep(600)

  def error(self):
    raise OSError("disk full")

  def user_error(self):
    raise UserError("games are not there")

  def unsendable(self):
    self.said = _Unsendable(self.said)

  def exit(self):
    sys.exit("enough")


class _Unsendable(int):
  def __reduce__(self):
    raise TypeError("cannot be sent")

  def __truediv__(self, other):
    return self

  def __add__(self, other):
    return self


class Undecided(TroubleEnv):
  """Answers differently every time."""

  def step(self, action):
    step = super().step(action)
    return step._replace(observation=f"{step.observation} {time.monotonic_ns()}")


def task_of(log, once="", env=TroubleEnv, **changes):
  """`COUNT` in processes; instance i counts to i % 4 + 1 and has the trouble `troubles[i]`."""
  return dataclasses.replace(COUNT, processes=True, make_env=functools.partial(env, str(log), str(once)), **changes)


def instances(count, troubles=None, goal=None):
  return [dataclasses.replace(i, data={"goal": goal or i.data["goal"], "trouble": (troubles or {}).get(n, "")})
          for n, i in enumerate(COUNT.instances("test", count, 0))]
