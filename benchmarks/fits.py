"""Which shipped config fits which TPUs and GPUs: compiles each for its topologies and prints README's table.

  python benchmarks/fits.py                              # all, some minutes each; what is in results/ is not done again
  python benchmarks/fits.py --only=samoyed_7b,lora_7b
  python benchmarks/fits.py --table                      # what is in results/, nothing compiled
  python benchmarks/fits.py --plan                       # steps, tokens and hours of each config on AgentBank

Needs the compilers (pip install 'agentbank-jax[tpu,gpu]'), and neither TPU nor GPU. Appends to
benchmarks/results/fits.jsonl.
"""

import datetime
import importlib
import json
import math
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

from agentbank_jax import flops
from agentbank_jax.data import num_steps
from agentbank_jax.starting_model import architecture
from agentbank_jax.topologies import parse_topology

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "fits.jsonl"
ONLY = flags.DEFINE_list("only", [], "configs; all where none is named")
PLAN = flags.DEFINE_bool("plan", False, "print what tuning on AgentBank takes, compile nothing")
TABLE = flags.DEFINE_bool("table", False, "print the table of what is there, compile nothing")

# Config -> topologies, one of each generation of TPUs, the first the one that its docstring names, and GPUs; with
# changes of the config where there are more chips than rows at a time, or fewer.
TOPOLOGIES = {
    "samoyed_7b": ("v5e-16", "v5e-16 data.batch_size=16 data.micro_batches=1", "v4-32", "v5p-16", "v6e-16", "h100-8",
                   "a100-8"),
    "samoyed_7b_v5e8": ("v5e-8", "v4-16", "v5p-16", "v6e-8", "h100-4"),
    "samoyed_13b": ("v5p-16", "v6e-16", "v5e-32 data.micro_batches=2", "v4-32", "h100-8"),
    "samoyed_70b": ("v5p-128", "v6e-64", "v5e-256 mesh.context=4", "v4-256 mesh.context=2", "h100-64", "h200-32"),
    "lora_7b": ("v5e-4", "v4-8", "v5p-8", "v6e-4", "h100-1"),
    "long_7b": ("v5p-32", "v6e-16", "v4-32", "v5e-16", "h100-8 mesh.context=1 data.micro_batches=1"),
    "lora_13b": ("v5e-8", "v4-8", "v5p-8", "v6e-4", "h100-2"),
    "codellama_7b": ("v5e-16", "v4-32", "v5p-16", "v6e-16", "h100-8"),
    "llama3_8b": ("v5e-16", "v4-32", "v5p-16", "v6e-16", "h100-8"),
    "mistral_7b": ("v5e-16", "v4-32", "v5p-16", "v6e-16", "h100-8"),
    "qwen2_5_7b": ("v5e-16", "v4-32", "v5p-16", "v6e-16", "h100-8"),
}

# AgentBank's trajectories (arXiv:2410.07706). How long they are nobody has published: 1,000 tokens is assumed, which is
# on the high side of what similar data have (means with Llama 2's tokenizer: 208 for 100 rows of FireAct's HotpotQA,
# 978 for 100 of KnowAgent's ALFWorld). FILL: share of a packed row that is no padding, assumed. MFU: assumed.
TRAJECTORIES, TOKENS_EACH, FILL, MFU = 51_287, 1_000, 0.98, 0.40


def jobs() -> list[tuple[str, str, str]]:
  """Returns (config, topology, changes) of every line of the table."""
  return [(config, *line.partition(" ")[::2]) for config, lines in TOPOLOGIES.items() for line in lines]


def compile_one(config: str, topology: str, changes: str) -> dict:
  """Returns the summary of `agentbank compile`; what it printed is shown as it comes."""
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "agentbank_jax.cli", "compile", f"--config={HERE.parent}/configs/{config}.py",
               f"--topology={topology}", "--config.compile.suggest=False", f"--workdir={folder}",
               *(f"--config.{change}" for change in changes.split())]
    if code := subprocess.run(command, cwd=HERE.parent).returncode:
      raise SystemExit(f"{config} {changes} on {topology}: agentbank compile ended with {code}")
    return json.loads((pathlib.Path(folder) / "summary.json").read_text())


def results() -> dict[tuple[str, str, str], dict]:
  """Returns what was measured, the last of each."""
  lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
  return {(row["config"], row["ordered"], row["changes"]): row for row in map(json.loads, lines)}


def table(found: dict[tuple[str, str, str], dict]) -> str:
  """Returns the results as Markdown, in the order of `TOPOLOGIES`."""
  lines = ["| config | machine | chips | GiB per chip, of | fits | compiled in |", "|---|---|---|---|---|---|"]
  for config, topology, changes in jobs():
    if row := found.get((config, topology, changes)):
      peak = "?" if row["peak_hbm_gib"] is None else f"{row['peak_hbm_gib']:.2f}"
      seconds = f"{row['compile_seconds']:.0f} s" if row["fits"] else ""
      name = f"`{config}`" + (f", `{changes}`" if changes else "")
      lines.append(f"| {name} | {topology} | {row['chips']} | {peak}, {row['hbm_gib']} | "
                   f"{'yes' if row['fits'] else 'no'} | {seconds} |")
  return "\n".join(lines)


def plan(name: str) -> str:
  """Returns what tuning a config on AgentBank takes on the TPUs that its docstring names, in a line."""
  config = importlib.import_module(f"configs.{name}").get_config()
  topology, model = parse_topology(TOPOLOGIES[name][0]), architecture(config.model)
  rows = math.ceil(TRAJECTORIES * TOKENS_EACH / FILL / config.data.seq_len)
  steps = num_steps(rows, config.data.batch_size, config.train.epochs)
  positions = steps * config.data.batch_size * config.data.seq_len
  work = positions * flops.train_flops_per_token(model, (TOKENS_EACH + 1) / 2)
  hours = work / (topology.chips * flops.PEAK_FLOPS[topology.generation.device_kind] * MFU) / 3600
  return f"{name}: {steps:,} steps, {positions / 1e6:.0f}M tokens, {hours:.1f} hours on {topology.accelerator_type}"


def main(argv) -> None:
  del argv
  if PLAN.value:
    print("\n".join(map(plan, TOPOLOGIES)))
    return
  (HERE / "results").mkdir(exist_ok=True)
  # The first line of each config, then the second, and so on: what is most asked comes first.
  line = lambda job: TOPOLOGIES[job[0]].index(" ".join(job[1:]).strip())
  for job in [] if TABLE.value else sorted(jobs(), key=line):
    if (ONLY.value and job[0] not in ONLY.value) or job in results():
      continue
    summary = compile_one(*job)
    kept = ("fits", "peak_hbm_gib", "hbm_gib", "chips", "parts_gib", "collectives", "estimate", "compile_seconds",
            "reason", "versions", "git_revision")
    row = dict(zip(("config", "ordered", "changes"), job, strict=True), date=str(datetime.date.today()),
               **{k: summary[k] for k in kept if k in summary})
    with RESULTS.open("a") as file:
      file.write(json.dumps(row) + "\n")
  print(table(results()))


if __name__ == "__main__":
  app.run(main)
