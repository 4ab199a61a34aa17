"""What a training run starts from: the architecture that its config asks for, and the weights."""

import dataclasses

from absl import logging
import jax
import jax.numpy as jnp

from agentbank_jax import control_tokens
from agentbank_jax.bundle import Bundle
from agentbank_jax.chat import load_renderer
from agentbank_jax.data import PackedDataset
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama
from agentbank_jax.models.config import LlamaConfig, LoraConfig, override, param_shapes
from agentbank_jax.models.execution import Execution
from agentbank_jax.models.presets import preset
from agentbank_jax.paths import as_path
from agentbank_jax.state import with_adapters


def architecture(config) -> LlamaConfig:
  """Returns the architecture of a config's section `model`, overrides and adapters included.

  A preset names it; `init_from` has one of its own. Where both are given they must be the same: so a config says what
  it needs before the weights are there (`agentbank compile` reads it), and a folder that is absent is passed over here.

  Raises:
    UserError: neither is given, they differ, or overrides that cannot be.
  """
  if config.preset is None and config.init_from is None:
    raise UserError("give model.preset (an architecture), model.init_from (a model's folder), or both")
  if config.untrained_tokens not in control_tokens.CHOICES:
    raise UserError(f"model.untrained_tokens is {config.untrained_tokens!r}; choose one of "
                    f"{', '.join(control_tokens.CHOICES)}")
  start = preset(config.preset) if config.preset is not None else Bundle.open(config.init_from).config
  try:
    model = override(start, config.overrides)
  except UserError as e:
    raise UserError(f"model.overrides: {e}") from None
  if config.init_from is not None and as_path(config.init_from).is_dir():
    _check_stored(model, Bundle.open(config.init_from).config, config)
  if config.lora.rank:
    adapters = LoraConfig(config.lora.rank, config.lora.alpha, tuple(config.lora.targets), config.lora.base)
    model = dataclasses.replace(model, lora=adapters)
  return model


def _check_stored(model: LlamaConfig, stored: LlamaConfig, config) -> None:
  """Raises UserError where weights of `stored` are not those of `model`."""
  wanted, have = param_shapes(model), param_shapes(stored)
  if wanted == have:
    return
  names = sorted(n for n in wanted.keys() | have.keys() if wanted.get(n) != have.get(n))
  told = f"parameter {names[0]} is {have.get(names[0], 'absent')} in {config.init_from}"
  if config.preset is not None:
    raise UserError(f"{told} and {wanted.get(names[0], 'absent')} in preset {config.preset!r} with model.overrides; "
                    "is it another model? Without a preset the folder's own config.json counts")
  raise UserError(f"model.overrides give the model other parameters than {config.init_from} has ({told}); "
                  "they can change only what is not stored, such as max_positions")


def fit_to_data(model: LlamaConfig, dataset: PackedDataset) -> LlamaConfig:
  """Returns the model with the token ids that the data's tokenizer and chat format have.

  The tokens that end a turn in this format are what the tuned model stops at, in our engine and in HF's.

  Raises:
    UserError: the data has more tokens or longer rows than the model.
  """
  if model.vocab_size < dataset.vocab_size:
    raise UserError(f"the model's vocabulary has {model.vocab_size} entries, the tokenizer of {dataset.path} "
                    f"{dataset.vocab_size}; set model.overrides.vocab_size or pack with the model's own tokenizer")
  if model.max_positions < dataset.seq_len:
    raise UserError(f"the model was made for {model.max_positions} positions, the rows of {dataset.path} have "
                    f"{dataset.seq_len}")
  renderer = load_renderer(dataset.path / "tokenizer")
  return dataclasses.replace(model, bos_id=renderer.tokenizer.bos_id, eos_ids=renderer.stop_ids,
                             pad_id=renderer.tokenizer.pad_id)


def starting_params(config, model: LlamaConfig, dataset: PackedDataset, execution: Execution):
  """Reads the canonical parameters of `model.init_from`, each device its own part, and puts adapters on them.

  Raises:
    UserError: no such model, values that are not finite, or control tokens that it has never learned (where
      `model.untrained_tokens` is "error").
  """
  section, sharding = config.model, execution.sharding
  bundle = Bundle.open(section.init_from)
  ids = load_renderer(dataset.path / "tokenizer").control_ids
  untrained = control_tokens.find_untrained(bundle.load_param("embed.embedding"), ids)
  rows = "; ".join(f"{token!r} (id {ids[token]}) has an embedding row {what}" for token, what in untrained.items())
  told = f"{section.init_from} never learned control tokens of chat format {dataset.format!r}: {rows}"
  if untrained and section.untrained_tokens == "error":
    raise UserError(f"{told}. Set model.untrained_tokens to 'mean' (start them from the other rows' mean) or 'keep', "
                    "or pack in format 'plain'")
  if untrained:
    logging.warning("%s; model.untrained_tokens is %r", told, section.untrained_tokens)
  plain = dataclasses.replace(model, lora=None)
  shardings = llama.param_shardings(plain, sharding) if sharding else None
  dtype = "bfloat16" if model.lora and model.lora.base == "bfloat16" else "float32"
  params = jax.tree.map(jnp.asarray, bundle.load_params(shardings, dtype=dtype, check_finite=True))
  if untrained and section.untrained_tokens == "mean":
    params = control_tokens.start_from_mean(params, [ids[token] for token in untrained], config.seed)
  return with_adapters(params, model, execution, config.seed) if model.lora else params
