"""LoRA on Llama-2-13B-chat, the frozen weights in int8. Recipe and commands as in `lora_7b.py`.

  agentbank compile --config=configs/lora_13b.py --topology=v5e-8

Machine: v5e-8 (8 chips); peak 5.05 GiB of 15.75 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories, at
an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 5.4 hours at an assumed MFU of 40% (counted as for
full tuning, which is more).
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import lora_7b


def get_config():
  config = lora_7b.get_config()
  config.model.preset = "llama2_13b"
  config.model.lora.base = "int8"
  config.data.micro_batches = 8
  config.compile.topology = "v5e-8"
  return config
