"""Tiny random models made by transformers and PyTorch: what other people's checkpoints look like."""

import torch
import transformers

from agentbank_jax.models.hf_config import to_hf

torch.set_num_threads(1)  # tiny models gain nothing, and busy machines stall at the threads' barriers


def save_random_model(config, folder, seed=0, dtype="float32", max_shard_size="5GB"):
  """Saves a transformers model, its random weights large enough that every knob shows in the logits.

  Returns:
    The PyTorch model.
  """
  hf = to_hf(config)
  torch.manual_seed(seed)
  model = transformers.AutoModelForCausalLM.from_config(
    transformers.AutoConfig.for_model(hf.pop("model_type"), **hf), attn_implementation="eager")
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      parameter.normal_(std=0.15)
      if "norm" in name:
        parameter.add_(1.0)
  model = model.to(getattr(torch, dtype)).eval()
  model.save_pretrained(folder, max_shard_size=max_shard_size)
  return model


def torch_logits(model, tokens, dtype="float32"):
  """Returns the model's logits [B, T, V], a NumPy array, computed in `dtype`."""
  with torch.no_grad():
    return model.to(getattr(torch, dtype))(input_ids=torch.tensor(tokens)).logits.numpy()
