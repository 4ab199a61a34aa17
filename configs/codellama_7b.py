"""Full tuning of Code Llama 7B Instruct, one of the base models that the paper compares (Figure 2). Recipe and commands
as in `samoyed_7b.py`.

  agentbank compile --config=configs/codellama_7b.py --topology=v5e:4x4
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "codellama_7b"
  return config
