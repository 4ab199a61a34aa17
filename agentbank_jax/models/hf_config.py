"""HF's config.json <-> LlamaConfig. What LlamaConfig cannot express is an error, never ignored."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.models.config import MODEL_TYPES, LlamaConfig, RopeScaling

# What transformers' own configuration classes assume where a file is silent.
_EVERY_TYPE = {
  "rms_norm_eps": 1e-6, "initializer_range": 0.02, "tie_word_embeddings": False, "head_dim": None,
  "pad_token_id": None,
}
_DEFAULTS = {
  "llama": _EVERY_TYPE | {
    "num_key_value_heads": None, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2,
    "attention_bias": False, "mlp_bias": False},
  "mistral": _EVERY_TYPE | {
    "num_key_value_heads": 8, "max_position_embeddings": 131_072, "bos_token_id": 1, "eos_token_id": 2,
    "sliding_window": 4096},
  "qwen2": _EVERY_TYPE | {
    "num_key_value_heads": 32, "max_position_embeddings": 32_768, "bos_token_id": None, "eos_token_id": None,
    "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28},
}
_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

# Fields that would change the function, with the values under which they do not. `pretraining_tp` is none of
# them: it cuts the same products into pieces.
_FIXED = {
  "hidden_act": ("silu", "swish"), "attention_dropout": (0, None), "partial_rotary_factor": (1, None),
  "quantization_config": (None,), "use_mrope": (False, None), "is_encoder_decoder": (False, None),
}
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}

_ROPE_KEYS = {
  "default": (),
  "linear": ("factor",),
  "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def read_hf_config(path: pathlib.Path) -> LlamaConfig:
  """Reads a config.json file.

  Raises:
    UserError: no such file, not JSON, or a model that LlamaConfig cannot express; names the file.
  """
  try:
    hf = json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f"{path}: no such file; a model's folder needs a config.json") from None
  except (json.JSONDecodeError, UnicodeDecodeError) as e:
    raise UserError(f"{path}: not JSON ({e})") from None
  if not isinstance(hf, dict):
    raise UserError(f"{path}: expected a JSON object, got {type(hf).__name__}")
  try:
    return from_hf(hf)
  except UserError as e:
    raise UserError(f"{path}: {e}") from None
  except (TypeError, AttributeError, ZeroDivisionError) as e:  # a list where a number should be, no heads, ...
    raise UserError(f"{path}: a field has a value that no model has ({type(e).__name__}: {e})") from None


def from_hf(hf: Mapping[str, Any]) -> LlamaConfig:
  """Returns the LlamaConfig of a config.json, as transformers 5 writes it or in the hub's older forms.

  Raises:
    UserError: a field whose value LlamaConfig cannot express; names the field and the value.
  """
  model_type = hf.get("model_type")
  if model_type not in MODEL_TYPES:
    raise UserError(f"model_type is {model_type!r}; supported: {', '.join(MODEL_TYPES)}"
                    + did_you_mean(str(model_type), MODEL_TYPES))
  _check_fixed(hf, model_type)
  for field in _REQUIRED:
    if field not in hf:
      raise UserError(f"{field} is missing")
  hf = _DEFAULTS[model_type] | dict(hf)
  num_heads, qwen2 = _whole(hf, "num_attention_heads"), model_type == "qwen2"
  num_layers = _whole(hf, "num_hidden_layers")
  theta, scaling = _rope(hf)
  return LlamaConfig(
    model_type=model_type,
    vocab_size=_whole(hf, "vocab_size"),
    hidden_size=_whole(hf, "hidden_size"),
    intermediate_size=_whole(hf, "intermediate_size"),
    num_layers=num_layers,
    num_heads=num_heads,
    num_kv_heads=num_heads if hf["num_key_value_heads"] is None else _whole(hf, "num_key_value_heads"),
    head_dim=_whole(hf, "hidden_size") // num_heads if hf["head_dim"] is None else _whole(hf, "head_dim"),
    max_positions=_whole(hf, "max_position_embeddings"),
    rope_theta=theta,
    rope_scaling=scaling,
    norm_eps=_number(hf, "rms_norm_eps"),
    tie_embeddings=_flag(hf, "tie_word_embeddings"),
    qkv_bias=qwen2 or (model_type == "llama" and _flag(hf, "attention_bias")),
    out_bias=model_type == "llama" and _flag(hf, "attention_bias"),
    mlp_bias=model_type == "llama" and _flag(hf, "mlp_bias"),
    sliding_window=_sliding_window(hf, model_type, num_layers),
    initializer_range=_number(hf, "initializer_range"),
    bos_id=hf["bos_token_id"],
    eos_ids=_ids(hf["eos_token_id"]),
    pad_id=hf["pad_token_id"],
  )


def to_hf(config: LlamaConfig, dtype: str | None = None) -> dict[str, Any]:
  """Returns the content of a config.json.

  Rotary embedding and dtype are spelled as before transformers 5 (rope_theta, rope_scaling, torch_dtype):
  every version reads that, and so do the other tools that take HF folders.

  Args:
    config: the model.
    dtype: of the tensors beside the file, such as "bfloat16".

  Raises:
    UserError: HF's `model_type` has no field for something this model does.
  """
  model_type = config.model_type
  hf = {
    "architectures": [_ARCHITECTURES[model_type]],
    "attention_dropout": 0.0,
    "bos_token_id": config.bos_id,
    "eos_token_id": config.eos_ids[0] if len(config.eos_ids) == 1 else list(config.eos_ids) or None,
    "pad_token_id": config.pad_id,
    "head_dim": config.head_dim,
    "hidden_act": "silu",
    "hidden_size": config.hidden_size,
    "initializer_range": config.initializer_range,
    "intermediate_size": config.intermediate_size,
    "max_position_embeddings": config.max_positions,
    "model_type": model_type,
    "num_attention_heads": config.num_heads,
    "num_hidden_layers": config.num_layers,
    "num_key_value_heads": config.num_kv_heads,
    "rms_norm_eps": config.norm_eps,
    "rope_scaling": _rope_scaling_to_hf(config.rope_scaling),
    "rope_theta": config.rope_theta,
    "tie_word_embeddings": config.tie_embeddings,
    "use_cache": True,
    "vocab_size": config.vocab_size,
  }
  if model_type == "llama":
    hf |= {"attention_bias": config.out_bias, "mlp_bias": config.mlp_bias}
    expressible = {"qkv_bias": config.out_bias, "sliding_window": None}
  elif model_type == "mistral":
    hf |= {"sliding_window": config.sliding_window}
    expressible = {"qkv_bias": False, "out_bias": False, "mlp_bias": False}
  else:
    hf |= {"use_sliding_window": config.sliding_window is not None, "sliding_window": config.sliding_window,
           "max_window_layers": config.num_layers if config.sliding_window is None else 0}
    expressible = {"qkv_bias": True, "out_bias": False, "mlp_bias": False}
  for field, value in expressible.items():
    if getattr(config, field) != value:
      raise UserError(f"HF's {model_type} has no field for {field} = {getattr(config, field)!r}")
  return hf | ({"torch_dtype": dtype} if dtype else {})


def _check_fixed(hf, model_type: str):
  for field, allowed in _FIXED.items():
    if field in hf and hf[field] not in allowed:
      raise UserError(f"{field} is {_short(hf[field])}; only {allowed[0]!r} is supported")
  architectures = hf.get("architectures") or [_ARCHITECTURES[model_type]]
  if architectures != [_ARCHITECTURES[model_type]]:
    raise UserError(f"architectures is {architectures}; only {_ARCHITECTURES[model_type]} is supported")
  custom = (hf.get("auto_map") or {}).get("AutoModelForCausalLM")
  if custom:
    raise UserError(f"auto_map.AutoModelForCausalLM is {custom!r}; a model's own code is not supported")


def _rope(hf) -> tuple[float, RopeScaling | None]:
  """Reads `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before)."""
  new, old = hf.get("rope_parameters") or {}, hf.get("rope_scaling") or {}
  if new and old and new != old:
    raise UserError(f"rope_parameters is {new} but rope_scaling is {old}; remove the one that does not hold")
  field, rope = ("rope_parameters", new) if new else ("rope_scaling", old)
  kind = rope.get("rope_type", rope.get("type", "default"))
  if kind not in _ROPE_KEYS:
    raise UserError(f"{field}.rope_type is {kind!r}; supported: {', '.join(_ROPE_KEYS)}")
  for key in rope:
    if key not in ("rope_type", "type", "rope_theta", "partial_rotary_factor", *_ROPE_KEYS[kind]):
      raise UserError(f"{field}.{key} is {_short(rope[key])}, which rope_type {kind!r} does not know")
  if rope.get("partial_rotary_factor", 1) not in (1, None):
    raise UserError(f"{field}.partial_rotary_factor is {rope['partial_rotary_factor']}; only 1 is supported")
  thetas = {source["rope_theta"] for source in (rope, hf) if source.get("rope_theta") is not None}
  if len(thetas) > 1:
    raise UserError(f"rope_theta is {hf['rope_theta']} but {field}.rope_theta is {rope['rope_theta']}")
  theta = _number({"rope_theta": thetas.pop() if thetas else 10_000.0}, "rope_theta")
  if kind == "default":
    return theta, None
  # Where a file is silent about the original length, transformers takes the model's own.
  original = hf.get("original_max_position_embeddings", hf["max_position_embeddings"])
  rope = {"original_max_position_embeddings": original} | dict(rope)
  for key in _ROPE_KEYS[kind]:
    if key not in rope:
      raise UserError(f"{field}.{key} is missing; rope_type {kind!r} needs it")
  if kind == "linear":
    return theta, RopeScaling("linear", _number(rope, "factor"))
  return theta, RopeScaling(
    "llama3", _number(rope, "factor"), _number(rope, "low_freq_factor"), _number(rope, "high_freq_factor"),
    _whole(rope, "original_max_position_embeddings"))


def _rope_scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
  if scaling is None:
    return None
  if scaling.kind == "linear":
    return {"rope_type": "linear", "factor": scaling.factor}
  return {"rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
          "high_freq_factor": scaling.high_freq_factor,
          "original_max_position_embeddings": scaling.original_max_position}


def _sliding_window(hf, model_type: str, num_layers: int) -> int | None:
  """Returns the window of all layers, None for none; a window on some layers only is an error."""
  window = None
  if model_type == "mistral" or (model_type == "qwen2" and _flag(hf, "use_sliding_window")):
    window = None if hf["sliding_window"] is None else _whole(hf, "sliding_window")
  sliding = 0 if window is None else num_layers
  if model_type == "qwen2" and window is not None:
    sliding = max(num_layers - _whole(hf, "max_window_layers"), 0)
  if types := hf.get("layer_types"):
    named = types.count("sliding_attention")
    if model_type == "qwen2" and window is not None:
      sliding = named  # transformers looks at max_window_layers only where there are no layer_types
    if set(types) - {"full_attention", "sliding_attention"} or named != sliding:
      raise UserError(f"layer_types is {_short(types)}, which does not go with sliding_window = {window}")
  if 0 < sliding < num_layers:
    raise UserError(f"sliding_window is {window} on {sliding} of {num_layers} layers (max_window_layers, "
                    "layer_types); only a window on all layers or on none is supported")
  return window if sliding else None


def _whole(hf, field: str) -> int:
  if not isinstance(hf[field], int) or isinstance(hf[field], bool):
    raise UserError(f"{field} is {_short(hf[field])}; expected a whole number")
  return hf[field]


def _number(hf, field: str) -> float:
  if not isinstance(hf[field], int | float) or isinstance(hf[field], bool):
    raise UserError(f"{field} is {_short(hf[field])}; expected a number")
  return float(hf[field])


def _flag(hf, field: str) -> bool:
  if not isinstance(hf[field], bool):
    raise UserError(f"{field} is {_short(hf[field])}; expected true or false")
  return hf[field]


def _ids(value) -> tuple[int, ...]:
  if value is None:
    return ()
  return tuple(value) if isinstance(value, list) else (value,)


def _short(value) -> str:
  text = repr(value)
  return text if len(text) <= 80 else text[:77] + "..."
