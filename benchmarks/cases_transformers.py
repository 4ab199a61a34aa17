"""The peer: transformers' LlamaForCausalLM on PyTorch, as its users run it."""

import os

from sizes import ACTION, LENGTH, NEW, OBSERVATION, PROMPT, SIZES, TURNS
import torch
from transformers import (
  AutoConfig,
  AutoModelForCausalLM,
  DynamicCache,
  LlamaConfig,
  LlamaForCausalLM,
  PreTrainedModel,
)

from agentbank_jax.models.hf_config import to_hf
from agentbank_jax.models.presets import preset

torch.set_num_threads(int(os.environ["THREADS"]))


def setup(case: dict):
  """Returns (a function that runs the case once, tokens of a run)."""
  if case["kind"] == "train_published":
    return _train_published(case)
  return {"train": _train, "generate": _generate, "episode": _episode}[case["kind"]](case, SIZES[case["size"]])


def _published(name: str, attention: str) -> PreTrainedModel:
  """A published architecture with random weights, built from the config.json that ours exports."""
  torch.manual_seed(0)
  config = to_hf(preset(name))
  return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation=attention)


def _model(size: dict) -> LlamaForCausalLM:
  torch.manual_seed(0)
  return LlamaForCausalLM(LlamaConfig(
      vocab_size=size["vocab"], hidden_size=size["hidden"], intermediate_size=size["intermediate"],
      num_hidden_layers=size["layers"], num_attention_heads=size["heads"], num_key_value_heads=size["heads"],
      max_position_embeddings=2048, tie_word_embeddings=False, attn_implementation="sdpa", bos_token_id=1,
      eos_token_id=None, pad_token_id=0))


def _train(case: dict, size: dict):
  """Forward, backward and AdamW; "bfloat16" is autocast over float32 weights, as the Trainer does for bf16=True."""
  return _train_step(_model(size), case, torch.randint(0, size["vocab"], (size["batch"], LENGTH)))


def _train_published(case: dict):
  """The same on a GPU, if there is one, for an architecture, rows and recomputation that the case names."""
  device = "cuda" if torch.cuda.is_available() else "cpu"
  model = _published(case["preset"], case["attention"]).to(device)
  if case["remat"]:
    model.gradient_checkpointing_enable()
  return _train_step(model, case, torch.randint(0, model.vocab_size, (case["batch"], case["length"]), device=device))


def _train_step(model: PreTrainedModel, case: dict, ids: torch.Tensor):
  model.train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
  forward = torch.compile(model) if case.get("compile") else model

  def run():
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=case["dtype"] == "bfloat16"):
      loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()

  return run, ids.numel()


def _generate(case: dict, size: dict):
  model, batch = _model(size).eval(), case["batch"]
  ids = torch.randint(3, size["vocab"], (batch, PROMPT))

  @torch.inference_mode()
  def run():
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW,
                         do_sample=False)
    assert out.shape == (batch, PROMPT + NEW)

  return run, batch * NEW


def _episode(case: dict, size: dict):
  """Turns of observation and action; each `generate` reads the whole history again, or keeps the cache."""
  model, batch = _model(size).eval(), case["batch"]
  observations = [torch.randint(3, size["vocab"], (batch, OBSERVATION)) for _ in range(TURNS)]

  @torch.inference_mode()
  def run():
    history, past = torch.empty((batch, 0), dtype=torch.long), None
    for observation in observations:
      history = torch.cat([history, observation], 1)
      if case["reuse"]:
        past = past or DynamicCache(config=model.config)
      history = model.generate(history, attention_mask=torch.ones_like(history), past_key_values=past,
                               max_new_tokens=ACTION, min_new_tokens=ACTION, do_sample=False)
    assert history.shape[1] == TURNS * (OBSERVATION + ACTION)

  return run, batch * TURNS * ACTION
