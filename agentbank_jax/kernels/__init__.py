"""Attention kernels; `agentbank_jax.attention` is their door."""
