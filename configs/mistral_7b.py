"""Full tuning of Mistral-7B-Instruct v0.1. Recipe and commands as in `samoyed_7b.py`; pack with format `mistral`.

  agentbank compile --config=configs/mistral_7b.py --topology=v5e:4x4
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "mistral_7b"
  return config
