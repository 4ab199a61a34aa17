"""One optimizer step, and one evaluation step, as pure functions to be jitted.

Letter key: B rows of the global batch, L length, S segments of a row, m micro-batches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from agentbank_jax.errors import UserError
from agentbank_jax.losses import cross_entropy_sum, token_nll
from agentbank_jax.models import llama, lora
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.execution import Execution
from agentbank_jax.state import TrainState, place, state_shardings

MODEL_ARRAYS = ("tokens", "targets", "loss_mask", "segment_ids", "positions")
Batch = dict[str, jax.Array]  # MODEL_ARRAYS: [B, L]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def batch_loss(params, batch: Batch, config: LlamaConfig, execution: Execution):
  """Returns the summed cross-entropy over the batch's trained tokens, a float32 scalar."""
  model = llama.bind(config, params, execution)
  x_BLD = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"], execution)
  return cross_entropy_sum(x_BLD, model.head_kernel(execution), batch["targets"], batch["loss_mask"] != 0,
                           execution.loss_chunk, execution.matmul, execution.sharding)


def loss_and_grads(params, batch: Batch, micro_batches: int, config: LlamaConfig, execution: Execution):
  """Returns (loss sum, trained tokens, gradients of the mean loss over those tokens, for trainable parameters).

  Loss and gradients are sums over micro-batches divided once by the count over all of them, so they do not
  depend on how the batch is cut.
  """
  count = jnp.sum(batch["loss_mask"] != 0).astype(jnp.float32)
  trainable, frozen = lora.split(params, config)
  loss_of = lambda batch: lambda p: batch_loss(lora.join(p, frozen), batch, config, execution)
  if micro_batches == 1:
    total, grads = jax.value_and_grad(loss_of(batch))(trainable)
  else:
    # The backward pass adds each layer's gradient to the sum where it lies: there is never a second copy of them all.
    sums = jax.tree.map(lambda p: jax.new_ref(jnp.zeros_like(p)), trainable)

    def body(total, micro):
      loss, backward = jax.vjp(loss_of(micro), trainable)
      backward.with_refs(sums)(jnp.ones_like(loss))
      return total + loss, None

    total, _ = jax.lax.scan(body, jnp.float32(0), _split(batch, micro_batches, execution))
    grads = jax.tree.map(jax.freeze, sums)
  return total, count, jax.tree.map(lambda g: g / jnp.maximum(count, 1), grads)


def _split(batch: Batch, m: int, execution: Execution) -> Batch:
  """Cuts [B, L] into [m, B / m, L]. Micro-batch i takes rows i, i + m, ...: every device keeps its own rows."""
  def cut(x):
    x = jnp.swapaxes(x.reshape(x.shape[0] // m, m, *x.shape[1:]), 0, 1)
    return llama.constrain(x, execution, None, "batch", "length")

  return {k: cut(v) for k, v in batch.items()}


def make_train_step(config: LlamaConfig, execution: Execution, tx: optax.GradientTransformation,
                    schedule: optax.Schedule, micro_batches: int) -> TrainStep:
  """Returns (state, batch) -> (next state, metrics).

  Metrics are float32 scalars: loss, grad_norm (before clipping), learning_rate, tokens, trained_tokens.
  """
  def train_step(state: TrainState, batch: Batch):
    total, count, grads = loss_and_grads(state.params, batch, micro_batches, config, execution)
    trainable, frozen = lora.split(state.params, config)
    updates, opt_state = tx.update(grads, state.opt_state, trainable)
    metrics = {
        "loss": total / jnp.maximum(count, 1),
        "grad_norm": optax.tree_utils.tree_norm(grads),
        "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        "tokens": jnp.sum(batch["segment_ids"] != 0).astype(jnp.float32),
        "trained_tokens": count,
    }
    params = lora.join(optax.apply_updates(trainable, updates), frozen)
    return TrainState(params, opt_state, state.step + 1), metrics

  return train_step


def jit_train_step(config: LlamaConfig, execution: Execution, tx: optax.GradientTransformation,
                   schedule: optax.Schedule, micro_batches: int):
  """Returns `make_train_step`'s function, jitted: the next state takes the place of the last, cut in the same way."""
  shardings = state_shardings(config, tx, execution)
  if shardings is not None:
    shardings = place(shardings, execution, config.num_layers), execution.sharding.replicated
  return jax.jit(make_train_step(config, execution, tx, schedule, micro_batches), donate_argnums=0,
                 out_shardings=shardings)


def check_batch(batch_size: int, micro_batches: int, execution: Execution) -> None:
  """Raises UserError where a batch cannot be dealt out to the mesh and the micro-batches."""
  shards = execution.shards("batch")
  if batch_size % (shards * micro_batches):
    raise UserError(f"data.batch_size = {batch_size} is not a multiple of {shards} batch shards of the mesh x "
                    f"data.micro_batches = {micro_batches}")


def make_eval_step(config: LlamaConfig, execution: Execution, max_segments: int) -> Callable:
  """Returns (params, batch) -> (loss sums, trained tokens) of each segment: float32 [B, S], segment 1 first."""
  def eval_step(params, batch: Batch):
    model = llama.bind(config, params, execution)
    x_BLD = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"], execution)
    nll_BL = token_nll(x_BLD, model.head_kernel(execution), batch["targets"], execution.loss_chunk,
                       execution.sharding)
    mask_BL = (batch["loss_mask"] != 0).astype(jnp.float32)
    per_segment = jax.vmap(lambda values, ids: jax.ops.segment_sum(values, ids, max_segments + 1)[1:])
    return per_segment(nll_BL * mask_BL, batch["segment_ids"]), per_segment(mask_BL, batch["segment_ids"])

  return eval_step
