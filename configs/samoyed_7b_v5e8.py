"""`samoyed_7b` on eight v5e chips: the first moment of AdamW in bfloat16, and one row per chip at a time.

  agentbank compile --config=configs/samoyed_7b_v5e8.py --topology=v5e-8
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.optim.mu_dtype = "bfloat16"
  config.data.micro_batches = 8
  config.compile.topology = "v5e-8"
  return config
