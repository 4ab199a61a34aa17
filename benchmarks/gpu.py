"""Our train step beside transformers on PyTorch, on one GPU: tokens per second and model FLOPs utilisation.

  python benchmarks/gpu.py                                              # Llama 3.2 1B, 4 rows of 4,096, bfloat16
  python benchmarks/gpu.py --preset=qwen2.5_0.5b --batch=8 --remat

Full tuning with AdamW over float32 parameters, computed in bfloat16. Each side has the GPU for itself, one after the
other, in a process of its own. FlashAttention is a side where the flash-attn package is installed. MFU counts the same
model FLOPs for all sides (agentbank_jax/flops.py). Needs the CUDA builds of both libraries (pip install
'agentbank-jax[gpu]' torch) and appends to benchmarks/results/gpu.jsonl. On a machine without a GPU it runs on the
processor, which is good for trying the program out alone, and nothing is kept.
"""

import importlib.util
import os
import statistics

from absl import app, flags
import machine
import rich.console
import rich.table
from side import Side

from agentbank_jax import flops
from agentbank_jax.models.presets import preset

PRESET = flags.DEFINE_string("preset", "llama3.2_1b", "an architecture of agentbank_jax/models/presets.py")
BATCH = flags.DEFINE_integer("batch", 4, "rows", lower_bound=1)
LENGTH = flags.DEFINE_integer("length", 4096, "positions of a row", lower_bound=1)
REMAT = flags.DEFINE_bool("remat", False, "recompute activations, on every side")
RUNS = flags.DEFINE_integer("runs", 20, "steps that are timed", lower_bound=1)


def sides(gpu: bool) -> list[tuple[str, str, dict]]:
  """Returns (name, module, case); the first is what the others are measured by."""
  case = dict(kind="train_published", preset=PRESET.value, batch=BATCH.value, length=LENGTH.value, dtype="bfloat16",
              remat=REMAT.value, attention="sdpa")
  peers = [("transformers, SDPA", case), ("transformers, SDPA, torch.compile", case | dict(compile=True))]
  if gpu and importlib.util.find_spec("flash_attn"):
    peers.append(("transformers, FlashAttention", case | dict(attention="flash_attention_2")))
  kernels = ("cudnn", "triton") if gpu else ("auto",)
  ours = [(f"agentbank-jax, {kind}", case | dict(attention=kind)) for kind in kernels]
  return ([(name, "cases_transformers", case) for name, case in peers]
          + [(name, "cases_agentbank", case) for name, case in ours])


def main(argv) -> None:
  del argv
  name = _gpu()
  model = preset(PRESET.value)
  per_token = flops.train_flops_per_token(model, (LENGTH.value + 1) / 2)
  peak, rows = flops.PEAK_FLOPS.get(name), []
  cpus = sorted(os.sched_getaffinity(0))
  for side_name, module, case in sides(name is not None):
    side = Side(side_name, module, case, cpus)
    for _ in range(RUNS.value):
      side.run()
    side.close()
    rate = side.tokens / statistics.median(side.wall)
    rows.append({"side": side_name, "tokens_per_second": rate, "mfu": peak and rate * per_token / peak,
                 "wall": side.wall})
  table = rich.table.Table(title=f"{PRESET.value}, {BATCH.value} x {LENGTH.value} tokens, {name or 'no GPU'}")
  for column in ("side", "tokens/s", "MFU", "times"):
    table.add_column(column, justify="left" if column == "side" else "right")
  for row in rows:
    mfu = "?" if row["mfu"] is None else f"{row['mfu']:.1%}"
    times = row["tokens_per_second"] / rows[0]["tokens_per_second"]
    table.add_row(row["side"], f"{row['tokens_per_second']:,.0f}", mfu, f"{times:.2f}")
  rich.console.Console(width=110).print(table)
  if name is not None:
    machine.append({"suite": "train", "gpu": name, "flags": {f: flags.FLAGS[f].value for f in (
        "preset", "batch", "length", "remat")}, "sides": rows}, "gpu")


def _gpu() -> str | None:
  """Returns the name of the first GPU, as jax and PyTorch both give it, or None."""
  import torch
  return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


if __name__ == "__main__":
  app.run(main)
