"""`python -m launch` on TPU VMs, against a fake gcloud whose workers really run what they are given."""

import subprocess
import sys

from launch_tool import TPU, fails, launch, wait_for
import pytest

pytestmark = pytest.mark.usefixtures("in_checkout")


def test_a_queued_resource_is_asked_for_and_waited_for(fakes, tmp_path, capfd):
  fakes.play(states=["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
  assert launch("create", TPU, tmp_path, "--config.valid_until=6h", "--config.project=p") == 0
  assert fakes.calls()[0] == [
      "gcloud", "compute", "tpus", "queued-resources", "create", "pod", "--node-id=pod",
      "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot",
      "--valid-until-duration=6h", "--project=p", "--zone=us-west4-a", "--quiet"]
  assert len(fakes.calls("gcloud", "compute", "tpus", "queued-resources", "describe")) == 3
  assert "pod is ACTIVE" in capfd.readouterr().out


def test_several_slices_and_one_at_once(fakes, tmp_path):
  assert launch("create", TPU, tmp_path, "--config.slices=2", "--config.capacity=guaranteed") == 0
  assert {"--node-count=2", "--node-prefix=pod", "--guaranteed"} < set(fakes.calls()[0])
  assert launch("create", TPU, tmp_path, "--config.queued=False", "--config.capacity=on_demand") == 0
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
  hours = 0.0001 if "not ACTIVE" in told else 1.0
  assert told in fails(capfd, "create", *TPU, f"--workdir={tmp_path}", f"--config.wait_hours={hours}")


def test_setup_really_run_on_every_worker(fakes, checkout, tmp_path):
  fakes.add_setup()
  assert launch("setup", TPU, tmp_path / "w", f"--config.source={checkout}", "--config.bucket=bucket") == 0
  for worker in range(2):
    assert (fakes.home(worker) / "pod" / "requirements.lock").read_text() == "jax==0.10.2\n"
    log = (fakes.home(worker) / "setup.log").read_text()
    assert "uv venv --quiet --python 3.11 .venv" in log
    assert "uv pip install --quiet --python .venv/bin/python --constraint requirements.lock .[tpu]" in log
    assert "gcsfuse --implicit-dirs bucket /mnt/agentbank" in log


def test_uncommitted_changes_do_not_go(fakes, checkout, tmp_path, capfd):
  (checkout / "requirements.lock").write_text("changed\n")
  told = fails(capfd, "setup", *TPU, f"--config.source={checkout}", f"--workdir={tmp_path}")
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
  assert launch("run", TPU, tmp_path / "w", _command(tmp_path)) == 0
  for worker in range(2):
    assert (tmp_path / "w" / "logs" / "attempt-0" / f"worker-{worker}.log").read_text() == "step\n" * 5
  start, = [c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]
  assert start == ["gcloud", "compute", "tpus", "queued-resources", "ssh", "--node=all", "--worker=all", "pod",
                   "--command=bash pod-worker.sh start", "--zone=us-west4-a", "--quiet"]


def test_one_worker_that_fails_is_named_and_the_run_is_not_started_again(fakes, tmp_path, capfd):
  _with_code(fakes)
  event = 'if [ $number = 1 ]; then echo "agentbank: error: data: no such directory"; exit 2; fi;'
  assert launch("run", TPU, tmp_path / "w", _command(tmp_path, event)) == 2
  out = capfd.readouterr().out
  assert "worker-1 ended with exit code 2; last words: agentbank: error: data: no such directory" in out
  assert "worker-1 ended with exit code 2: another start would not help" in out
  assert len([c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]) == 1


def test_a_killed_worker_makes_all_start_again(fakes, tmp_path, capfd):
  _with_code(fakes)
  fakes.play(events=["", "kill 1", ""])
  assert launch("run", TPU, tmp_path / "w", _command(tmp_path, UNTIL_IT_HAPPENS)) == 0
  out = capfd.readouterr().out
  assert "worker-1 was killed by SIGKILL or lost (exit code 137): starting again (1 of 2)" in out
  assert sorted(p.name for p in (tmp_path / "w" / "logs").iterdir()) == ["attempt-0", "attempt-1"]
  assert [len((tmp_path / "bucket" / f"steps-{n}").read_text().split()) for n in range(2)] == [5, 5]


def test_a_preempted_slice_is_asked_for_again_and_the_run_goes_on(fakes, checkout, tmp_path, capfd):
  fakes.add_setup()
  _with_code(fakes)
  fakes.play(events=["", "gone", ""], states=["SUSPENDED", "SUSPENDED", "WAITING_FOR_RESOURCES", "ACTIVE"])
  assert launch("run", TPU, tmp_path / "w", _command(tmp_path, UNTIL_IT_HAPPENS), f"--config.source={checkout}") == 0
  told = [c[4] for c in fakes.calls("gcloud", "compute", "tpus", "queued-resources")
          if c[4] in ("create", "delete", "scp")]
  assert told == ["scp", "delete", "create", "scp", "scp"]
  assert fakes.calls("gcloud", "compute", "tpus", "queued-resources", "delete") == [
      ["gcloud", "compute", "tpus", "queued-resources", "delete", "pod", "--force", "--zone=us-west4-a", "--quiet"]]
  assert [len((tmp_path / "bucket" / f"steps-{n}").read_text().split()) for n in range(2)] == [5, 5]


def test_a_connection_that_fails_for_a_moment_loses_nothing(fakes, tmp_path):
  _with_code(fakes)
  fakes.play(events=["unreachable", "unreachable", ""])
  assert launch("run", TPU, tmp_path / "w", _command(tmp_path)) == 0
  assert len([c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]) == 1


def test_a_worker_of_which_nothing_is_heard_is_no_worker_that_is_done(fakes, tmp_path, capfd):
  _with_code(fakes)
  fakes.play(events=["mute 1"])
  assert launch("run", [*TPU, "--config.max_restarts=0"], tmp_path / "w", _command(tmp_path)) == 137
  assert "a worker that does not answer was killed by SIGKILL or lost" in capfd.readouterr().out


def test_the_number_of_restarts_is_bounded(fakes, tmp_path, capfd):
  _with_code(fakes)
  assert launch("run", TPU, tmp_path / "w", "--config.command=exit 75") == 75
  assert len([c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]) == 3
  assert "max_restarts = 2 is used up" in capfd.readouterr().out


def test_a_run_is_found_again_asked_after_and_stopped(fakes, tmp_path, capfd):
  _with_code(fakes)
  command = "--config.command=trap 'echo saved; exit 75' TERM; touch $HOME/up; while :; do sleep 0.05; done"
  again = [sys.executable, "-m", "launch", "run", *TPU, f"--workdir={tmp_path}", command]
  first = subprocess.Popen(again, stdout=subprocess.DEVNULL)
  wait_for(lambda: all((fakes.home(n) / "up").exists() for n in range(2)))
  first.kill()  # the laptop is closed
  first.wait()
  assert launch("status", TPU, tmp_path) == 0
  assert "worker-0: running\nworker-1: running" in capfd.readouterr().out
  second = subprocess.Popen(again, stdout=subprocess.PIPE, text=True)
  wait_for(lambda: second.stdout.readline() == "wait for every worker\n")
  assert launch("stop", TPU, tmp_path) == 0
  out, _ = second.communicate()
  assert second.returncode == 75
  assert "was stopped and has saved (exit code 75); last words: saved" in out
  assert "stopped on request; run goes on" in out  # and is not started again
  assert len([c for c in fakes.calls() if "--command=bash pod-worker.sh start" in c]) == 1
