"""GKE: the run is a JobSet, which restarts itself; here it is written, applied, watched and taken away.

Flags: cloud.google.com/sdk/gcloud/reference/container/node-pools/create, kubernetes.io/docs/reference/kubectl.
"""

import json
import math
import pathlib
import re

from agentbank_jax.errors import UserError
from launch.outcome import LOST, describe, judge
from launch.render import check, command_of, render
from launch.shell import Done, Shell, last_line, new_attempt
from launch.source import archive

_PLAIN = ("project", "cluster", "location", "node_location", "namespace", "accelerator", "machine_type", "topology",
          "jobset_version", "image", "extra", "service_account", "bucket", "mount", "priority_class", "queue")


def create(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Gets the cluster's credentials, JobSet's controller, and a node pool for each slice."""
  hosts = _check(config)
  shell.run(["gcloud", "container", "clusters", "get-credentials", config.cluster, f"--location={config.location}",
             *_project(config), "--quiet"], "let kubectl speak to the cluster")
  shell.run(["kubectl", "apply", "--server-side", "--force-conflicts", "-f",
             "https://github.com/kubernetes-sigs/jobset/releases/download/"
             f"{config.jobset_version}/manifests.yaml"], "JobSet's controller")
  for number in range(config.slices):
    # A slice of one host has no topology to ask for.
    topology = [f"--tpu-topology={config.topology}"] if hosts > 1 else []
    shell.run(["gcloud", "container", "node-pools", "create", f"{config.name}-{number}", f"--cluster={config.cluster}",
               f"--location={config.location}", f"--node-locations={config.node_location}",
               f"--machine-type={config.machine_type}", *topology, f"--num-nodes={hosts}",
               *(["--spot"] if config.spot else []), *_project(config), "--quiet"], f"the nodes of slice {number}")
  return 0


def setup(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Builds the image of the committed code, and pushes it."""
  _check(config)
  context = workdir / "image"
  revision = archive(config.source, context / "source.tar.gz", shell)
  shell.write(context / "Dockerfile", render("Dockerfile.j2", python="3.11", archive="source.tar.gz",
                                             extra=config.extra, revision=revision), "how the image is built")
  shell.run(["docker", "build", "--platform=linux/amd64", f"--tag={config.image}", str(context)], "build the image")
  shell.run(["docker", "push", config.image], "push it to where the cluster pulls it")
  return 0


def run(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Applies the JobSet and waits until it has completed or failed; one that is there already is only watched."""
  hosts = _check(config)
  manifest = workdir / f"{config.name}.yaml"
  settings = {key: config[key] for key in (
      "name", "namespace", "max_restarts", "slices", "accelerator", "topology", "chips_per_host", "spot", "image",
      "service_account", "bucket", "mount", "priority_class", "queue", "host_network", "grace_seconds")}
  shell.write(manifest, render("jobset.yaml.j2", hosts=hosts, command=command_of(config), **settings), "the JobSet")
  there = _kubectl(config, "get", "jobset", config.name, "--ignore-not-found",
                   "--output=jsonpath={.status.terminalState}")
  if ended := shell.run(there, "is there one of that name that has ended?").out.strip():
    raise UserError(f"a JobSet {config.name} is there and has {ended}: delete it, or choose another name")
  shell.run(_kubectl(config, "apply", "-f", str(manifest)), "start it, or leave it as it is where it runs")
  restarts = 0

  def look(done: Done) -> str | None:
    nonlocal restarts
    if done.code:
      return None if "NotFound" not in done.err else "gone"
    state, _, count = done.out.partition(" ")
    if count.strip().isdecimal() and int(count) > restarts:
      restarts = int(count)
      shell.say(f"all pods were started again ({restarts} of {config.max_restarts})")
    return state or None

  state = shell.poll(
      _kubectl(config, "get", "jobset", config.name, "--output=jsonpath={.status.terminalState} {.status.restarts}"),
      f"wait until {config.name} has completed or failed", look, config.poll_every)
  codes = _codes(config, shell)
  _gather(config, workdir, shell, hosts)
  if shell.dry_run:
    return 0
  if state == "gone":
    raise UserError(f"the JobSet {config.name} was deleted while it ran")
  for pod, code in codes.items():
    shell.say(f"  {pod}: " + ("has no exit code" if code is None else describe(code) if code else "done"))
  if state == "Completed":
    return 0
  known = {pod: code for pod, code in codes.items() if code is not None}
  # A pod that was taken away with its node has none; one that was ended for another's sake may have none either.
  outcome = judge(known if any(known.values()) else {pod: LOST for pod, code in codes.items() if code is None})
  if outcome.kind == "restart":
    shell.say(f"{outcome.why}; max_restarts = {config.max_restarts} is used up")
  elif outcome.kind == "failed":
    shell.say(f"{outcome.why}: another start would not help")
  else:
    raise UserError(f"the JobSet {config.name} has failed and no pod of it says why; see kubectl describe jobset")
  return outcome.code


def status(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Shows the JobSet and its pods."""
  _check(config)
  for what in (["jobset", config.name], ["pods", _selector(config), "--output=wide"]):
    done = shell.attempt(_kubectl(config, "get", *what), f"the {what[0]}")
    print(done.out.rstrip() or last_line(done.err)) if not shell.dry_run else None
  return 0


def logs(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Gathers the logs of the pods that are there; those of earlier attempts are in Cloud Logging alone."""
  _gather(config, workdir, shell, _check(config))
  return 0


def stop(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Suspends the JobSet: its pods get SIGTERM and save."""
  _check(config)
  shell.run(_kubectl(config, "patch", "jobset", config.name, "--type=merge", '--patch={"spec":{"suspend":true}}'),
            'suspend it; the same with "suspend":false lets it go on')
  return 0


def delete(config, workdir: pathlib.Path, shell: Shell) -> int:
  """Takes the JobSet and the node pools away; the cluster stays."""
  _check(config)
  shell.run(_kubectl(config, "delete", "jobset", config.name, "--ignore-not-found"), "take the JobSet away")
  for number in range(config.slices):
    shell.run(["gcloud", "container", "node-pools", "delete", f"{config.name}-{number}", f"--cluster={config.cluster}",
               f"--location={config.location}", *_project(config), "--quiet"], f"give back the nodes of slice {number}")
  return 0


VERBS = {"create": create, "setup": setup, "run": run, "status": status, "logs": logs, "stop": stop, "delete": delete}


def _codes(config, shell: Shell) -> dict[str, int | None]:
  """Returns the exit code of each pod's container, by pod; None where it has none."""
  done = shell.attempt(_kubectl(config, "get", "pods", _selector(config), "--output=json"), "every pod's exit code")
  codes = {}
  for pod in json.loads(done.out)["items"] if done.out.strip() else ():
    statuses = pod.get("status", {}).get("containerStatuses", ())
    ended = [s["state"]["terminated"]["exitCode"] for s in statuses
             if s["name"] == "agentbank" and "terminated" in s["state"]]
    codes[pod["metadata"]["name"]] = ended[0] if ended else None
  return dict(sorted(codes.items()))


def _gather(config, workdir: pathlib.Path, shell: Shell, hosts: int) -> None:
  folder = new_attempt(workdir)
  shell.attempt(_kubectl(config, "logs", _selector(config), "--container=agentbank", "--prefix", "--tail=-1",
                         f"--max-log-requests={hosts * config.slices}"), "every pod's log, each line with its pod",
                output=folder / "pods.log")
  shell.say(f"logs in {folder}")


def _kubectl(config, *words: str) -> list[str]:
  return ["kubectl", f"--namespace={config.namespace}", *words]


def _selector(config) -> str:
  return f"--selector=jobset.sigs.k8s.io/jobset-name={config.name}"


def _project(config) -> list[str]:
  return [f"--project={config.project}"] if config.project else []


def _check(config) -> int:
  """Returns the hosts of a slice."""
  check(config, *_PLAIN)
  if not re.fullmatch(r"\d+(x\d+){1,2}", config.topology):
    raise UserError(f"topology is {config.topology!r}; expected chips, such as 4x4 or 2x2x4")
  chips = math.prod(map(int, config.topology.split("x")))
  if chips % config.chips_per_host:
    raise UserError(f"topology {config.topology} has {chips} chips, no multiple of chips_per_host = "
                    f"{config.chips_per_host}")
  return chips // config.chips_per_host
