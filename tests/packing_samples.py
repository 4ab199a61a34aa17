"""A small tokenizer, synthetic trajectories and configs for the tests of packing and loading."""

import json
import random

from configs import pack as pack_config

SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def save_tokenizer(folder):
  """Saves a byte-level tokenizer without merges: one id a byte. It has no pad token, so pad is eos."""
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast
  vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
  tokenizer = Tokenizer(models.BPE(vocab, merges=[]))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens(list(SPECIALS))
  PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIALS[0],
                          eos_token=SPECIALS[1]).save_pretrained(folder)
  return folder


def trajectories(count, seed=0, prefix="t", tasks=("embodied_sim", "sums")):
  """Returns rows of a `.jsonl` file, 1 to 5 exchanges each, with every fourth first reply untrained."""
  rng = random.Random(f"{seed}{prefix}")
  text = lambda n: " ".join(rng.choice(["go", "look", "see", "été", "table 1", "x=3"]) for _ in range(n))
  rows = []
  for i in range(count):
    turns = [{"role": "system", "content": "You act."}] if i % 2 else []
    for exchange in range(rng.randint(1, 5)):
      turns.append({"role": "user", "content": f"Observation: {text(rng.randint(1, 6))}"})
      turns.append({"role": "assistant", "content": f"Thought: {text(3)}\nAction: {text(1)} {prefix}{i}"})
      if not exchange and i % 4 == 0 and i % 8:
        turns[-1]["train"] = False
    turns.append({"role": "user", "content": "Bye."})
    turns.append({"role": "assistant", "content": "Final Answer: done"})
    rows.append({"id": f"{prefix}{i}", "task": tasks[i % len(tasks)], "turns": turns})
  return rows


def write_rows(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def make_config(tokenizer, *paths, **changes):
  """Returns the default config with these sources, the llama3 format, rows of 1024 and `changes`."""
  config = pack_config.get_config()
  source = config.sources[0]
  config.sources = tuple(source.copy_and_resolve_references() for _ in paths)
  for entry, path in zip(config.sources, paths, strict=True):
    entry.path = str(path)
  config.update({"tokenizer": str(tokenizer), "format": "llama3", "seq_len": 1024} | changes)
  return config
