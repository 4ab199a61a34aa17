"""Trains a model of about a million parameters from random weights: a try-out for any machine.

  agentbank train --config=configs/train_tiny.py --config.data.path=runs/pack/packed --workdir=runs/train

Two CPU cores run about 10,000 tokens per second. Started again with the same --workdir it goes on where it
stopped: SIGTERM saves and exits with code 75.
"""

from configs.base import training


def get_config():
  config = training()
  config.model.preset = "quickstart"
  config.data.batch_size = 8
  config.optim.learning_rate = 3e-3
  config.optim.weight_decay = 0.1
  config.train.epochs = 1
  config.train.eval_batch_size = 8
  config.train.checkpoint_every = 100
  return config
