"""LoRA on Llama-2-7B-chat: adapters of rank 16 on all linear maps, the frozen weights in bfloat16.

  agentbank compile --config=configs/lora_7b.py --topology=v5e-4
  agentbank train --config=configs/lora_7b.py --workdir=runs/lora_7b \\
      --config.model.init_from=models/llama2_7b_chat --config.data.path=runs/pack/packed

One v5e-4 host is enough. Leaves model/ (merged) and adapter/ (PEFT's format). Rank, alpha and rate are QLoRA's
(Dettmers et al. 2023, arXiv:2305.14314, appendix B.2: alpha 16, rate 2e-4), with its finding that all linear maps
need adapters.

Machine: v5e-4 (4 chips, one host); peak 5.71 GiB of 15.75 per chip (compiled on 2026-11-24). AgentBank's 51,287
trajectories, at an assumed 1,000 tokens each: 599 steps, 157M tokens with padding, 5.6 hours at an assumed MFU of 40%
(counted as for full tuning, which is more).
`python benchmarks/fits.py --plan` gives these figures, and says what is assumed.
"""

from configs import samoyed_7b


def get_config():
  config = samoyed_7b.get_config()
  config.model.lora.rank = 16
  config.model.lora.alpha = 16.0
  config.optim.learning_rate = 2e-4
  config.data.micro_batches = 16  # of one row per chip on 4 chips
  config.compile.topology = "v5e:2x2"
  return config
