"""The whole chain on one CPU-only machine: experts' trajectories, packed records, a base model of about a million
parameters made from random weights, tuned on the trajectories, and both at play on unseen instances.

  agentbank quickstart --workdir=runs/quickstart

Expect, on two CPU cores: about five minutes, a tuned mean success of 80% or more, and an untrained one under 5%.
Results: runs/quickstart/summary.json and report.html. A run that was stopped goes on with the same command.
"""

from ml_collections import ConfigDict

from configs import evaluate, pack
from configs.base import training


def get_config():
  config = ConfigDict()
  config.seed = 0  # of the training instances

  # Trajectories of each task's expert, played on instances of the split "train".
  config.trajectories = ConfigDict({"arithmetic": 9000, "sql_tables": 3000, "household": 3500})

  # Words to repeat, mixed in so that what the base model can do is not forgotten (the paper mixes in general data).
  config.recitations = 5000
  config.recitation_words = (4, 24)  # fewest and most of one

  config.tokenizer = ConfigDict()
  config.tokenizer.vocab_size = 2048
  config.tokenizer.format = "llama3"

  config.pack = pack.get_config()
  config.pack.seq_len = 1024
  config.pack.unit = "tokens"
  config.pack.eval_share = 0.02

  # The base model: it learns to repeat words, from random weights.
  config.base = ConfigDict()
  config.base.recitations = 20_000
  config.base.training = _training()
  config.base.training.model.preset = "quickstart"
  config.base.training.optim.learning_rate = 4e-3
  config.base.training.optim.final_share = 0.1
  config.base.training.optim.weight_decay = 0.1
  config.base.training.train.steps = 600

  config.training = _training()
  config.training.optim.learning_rate = 3e-3
  config.training.train.epochs = 1

  config.evaluation = evaluate.get_config()
  config.evaluation.episodes = 60  # of each task, from the split "test"
  config.evaluation.slots = 24
  config.evaluation.sampling.turn_tokens = 96
  config.evaluation.sampling.context = 2048
  config.evaluation.limits.invalid_actions = 3

  config.check = ConfigDict()  # the export against our model
  config.check.rows = 4
  config.check.length = 64
  config.check.greedy_tokens = 32
  config.check.tolerance = 1e-4
  return config


def _training() -> ConfigDict:
  """Returns what the training of the base model and the tuning have in common."""
  config = training()
  config.data.batch_size = 2
  config.optim.b2 = 0.95
  config.optim.schedule = "linear"
  config.optim.warmup_share = 0.05
  config.train.log_every = 20
  config.train.eval_batch_size = 16
  config.train.checkpoint_every = 400
  return config
