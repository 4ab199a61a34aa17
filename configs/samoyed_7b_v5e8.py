"""`samoyed_7b` on eight v5e chips: the first moment of AdamW in bfloat16, and one row per chip at a time.

  agentbank compile --config=configs/samoyed_7b_v5e8.py --topology=v5e-8

Machine: v5e-8 (8 chips); peak 14.82 GiB of 15.75 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories, at
an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 2.8 hours at an assumed MFU of 40%.
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.optim.mu_dtype = "bfloat16"
  config.data.micro_batches = 8
  config.compile.topology = "v5e-8"
  return config
