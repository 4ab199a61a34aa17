"""Says what is installed, which accelerators there are, which tasks are ready, and how to get the rest.

  agentbank doctor
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict()  # nothing to set
