"""LoRA adapters in the form that the `peft` library loads: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Mapping
import json
from typing import Any

from flax import traverse_util
import numpy as np
from safetensors.numpy import save

from agentbank_jax.convert.mapping import TABLE
from agentbank_jax.files import whole_folder
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.paths import AnyPath

_PREFIX = "base_model.model."


def write_adapter(path: AnyPath, adapters: Mapping[str, Any], config: LlamaConfig, base: str | None,
                  overwrite: bool = False) -> None:
  """Writes a folder for `peft.PeftModel.from_pretrained`, whole or not at all.

  Args:
    path: where it shall appear.
    adapters: canonical nested dict of `lora_a` [L, in, rank] and `lora_b` [L, rank, out]; NumPy arrays.
    config: with `lora`.
    base: the model that was adapted, as people call it; None where it was drawn at random.
    overwrite: whether a folder that is there is replaced.

  Raises:
    UserError: `path` is there already.
  """
  hf = {entry.name.removesuffix(".kernel"): entry.hf.removesuffix(".weight") for entry in TABLE}
  tensors, modules = {}, set()
  for name, stacked in traverse_util.flatten_dict(dict(adapters), sep=".").items():
    linear, _, which = name.rpartition(".")
    modules.add(hf[linear].rpartition(".")[2])
    for layer, array in enumerate(np.asarray(stacked)):
      key = f"{_PREFIX}{hf[linear].format(layer)}.lora_{which[-1].upper()}.weight"
      tensors[key] = np.ascontiguousarray(array.T)
  lora = config.lora
  settings = {
      "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": lora.rank,
      "lora_alpha": lora.alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
      "target_modules": sorted(modules), "inference_mode": True}
  with whole_folder(path, overwrite) as folder:
    (folder / "adapter_model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
