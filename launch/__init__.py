"""Starts runs on TPU VMs, GKE, SLURM and this machine: `python -m launch VERB --config=launch/configs/X.py`."""
