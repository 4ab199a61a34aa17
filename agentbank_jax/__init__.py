"""agentbank-jax: trajectory tuning of language-model agents, in JAX."""

__version__ = "0.1.0"
