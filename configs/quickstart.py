"""The whole chain on one CPU-only machine: experts' trajectories, packed records, a model of about a million
parameters trained from random weights, and both the untrained and the tuned model at play on unseen instances.

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
  config.trajectories = ConfigDict({"arithmetic": 6000, "sql_tables": 5000, "household": 2500})

  config.tokenizer = ConfigDict()
  config.tokenizer.vocab_size = 1024
  config.tokenizer.format = "llama3"

  config.pack = pack.get_config()
  config.pack.seq_len = 512
  config.pack.unit = "tokens"
  config.pack.eval_share = 0.02

  config.training = training()
  config.training.model.preset = "quickstart"
  config.training.data.batch_size = 4
  config.training.optim.learning_rate = 4e-3
  config.training.optim.b2 = 0.95
  config.training.optim.schedule = "linear"
  config.training.optim.weight_decay = 0.1
  config.training.optim.warmup_share = 0.05
  config.training.train.epochs = 1
  config.training.train.log_every = 20
  config.training.train.eval_batch_size = 16
  config.training.train.checkpoint_every = 400

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
