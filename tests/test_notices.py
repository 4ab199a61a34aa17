"""What the cloud says of a machine's end: what counts as such, and that a run saves and stops for it."""

import json
import signal
import threading
import time

import jax
import metadata_server
import pytest
from training_samples import make_training, save_packed, write_training_config

from agentbank_jax import cli, metrics, notices, train
from agentbank_jax.errors import UserError


@pytest.fixture
def server(monkeypatch):
  with metadata_server.serve() as server:
    monkeypatch.setenv("GCE_METADATA_HOST", server.host)
    monkeypatch.setattr(notices, "_EVERY_SECONDS", 0.01)
    yield server


ONGOING = '{"maintenance_status": "ONGOING", "type": "UNSCHEDULED",\n "window_start_time": "2026-01-01T00:00:00Z"}'


@pytest.mark.parametrize("key, answer, notice", [
    ("maintenance-event", "NONE", None),
    ("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE", None),  # it is moved while it runs
    ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", "maintenance-event: TERMINATE_ON_HOST_MAINTENANCE"),
    ("preempted", "FALSE", None),
    ("preempted", "TRUE", "preempted: TRUE"),
    ("upcoming-maintenance", ONGOING.replace("ONGOING", "PENDING"), None),
    ("upcoming-maintenance", ONGOING, "upcoming-maintenance: " + ONGOING.replace("\n", "")),
])
def test_what_is_a_notice(server, key, answer, notice):
  server.answers[key] = answer
  assert notices.find() == notice


def test_a_watch_tells_once_and_asks_no_more(server):
  told = threading.Event()
  with notices.Watch("auto", told.set):
    while server.asked.count("preempted") < 3:
      time.sleep(0.01)
    assert not told.is_set()
    server.answers["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    assert told.wait(60)
    asked = len(server.asked)
    time.sleep(0.1)
    assert len(server.asked) == asked


def test_off_asks_nothing(server):
  with notices.Watch("off", lambda: None):
    time.sleep(0.05)
  assert server.asked == []


def test_elsewhere_nobody_is_asked_again(server, monkeypatch):
  del server.answers["id"]
  with notices.Watch("auto", lambda: None):
    while not server.asked:
      time.sleep(0.01)
    time.sleep(0.1)
  assert server.asked == ["id"]
  monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
  assert notices.find() is None


def test_a_signal_after_a_notice_is_the_first():
  with train._Signals() as stop:
    stop.request()
    assert stop.reached(1)
    signal.raise_signal(signal.SIGTERM)  # as the machine ends; a second one would end the process while it saves


def test_a_run_saves_and_stops_for_a_notice(server, tmp_path, monkeypatch, capfd, caplog):
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  packed = save_packed(tmp_path)
  config = write_training_config(tmp_path / "config.py", packed, {"train.steps": 30}, {"num_layers": 1})
  args = ["agentbank", "train", f"--config={config}", f"--workdir={tmp_path / 'run'}"]
  write = metrics.MetricsLog.write

  def write_and_announce(log, step, values):
    write(log, step, values)
    if step == 3:
      server.answers["preempted"] = "TRUE"
      while any(thread.name == "notices" for thread in threading.enumerate()):
        time.sleep(0.01)

  with monkeypatch.context() as patch:
    patch.setattr(metrics.MetricsLog, "write", write_and_announce)
    assert cli._main(args) == 75
  assert caplog.messages.count("this machine is about to go (preempted: TRUE): saving and stopping") == 1
  step, = (path.name for path in (tmp_path / "run/checkpoints").iterdir())
  assert f"agentbank: stopped at step {step} of 30; saved. Run the same command to go on" in capfd.readouterr().err
  assert step in ("4", "5")
  server.answers["preempted"] = "FALSE"
  assert cli._main(args) == 0
  assert json.loads((tmp_path / "run/summary.json").read_text())["resumed_from"] == int(step)


def test_a_wrong_choice_is_told(tmp_path):
  with pytest.raises(UserError, match="train.maintenance is 'on'; choose one of auto, off"):
    train.Trainer(make_training(save_packed(tmp_path), {"train.maintenance": "on"}), tmp_path)
