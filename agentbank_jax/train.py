"""`agentbank train`: the loop. Restore, step, report, evaluate, save, stop."""

from collections.abc import Iterator
import contextlib
import dataclasses
import math
import operator
import os
import signal
import time
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from agentbank_jax import data, distributed, flops, goodput, notices
from agentbank_jax import step as steps
from agentbank_jax.bundle import write_bundle
from agentbank_jax.checkpoint import Checkpoints
from agentbank_jax.convert.peft import write_adapter
from agentbank_jax.errors import Interrupted, UserError
from agentbank_jax.goodput import Goodput
from agentbank_jax.kernels.parity import check_kernel
from agentbank_jax.metrics import MetricsLog, Throughput
from agentbank_jax.models import execution as execution_lib
from agentbank_jax.models import lora
from agentbank_jax.models.config import num_params
from agentbank_jax.optim import make_optimizer, make_schedule
from agentbank_jax.paths import AnyPath, make_folder
from agentbank_jax.sharding import global_batch, run_sharding
from agentbank_jax.starting_model import architecture, fit_to_data, starting_params
from agentbank_jax.state import abstract_state, canonical, init_state, place


def run(config, workdir: AnyPath, started: float | None = None) -> dict[str, Any]:
  """Trains a model on packed rows; resumes where a run in `workdir` stopped. See `configs/train_tiny.py`.

  Leaves in `workdir`: checkpoints/, metrics.jsonl, goodput.jsonl, and model/ (a bundle) at the end.

  Args:
    started: when this process was made, in unix seconds, for the account of its time; None: now.

  Returns:
    The summary: steps, last losses, counts, rates, goodput.

  Raises:
    UserError: anything in config or data that does not fit; a loss that is not finite.
    Interrupted: SIGTERM or SIGINT came; the state is saved.
  """
  started = time.time() if started is None else started
  trainer = distributed.start_together("trainer", lambda: Trainer(config, workdir, started),
                                       config.distributed.start_seconds)
  return trainer.run()


