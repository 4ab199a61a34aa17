"""Kills whole families of processes, also when the process that should have done it is killed itself.

A worker that leads a session of its own is one family with all that it starts, a browser that makes a process
group of its own included. `kill_session` ends such a family. The guard is a small program that does nothing but
wait for its parent: the parent tells it of sessions through a pipe, and when the pipe closes, however the
parent came to its end, the guard ends the sessions that are left and removes their temporary folders.

What leaves its session (a daemon) is out of reach; sandboxes are told to die with their parent.

This file is that program too: it imports nothing but the standard library.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

_END_SECONDS = 5.0  # for killed processes to be gone


def kill_session(leader: int) -> None:
  """Kills every process of the session that `leader` leads or led. Linux; elsewhere its process group.

  It returns when they are gone, or after `_END_SECONDS`.
  """
  deadline = time.monotonic() + _END_SECONDS
  while time.monotonic() < deadline:  # a process may start another while we look
    found = session_members(leader)
    for pid in found:
      _kill(pid)
    if not found:
      return
    time.sleep(0.01)


def session_members(leader: int) -> list[int]:
  """Returns the living processes of a session."""
  if not pathlib.Path("/proc/self/stat").exists():
    try:
      os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
      pass
    return []
  found = []
  for entry in os.scandir("/proc"):
    if not entry.name.isdigit():
      continue
    try:
      # pid (name) state ppid pgrp session ...; the name may hold anything, brackets and spaces too
      state, _, _, session = pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:4]
    except (OSError, ValueError):
      continue  # it has just ended
    if int(session) == leader and state not in "ZX":
      found.append(int(entry.name))
  return found


def _kill(pid: int) -> None:
  try:
    os.kill(pid, signal.SIGKILL)
  except ProcessLookupError:
    pass  # it has just ended


class ProcessGuard:
  """The guard, seen from the process that it waits for."""

  def __init__(self):
    self._process = subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE,
                                     start_new_session=True)  # Ctrl-C at a terminal does not reach it

  def watch(self, leader: int, folder: str) -> None:
    """From now on the session of `leader` ends with this process at the latest, and `folder` goes with it."""
    self._tell(f"+{leader} {folder}\n")

  def forget(self, leader: int) -> None:
    """The session has ended; its number may come to be another's."""
    self._tell(f"-{leader}\n")

  def close(self) -> None:
    """Ends the guard, and what it still watches. May be called twice."""
    if not self._process.stdin.closed:
      self._process.stdin.close()
    self._process.wait()

  def _tell(self, line: str) -> None:
    if not self._process.stdin.closed:
      os.write(self._process.stdin.fileno(), line.encode())  # short, so that no two lines mix


def main() -> None:
  """Reads `+LEADER FOLDER` and `-LEADER` lines until its input ends, and clears up what is left."""
  watched = {}
  for line in sys.stdin:
    leader, _, folder = line[1:].rstrip("\n").partition(" ")
    if line[0] == "+":
      watched[int(leader)] = folder
    else:
      watched.pop(int(leader), None)
  for leader, folder in watched.items():
    kill_session(leader)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
  main()
