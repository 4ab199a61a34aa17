"""Does our model compute what HF's does, from the same weights? Logits and greedy text, side by side."""

from collections.abc import Callable
import dataclasses
import functools
import importlib.util
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentbank_jax.bundle import Bundle
from agentbank_jax.convert.numpy_reference import reference_logits
from agentbank_jax.errors import UserError
from agentbank_jax.models.config import LlamaConfig

# (canonical params, config, tokens int32 [B, T]) -> float32 logits [B, T, V]
LogitsFn = Callable[[dict[str, Any], LlamaConfig, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Parity:
  """What a comparison found.

  Attributes:
    reference: who was right by definition: "transformers VERSION" or "numpy".
    positions: how many positions' logits were compared.
    max_abs_difference: of any logit.
    argmax_agreement: fraction of positions with the same likeliest token.
    greedy_tokens: how many tokens each side wrote by itself, per row.
    greedy_equal: fraction of rows where both wrote the same.
  """

  reference: str
  positions: int
  max_abs_difference: float
  argmax_agreement: float
  greedy_tokens: int
  greedy_equal: float


def check_parity(bundle: Bundle, hf_folder: pathlib.Path, *, rows: int, length: int, greedy_tokens: int,
                 seed: int, round_to: str = "float32", reference: str = "auto",
                 logits_fn: LogitsFn | None = None) -> Parity:
  """Compares our logits from `bundle` with HF's from `hf_folder`, both in float32, on random tokens.


  Args:
    rows, length: of the random tokens.
    greedy_tokens: how many tokens each side continues every row with.
    seed: of the random tokens.
    round_to: dtype both sides' weights are rounded to first: where a conversion narrowed them, the narrow one,
      so that rounding is not taken for an error.
    reference: "transformers" (needs PyTorch), "numpy", or "auto": the first where it can run.
    logits_fn: our model; None for `models.llama`.
  """
  if reference == "auto":
    reference = "transformers" if importlib.util.find_spec("torch") else "numpy"
  if reference == "transformers":
    reference, theirs = _transformers(hf_folder, round_to)
  else:
    theirs = lambda tokens: reference_logits(hf_folder, tokens, round_to=round_to)
  params = jax.tree.map(lambda array: array.astype(np.float32), bundle.load_params(dtype=round_to))
  logits_fn = logits_fn or llama_logits
  ours = lambda tokens: np.asarray(logits_fn(params, bundle.config, tokens))
  tokens = np.random.default_rng(seed).integers(bundle.config.vocab_size, size=(rows, length), dtype=np.int32)
  (a, a_wrote), (b, b_wrote) = (_continue_greedily(f, tokens, greedy_tokens) for f in (ours, theirs))
  return Parity(
    reference=reference,
    positions=rows * length,
    max_abs_difference=float(np.abs(a - b).max()),
    argmax_agreement=float((a.argmax(-1) == b.argmax(-1)).mean()),
    greedy_tokens=greedy_tokens,
    greedy_equal=float((a_wrote == b_wrote).all(-1).mean()),
  )


def require(parity: Parity, tolerance: float, what: str):
  """Raises UserError if any logit differs by more than `tolerance`, NaN included."""
  if not parity.max_abs_difference <= tolerance:
    raise UserError(f"{what}: logits differ from {parity.reference} by up to {parity.max_abs_difference:.3g} "
                    f"(tolerance {tolerance:g}; likeliest tokens agree at {parity.argmax_agreement:.1%})")


def llama_logits(params: dict[str, Any], config: LlamaConfig, tokens: np.ndarray) -> np.ndarray:
  """Runs `models.llama` in float32; see `LogitsFn`."""
  return _compiled_llama(config)(params, tokens)


@functools.cache
def _compiled_llama(config: LlamaConfig):
  from agentbank_jax.models import llama
  from agentbank_jax.models.execution import Execution

  execution = Execution(layers="scan", attention="full", matmul="native", remat="none",
                        compute_dtype="float32", loss_chunk=1, query_block=1, splash_block=128)

  def run(params, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    with jax.default_matmul_precision("highest"):  # TPUs and GPUs would round float32 operands
      return llama.bind(config, params, execution).logits(tokens, positions, jnp.ones_like(tokens), execution)

  return jax.jit(run)


def _transformers(folder: pathlib.Path, round_to: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
  """Returns the reference's name and its logits function."""
  import transformers

  load = transformers.AutoModelForCausalLM.from_pretrained
  model = load(folder, dtype=round_to, attn_implementation="eager").float().eval().requires_grad_(False)

  def logits(tokens):
    ids = transformers.BatchEncoding({"input_ids": tokens.astype(np.int64)}, tensor_type="pt")["input_ids"]
    return model(input_ids=ids, use_cache=False).logits.numpy()

  return f"transformers {transformers.__version__}", logits


def _continue_greedily(logits_fn, tokens: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the logits of `tokens` [B, T, V], and the `count` likeliest tokens the model writes on [B, count]."""
  rows, length = tokens.shape
  # One shape, so one compilation: attention looks back alone, and what is not yet written changes nothing.
  padded = np.concatenate([tokens, np.zeros((rows, count), tokens.dtype)], 1)
  first = logits = logits_fn(padded)
  for end in range(length, length + count):
    padded[:, end] = logits[:, end - 1].argmax(-1)
    logits = logits_fn(padded)
  return first[:, :length], padded[:, length:]
