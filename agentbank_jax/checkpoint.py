"""Checkpoints of the train state: asynchronous, sharded, whole or absent. With `params_store`, all that knows Orbax.

A checkpoint holds the *canonical* state, so it can be restored onto another mesh and another layout, and a small
JSON record: where the data iterator stands (one integer) and what it was reading.

A killed process leaves no half-written checkpoint under a step's name, but it may leave one half deleted: one that is
older than all that are kept. It goes when the run goes on.
"""

from collections.abc import Mapping, Sequence
import contextlib
from typing import Any

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
from orbax.checkpoint import v1 as ocp

from agentbank_jax import params_store
from agentbank_jax.errors import UserError
from agentbank_jax.files import write_failure
from agentbank_jax.paths import AnyPath, absolute, as_path, remove
from agentbank_jax.state import TrainState


class Checkpoints:
  """The checkpoints of one run. Use as a context manager: leaving it waits for the save in flight.

  Attributes:
    directory: holds one folder per step.
  """

  def __init__(self, directory: str | AnyPath, keep_last: int, keep_every: int | None):
    """Args:
      keep_last: how many of the newest stay.
      keep_every: steps whose multiples stay for good, or None.
    """
    params_store.quiet_orbax()
    self.directory = epath.Path(absolute(as_path(directory)))  # Orbax refuses to write under a relative path
    self._keep_last, self._keep_every, self._failed = keep_last, keep_every, False
    policies = ocp.training.preservation_policies
    keep = [policies.LatestN(keep_last)] + ([policies.EveryNSteps(keep_every)] if keep_every else [])
    self._orbax = ocp.training.Checkpointer(
        self.directory, preservation_policy=policies.AnyPreservationPolicy(keep), cleanup_tmp_directories=True)

  def _left_over(self, oldest: int) -> list[int]:
    """What an earlier process would have deleted, had it lived: Orbax deletes file by file, and at saves alone."""
    every = self._keep_every
    found = [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]
    return [step for step in found if step < oldest and (not every or step % every)]

  def _tidy(self, left_over: Sequence[int], damaged: Sequence[int]) -> None:
    """Deletes what is left over, and moves what is damaged out of the steps' way; every process calls it."""
    if jax.process_index() == 0:
      for step in left_over:
        remove(self.directory / str(step))
      for step in damaged:
        aside = self.directory / f"damaged-{step}"
        remove(aside)
        (self.directory / str(step)).rename(aside)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("checkpoints are tidied")
    self._orbax.reload()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def close(self) -> None:
    try:
      with self._disk_errors():
        self._orbax.close()
    finally:
      if self._failed and jax.process_index() == 0:  # what does not fit must not fill the disk either
        for unfinished in self.directory.glob("*.orbax-checkpoint-tmp"):
          unfinished.rmtree()

  @contextlib.contextmanager
  def _disk_errors(self):
    try:
      yield
    except (OSError, ValueError) as e:  # TensorStore reports a failed write as a ValueError
      self._failed = True
      reason = write_failure(e) or getattr(e, "strerror", None) or " ".join(str(e).split())
      raise UserError(f"cannot write a checkpoint to {self.directory}: {reason}") from e

  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, oldest first."""
    return sorted(c.step for c in self._orbax.checkpoints)

  def save(self, state: TrainState, record: Mapping[str, Any], *, wait: bool = False) -> None:
    """Saves a canonical state under its step; returns once the arrays are copied off the devices.

    Args:
      record: JSON values, given back by `restore`.
      wait: block until the checkpoint is complete.

    Raises:
      UserError: the disk is full or not writable, at this save or the one in flight.
    """
    step = int(state.step)
    if step in self.steps():
      return
    with self._disk_errors():
      parts = {"params": state.params, "optimizer": {"opt_state": state.opt_state}}
      self._orbax.save_checkpointables_async(step, parts, force=True, custom_metadata=dict(record))
      if wait:
        self.wait()

  def wait(self) -> None:
    """Blocks until the save in flight is complete."""
    with self._disk_errors():
      self._orbax.wait()

  def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
    """Returns the newest readable canonical state and its record, or None where there is no checkpoint.

    A checkpoint that a process cannot read is passed over by all for the one before it, and said so. Once that is read,
    it is moved aside (`damaged-STEP`): its steps are done and saved again, and it must not count among the newest,
    which stay. It is not deleted: it may be the disk, not the checkpoint, that failed.

    Args:
      abstract: shapes, dtypes and shardings to restore to.

    Raises:
      UserError: a checkpoint of another shape, or checkpoints of which none can be read.
    """
    steps, damaged = self.steps(), []
    for step in reversed(steps):
      try:
        metadata = self._orbax.checkpointables_metadata(step)
        if metadata.metadata["params"] is None:  # Orbax only logs that it could not read them
          raise ValueError("damaged metadata of the parameters")
        _check_shapes(abstract.params, metadata.metadata["params"], f"{self.directory / str(step)}")
        parts = {"params": abstract.params, "optimizer": {"opt_state": abstract.opt_state}}
        with _alone():
          loaded = ocp.load_checkpointables(self.directory / str(step), parts)
      except UserError:
        raise
      except Exception as e:  # Orbax raises many kinds for a damaged checkpoint; all mean: try the one before
        logging.warning("checkpoint %s cannot be read (%s: %s); trying the one before", self.directory / str(step),
                        type(e).__name__, str(e).splitlines()[0] if str(e) else "")
        loaded = None
      if not _all_processes(loaded is not None):
        damaged.append(step)
        continue
      oldest = min(step, steps[-self._keep_last:][0])
      self._tidy(self._left_over(oldest), damaged)  # only now that there is one to go on from
      if damaged:
        logging.warning("going on from step %d; moved aside what cannot be read: %s", step,
                        ", ".join(str(self.directory / f"damaged-{d}") for d in damaged))
      step_array = jax.device_put(jax.numpy.int32(step), abstract.step.sharding)
      record = dict(metadata.custom_metadata or {})
      return TrainState(loaded["params"], loaded["optimizer"]["opt_state"], step_array), record
    if steps:
      raise UserError(f"{self.directory}: none of the {len(steps)} checkpoints can be read; "
                      "move the folder away to start from scratch")
    return None


@contextlib.contextmanager
def _alone():
  """Has Orbax read without waiting for the other processes: where one cannot, the others would wait for good."""
  context, me = ocp.Context(), jax.process_index()
  context.multiprocessing.primary_host, context.multiprocessing.active_processes = me, {me}
  with context:
    yield


def _all_processes(mine: bool) -> bool:
  """Whether it holds in every process: what one cannot read, none goes on from."""
  return mine if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(mine)).all())


def load_params(directory: str | AnyPath, abstract_params, step: int | None = None) -> tuple[Any, int]:
  """Returns the canonical parameters of a run's checkpoint, and its step; the newest by default.

  Raises:
    UserError: no such checkpoint, or one of another shape.
  """
  with ocp.training.Checkpointer(epath.Path(absolute(as_path(directory)))) as orbax:
    steps = sorted(c.step for c in orbax.checkpoints)
    if not steps or (step is not None and step not in steps):
      raise UserError(f"{directory}: no checkpoint" + (f" of step {step}; there are {steps}" if steps else ""))
    step = steps[-1] if step is None else step
    _check_shapes(abstract_params, orbax.checkpointables_metadata(step).metadata["params"], f"{directory}/{step}")
    return orbax.load_checkpointables(step, {"params": abstract_params})["params"], step


def _check_shapes(abstract, metadata, where: str) -> None:
  """Raises UserError where names or shapes differ, naming the first that does."""
  flat = lambda tree: {".".join(str(k.key) for k in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
  want, have = flat(abstract), flat(metadata)
  for name in sorted(want.keys() | have.keys()):
    if name not in have:
      raise UserError(f"{where} has no parameter {name}, which the model needs; is it a checkpoint of another model?")
    if name not in want:
      raise UserError(f"{where} has a parameter {name} that the model does not; is it a checkpoint of another model?")
    if tuple(want[name].shape) != tuple(have[name].shape):
      raise UserError(f"{where}: parameter {name} has shape {tuple(have[name].shape)}, the model's is "
                      f"{tuple(want[name].shape)}; is it a checkpoint of another model?")
