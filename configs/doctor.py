"""Says what is installed, which accelerators there are, which tasks are ready, and how to get the rest.

  agentbank doctor

The table of tasks in README.md is printed, from the registry, by

  agentbank doctor --config.markdown=True
"""

from ml_collections import ConfigDict


def get_config():
  config = ConfigDict()
  config.markdown = False  # print the README's table of tasks, and nothing else
  return config
