"""SLURM: a batch job that puts itself into the queue again; here it is written, submitted and watched.

Flags: slurm.schedmd.com/sbatch.html, srun.html, sacct.html.
"""

import pathlib
import re

from agentbank_jax.errors import EXIT_ERROR, UserError
from launch.outcome import LOST, describe, judge
from launch.render import check, command_of, render
from launch.shell import Done, Shell, last_line
from launch.source import archive

_PLAIN = ("folder", "extra", "python", "partition", "account", "qos", "time", "constraint")
_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


def setup(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Brings the committed code and its packages to the shared folder. Call it on a login node."""
  check(config, *_PLAIN)
  folder, package = _folder(config), workdir / f"{config.name}-source.tar.gz"
  archive(config.source, package, shell)
  shell.run(["mkdir", "-p", folder], "where the code goes")
  shell.run(["tar", "-xzf", str(package), "-C", folder], "unpack it")
  shell.run([config.python, "-m", "venv", f"{folder}/.venv"], "an environment of its own")
  shell.run([f"{folder}/.venv/bin/python", "-m", "pip", "install", "--quiet", "--constraint",
             f"{folder}/requirements.lock", f"{folder}[{config.extra}]"], "its packages (minutes)")
  return 0


def run(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Submits the job and waits for it; returns 0 or the exit code that decided."""
  check(config, *_PLAIN)
  workdir = workdir.absolute()
  if not re.fullmatch(r"[\w@%+=:,./-]+", str(workdir)):
    raise UserError(f"--workdir is {workdir}; sbatch takes no folder with such characters")
  script, logs = workdir / f"{config.name}.sbatch", workdir / "logs"
  options = {key: config[key] for key in ("partition", "account", "qos", "constraint") if config[key]}
  settings = {"folder": _folder(config)} | {key: config[key] for key in (
      "name", "nodes", "gpus_per_node", "cpus_per_gpu", "time", "warn_seconds", "max_restarts")}
  task = render("slurm_task.sh.j2", command=command_of(config))
  shell.write(script, render("slurm.sh.j2", options=options, logs=str(logs), task=task, **settings), "the job")
  shell.folder(logs)
  job = shell.run(["sbatch", "--parsable", str(script)], "submit it").out.strip().partition(";")[0]
  if not shell.dry_run:
    (workdir / "job_id").write_text(job + "\n")
    shell.say(f"job {job}, logs in {logs}")
  return _wait(config, workdir, shell, job or "JOB")


def status(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Says how the job is."""
  done = shell.attempt(_sacct(_job(workdir, shell)), "the job's state, exit code and restarts")
  print(done.out.strip() or last_line(done.err)) if not shell.dry_run else None
  return 0


def logs(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Waits for the job that is there, and says how each process ended; the logs are in --workdir already."""
  check(config)
  return _wait(config, workdir.absolute(), shell, _job(workdir, shell))


def stop(config, workdir: pathlib.Path, shell: Shell) -> int:
  """SIGTERM to every process, which saves; the job is not queued again."""
  job = _job(workdir, shell)
  shell.run(["scontrol", "update", f"JobId={job}", "Requeue=0"], "not into the queue again")
  shell.run(["scancel", "--signal=TERM", job], "SIGTERM to every process")
  return 0


def delete(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Ends the job at once."""
  shell.run(["scancel", _job(workdir, shell)], "end the job")
  return 0


VERBS = {"setup": setup, "run": run, "status": status, "logs": logs, "stop": stop, "delete": delete}


def _wait(config, workdir: pathlib.Path, shell: Shell, job: str) -> int:
  def look(done: Done) -> str | None:
    state = done.out.strip().partition("|")[0].partition(" ")[0]  # "CANCELLED by 1000|0:15"
    return state if state in _ENDED else None

  state = shell.poll(_sacct(job), f"wait for job {job}", look, config.poll_every)
  if shell.dry_run:
    return 0
  attempts = sorted((workdir / "logs").glob("attempt-*"), key=lambda p: int(p.name.rpartition("-")[2]))
  codes = _codes(attempts[-1], config.nodes * config.gpus_per_node) if attempts else {}
  for name, code in sorted(codes.items()):
    shell.say(f"  {name}: " + (describe(code) if code else "done"))
  if state == "COMPLETED":
    return 0
  failed = {name: code for name, code in codes.items() if code}
  if not failed:
    raise UserError(f"job {job} is {state}, and no process of it says why: see {workdir / 'logs' / 'job.log'}")
  first = next(iter(failed))  # srun ends the others for it
  outcome = judge({name: code for name, code in failed.items() if name == first or code == EXIT_ERROR})
  shell.say(f"job {job} is {state}: {outcome.why}; logs in {attempts[-1]}")
  return outcome.code


def _codes(attempt: pathlib.Path, count: int) -> dict[str, int]:
  """Returns the exit code of each process, in the order in which they ended; the lost ones last."""
  files = sorted(attempt.glob("exit_code.*"), key=lambda path: path.stat().st_mtime_ns)
  codes = {f"process-{path.suffix[1:]}": int(path.read_text()) for path in files}
  return codes | {name: LOST for name in (f"process-{number}" for number in range(count)) if name not in codes}


def _sacct(job: str) -> list[str]:
  return ["sacct", f"--jobs={job}", "--allocations", "--noheader", "--parsable2", "--format=State,ExitCode"]


def _folder(config) -> str:
  """Returns the shared folder, absolute: pip would look a plain word up in its index."""
  return str(pathlib.Path(config.folder).absolute())


def _job(workdir: pathlib.Path, shell: Shell) -> str:
  path = workdir / "job_id"
  if path.exists():
    return path.read_text().strip()
  if shell.dry_run:
    return "JOB"
  raise UserError(f"{path}: no job was started with this --workdir")
