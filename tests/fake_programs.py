#!/usr/bin/env python3
"""Stands in for gcloud, kubectl and SLURM's programs: records its arguments and plays a scenario.

`Fakes` puts it on PATH under each name. What a real machine would run (a worker's ssh command, a batch script) it
really runs, each worker in a home of its own.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

NAMES = ("gcloud", "kubectl", "docker", "sbatch", "srun", "scontrol", "scancel", "sacct", "hostname")
SETUP_NAMES = ("python3", "uv", "sudo", "curl", "lsb_release", "mountpoint", "gcsfuse")  # what setup.sh calls


class Fakes:
  """The fake programs of one test.

  Attributes:
    folder: holds bin/, calls.jsonl, scenario.json and the workers' homes.
  """

  def __init__(self, folder: pathlib.Path, monkeypatch, workers: int = 2, **scenario):
    """Args:
      workers: of the slice.
      **scenario: what the programs do; see `main`.
    """
    self.folder = folder
    (folder / "bin").mkdir(parents=True)
    for name in NAMES:
      (folder / "bin" / name).write_text(f"#!/bin/sh\nexec {sys.executable} -S {__file__} {name} \"$@\"\n")
      (folder / "bin" / name).chmod(0o755)
    self.play(workers=workers, **scenario)
    monkeypatch.setenv("FAKES", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")

  def add_setup(self) -> None:
    """Fakes what a worker's setup calls, too: each writes its call to setup.log in the worker's home."""
    for name in SETUP_NAMES:
      path = self.folder / "bin" / name
      path.write_text(f'#!/bin/sh\necho "{name} $*" >> "$HOME/setup.log"\n[ {name} != mountpoint ] || exit 1\n'
                      f'echo {self.folder}\n')  # python3 -m site --user-base, which has bin/uv
      path.chmod(0o755)

  def play(self, **scenario) -> None:
    path = self.folder / "scenario.json"
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | scenario))

  def calls(self, *beginning: str) -> list[list[str]]:
    """Returns the recorded calls, of those that begin so."""
    path = self.folder / "calls.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [call for call in lines if call[:len(beginning)] == list(beginning)]

  def home(self, worker: int) -> pathlib.Path:
    return self.folder / f"worker-{worker}"

  def end(self) -> None:
    """Kills what the workers still run."""
    _reclaim(self.folder)


def main(name: str, args: list[str]) -> int:
  folder = pathlib.Path(os.environ["FAKES"])
  if name == "hostname":
    print(os.environ.get("FAKE_HOST", "laptop"))
    return 0
  with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps([name, *args]) + "\n")
  scenario = json.loads((folder / "scenario.json").read_text())

  def following(key: str, default=None):
    """The next of a list of answers; the last one stays."""
    answers = scenario.get(key) or [default]
    if len(answers) > 1:
      scenario[key] = answers[1:]
      (folder / "scenario.json").write_text(json.dumps(scenario))
    return answers[0]

  if name == "gcloud":
    return _gcloud(folder, args, scenario, following)
  if name == "kubectl":
    return _kubectl(args, following)
  if name == "sbatch":
    return _sbatch(folder, args, scenario)
  if name == "srun":
    return _srun(args, scenario)
  if name == "scontrol" and args[0] == "requeue":
    (folder / "requeue").touch()
  if name == "sacct":
    print(following("sacct", (folder / "sacct").read_text() if (folder / "sacct").exists() else "PENDING|0:0"))
  return 0


def _gcloud(folder, args, scenario, following) -> int:
  """Scenario: create (exit code, stderr), states (of describe), events (of the calls that ask the workers how they are:
  "", "gone", "unreachable", "kill I", "mute I").
  """
  if args[:2] != ["compute", "tpus"]:
    return 0
  action = args[3]
  if action == "create":
    code, message = following("create", [0, ""])
    print(message, file=sys.stderr)
    return code
  if action == "describe":
    state = following("states", "ACTIVE")
    print(state)
    return 0
  if action == "delete":
    _reclaim(folder)
    return 0
  homes = [folder / f"worker-{number}" for number in range(scenario["workers"])]
  chosen = next(a for a in args if a.startswith("--worker=")).partition("=")[2]
  if chosen != "all":
    homes = [homes[int(chosen)]]
  for home in homes:
    home.mkdir(exist_ok=True)
  if action == "scp":
    files = [a for a in args[4:] if not a.startswith("--")][:-1]
    for home in homes:
      for file in files:
        shutil.copy(file, home)
    return 0
  command = next(a for a in args if a.startswith("--command=")).partition("=")[2]
  if command.endswith(" status") and not command.startswith("test "):
    event = following("events", "")
    if event:
      (folder / "happened").touch()  # what runs can see it
    if event == "gone":
      _reclaim(folder)
      print("ssh: connect to host: No route to host", file=sys.stderr)
      return 255
    if event == "unreachable":
      print("ssh: connect to host: Connection timed out", file=sys.stderr)
      return 255
    if event.startswith("kill "):  # the machine's kernel, out of memory, say
      pid = (folder / f"worker-{event[5:]}" / "victim").read_text()
      os.kill(int(pid), signal.SIGKILL)
    if event.startswith("mute "):  # a gcloud that says nothing of a worker it cannot reach
      homes.pop(int(event[5:]))
  worst = 0
  for home in homes:
    done = subprocess.run(["bash", "-c", command], cwd=home, stdin=subprocess.DEVNULL,
                          env=os.environ | {"HOME": str(home), "FAKE_HOST": home.name})
    worst = worst or done.returncode
  return worst


def _reclaim(folder) -> None:
  """The machines go away: their processes and their disks."""
  for home in folder.glob("worker-*"):
    for pid in home.glob("*-state/pid"):
      try:
        os.killpg(int(pid.read_text()), signal.SIGKILL)
      except (ProcessLookupError, ValueError):
        pass
    shutil.rmtree(home)


def _kubectl(args, following) -> int:
  """Scenario: before, jobset (stdout of `get jobset`), pods (JSON of `get pods`), logs."""
  if "--ignore-not-found" in args and "get" in args:
    print(following("before", ""), end="")
  elif "get" in args and "jobset" in args:
    answer = following("jobset", "Completed 0")
    if answer == "NotFound":
      print('Error from server (NotFound): jobsets "x" not found', file=sys.stderr)
      return 1
    print(answer, end="")
  elif "get" in args:
    print(json.dumps({"items": [{
        "metadata": {"name": pod},
        "status": {"containerStatuses": [{"name": "agentbank", "state": {"terminated": {"exitCode": code}}
                                          if code is not None else {"running": {}}}]}}
        for pod, code in following("pods", {}).items()]}))
  elif "logs" in args:
    print(following("logs", ""))
  return 0


def _sbatch(folder, args, scenario) -> int:
  """Runs the script at once, as often as it is queued again. Scenario: tasks."""
  code, attempt = 0, 0
  while True:
    (folder / "requeue").unlink(missing_ok=True)
    count = {"SLURM_RESTART_COUNT": str(attempt)} if attempt else {}
    code = subprocess.run(["bash", args[-1]], stdin=subprocess.DEVNULL, stdout=sys.stderr,
                          env=os.environ | {"SLURM_JOB_ID": "4711", **count}).returncode
    attempt += 1
    if not (folder / "requeue").exists():
      break
  (folder / "sacct").write_text(f"{'FAILED' if code else 'COMPLETED'}|{code}:0")
  print("4711")
  return 0


def _srun(args, scenario) -> int:
  """Starts every task with SLURM's variables; ends the others when one fails, as --kill-on-bad-exit=1 does."""
  options = [a for a in args if a.startswith("--")]
  output = next(o for o in options if o.startswith("--output=")).partition("=")[2]
  command = args[len(options):]
  tasks = scenario["tasks"]
  processes = []
  for task in range(tasks):
    environment = {"SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(tasks),
                   "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "SLURM_STEP_NUM_NODES": "1"}
    with open(output.replace("%t", str(task)), "wb") as log:
      processes.append(subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log,
                                        stdin=subprocess.DEVNULL, start_new_session=True))
  pids = {process.pid: process for process in processes}
  codes = []
  while pids:
    pid, status = os.wait()
    process = pids.pop(pid)
    process.returncode = os.waitstatus_to_exitcode(status)
    codes.append(process.returncode if process.returncode >= 0 else 128 - process.returncode)
    if codes[-1]:
      for other in pids:
        os.killpg(other, signal.SIGTERM)
  return max(codes)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1], sys.argv[2:]))
