"""TPU VMs by `gcloud compute tpus`: as queued resources (one slice or several), or one slice at once.

No ssh session lasts as long as the run: worker.sh detaches it on every worker, and is asked how it goes.
Flags: cloud.google.com/sdk/gcloud/reference/compute/tpus.
"""

from collections.abc import Sequence
import pathlib
import re
from typing import NamedTuple

from agentbank_jax.errors import EXIT_INTERRUPTED, UserError
from launch.outcome import LOST, describe, judge
from launch.render import check, command_of, render
from launch.shell import Done, Shell, last_line, new_attempt
from launch.source import archive

_CAPACITY = {"spot": ["--spot"], "on_demand": [], "reserved": ["--reserved"], "guaranteed": ["--guaranteed"]}
_ENDED = ("FAILED", "SUSPENDING", "SUSPENDED")  # of a queued resource: nothing more comes of it
_PLAIN = ("project", "zone", "accelerator_type", "runtime_version", "network", "subnetwork", "service_account",
          "valid_until", "extra", "bucket", "mount")


class Worker(NamedTuple):
  """What one worker says of its part: idle, running, lost, exited or stopped (on request); then code and last words."""

  host: str
  state: str
  code: int | None
  words: str


def create(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Asks for the slices and waits until they are there.

  Raises:
    UserError: no quota or capacity, a request that failed or expired, or one that waits for too long.
  """
  _check(config)
  if not config.queued:
    shell.run(_gcloud(config, "tpu-vm", "create", config.name, f"--accelerator-type={config.accelerator_type}",
                      f"--version={config.runtime_version}", *_CAPACITY[config.capacity], *_network(config)),
              "ask for the slice")
    return 0
  nodes = ([f"--node-id={config.name}"] if config.slices == 1
           else [f"--node-count={config.slices}", f"--node-prefix={config.name}"])
  wait = [f"--valid-until-duration={config.valid_until}"] if config.valid_until else []
  shell.run(_gcloud(config, "queued-resources", "create", config.name, *nodes,
                    f"--accelerator-type={config.accelerator_type}", f"--runtime-version={config.runtime_version}",
                    *_CAPACITY[config.capacity], *wait, *_network(config)), "put the request into the queue")

  failures = 0

  def look(done: Done) -> str | None:
    nonlocal failures
    failures = failures + 1 if done.code else 0
    if failures >= config.unreachable_polls:
      raise UserError(f"the queued resource {config.name} cannot be asked after: {last_line(done.err)}")
    state = done.out.strip()
    return state if state == "ACTIVE" or state in _ENDED else None

  state = shell.poll(_describe(config), f"wait until {config.name} is ACTIVE", look, config.wait_every,
                     config.wait_hours * 3600)
  if shell.dry_run:
    return 0
  if state is None:
    raise UserError(f"{config.name} is not ACTIVE after {config.wait_hours:g} h; the request stays in the queue: "
                    "create waits on when called again, delete takes it back")
  if state != "ACTIVE":
    raise UserError(f"{config.name} is {state}: the request failed or the slices are gone; delete it, and see "
                    f"gcloud compute tpus queued-resources describe {config.name} --zone={config.zone}")
  shell.say(f"{config.name} is ACTIVE")
  return 0


def setup(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Brings the committed code, Python, its packages and the bucket to every worker."""
  _check(config)
  revision = archive(config.source, workdir / f"{config.name}-source.tar.gz", shell)
  script = workdir / f"{config.name}-setup.sh"
  shell.write(script, render("setup.sh.j2", revision=revision, python="3.11", name=config.name, extra=config.extra,
                             bucket=config.bucket, mount=config.mount), "how a worker is set up")
  _copy(config, shell, [workdir / f"{config.name}-source.tar.gz", script])
  shell.run(_ssh(config, f"bash {script.name}"), "set every worker up (minutes)")
  return 0


def run(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Runs the command on every worker until it is done everywhere; returns 0 or the exit code that decided.

  Where it runs already, it is watched and not started a second time.
  """
  _check(config)
  script = workdir / f"{config.name}-worker.sh"
  text = render("worker.sh.j2", name=config.name, command=command_of(config), grace_seconds=config.grace_seconds,
                bucket=config.bucket, mount=config.mount)
  for attempt in range(config.max_restarts + 1):
    workers = _ask(config, shell) if not shell.dry_run else []
    hosts = {worker.host for worker in workers}
    if not any(worker.state == "running" for worker in workers):
      shell.write(script, text, "one worker's part of the run")
      _copy(config, shell, [script])
      done = shell.run(_ssh(config, f"bash {script.name} start"), "start on every worker")
      hosts = set(re.findall(r"^worker (\S+) (?:started|running already)$", done.out, re.MULTILINE))
    codes = _watch(config, shell, hosts)
    if shell.dry_run:
      _gather(config, shell, new_attempt(workdir), count=1)
      return 0
    outcome = judge(codes)
    present = outcome.kind == "done" or _is_present(config, shell)
    if present:
      _gather(config, shell, new_attempt(workdir), count=len(hosts))
    if outcome.kind == "done":
      return 0
    if present and any(worker.state == "stopped" for worker in _ask(config, shell)):
      shell.say("stopped on request; run goes on")
      return EXIT_INTERRUPTED
    if outcome.kind == "failed":
      shell.say(f"{outcome.why}: another start would not help")
      return outcome.code
    if attempt == config.max_restarts:
      break
    shell.say(f"{outcome.why}: starting again ({attempt + 1} of {config.max_restarts})")
    if not present:
      delete(config, workdir, shell)
      create(config, workdir, shell)
      setup(config, workdir, shell)
    else:
      shell.run(_ssh(config, f"bash {script.name} end"), "end what is left of it")
  shell.say(f"{outcome.why}; max_restarts = {config.max_restarts} is used up")
  return outcome.code


def status(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Says how the machines and the workers are."""
  _check(config)
  done = shell.attempt(_describe(config), "the machines' state")
  print(done.out.strip() or last_line(done.err)) if not shell.dry_run else None
  for worker in _ask(config, shell):
    shell.say(f"{worker.host}: {worker.state}" + (f" {worker.code}, last words: {worker.words}" if worker.code else ""))
  return 0


def logs(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Gathers the logs of the run that is there."""
  _check(config)
  _gather(config, shell, new_attempt(workdir), count=max(len(_ask(config, shell)), 1))
  return 0


def stop(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Asks every worker's processes to save and end."""
  _check(config)
  shell.run(_ssh(config, f"bash {config.name}-worker.sh stop"), "SIGTERM to the run on every worker")
  return 0


def delete(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Gives the slices back, and takes the request out of the queue."""
  _check(config)
  if config.queued:
    argv = _gcloud(config, "queued-resources", "delete", config.name, "--force")
  else:
    argv = _gcloud(config, "tpu-vm", "delete", config.name)
  shell.run(argv, "give the machines back")
  return 0


VERBS = {"create": create, "setup": setup, "run": run, "status": status, "logs": logs, "stop": stop, "delete": delete}

_SILENT = "a worker that does not answer"


def _watch(config, shell: Shell, hosts: set[str]) -> dict[str, int]:
  """Waits until every worker has ended, or one in a way that ends the run. Returns exit codes by host."""
  failures = 0

  def look(done: Done) -> dict[str, int] | None:
    nonlocal failures
    workers = _parse(done.out)
    silent = not hosts or not hosts <= {worker.host for worker in workers}  # not every gcloud fails for one worker
    failures = failures + 1 if done.code or silent else 0
    if failures >= config.unreachable_polls or (failures and not _is_present(config, shell)):
      return {_SILENT: LOST}
    for worker in workers:
      if worker.code:
        shell.say(f"{worker.host} {describe(worker.code)}; last words: {worker.words}")
    ended = {worker.host: LOST if worker.code is None else worker.code for worker in workers
             if worker.state != "running"}
    if failures and any(ended.values()):
      ended[_SILENT] = LOST  # it may be why the others have failed
    # Where one has failed, the others end by themselves or never: what they say now is enough.
    return ended if any(ended.values()) or (not failures and len(ended) == len(workers)) else None

  found = shell.poll(_ssh(config, f"bash {config.name}-worker.sh status"), "wait for every worker", look,
                     config.poll_every)
  return found or {}


def _ask(config, shell: Shell) -> list[Worker]:
  done = shell.attempt(_ssh(config, f"test ! -f {config.name}-worker.sh || bash {config.name}-worker.sh status"),
                       "ask every worker how it goes")
  return _parse(done.out)


def _parse(text: str) -> list[Worker]:
  workers = []
  for line in text.splitlines():
    if match := re.match(r"worker (\S+) (idle|running|lost|exited|stopped)(?: (\d+))? ?(.*)", line):
      host, state, code, words = match.groups()
      workers.append(Worker(host, state, None if code is None else int(code), words))
  return sorted(workers)


def _is_present(config, shell: Shell) -> bool:
  done = shell.attempt(_describe(config), "is the slice still there?")
  return not done.code and done.out.strip() in ("ACTIVE", "READY")


def _gather(config, shell: Shell, folder: pathlib.Path, count: int) -> None:
  """Copies every worker's log; one worker at a time, as gcloud mixes the lines of several."""
  for number in range(count):
    node, worker = divmod(number, max(count // config.slices, 1))
    path = folder / (f"worker-{worker}.log" if config.slices == 1 else f"slice-{node}-worker-{worker}.log")
    done = shell.attempt(_ssh(config, f"bash {config.name}-worker.sh log", str(worker), str(node)),
                         f"log of worker {number}", output=path)
    if done.code:
      shell.say(f"{path} is not whole: {last_line(done.err)}")
  shell.say(f"logs in {folder}")


def _gcloud(config, *words: str) -> list[str]:
  project = [f"--project={config.project}"] if config.project else []
  return ["gcloud", "compute", "tpus", *words, *project, f"--zone={config.zone}", "--quiet"]


def _describe(config) -> list[str]:
  if config.queued:
    return _gcloud(config, "queued-resources", "describe", config.name, "--format=value(state.state)")
  return _gcloud(config, "tpu-vm", "describe", config.name, "--format=value(state)")


def _ssh(config, command: str, worker: str = "all", node: str = "all") -> list[str]:
  return _gcloud(config, *_reach(config, "ssh", worker, node), config.name, f"--command={command}")


def _copy(config, shell: Shell, files: Sequence[pathlib.Path]) -> None:
  shell.run(_gcloud(config, *_reach(config, "scp", "all", "all"), *map(str, files), f"{config.name}:"),
            "copy " + ", ".join(path.name for path in files) + " to every worker")


def _reach(config, how: str, worker: str, node: str) -> list[str]:
  internal = ["--internal-ip"] if config.internal_ip else []
  if config.queued:
    return ["queued-resources", how, f"--node={node}", f"--worker={worker}", *internal]
  return ["tpu-vm", how, f"--worker={worker}", *internal]


def _network(config) -> list[str]:
  given = {"network": config.network, "subnetwork": config.subnetwork, "service-account": config.service_account}
  return [f"--{flag}={value}" for flag, value in given.items() if value] + (
      ["--internal-ips"] if config.internal_ip else [])


def _check(config) -> None:
  check(config, *_PLAIN)
  if config.capacity not in _CAPACITY:
    raise UserError(f"capacity is {config.capacity!r}; choose {', '.join(_CAPACITY)}")
  if not config.queued and (config.slices != 1 or config.capacity == "guaranteed"):
    raise UserError("several slices and guaranteed capacity come as a queued resource: set queued=True")
