"""Our train step, sampling and episodes beside transformers on PyTorch, in turn, on this machine.

  python benchmarks/rounds.py --suite=train_tiny_float32,generate_tiny_1 --rounds=5

Every round runs every side once, in a rotated order, each on the same processors, so that other load falls on all
alike. Printed: median tokens per second, and the median of the rounds' ratios over the first side, by wall time and by
processor time. Appends what it measured to benchmarks/results/cpu.jsonl.
"""

import os
import statistics

from absl import app, flags
import machine
import rich.console
import rich.table
from side import Side

PEER, OURS = "cases_transformers", "cases_agentbank"
SUITE = flags.DEFINE_list("suite", ["all"], "comma-separated names, or all")
ROUNDS = flags.DEFINE_integer("rounds", 5, "rounds", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 1, "processors to pin every side to", lower_bound=1)


def suites() -> dict[str, list[tuple[str, str, dict]]]:
  """Returns (name, module, case) of every side, by suite; the first side is what the others are measured by."""
  found = {}
  for size in ("tiny", "small"):
    for dtype in ("float32", "bfloat16"):
      case = dict(kind="train", size=size, dtype=dtype)
      found[f"train_{size}_{dtype}"] = [
          ("transformers, eager, SDPA, fused AdamW", PEER, case),
          ("transformers, torch.compile", PEER, case | dict(compile=True)),
          ("agentbank-jax", OURS, case)]
    for batch in (1, 8):
      case = dict(kind="generate", size=size, dtype="float32", batch=batch)
      found[f"generate_{size}_{batch}"] = [
          ("transformers, generate", PEER, case), ("agentbank-jax, engine", OURS, case)]
      case = case | dict(kind="episode")
      found[f"episode_{size}_{batch}"] = [
          ("transformers, history read again", PEER, case | dict(reuse=False)),
          ("transformers, cache kept", PEER, case | dict(reuse=True)), ("agentbank-jax, engine", OURS, case)]
  return found


def measure(name: str, sides, cpus: list[int]) -> dict:
  """Runs a suite's rounds, prints its table and returns what was measured."""
  workers = [Side(*side, cpus) for side in sides]
  for i in range(ROUNDS.value):
    for worker in workers[i % len(workers):] + workers[:i % len(workers)]:
      worker.run()
  for worker in workers:
    worker.close()
  first = workers[0]
  ratio = lambda a, b: statistics.median(x / y for x, y in zip(a, b, strict=True))
  rows = [{"side": w.name, "tokens_per_second": w.tokens / statistics.median(w.wall),
           "times_by_wall": ratio(first.wall, w.wall), "times_by_cpu": ratio(first.cpu, w.cpu),
           "wall": w.wall, "cpu": w.cpu} for w in workers]
  table = rich.table.Table(title=f"{name}, {len(cpus)} threads, {ROUNDS.value} rounds")
  for column in ("side", "tokens/s", "times, wall", "times, processor time"):
    table.add_column(column, justify="left" if column == "side" else "right")
  for row in rows:
    table.add_row(row["side"], f"{row['tokens_per_second']:,.0f}", f"{row['times_by_wall']:.2f}",
                  f"{row['times_by_cpu']:.2f}")
  rich.console.Console(width=110).print(table)
  return {"suite": name, "threads": len(cpus), "sides": rows}


def main(argv) -> None:
  del argv
  known = suites()
  wanted = list(known) if SUITE.value == ["all"] else SUITE.value
  if unknown := [name for name in wanted if name not in known]:
    raise SystemExit(f"no suite {unknown[0]!r}; known: {', '.join(known)}")
  cpus = sorted(os.sched_getaffinity(0))[-THREADS.value:]
  for name in wanted:
    machine.append(measure(name, known[name], cpus))


if __name__ == "__main__":
  app.run(main)
