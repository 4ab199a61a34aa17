"""`python -m launch` on SLURM, against fake sbatch, srun and sacct that really run the job."""

import re

from launch_tool import ROOT, SLURM, launch
import pytest

pytestmark = pytest.mark.usefixtures("in_checkout")


def _slurm(fakes, tmp_path, command, *flags):
  fakes.play(tasks=2)
  return launch("run", SLURM, tmp_path / "w", f"--config.folder={tmp_path}", f"--config.command={command}", *flags)


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
  assert launch("setup", [config, f"--config.source={checkout}", f"--config.python={python}"], tmp_path / "w") == 0
  assert (tmp_path / "agentbank/requirements.lock").read_text() == "jax==0.10.2\n"
  install, = fakes.calls()
  assert install[-1] == f"{tmp_path}/agentbank[gpu]"


def test_a_batch_job_is_stopped_and_ended(fakes, tmp_path):
  (tmp_path / "job_id").write_text("4711\n")
  assert launch("stop", SLURM, tmp_path) == 0
  assert launch("delete", SLURM, tmp_path) == 0
  assert fakes.calls() == [["scontrol", "update", "JobId=4711", "Requeue=0"], ["scancel", "--signal=TERM", "4711"],
                           ["scancel", "4711"]]
