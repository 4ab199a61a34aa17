"""Imports a few rows of every published format: the sample files of the tests. Runs offline, in a second:

    agentbank import --config=configs/import_samples.py --workdir=runs/samples

Expect every format in the ledger, each of the dropped rows with its reason, and the kept ones in
runs/samples/trajectories.jsonl. Copy an entry of `sources` to import the real thing; the keys are explained
in configs/import_agentbank.py.
"""

import pathlib

from ml_collections import ConfigDict

from configs.import_agentbank import lint, source

SAMPLES = pathlib.Path(__file__).parents[1] / "tests" / "samples"


def get_config() -> ConfigDict:
  def sample(name: str, path: str, **kwargs) -> ConfigDict:
    return source(f"{name} {path}", name, str(SAMPLES / path), licence="Apache-2.0", id_prefix=f"{name}/",
                  **kwargs)

  config = ConfigDict()
  config.sources = (
      sample("adp", "adp.jsonl", task="adp"),
      sample("agent_flan", "agent_flan.jsonl", task="agent_flan"),
      sample("agentbank", "agentbank", configs=("alfworld", "gsm8k")),
      sample("agentinstruct", "agentinstruct.jsonl", train_acknowledgement=False),
      sample("agenttraj", "webshop_train.json"),
      sample("sharegpt", "eto.json", task="alfworld", train_acknowledgement=False, tools_in_system=False),
      sample("fireact", "fireact.json", task="hotpotqa"),
      sample("gsm8k", "gsm8k.jsonl"),
      sample("intercode", "intercode.json"),
      sample("lumos", "lumos.jsonl"),
      sample("openai", "openai.jsonl", task="tools", tools_in_system=True),
      sample("sharegpt", "sharegpt.json", task="tools", tools_in_system=True),
      sample("spider", "spider.json", databases=str(SAMPLES / "databases")),
      sample("transcript", "transcript.jsonl"),
      sample("xlam", "xlam.jsonl", task="tools", tools_in_system=True),
  )
  config.lint = lint()
  config.on_bad_row = "drop"  # or "error": stop at the first row that cannot be read
  config.max_bad_share = 0.5  # the samples hold bad rows on purpose
  config.output = "trajectories.jsonl"  # or .jsonl.gz, or .parquet
  return config
