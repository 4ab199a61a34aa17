"""A batch job of SLURM: one process for each GPU, on a file system that all nodes share.

  alias launch='python -m launch'
  RUN="--config=launch/configs/slurm.py --config.name=samoyed --config.partition=gpu --workdir=/shared/runs/samoyed"
  launch setup $RUN --config.folder=/shared/agentbank
  launch run $RUN --config.folder=/shared/agentbank --config.nodes=4 \
      --config.command="agentbank train --config=configs/train_tiny.py --workdir=/shared/runs/samoyed/train ..."

`run` waits for the job, and may be stopped with Ctrl-C: the job goes on, and `status`, `logs` and `stop` find it in
--workdir. Before the time limit, and when it is preempted, every process gets SIGTERM, saves and ends with code 75, and
the job puts itself into the queue again, up to max_restarts times. Never run on a real SLURM cluster by the authors:
see launch/README.md for what was tested.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from launch.configs import base


def get_config() -> ConfigDict:
  config = base.get_config()
  config.platform = "slurm"
  config.folder = "agentbank"  # on the shared file system: the code and its packages
  config.source = "."  # the checkout whose committed state goes there
  config.extra = "gpu"  # of pyproject.toml
  config.python = "python3.11"  # on the login node

  config.partition = placeholder(str)  # None: the cluster's default
  config.account = placeholder(str)
  config.qos = placeholder(str)
  config.nodes = 1
  config.gpus_per_node = 8
  config.cpus_per_gpu = 8
  config.time = "24:00:00"
  config.warn_seconds = 300  # SIGTERM so long before the time limit
  config.constraint = placeholder(str)

  config.poll_every = 30.0  # seconds between two looks at the job
  return config
