"""Where a run's numbers go: a JSON line per report, always; TensorBoard when asked; and the rates among them."""

from collections.abc import Mapping
import json
import time

from agentbank_jax.errors import UserError
from agentbank_jax.files import atomic_path, line_file, read_lines
from agentbank_jax.flops import matmul_params
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.paths import AnyPath


class MetricsLog:
  """Appends to `metrics.jsonl` in a folder; also TensorBoard event files where asked."""

  def __init__(self, folder: AnyPath, resume_step: int, tensorboard: bool, lead: bool = True):
    """Args:
      resume_step: lines of later steps, which a resumed run will write again, are taken away.
      tensorboard: needs the package tensorboardX.
      lead: whether this process writes; of several, one does.

    Raises:
      UserError: tensorboardX is wanted and not installed, or the file there is not ours.
    """
    self._file = self._board = None
    if not lead:
      return
    path = folder / "metrics.jsonl"
    kept = [line for line in read_lines(path, "metrics", "step") if line["step"] <= resume_step]
    with atomic_path(path) as temporary:
      temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    self._file = line_file(path)
    if tensorboard:
      try:
        from tensorboardX import SummaryWriter
      except ImportError:
        raise UserError("train.tensorboard needs tensorboardX: pip install tensorboardX") from None
      # A file of its own for each start; what a killed run had written beyond the step it goes on from is hidden.
      self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1 if resume_step else None,
                                  filename_suffix=f".from{resume_step}")

  def write(self, step: int, values: Mapping[str, float]) -> None:
    if self._file:
      self._file.append(json.dumps({"step": step, **values}))
    if self._board:
      for name, value in values.items():
        self._board.add_scalar(name, value, step)

  def sync(self) -> None:
    """Makes what was written survive the machine, and appear where it is in a bucket."""
    if self._file:
      self._file.sync()

  def close(self) -> None:
    if self._file:
      self._file.close()
    if self._board:
      self._board.close()


class Throughput:
  """Rates over the steps since the last report; pauses (evaluation, checkpoints) are left out.

  MFU = model FLOPs of the real tokens / (seconds * devices * peak FLOP/s of a device), with the model FLOPs of
  `flops.FORMULA`: padding does no useful work, recomputation is not counted, attention counts the keys seen.
  """

  def __init__(self, config: LlamaConfig, devices: int, peak_flops: float | None):
    self._config, self._devices, self._peak = config, devices, peak_flops
    self._reset()

  def _reset(self):
    self._start = time.perf_counter()
    self._positions = self._tokens = self._trained = self._keys = 0

  def add(self, positions: int, tokens: int, trained: int, keys: int) -> None:
    """Counts one step: row positions, those that are no padding, trained tokens, and keys seen by all tokens."""
    self._positions += positions
    self._tokens += tokens
    self._trained += trained
    self._keys += keys

  def exclude(self, seconds: float) -> None:
    """Leaves a pause out of the time."""
    self._start += seconds

  def report(self) -> dict[str, float]:
    """Returns tokens_per_second, trained_tokens_per_second, padding_share and, where the peak is known, mfu."""
    seconds, c = time.perf_counter() - self._start, self._config
    flops = 6 * matmul_params(c) * self._tokens + 12 * c.num_layers * c.num_heads * c.head_dim * self._keys
    rates = {
        "tokens_per_second": self._tokens / seconds,
        "trained_tokens_per_second": self._trained / seconds,
        "padding_share": 1 - self._tokens / max(self._positions, 1),
    }
    if self._peak:
      rates["mfu"] = flops / (seconds * self._devices * self._peak)
    self._reset()
    return rates
