"""Full tuning of Llama-2-70B-chat. The paper has no model of this size; the recipe is that of `samoyed_7b.py`.

  agentbank compile --config=configs/samoyed_70b.py --topology=v5p-128

Machine: v5p-128 (64 chips); peak 26.17 GiB of 95.74 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories,
at an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 1.5 hours at an assumed MFU of 40%.
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "llama2_70b"
  config.data.micro_batches = 1  # one row per chip on 64 chips
  config.compile.topology = "v5p-128"
  return config
