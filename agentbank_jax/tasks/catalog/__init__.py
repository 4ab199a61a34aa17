"""One file per task; see `agentbank_jax.tasks`."""
