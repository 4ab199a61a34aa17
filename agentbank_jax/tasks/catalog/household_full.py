"""The household with rooms of ALFWorld's size."""

from agentbank_jax.envs import household_world as world
from agentbank_jax.tasks.catalog.household import make_task

TASK = make_task("household_full", world.FULL, max_steps=50)