class Trainer:
  """One training run: what is fixed during it, and the loop over it."""

  def __init__(self, config, workdir: AnyPath, started: float | None = None):
    self.config, self.workdir = config, workdir
    self.goodput = Goodput(workdir / "goodput.jsonl", started, lead=jax.process_index() == 0)
    self.dataset = data.PackedDataset.open(config.data.path)
    if "train" not in self.dataset.num_rows:
      raise UserError(f"{self.dataset.path} has no split 'train'; pack with a smaller eval_share")
    self.model = fit_to_data(architecture(config.model), self.dataset)
    sharding = run_sharding(config.mesh, config.rules)
    self.execution = execution_lib.resolve(config.execution, jax.default_backend(), sharding,
                                           max_segments=self.dataset.max_segments)
    _check_settings(config, self.execution, self.dataset)
    # Which of the equal blocks of a batch this process's devices hold: processes that hold one together read it both.
    self.reader, self.readers = distributed.batch_block(sharding.named("batch")) if sharding else (0, 1)
    self.batch_size = config.data.batch_size
    self.total_steps = _total_steps(config.train, self.dataset.num_rows["train"], self.batch_size)
    self.schedule = make_schedule(config.optim, self.total_steps)
    self.tx = make_optimizer(config.optim, self.schedule)
    self.train_step = steps.jit_train_step(self.model, self.execution, self.tx, self.schedule,
                                           config.data.micro_batches)
    self.kernel_error = check_kernel(self.execution, self.model)
    if self.kernel_error is not None and jax.process_index() == 0:
      print(f"execution.attention = {self.execution.attention}: within {self.kernel_error:.2%} of the full score "
            "matrix on this device", flush=True)
    self.eval_step = jax.jit(steps.make_eval_step(self.model, self.execution, self.dataset.max_segments))
    self.rates = Throughput(self.model, jax.device_count(),
                            flops.peak_flops(jax.devices()[0].device_kind, config.train.peak_flops))

  def run(self) -> dict[str, Any]:
    train, lead = self.config.train, jax.process_index() == 0
    make_folder(self.workdir)
    folder = self.workdir / "checkpoints"
    with contextlib.closing(self.goodput):
      with (Checkpoints(folder, train.keep_last, train.keep_every) as checkpoints, _Signals() as stop,
            notices.Watch(train.maintenance, stop.request)):
        state, record = self._start(checkpoints)
        first = int(state.step)
        self.goodput.open(first)
        log = MetricsLog(self.workdir, first, train.tensorboard, lead)
        with contextlib.closing(log):
          state, last = self._loop(state, first, checkpoints, log, stop)
        with self.goodput.within("checkpoint"):
          checkpoints.save(canonical(state, self.execution), self._record(), wait=True)
      self.goodput.enter("end")
      if train.write_model is not None:
        self._write_model(state)
      if self.model.lora and train.write_adapter:
        self._write_adapter(state)
      self.goodput.write(self.total_steps)
    spent = self.goodput.report()
    if spent:
      print(goodput.describe(spent), flush=True)
    return {
        "steps": self.total_steps,
        "resumed_from": first if record else None,
        "parameters": num_params(self.model),
        "trained_parameters": sum(p.size for p in jax.tree.leaves(lora.split(state.params, self.model)[0])),
        "rows": self.dataset.num_rows,
        "epochs": self.total_steps * self.batch_size / self.dataset.num_rows["train"],
        "metrics": last,
        "flops_formula": flops.FORMULA,
        "execution": {f.name: getattr(self.execution, f.name) for f in dataclasses.fields(self.execution)
                      if f.name != "sharding"},
        "attention_error": self.kernel_error,  # of its kernel, measured at the start
        "goodput": spent,
    }

  def _start(self, checkpoints: Checkpoints):
    """Returns the newest checkpoint's state and record, or a fresh state and None."""
    restored = checkpoints.restore(abstract_state(self.model, self.tx, self.execution))
    if restored is None:
      params = None
      if self.config.model.init_from is not None:
        params = starting_params(self.config, self.model, self.dataset, self.execution)
      return init_state(self.model, self.tx, self.execution, self.config.seed, params), None
    state, record = restored
    wanted = self._record()
    for key, value in wanted.items():
      if record.get(key) != value:
        raise UserError(f"{checkpoints.directory}: this run was started with {key} = {record.get(key)!r}, the config "
                        f"now gives {value!r}; its data order cannot go on. Use another --workdir, or the old config")
    if int(state.step) > self.total_steps:
      raise UserError(f"{checkpoints.directory} is at step {int(state.step)}, beyond the {self.total_steps} steps "
                      "of the config")
    if jax.process_index() == 0:
      print(f"resuming at step {int(state.step)} of {self.total_steps}", flush=True)
    return place(state, self.execution, self.model.num_layers), record

  def _record(self) -> dict[str, Any]:
    """What decides the data order, besides the step: kept in each checkpoint, and compared on resume."""
    return {"data_fingerprint": self.dataset.fingerprint, "rows": self.dataset.num_rows["train"],
            "seed": self.config.seed, "batch_size": self.batch_size, "total_steps": self.total_steps}

  def _loop(self, state, first: int, checkpoints: Checkpoints, log: MetricsLog, stop: "_Signals"):
    """Runs steps `first`.. to the end. Returns the last state and the last metrics written.

    The metrics of a step are read only when the next one is on its way, so the devices never wait for the log.
    """
    train, last, pending = self.config.train, {}, None
    batches = self._train_batches(first)
    with tqdm(total=self.total_steps, initial=first, desc="train", unit="step",
              disable=jax.process_index() != 0) as bar:
      for number in range(first + 1, self.total_steps + 1):
        with self.goodput.within("input"):
          host_batch = next(batches)
          batch = self._to_device(host_batch, self.batch_size)
        state, metrics = self.train_step(state, batch)
        self.goodput.enter("step")  # the first is compiled by now
        if pending is not None:
          last |= self._report(*pending, log, bar)
        pending = (number, metrics, host_batch)
        last_step = number == self.total_steps
        evaluate = (train.eval_every and number % train.eval_every == 0) or last_step
        stopping = stop.reached(number)
        save = (train.checkpoint_every and number % train.checkpoint_every == 0) or stopping
        if not (evaluate or save):
          continue
        last |= self._report(*pending, log, bar)
        pending, began = None, time.perf_counter()
        if evaluate and "eval" in self.dataset.num_rows:
          with self.goodput.within("evaluation"):
            values = self.evaluate(state.params)
          log.write(number, values)
          last |= values
        if save:
          with self.goodput.within("checkpoint"):
            log.sync()
            checkpoints.save(canonical(state, self.execution), self._record(), wait=stopping)
          self.goodput.write(number, sync=True)
        self.rates.exclude(time.perf_counter() - began)
        if stopping and not last_step:
          raise Interrupted(f"stopped at step {number} of {self.total_steps}; saved. Run the same command to go on")
    return state, last

  def _report(self, number: int, metrics, host_batch, log: MetricsLog, bar: tqdm) -> dict[str, float]:
    """Reads a step's metrics, checks them, and writes them where the config says so. Returns what it wrote."""
    values = {k: float(v) for k, v in metrics.items()}
    if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
      part = "" if self.readers == 1 else f"_rows_{self.reader}_of_{self.readers}"
      path = self.workdir / f"not_finite_step_{number}{part}.npz"
      with path.open("wb") as file:
        np.savez(file, **host_batch)
      raise UserError(f"loss {values['loss']}, gradient norm {values['grad_norm']} at step {number}: not finite. "
                      f"The batch is in {path}; the last checkpoint is from before")
    positions = host_batch["positions"][host_batch["segment_ids"] != 0].astype(np.int64) + 1
    keys = positions if self.model.sliding_window is None else np.minimum(positions, self.model.sliding_window)
    scale = self.readers  # the rates are the whole job's
    self.rates.add(self.batch_size * self.dataset.seq_len, int(values["tokens"]), int(values["trained_tokens"]),
                   int(keys.sum()) * scale)
    bar.update(1)
    if number % self.config.train.log_every and number != self.total_steps:
      return {}
    values |= self.rates.report()
    log.write(number, values)
    self.goodput.write(number)
    bar.set_postfix(loss=f"{values['loss']:.3f}", tokens_s=f"{values['tokens_per_second']:.0f}")
    return values

  def evaluate(self, params) -> dict[str, float]:
    """Returns the mean loss per trained token of the split "eval": over all, of each task and of each skill."""
    tasks, skills = self.dataset.tasks, self.dataset.skills
    nll, count = np.zeros(len(tasks)), np.zeros(len(tasks))
    rows = self.config.train.eval_batch_size
    total = data.num_steps(self.dataset.num_rows["eval"], rows, 1)
    batches = data.batches(self.dataset, "eval", rows, seed=None, epochs=1,
                           process_index=self.reader, process_count=self.readers)
    for batch in tqdm(batches, total=total, desc="eval", leave=False, disable=jax.process_index() != 0):
      sums, counts = self.eval_step(params, self._to_device(batch, rows))
      tasks_BS = {"tasks": batch["segment_tasks"]}
      task_BS = _host(global_batch(tasks_BS, self.execution.sharding, rows, ("batch", None))["tasks"])
      real = task_BS >= 0
      np.add.at(nll, task_BS[real], _host(sums)[real])
      np.add.at(count, task_BS[real], _host(counts)[real])
    values = {"eval/loss": nll.sum() / count.sum()}
    for kind, names in (("task", tasks), ("skill", skills)):
      for name in sorted(set(names)):
        mine = np.array([n == name for n in names])
        if count[mine].sum():
          values[f"eval/{kind}/{name}"] = nll[mine].sum() / count[mine].sum()
    return values

  def _train_batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
    return data.batches(self.dataset, "train", self.batch_size, seed=self.config.seed, start_step=start_step,
                        process_index=self.reader, process_count=self.readers)

  def _to_device(self, batch, batch_size: int):
    return global_batch({k: batch[k] for k in steps.MODEL_ARRAYS}, self.execution.sharding, batch_size)

  def _write_model(self, state) -> None:
    dtype, params, model = self.config.train.write_model, canonical(state, self.execution).params, self.model
    if model.lora:
      params, model = lora.merge(params, model)
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    write_bundle(self.workdir / "model", model, params, self.dataset.path / "tokenizer", self.dataset.format,
                 overwrite=True)

  def _write_adapter(self, state) -> None:
    adapters, _ = lora.split(canonical(state, self.execution).params, self.model)
    adapters = jax.tree.map(_host, adapters)
    if jax.process_index() == 0:
      write_adapter(self.workdir / "adapter", adapters, self.model, self.config.model.init_from, overwrite=True)


