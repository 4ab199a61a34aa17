"""A TPU slice, or several, on GKE: a JobSet. The cluster is yours; its node pool and JobSet's controller come here.

  alias launch='python -m launch'
  RUN="--config=launch/configs/gke.py --config.name=samoyed --config.cluster=my-cluster --config.location=us-west4
       --config.node_location=us-west4-a --config.image=us-docker.pkg.dev/my-project/agentbank/agentbank:1"
  launch create $RUN          # JobSet's controller, and a node pool for each slice
  launch setup $RUN           # builds the image of the committed code, and pushes it
  launch run $RUN --config.bucket=my-bucket --config.command="agentbank train --workdir=/mnt/agentbank/samoyed ..."
  launch delete $RUN

Pods of a set may start minutes apart: give the command --config.distributed.start_seconds=600 where they do.
JobSet starts all pods again when one is preempted or lost, up to max_restarts times; not after exit code 2, an error
that would be the same again. With XPK's clusters, leave `create` out. Never run against a real cluster by the authors:
see launch/README.md for what was tested.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from launch.configs import base


def get_config() -> ConfigDict:
  config = base.get_config()
  config.platform = "gke"
  config.project = placeholder(str)  # None: gcloud's own default
  config.cluster = ""
  config.location = "us-west4"  # of the cluster: a region or a zone
  config.node_location = "us-west4-a"  # the zone of the TPUs
  config.namespace = "default"
  config.accelerator = "tpu-v5-lite-podslice"  # tpu-v4-podslice | tpu-v5-lite-podslice | tpu-v5p-slice | tpu-v6e-slice
  config.machine_type = "ct5lp-hightpu-4t"  # ct4p-hightpu-4t | ct5lp-hightpu-4t | ct5p-hightpu-4t | ct6e-standard-4t
  config.topology = "4x4"  # chips of a slice
  config.chips_per_host = 4
  config.slices = 1
  config.spot = True
  config.jobset_version = "v0.10.1"  # 0.6.0 or later: rules of the failure policy

  config.source = "."  # the checkout whose committed state goes into the image
  config.image = ""  # where the image is pushed, and pulled from
  config.extra = "tpu"  # of pyproject.toml
  config.service_account = placeholder(str)  # Kubernetes', with access to the bucket
  config.bucket = placeholder(str)  # mounted with Cloud Storage FUSE at ...
  config.mount = "/mnt/agentbank"
  config.priority_class = placeholder(str)
  config.host_network = False  # True is faster between slices; the bucket's driver may not take it
  config.queue = placeholder(str)  # Kueue's LocalQueue, as XPK's clusters have

  config.grace_seconds = 120  # from SIGTERM to SIGKILL: a checkpoint must be written in it
  config.poll_every = 30.0  # seconds between two looks at the JobSet
  return config
