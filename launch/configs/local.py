"""Several processes on this machine, each with simulated CPU devices: a pod, rehearsed.

  python -m launch run --config=launch/configs/local.py --workdir=runs/rehearsal \
      --config.command="agentbank train --config=configs/train_tiny.py --config.data.path=runs/pack/packed \
                        --workdir=runs/rehearsal/train"

Four processes of two devices each make a mesh of eight. The logs are in runs/rehearsal/logs/attempt-N/process-I.log.
A process that is killed brings down the others, and all are started again and resume.
"""

from ml_collections import ConfigDict

from launch.configs import base


def get_config() -> ConfigDict:
  config = base.get_config()
  config.platform = "local"
  config.processes = 4
  config.devices = 2  # simulated CPU devices of each process
  config.grace_seconds = 20  # from SIGTERM to SIGKILL, for processes whose run has lost another one
  return config