class _Signals:
  """Notes SIGTERM and SIGINT instead of dying of them; the loop asks between steps.

  Of several processes one alone may be told, and all must stop after the same step. So there jax takes SIGTERM, and
  lets all processes agree on a step (`reached_preemption_sync_point`); SIGINT and `request` are passed on to it.
  """

  received = False  # asked to stop, by whomever
  _signalled = False

  def reached(self, step: int) -> bool:
    """Whether to stop after `step`; every process gets the same answer. Ask once after every step."""
    if jax.process_count() == 1:
      return self.received
    from jax.experimental import multihost_utils
    return multihost_utils.reached_preemption_sync_point(step)

  def request(self) -> None:
    """Asks for the stop, from any thread; a signal that comes after it is the first."""
    self.received = True
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)

  def __enter__(self):
    self._old = {}
    for number in (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,):
      with contextlib.suppress(ValueError):  # not in the main thread: a notebook, a test
        self._old[number] = signal.signal(number, self._note)
    return self

  def _note(self, number, frame):
    if self._signalled:  # asked twice: now
      signal.signal(number, self._old[number])
      signal.raise_signal(number)
    self.received = self._signalled = True
    if jax.process_count() > 1:
      signal.raise_signal(signal.SIGTERM)

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)


def _check_settings(config, execution: execution_lib.Execution, dataset: data.PackedDataset) -> None:
  """Raises UserError, before a step is done, for what would fail in the middle of the run or at its end."""
  lowest = {"data.batch_size": 1, "data.micro_batches": 1, "train.eval_batch_size": 1, "train.log_every": 1,
            "train.eval_every": 0, "train.checkpoint_every": 0, "train.keep_last": 1, "train.keep_every": 1, "seed": 0}
  for key, least in lowest.items():
    value = operator.attrgetter(key)(config)
    if value is not None and value < least:
      raise UserError(f"{key} is {value}; it must be at least {least}")
  notices.check(config.train.maintenance)
  if config.train.eval_every and "eval" not in dataset.num_rows:
    raise UserError(f"train.eval_every is {config.train.eval_every} and {dataset.path} has no split 'eval': set it to "
                    "0, or pack with eval_share or eval_sources")
  if config.data.seq_len not in (None, dataset.seq_len):
    raise UserError(f"data.seq_len is {config.data.seq_len}, the rows of {dataset.path} have {dataset.seq_len} "
                    "positions; pack again with that seq_len, or set data.seq_len to None")
  steps.check_batch(config.data.batch_size, config.data.micro_batches, execution)
  shards = execution.shards("batch")
  if config.train.eval_batch_size % shards:
    raise UserError(f"train.eval_batch_size = {config.train.eval_batch_size} is not a multiple of {shards} batch "
                    "shards of the mesh")
  if config.train.write_model not in ("float32", "bfloat16", None):
    raise UserError(f"train.write_model is {config.train.write_model!r}; choose float32, bfloat16 or None")


def _total_steps(config, rows: int, batch_size: int) -> int:
  if (config.steps is None) == (config.epochs is None):
    raise UserError("give one of train.steps and train.epochs")
  steps = config.steps if config.steps is not None else data.num_steps(rows, batch_size, config.epochs)
  if steps < 1:
    raise UserError(f"train.steps = {config.steps}, train.epochs = {config.epochs}: there is no step to do")
  return steps


def _host(array: jax.Array) -> np.ndarray:
  if array.is_fully_addressable:
    return np.asarray(array)
  from jax.experimental import multihost_utils
  return multihost_utils.process_allgather(array, tiled=True)
