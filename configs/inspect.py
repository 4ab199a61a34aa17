"""Shows one record as text, token by token, with what is trained on in colour.

  agentbank inspect --config=configs/inspect.py --workdir=runs/inspect --config.data=runs/pack/packed \\
      --config.index=3

prints the record, and writes runs/inspect/record.html (token ids on hover; one file, no network). To
see what a trajectory file would become, before packing:

  agentbank inspect --config=configs/inspect.py --workdir=runs/inspect --config.data=trajectories.jsonl \\
      --config.id=gsm8k_17 --config.tokenizer=path/to/model --config.format=llama2
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.data = ""  # a packed data set, or a trajectory file
  config.split = "train"  # of a packed data set
  config.index = 0  # which row (packed) or trajectory (file), counted from 0
  config.id = ""  # a trajectory's id, instead of the index
  config.tokenizer = ""  # for a trajectory file; a packed data set has its own
  config.format = ""  # for a trajectory file; a packed data set has its own
  return config
