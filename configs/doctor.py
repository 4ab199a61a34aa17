"""Says what is installed, which accelerators there are, which tasks are ready, and how to get the rest.

  agentbank doctor

The tables of tasks in README.md and in agentbank_jax/tasks/README.md are printed, from the registry, by

  agentbank doctor --config.markdown=short
  agentbank doctor --config.markdown=long
"""

from ml_collections import ConfigDict


def get_config():
  config = ConfigDict()
  config.markdown = ""  # short | long: print a table of tasks, and nothing else
  return config
