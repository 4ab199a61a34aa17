"""kill -9 at random moments of training and of checkpointing, again and again: what is lost, and what is left.

Every process is forked from one that has imported all (`forkserver`), and all share one cache of compiled programs, so
a start takes some seconds. AGENTBANK_KILLS changes the number of kills, AGENTBANK_KILLS_SEED their moments;
`pytest -m slow tests/test_kills.py -s` tells what they hit. (One kill is in the default suite, in `test_train`.)
"""

import collections
import json
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
from training_samples import save_packed, write_training_config

STEPS = 200
KEPT = 2
SETTINGS = {"train.steps": STEPS, "train.checkpoint_every": 2, "train.keep_last": KEPT}


def _run(config, workdir, cache):
  """What a process does: the command line's own `agentbank train`."""
  os.environ["XLA_FLAGS"] = ""  # one device
  for number in (1, 2):
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
  import jax
  for name, value in {"jax_compilation_cache_dir": str(cache), "jax_persistent_cache_min_compile_time_secs": 0.0,
                      "jax_persistent_cache_min_entry_size_bytes": -1}.items():
    jax.config.update(name, value)
  from agentbank_jax import cli
  cli.main(["agentbank", "train", f"--config={config}", f"--workdir={workdir}"])


class _Runs:
  """Starts processes of a run; each lies in a folder of its own."""

  def __init__(self, folder, packed):
    self._config = write_training_config(folder / "config.py", packed, SETTINGS | {"train.keep_every": 2})
    self._thinned = write_training_config(folder / "thinned.py", packed, SETTINGS)
    self._cache = folder / "cache"
    self._context = multiprocessing.get_context("forkserver")
    self._context.set_forkserver_preload(["agentbank_jax.cli", "agentbank_jax.train", "tensorflow_datasets", "grain",
                                          "array_record.python.array_record_module", "test_kills"])

  def start(self, workdir, keep_all=False):
    config = self._config if keep_all else self._thinned
    process = self._context.Process(target=_run, args=(config, workdir, self._cache))
    process.start()
    return process


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("kills")
  return _Runs(folder, save_packed(folder))


@pytest.fixture(scope="module")
def unbroken(runs, tmp_path_factory):
  """A run that nothing disturbed, with every checkpoint kept."""
  workdir = tmp_path_factory.mktemp("unbroken")
  process = runs.start(workdir, keep_all=True)
  process.join()
  assert process.exitcode == 0
  return workdir


def _checkpoints(workdir):
  """Returns the steps of whole checkpoints, which have taken their name, and the number of half-written ones."""
  folder = workdir / "checkpoints"
  names = [path.name for path in folder.iterdir()] if folder.exists() else []
  return sorted(int(name) for name in names if name.isdigit()), sum("tmp" in name for name in names)


def _losses(workdir):
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  values = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be half a line
  return [(line["step"], line["loss"]) for line in values if "loss" in line]


def _arrays(checkpoint):
  """Returns every array of a checkpoint, parameters and optimizer state, by Orbax alone."""
  import jax
  from orbax.checkpoint import v1 as ocp
  loaded = {part: ocp.load(checkpoint, checkpointable_name=part) for part in ("params", "optimizer")}
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(loaded)}


def _assert_equal(checkpoint, expected):
  ours, theirs = _arrays(checkpoint), _arrays(expected)
  assert ours.keys() == theirs.keys() and len(ours) > 20
  for name, array in theirs.items():
    np.testing.assert_array_equal(ours[name], array, err_msg=f"{checkpoint} {name}")


def _check(workdir, unbroken, complete):
  """What must hold after every kill. `complete`: steps of the checkpoints that were whole shortly before it.

  Those before the ones that are kept may be half deleted: they go when the run goes on, see `_assert_end`.
  """
  steps, half_written = _checkpoints(workdir)
  if complete:
    assert steps[-1] >= complete[-1]
  for step in steps[-KEPT:]:
    _assert_equal(workdir / "checkpoints" / str(step), unbroken / "checkpoints" / str(step))
  losses, expected = _losses(workdir), _losses(unbroken)
  assert losses == expected[:len(losses)]
  assert len(losses) >= (steps[-1] if steps else 0)
  return half_written


