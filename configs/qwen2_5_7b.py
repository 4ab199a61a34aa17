"""Full tuning of Qwen2.5-7B-Instruct. Recipe and commands as in `samoyed_7b.py`; pack with format `chatml`.

  agentbank compile --config=configs/qwen2_5_7b.py --topology=v5e:4x4

Machine: v5e-16 (16 chips); peak 12.05 GiB of 15.75 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories,
at an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 1.5 hours at an assumed MFU of 40%.
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "qwen2.5_7b"
  config.execution.loss_chunk = 256  # of a vocabulary of 152,064
  return config
