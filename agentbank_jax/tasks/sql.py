"""What the tasks on SQL databases share."""

import random
import re

RUNS = "SQLite, read-only and time-limited"
PACKAGES = ("scipy",)  # Kendall's tau of the reward


def random_turn(rng: random.Random, observation: str) -> str:
  """Looks at the tables, describes, counts or selects by a word that it has just read, or submits."""
  word = rng.choice(re.findall(r"\w+", observation) or ["t"])
  statement = rng.choice((
      "SHOW TABLES", f"DESC {word}", f"SELECT * FROM {word}", f"SELECT COUNT(*) FROM {word}", "submit"))
  return f"Action: {statement}"
