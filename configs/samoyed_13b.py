"""Full tuning of Llama-2-13B-chat: Samoyed 13B. See `samoyed_7b.py` for the recipe and the commands.

  agentbank compile --config=configs/samoyed_13b.py --topology=v5p-16
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "llama2_13b"
  config.compile.topology = "v5p-16"
  return config
