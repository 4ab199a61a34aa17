"""Full tuning of Llama-2-13B-chat: Samoyed 13B. See `samoyed_7b.py` for the recipe and the commands.

  agentbank compile --config=configs/samoyed_13b.py --topology=v5p-16

Machine: v5p-16 (8 chips); peak 32.73 GiB of 95.74 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories,
at an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 2.3 hours at an assumed MFU of 40%.
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "llama2_13b"
  config.compile.topology = "v5p-16"
  return config
