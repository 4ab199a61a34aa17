"""One file per family of environments that becomes tasks by name; see `agentbank_jax.tasks`."""
