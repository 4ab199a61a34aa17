"""Full tuning of Qwen2.5-7B-Instruct. Recipe and commands as in `samoyed_7b.py`; pack with format `chatml`.

  agentbank compile --config=configs/qwen2_5_7b.py --topology=v5e:4x4
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "qwen2.5_7b"
  config.execution.loss_chunk = 256  # of a vocabulary of 152,064
  return config
