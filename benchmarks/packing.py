"""`agentbank pack` beside TRL: conversations in; rendered, masked and packed rows out.

  pip install trl==1.16.0 && python benchmarks/packing.py --rounds=5

TRL does what SFTTrainer does with assistant_only_loss and packing: `apply_chat_template` with the assistant mask over
two processes, then `pack_dataset("bfd")`; its rows stay in Arrow. Ours also shifts targets, keeps the ledger and writes
ArrayRecord files, in two processes as well. Both have the same conversations, tokenizer and format.
Workers of ours import this file, so it imports the other side's libraries only where they are used.
"""

import pathlib
import random
import statistics
import tempfile
import time

from absl import app, flags
import machine
import numpy as np

from agentbank_jax.chat import make_renderer
from agentbank_jax.chat_template import FORMATS
from agentbank_jax.tokenizer import train_tokenizer
from agentbank_jax.trajectory import Trajectory, Turn
from agentbank_jax.trajectory_io import write_trajectories
from configs import pack as pack_config
from data_prep import pack

COUNT = flags.DEFINE_integer("conversations", 20_000, "how many")
ROUNDS = flags.DEFINE_integer("rounds", 5, "rounds", lower_bound=1)
PROCESSES = flags.DEFINE_integer("processes", 2, "of TRL", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 1, "processes of ours beside the first", lower_bound=0)
LENGTH = 4096


def conversations(count: int) -> list[list[dict]]:
  """Returns agent-like conversations of about 800 tokens: Zipf-distributed made-up words, log-normal lengths."""
  rng, draw = random.Random(0), np.random.default_rng(0)
  syllables = [a + b for a in "b c d f g k l m n p r s t v w st tr".split() for b in "a e i o u ai er an in".split()]
  words = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(20_000)]
  say = lambda n: " ".join(words[i % len(words)] for i in draw.zipf(1.25, n))
  found = []
  for _ in range(count):
    messages = [{"role": "system", "content": "You are an agent in a text world. " + say(40)}]
    for _ in range(int(np.clip(draw.lognormal(1.75, 0.5), 1, 30))):
      observation = say(int(np.clip(draw.lognormal(3.9, 0.5), 8, 400)))
      messages += [{"role": "user", "content": f"Observation: {observation}"},
                   {"role": "assistant", "content": f"Thought: {say(int(draw.integers(10, 60)))}.\nAction: {say(4)}"}]
    found.append(messages)
  return found


def run_trl(dataset, tokenizer) -> tuple[float, float]:
  """Returns seconds and the share of positions that are no padding."""
  import trl

  def render(example):
    out = tokenizer.apply_chat_template(example["messages"], return_dict=True, return_assistant_tokens_mask=True)
    return {"input_ids": out["input_ids"], "assistant_masks": out["assistant_masks"]}

  began = time.perf_counter()
  rendered = dataset.map(render, remove_columns=["messages"], num_proc=PROCESSES.value)
  packed = trl.pack_dataset(rendered, LENGTH, "bfd", {"num_proc": PROCESSES.value})
  seconds = time.perf_counter() - began
  return seconds, sum(map(len, packed["input_ids"])) / (len(packed) * LENGTH)


def run_ours(source: pathlib.Path, tokenizer: pathlib.Path, workdir: pathlib.Path) -> tuple[float, float]:
  config = pack_config.get_config()
  config.sources[0].path, config.tokenizer, config.format = str(source), str(tokenizer), "llama3"
  config.seq_len, config.eval_share, config.workers = LENGTH, 0.0, WORKERS.value
  began = time.perf_counter()
  packed = pack.run(config, workdir)
  return time.perf_counter() - began, 1 - packed["splits"]["train"]["padding_share"]


def main(argv) -> None:
  import datasets
  import transformers
  import trl
  del argv
  datasets.disable_caching()
  datasets.disable_progress_bars()
  messages = conversations(COUNT.value)
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    texts = (m["content"] for c in messages[:1500] for m in c)
    make_renderer(train_tokenizer(texts, 8192, FORMATS["llama3"].control_tokens), "llama3").save(folder / "tokenizer")
    write_trajectories(folder / "source.jsonl", (
        Trajectory(str(i), "text_world", tuple(Turn(**m) for m in c)) for i, c in enumerate(messages)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.chat_template = TEMPLATE
    dataset = datasets.Dataset.from_dict({"messages": messages})
    sides = {"trl": [], "agentbank-jax": []}
    for i in range(ROUNDS.value):
      sides["trl"].append(run_trl(dataset, tokenizer))
      sides["agentbank-jax"].append(run_ours(folder / "source.jsonl", folder / "tokenizer", folder / str(i)))
  seconds = {name: [s for s, _ in runs] for name, runs in sides.items()}
  times = statistics.median(a / b for a, b in zip(seconds["trl"], seconds["agentbank-jax"], strict=True))
  for name, runs in sides.items():
    print(f"{name}: {COUNT.value / statistics.median(seconds[name]):,.0f} conversations/s, "
          f"{runs[0][1]:.4f} of the positions are no padding")
  print(f"agentbank-jax is {times:.2f} times as fast")
  machine.append({
      "suite": "packing", "processes": PROCESSES.value, "workers": WORKERS.value, "conversations": COUNT.value,
      "seconds": seconds, "filled": {name: runs[0][1] for name, runs in sides.items()}, "times": times,
      "trl": trl.__version__})


# Llama 3's format with the marks that `return_assistant_tokens_mask` needs.
TEMPLATE = """\
{%- for message in messages %}{%- if loop.first %}{{ bos_token }}{%- endif %}\
{%- if message['role'] == 'assistant' %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\
{%- generation %}{{ message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}\
{%- else %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\
{{- message['content'] | trim + '<|eot_id|>' }}{%- endif %}{%- endfor %}"""

if __name__ == "__main__":
  app.run(main)
