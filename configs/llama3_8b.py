"""Full tuning of Llama-3-8B-Instruct. Recipe and commands as in `samoyed_7b.py`; pack with format `llama3`.

  agentbank compile --config=configs/llama3_8b.py --topology=v5e:4x4
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "llama3_8b"
  config.execution.loss_chunk = 256  # of a vocabulary of 128,256
  return config
