"""The optimizer a config asks for: AdamW with a schedule, clipping and a weight-decay mask."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import optax

from agentbank_jax.errors import UserError

SCHEDULES = ("cosine", "linear", "constant")
DECAYS = ("kernels", "all")


def make_schedule(config, total_steps: int) -> optax.Schedule:
  """Returns step -> learning rate: linear warm-up from 0, then `config.schedule` down to `final_share` of the peak.

  Args:
    config: learning_rate, schedule, warmup_share (of total_steps), final_share.
    total_steps: optimizer steps of the run.

  Raises:
    UserError: a value out of range.
  """
  if config.schedule not in SCHEDULES:
    raise UserError(f"optim.schedule is {config.schedule!r}; choose one of {', '.join(SCHEDULES)}")
  _check(config, "learning_rate", lambda rate: 0 <= rate < math.inf, "0 or more")
  _check(config, "warmup_share", lambda share: 0 <= share < 1, "in [0, 1)")
  _check(config, "final_share", lambda share: 0 <= share <= 1, "in [0, 1]")
  peak, warmup = config.learning_rate, round(config.warmup_share * total_steps)
  rest = max(total_steps - warmup, 1)
  if config.schedule == "cosine":
    decay = optax.cosine_decay_schedule(peak, rest, alpha=config.final_share)
  elif config.schedule == "linear":
    decay = optax.linear_schedule(peak, peak * config.final_share, rest)
  else:
    decay = optax.constant_schedule(peak)
  if not warmup:
    return decay
  # The first step already learns: warm-up goes from peak / warmup to peak.
  ramp = lambda step: peak * jnp.minimum(step + 1, warmup) / warmup
  return lambda step: jnp.where(step < warmup, ramp(step), decay(step - warmup))


def decay_mask(params, which: str):
  """Returns a tree of bools: True where weight decay applies ("kernels": matrices; "all": every parameter)."""
  if which == "all":
    return jax.tree.map(lambda _: True, params)
  return jax.tree.map_with_path(lambda path, _: path[-1].key in ("kernel", "embedding", "lora_a", "lora_b"), params)


def make_optimizer(config, schedule: optax.Schedule) -> optax.GradientTransformation:
  """Returns clipping by global norm (`clip_norm`, None for none), then AdamW.

  Args:
    config: b1, b2, eps, weight_decay, decay ("kernels" or "all"), clip_norm, mu_dtype.

  Raises:
    UserError: an unknown decay or dtype, or a value out of range.
  """
  if config.decay not in DECAYS:
    raise UserError(f"optim.decay is {config.decay!r}; choose one of {', '.join(DECAYS)}")
  if config.mu_dtype not in ("float32", "bfloat16"):
    raise UserError(f"optim.mu_dtype is {config.mu_dtype!r}; choose float32 or bfloat16")
  for key in ("b1", "b2"):
    _check(config, key, lambda rate: 0 <= rate < 1, "in [0, 1)")
  _check(config, "eps", lambda eps: eps > 0, "above 0")
  _check(config, "weight_decay", lambda decay: decay >= 0, "0 or more")
  _check(config, "clip_norm", lambda norm: norm is None or norm > 0, "above 0, or None for no clipping")
  adamw = optax.adamw(schedule, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay,
                      mask=lambda params: decay_mask(params, config.decay), mu_dtype=config.mu_dtype)
  clip = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
  return optax.chain(*clip, adamw)


def _check(config, key: str, is_right: Callable[[float | None], bool], told: str) -> None:
  if not is_right(config[key]):
    raise UserError(f"optim.{key} is {config[key]}; it must be {told}")
