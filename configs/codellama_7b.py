"""Full tuning of Code Llama 7B Instruct, one of the base models that the paper compares (Figure 2). Recipe and commands
as in `samoyed_7b.py`.

  agentbank compile --config=configs/codellama_7b.py --topology=v5e:4x4

Machine: v5e-16 (16 chips); peak 9.21 GiB of 15.75 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories,
at an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 1.4 hours at an assumed MFU of 40%.
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.preset = "codellama_7b"
  return config
