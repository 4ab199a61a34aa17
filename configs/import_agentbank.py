"""Imports AgentBank (Hugging Face: Solaris99/AgentBank, Apache-2.0), downloaded to data/AgentBank:

    agentbank import --config=configs/import_agentbank.py --workdir=runs/agentbank

reads `data/AgentBank/<config>/train-00000-of-00001.parquet` of the paper's 16 tasks and writes
runs/agentbank/trajectories.jsonl, ledger.json and lint.json. Expect about 50,000 rows in, the ledger that
says where each went, and a line for every config whose number of rows is not that of the release. The
configs `mbpp_before`, `alfred` and `intercode_bash` are left out, and the run says why. A minute or two;
memory does not grow with the data.

HumanEval and WebArena have no training split: what is trained on their rows is contaminated for them.
"""

from ml_collections import ConfigDict


def source(name: str, format: str, path: str, *, task: str = "", licence: str = "", id_prefix: str = "",
           train_acknowledgement: bool = True, **options) -> ConfigDict:
  """Returns one entry of `sources`.

  Args:
    name: what the ledger and the provenance of every row call it.
    format: one of `data_prep.sources`.
    path: a file, or a folder whose files are all read.
    task: of all rows; "" where the file or the row says it.
    licence: of the rows, for the provenance; "" where it is not known.
    id_prefix: put in front of every id, where those of two sources meet.
    train_acknowledgement: whether a first agent turn like "OK. I'll follow your instructions." has loss.
    **options: those of the format.
  """
  return ConfigDict({
      "name": name, "format": format, "path": path, "task": task, "licence": licence, "id_prefix": id_prefix,
      "train_acknowledgement": train_acknowledgement, "options": options})


def lint() -> ConfigDict:
  """Returns an action for every rule of `data_prep.lint`: "drop" the row, or "report" and keep it."""
  return ConfigDict({
      "empty_turn": "drop",
      "role_order": "report",
      "observation_count": "report",
      "truncated_observation": "report",
      "ansi_escape": "report",
      "calculator_error": "drop",
      "single_action": "report",
      "last_turn": "report",
      "no_trained_turn": "drop",
      "duplicate_id": "drop",
  })


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.sources = (
      source("AgentBank", "agentbank", "data/AgentBank", licence="Apache-2.0", configs=(
          "alfworld", "apps", "gsm8k", "hotpotqa", "humaneval", "intercode_sql", "iqa", "math", "mathqa",
          "mbpp", "mind2web", "rearrange", "strategyqa", "triviaqa", "webarena", "webshop")),
  )
  config.lint = lint()
  config.on_bad_row = "drop"  # or "error": stop at the first row that cannot be read
  config.max_bad_share = 0.01  # of a source's rows; more bad ones than that stop the run
  config.output = "trajectories.jsonl"  # or .jsonl.gz, or .parquet: AgentBank's columns and ours
  return config
