"""Converts a model between HF's safetensors and the bundle that training, evaluation and serving read.

In, from a folder that holds config.json, safetensors and the tokenizer:

    agentbank convert --config=configs/convert.py \
        --config.source=Llama-2-7b-hf --config.target=models/llama2_7b

and out again, after training:

    agentbank convert --config=configs/convert.py --config.direction=to_hf \\
        --config.source=runs/sft/bundle --config.target=export/llama2_7b_agent

Llama, Mistral and Qwen2 are supported. Every tensor is accounted for: one that is missing, unexpected, twice
there, of the wrong shape or dtype, or not finite stops the conversion with its name, and so does a field of
config.json whose value the model cannot express. The target appears whole or not at all.

Memory: weights pass through one canonical parameter at a time (all layers of one: 2.7 GiB for Llama-2-7B in
bfloat16, 35 GiB for 70B). With reading and writing, the measured peak is three times the largest one; on the way
out a shard of `max_shard_size` is beside it. The parity check needs both models in float32 (2 x 25 GiB for 7B):
on a small machine pass `--config.check.enabled=False`.

Expect, in workdir/summary.json, `parity.greedy_equal` of 1.0 and `parity.max_abs_difference` far below the
tolerance (about 1e-5 for tiny random models). The reference is transformers where PyTorch is installed and a
NumPy forward pass where it is not; the summary says which.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.direction = "from_hf"  # or "to_hf"
  config.source = ""  # folder; must be set
  config.target = ""  # folder; must be set
  config.dtype = "keep"  # or "float32", "bfloat16": what the target's tensors are
  config.max_shard_size = "5GB"  # of a safetensors file, on the way out
  config.overwrite = False  # whether a target that is there is replaced

  config.check = ConfigDict()  # our logits against HF's, before the target appears
  config.check.enabled = True
  config.check.rows = 2  # of random tokens
  config.check.length = 32
  config.check.greedy_tokens = 16  # both sides continue every row by as many tokens
  config.check.tolerance = 1e-3  # largest difference of any logit; both sides compute in float32
  config.check.seed = 0
  return config