def _wait_for_a_moment(process, workdir, chance, lives):
  """Returns at a moment of chance, or when the process has ended.

  A quarter of the moments are at any time of a process's life, most of which is its start; a quarter while it trains;
  half just after a checkpoint has been begun.

  Args:
    chance: random.Random.
    lives: seconds that processes have lived so far.
  """
  began, written = time.monotonic(), _checkpoints(workdir)[0]
  target, kind = (written[-1] if written else 0) + 2 * chance.randint(1, 3), chance.choice("ltcc")
  if kind == "l":
    begun, seconds = lambda: True, chance.uniform(0.0, max(lives[-5:], default=4.0))
  elif kind == "t":
    begun, seconds = lambda: _checkpoints(workdir)[0] != written, chance.uniform(0.0, 1.0)
  else:
    begun = lambda: any(path.name.split(".")[0] == str(target) for path in (workdir / "checkpoints").glob("*"))
    seconds = chance.uniform(0.0, 0.03)
  while process.is_alive() and not begun():
    time.sleep(0.001)
  moment = time.monotonic() + seconds
  while process.is_alive() and time.monotonic() < moment:
    time.sleep(0.001)
  lives.append(time.monotonic() - began)


def _kill_again_and_again(kills, runs, unbroken, folder, seed):
  """Kills so many times; a run that comes to its end in spite of it is compared, and followed by another."""
  chance, seen, lives, workdir = random.Random(seed), collections.Counter(), [], folder / "0"
  began = time.time()
  while True:
    written = _checkpoints(workdir)[0]
    process, complete = runs.start(workdir), written
    if seen["kills"] < kills:
      _wait_for_a_moment(process, workdir, chance, lives)
      complete = _checkpoints(workdir)[0]
      process.kill()
    process.join()
    if process.exitcode == -signal.SIGKILL:
      seen["kills"] += 1
      print(f"kill {seen['kills']}: {_checkpoints(workdir)}", flush=True)
      seen["before a step was done"] += len(_losses(workdir)) <= (written[-1] if written else 0)
      seen["in the middle of a checkpoint"] += _check(workdir, unbroken, complete) > 0
      continue
    assert process.exitcode == 0
    _assert_end(workdir, unbroken, seen, time.time() - began)
    began = time.time()
    if seen["kills"] == kills:
      print(f"\n{dict(seen)}")
      return seen
    workdir = folder / str(seen["runs that came to their end"])


def _assert_end(workdir, unbroken, seen, seconds):
  """A run that was killed many times is the unbroken one, bit for bit, and its account of time adds up."""
  assert _losses(workdir) == _losses(unbroken)
  assert _checkpoints(workdir) == ([STEPS - 2, STEPS], 0)
  _check(workdir, unbroken, [STEPS])
  ours, theirs = ({path.relative_to(folder): path.read_bytes() for path in sorted((folder / "model").rglob("*.json"))}
                  for folder in (workdir, unbroken))
  assert ours == theirs
  goodput = json.loads((workdir / "summary.json").read_text())["goodput"]
  assert sum(goodput["shares"].values()) == pytest.approx(1) and min(goodput["shares"].values()) >= 0
  assert goodput["wall_seconds"] < seconds + 2  # the kernel tells the time of a process's start in whole seconds
  seen["runs that came to their end"] += 1
  seen["steps done again"] += goodput["steps_redone"]


@pytest.mark.slow
def test_a_hundred_kills(runs, unbroken, tmp_path):
  kills = int(os.environ.get("AGENTBANK_KILLS", "100"))
  seed = int(os.environ.get("AGENTBANK_KILLS_SEED", str(random.randrange(10**6))))
  print(f"seed {seed}")
  seen = _kill_again_and_again(kills, runs, unbroken, tmp_path, seed)
  assert seen["in the middle of a checkpoint"] > 0
