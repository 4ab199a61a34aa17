"""Full tuning of Llama-3-8B-Instruct. Recipe and commands as in `samoyed_7b.py`; pack with format `llama3`.

  agentbank compile --config=configs/llama3_8b.py --topology=v5e:4x4

Machine: v5e-16 (16 chips); peak 12.57 GiB of 15.75 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories,
at an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 1.6 hours at an assumed MFU of 40%.
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "llama3_8b"
  config.execution.loss_chunk = 256  # of a vocabulary of 128,256
  return config
