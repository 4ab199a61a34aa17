"""What every platform's config starts from."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.platform = ""  # local | tpu_vm | gke | slurm
  config.name = "agentbank"  # of the machines and the job: lower case, digits and -
  config.command = ""  # what every process runs, such as "agentbank train --config=... --workdir=..."
  config.max_restarts = 10  # after a preemption or a lost process; the run resumes at its checkpoint
  return config
