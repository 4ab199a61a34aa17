"""Full tuning of Llama-2-70B-chat. The paper has no model of this size; the recipe is that of `samoyed_7b.py`.

  agentbank compile --config=configs/samoyed_70b.py --topology=v5p-128
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "llama2_70b"
  config.data.micro_batches = 1  # one row per chip on 64 chips
  config.compile.topology = "v5p-128"
  return config
