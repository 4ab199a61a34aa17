"""Full tuning of Llama-2-7B's architecture on trajectories of 32,768 tokens: rows cut along their length.

  agentbank compile --config=configs/long_7b.py --topology=v5p-32

Llama 2 was made for 4,096 positions: a longer reach needs weights that were extended to it, or another rope scaling.

Machine: v5p-32 (16 chips); peak 11.34 GiB of 95.74 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories,
at an assumed 1,000 tokens each: 600 steps, 157M tokens with padding, 0.6 hours at an assumed MFU of 40%.
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.overrides.max_positions = 32_768
  config.data.seq_len = 32_768
  config.data.batch_size = 8
  config.data.micro_batches = 2  # of four rows at a time, each over four of 16 chips
  config.mesh.context = 4
  config.compile.topology = "v5p-32"
  return config
