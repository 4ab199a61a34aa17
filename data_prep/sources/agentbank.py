"""AgentBank as it was released: `<config>/train-00000-of-00001.parquet` with `id` and `conversations`.

Roles are human and gpt, every gpt turn trains, and there is no system turn, reward or loss flag. What a
config has beside (`game_file` of alfworld, `meta_information` of some) goes to the metadata.
"""

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.trajectory import Trajectory
from data_prep.sources.source import Context, Format, files_at, identity, messages_of, read_turns, rest_of

CONFIGS = ("alfred", "alfworld", "apps", "gsm8k", "hotpotqa", "humaneval", "intercode_bash", "intercode_sql",
           "iqa", "math", "mathqa", "mbpp", "mbpp_before", "mind2web", "rearrange", "strategyqa", "triviaqa",
           "webarena", "webshop")

# Not in the default config, and why.
LEFT_OUT = {
    "mbpp_before": "an older copy of mbpp: importing both counts its problems twice",
    "alfred": "not one of the 16 tasks of the paper, and some of its episodes finish without success",
    "intercode_bash": "overlaps InterCode-Bash, which is held out for evaluation",
}

# Rows of the release, where they are known from more than memory.
KNOWN_ROWS = {"alfred": 623, "alfworld": 3321, "apps": 4408, "gsm8k": 7385, "hotpotqa": 4273,
              "humaneval": 132, "intercode_sql": 4522, "mind2web": 7770, "webarena": 658, "webshop": 4958}


def files(path: pathlib.Path, options: Mapping[str, Any]) -> Iterator[tuple[pathlib.Path, str | None]]:
  """Yields the files of the folders named in `configs`, each with its config as task.

  With no `configs`, `path` is one file, or a folder of files, of one task that the source names.

  Raises:
    UserError: an unknown config, or one without files.
  """
  configs = options["configs"]
  if not configs:
    yield from files_at(path, options)
  for config in configs:
    if config not in CONFIGS:
      raise UserError(f"AgentBank has no config {config!r}{did_you_mean(config, CONFIGS)}")
    found = sorted((path / config).glob("*.parquet"))
    if not found:
      raise UserError(f"{path / config}: no parquet file here; fetch it, or take {config!r} out of `configs`")
    yield from ((file, config) for file in found)


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  name, task = identity(row, context), context.task_or(None)
  if not name.startswith(task):  # two configs may count their rows alike
    name = f"{task}/{name}"
  return Trajectory(name, task, read_turns(messages_of(row, "conversations")), provenance=context.provenance,
                    metadata=rest_of(row, "id", "conversations"))


def differences(rows: Mapping[str, int]) -> list[str]:
  """Returns a line for every config whose number of rows is not that of the release."""
  return [f"{config}: {rows[config]:,} rows, the release has {KNOWN_ROWS[config]:,}"
          for config in rows if config in KNOWN_ROWS and rows[config] != KNOWN_ROWS[config]]


FORMAT = Format(convert, options=("configs",), files=files)
