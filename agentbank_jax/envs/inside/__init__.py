"""Programs that run inside of sandboxes, with the standard library alone; `envs/code_judge.py` sends them in."""
