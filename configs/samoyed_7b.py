"""Full tuning of Llama-2-7B-chat on AgentBank's trajectories: what the paper's Samoyed 7B is, as far as it is known.

  agentbank compile --config=configs/samoyed_7b.py --topology=v5e-16
  agentbank train --config=configs/samoyed_7b.py --workdir=runs/samoyed_7b \\
      --config.model.init_from=models/llama2_7b_chat --config.data.path=runs/pack/packed

The first says, in minutes and on any machine, whether it fits. `init_from` is a folder of `agentbank convert` or
Hugging Face's own. The recipe is ETO's, by AgentBank's first author (arXiv:2403.02502): 3 epochs, 64 rows, rate 2e-5,
cosine, 3% warm-up, no decay; the paper's own is not known.

Machine: v5e-16 (16 chips); peak 9.21 GiB of 15.75 per chip (compiled on 2026-11-24). AgentBank's 51,287 trajectories,
at an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 1.4 hours at an assumed MFU of 40%.
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs.base import training


def get_config():
  config = training()
  config.model.preset = "llama2_7b"
  config.data.seq_len = 4096
  config.data.batch_size = 64
  config.data.micro_batches = 4  # of one row per chip on 16 chips
  config.train.epochs = 3
  config.train.write_model = "bfloat16"
  config.execution.compute_dtype = "bfloat16"
  config.execution.remat = "full"
  config.execution.loss_chunk = 512
  config.compile.topology = "v5e:4x4"
  return config
