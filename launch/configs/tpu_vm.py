"""A TPU VM slice, or several joined over the data centre's network: `gcloud compute tpus`.

  alias launch='python -m launch'
  RUN="--config=launch/configs/tpu_vm.py --config.name=samoyed --config.zone=us-west4-a --workdir=runs/samoyed"
  launch create $RUN          # a queued resource; returns when it is ACTIVE
  launch setup $RUN --config.bucket=my-bucket
  launch run $RUN --config.command="agentbank train --config=configs/train_tiny.py --workdir=/mnt/agentbank/samoyed ..."
  launch delete $RUN

`run` may be stopped with Ctrl-C and started again: the workers go on, and it finds them. When a spot slice is
preempted it is deleted, asked for again, set up, and the run resumes at its checkpoint, which therefore must be in
the bucket. `launch VERB $RUN --dry_run` prints every command. Never run against real TPUs by the authors: see
launch/README.md for what was tested.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from launch.configs import base


def get_config() -> ConfigDict:
  config = base.get_config()
  config.platform = "tpu_vm"
  config.project = placeholder(str)  # None: gcloud's own default
  config.zone = "us-west4-a"
  config.accelerator_type = "v5litepod-16"  # v4-32 | v5litepod-16 | v5p-32 | v6e-16: chips, but cores for v4 and v5p
  config.runtime_version = "v2-alpha-tpuv5-lite"  # tpu-ubuntu2204-base (v4) | v2-alpha-tpuv5 | v2-alpha-tpuv6e
  config.queued = True  # a queued resource; False: now or never, one slice
  config.slices = 1
  config.capacity = "spot"  # spot | on_demand | reserved | guaranteed (queued alone)
  config.network = placeholder(str)  # None: the project's default
  config.subnetwork = placeholder(str)
  config.service_account = placeholder(str)
  config.internal_ip = False  # ssh to internal addresses, from a machine in the same network
  config.valid_until = placeholder(str)  # how long a request may wait in the queue, such as "6h"
  config.wait_hours = 24.0  # for the queued resource to become active
  config.wait_every = 60.0  # seconds between two looks at it

  config.source = "."  # the checkout whose committed state the workers get
  config.extra = "tpu"  # of pyproject.toml
  config.bucket = placeholder(str)  # mounted with gcsfuse on every worker at ...
  config.mount = "/mnt/agentbank"

  config.poll_every = 30.0  # seconds between two looks at the workers
  config.unreachable_polls = 5  # looks in a row that may fail before the slice counts as lost
  config.grace_seconds = 30  # from SIGTERM to SIGKILL, for processes whose run has lost another one
  return config
