"""Packs trajectories into loss-masked rows of one length: a TFDS data set that training reads.

  agentbank pack --config=configs/pack.py --workdir=runs/pack \\
      --config.sources[0].path=runs/import/trajectories.jsonl --config.tokenizer=path/to/model

writes runs/pack/packed/: ArrayRecord shards with the splits `train` and `eval`, the tokenizer, and
`ledger.json` (every input row and token: kept, or dropped and why), `mixture.json` (requested and
achieved shares), `renderer.json` (format and fingerprints) and `pack.json` (sizes, tasks). The same
ledger is printed. Conversations of about 800 tokens fill rows of 4096 to 99.5% or more; about 600 of
them are packed per second and core. Look at the result with `agentbank inspect`.
"""

import ml_collections

from configs.base import optional


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()

  # Trajectory files (.jsonl, .parquet), each with its relative share of the mixture in `unit`.
  # None for all: in proportion to their sizes.
  config.sources = (ml_collections.ConfigDict({"path": "trajectories.jsonl", "weight": optional(float)},
                                              convert_dict=False),)
  config.unit = "trained_tokens"  # rows (trajectories) | tokens | trained_tokens
  # Units to select, or "all": the most that repeats nothing. With the same seed and weights, a smaller
  # total is a subset of a larger one. A source that is asked for more than it has is repeated.
  config.total = "all"
  config.seed = 0

  # Held out for evaluation: this share of each source, or these files instead (whole, not mixed).
  config.eval_share = 0.01
  config.eval_sources = ()

  # The tasks that transfer is measured on are never trained on: their trajectories are dropped, counted. Which they
  # are, the registry says (`agentbank doctor`). Further tasks to leave out:
  config.refuse_tasks = ()

  # A trajectory that holds the text of an evaluation problem is dropped, counted and named in contamination.jsonl
  # (see data_prep/contamination.py): ("gsm8k", "bamboogle"), for example. Their data must be there.
  config.contamination = ml_collections.ConfigDict()
  config.contamination.tasks = ()
  config.contamination.split = "test"  # train | test
  config.contamination.instances = 10_000  # of each task, or as many as there are
  config.contamination.ngram = 13  # words in a row, as for GPT-3
  config.contamination.shortest = 8  # a problem of fewer words is not looked for
  config.contamination.common = 10  # problems of a task that may share words in a row; more do: it is their form

  config.tokenizer = ""  # a Hugging Face directory with tokenizer.json, or a SentencePiece .model file
  config.format = "llama2"  # llama2 | llama3 | chatml | mistral | plain | template
  config.seq_len = 4096
  # Conversations longer than a row: drop | cut_at_turn | window (see data_prep/overlong.py).
  config.overlong = "window"

  # Abort if a source loses more than this share of its rows or tokens. What is left out on purpose
  # (held-out tasks, contamination, the mixture, what is also in the eval split) is not counted.
  config.max_dropped_share = 0.05

  config.workers = 0  # processes beside this one, which encodes too. The result is the same, byte for byte.
  config.block_size = 256  # trajectories encoded at once
  config.overwrite = False  # replace an existing data set
  return config
