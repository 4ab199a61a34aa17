"""LoRA on Llama-2-13B-chat, the frozen weights in int8. Recipe and commands as in `lora_7b.py`.

  agentbank compile --config=configs/lora_13b.py --topology=v5e-8
"""

from configs import lora_7b


def get_config():
  config = lora_7b.get_config()
  config.model.preset = "llama2_13b"
  config.model.lora.base = "int8"
  config.data.micro_batches = 8
  config.compile.topology = "v5e-8"
  return config
