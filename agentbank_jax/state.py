"""The train state: parameters, optimizer state and step count, made already cut across the mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from agentbank_jax.models import llama, lora
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.execution import Execution


class TrainState(NamedTuple):
  """What a step turns into the next.

  Attributes:
    params: in the execution's layout (see `models.llama.to_layout`); float32, but for the frozen ones under LoRA.
    opt_state: optax's, over the trainable parameters, its moments laid out as they.
    step: int32 scalar, optimizer steps done.
  """

  params: Any
  opt_state: Any
  step: jax.Array


def init_state(config: LlamaConfig, tx: optax.GradientTransformation, execution: Execution, seed: int,
               params=None) -> TrainState:
  """Makes the first state; no device ever holds more than its own part.

  Args:
    params: canonical parameters to start from, or None to draw them from `seed`.
  """
  if params is None:
    params = llama.init_params(config, seed, execution.sharding)
  return place(canonical_init(params, tx, execution, config), execution, config.num_layers)


def canonical_init(params, tx, execution, config) -> TrainState:
  """Returns the canonical state of step 0 for canonical `params`."""
  shardings = state_shardings(config, tx, execution)
  opt_state = jax.jit(tx.init, out_shardings=None if shardings is None else shardings.opt_state)(
      lora.split(params, config)[0])
  return TrainState(params, opt_state, jnp.int32(0))


def with_adapters(params, config: LlamaConfig, execution: Execution, seed: int):
  """Puts fresh adapters on canonical parameters of the model without them; see `lora.attach`."""
  shardings = None if execution.sharding is None else llama.param_shardings(config, execution.sharding)
  attach = lambda params, key: lora.attach(params, config, llama.draw_params(config, key))
  return jax.jit(attach, out_shardings=shardings)(params, jax.random.key(seed))


def abstract_state(config: LlamaConfig, tx: optax.GradientTransformation, execution: Execution) -> TrainState:
  """Returns the canonical state's shapes, with shardings where the execution has a mesh: what a restore fills."""
  params = llama.abstract_params(config)
  shapes = TrainState(params, jax.eval_shape(tx.init, lora.split(params, config)[0]),
                      jax.ShapeDtypeStruct((), jnp.int32))
  shardings = state_shardings(config, tx, execution)
  if shardings is None:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
  return jax.tree.map(lambda s, n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=n), shapes, shardings)


def state_shardings(config: LlamaConfig, tx: optax.GradientTransformation, execution: Execution) -> TrainState | None:
  """Returns the canonical state's shardings, moments as their parameters, or None without a mesh."""
  sharding = execution.sharding
  if sharding is None:
    return None
  params = llama.abstract_params(config)
  shardings = llama.param_shardings(config, sharding)
  trainable, cut = lora.split(params, config)[0], lora.split(shardings, config)[0]
  opt_state = optax.tree_utils.tree_map_params(
      tx, lambda _, s: s, jax.eval_shape(tx.init, trainable), cut,
      transform_non_params=lambda _: sharding.replicated)
  return TrainState(shardings, opt_state, sharding.replicated)


def place(state: TrainState, execution: Execution, num_layers: int) -> TrainState:
  """Takes a canonical state to the execution's layout."""
  return llama.to_layout(state, num_layers, execution.layers)


def canonical(state: TrainState, execution: Execution) -> TrainState:
  """Undoes `place`."""
  return llama.to_canonical(state, execution.layers)
