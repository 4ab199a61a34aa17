"""The chain on real rows, as a user runs it: all are imported and accounted for, and packed almost without gaps."""

import json

import pytest
import tensorflow_datasets as tfds

from agentbank_jax import cli
from agentbank_jax.chat import load_renderer
from agentbank_jax.trajectory_io import read_trajectories
from data_prep.sources.source import load_rows

# path: (format, task, options); every file of trajectories/ and intercode_sql/, and GSM8K's training rows.
SOURCES = {
    "trajectories/adp_agenttuning_db_sample_raw.json": ("agentinstruct", "", {}),
    "trajectories/adp_agenttuning_os_sample_raw.json": ("agentinstruct", "", {}),
    "trajectories/adp_codeactinstruct_sample_raw.json": ("sharegpt", "codeact", {"tools_in_system": False}),
    "trajectories/agentbank_alfred_recovered.jsonl": ("agentbank", "alfred", {"configs": ()}),
    "trajectories/agentbank_like.jsonl": ("agentbank", "agentbank_like", {"configs": ()}),
    "trajectories/fireact_hotpotqa.json": ("fireact", "hotpotqa", {}),
    "trajectories/glaive_toolcall_en_demo.json": ("sharegpt", "tools", {"tools_in_system": True}),
    "gsm8k/train_1000.jsonl": ("gsm8k", "", {}),
    "intercode_sql/react_gpt35_reward1_sample.json": ("intercode", "", {}),
    "intercode_sql/ic_spider_dev.json": ("spider", "", {"databases": "intercode_sql/sqlite"}),
}


def _config(real_data):
  """Returns the text of a config file that imports `SOURCES`."""
  sources = []
  for path, (format, task, options) in SOURCES.items():
    options = {k: str(real_data / v) if k == "databases" else v for k, v in options.items()}
    sources.append(f"source({path!r}, {format!r}, {str(real_data / path)!r}, task={task!r}, "
                   f"id_prefix={path + '/'!r}, **{options!r})")
  return f'''from ml_collections import ConfigDict
from configs.import_agentbank import lint, source


def get_config():
  return ConfigDict({{"sources": ({", ".join(sources)}), "lint": dict.fromkeys(lint(), "report") | {{
      "duplicate_id": "drop"}}, "on_bad_row": "drop", "max_bad_share": 0.0, "output": "trajectories.parquet"}})
'''


def _run(verb, workdir, *args):
  assert cli._main(["agentbank", verb, *map(str, args), f"--workdir={workdir}"]) == 0
  return json.loads((workdir / "summary.json").read_text())


@pytest.fixture(scope="module")
def imported(real_data, tmp_path_factory):
  folder = tmp_path_factory.mktemp("real")
  (folder / "config.py").write_text(_config(real_data))
  return folder / "import", _run("import", folder / "import", f"--config={folder / 'config.py'}")


def test_no_file_of_trajectories_is_left_out(real_data):
  there = {str(p.relative_to(real_data)) for folder in ("trajectories", "gsm8k", "intercode_sql")
           for p in (real_data / folder).glob("*.json*")}
  assert there == SOURCES.keys()


def test_every_row_is_kept_or_dropped_with_a_reason(real_data, imported):
  workdir, summary = imported
  ledger = json.loads((workdir / "ledger.json").read_text())
  assert ledger == summary["ledger"]
  rows = {path: len(list(load_rows(real_data / path))) for path in SOURCES}
  counted = dict.fromkeys(SOURCES, 0)
  for part in ledger["by_source_and_task"]:
    counted[part["source"]] += part["rows_kept"] + sum(part["rows_dropped"].values())
  assert counted == rows
  assert ledger["rows_in"] == sum(rows.values()) == ledger["rows_kept"] + sum(ledger["rows_dropped"].values())
  # No row is lost but GSM8K's whose answer no annotated calculation gives.
  assert ledger["rows_dropped"].keys() == {"no_annotation", "answer_not_computed"}
  assert counted["gsm8k/train_1000.jsonl"] * 0.03 > sum(ledger["rows_dropped"].values())
  written = list(read_trajectories(workdir / "trajectories.parquet"))
  assert len(written) == len({row.id for row in written}) == ledger["rows_kept"] > 1900


def test_packed_for_mistral_at_4096_less_than_3_percent_is_padding(real_data, imported, tmp_path):
  summary = _run("pack", tmp_path, f"--config.sources[0].path={imported[0] / 'trajectories.parquet'}",
                 f"--config.tokenizer={real_data / 'tokenizer' / 'mistral_v1_tokenizer.model'}",
                 "--config.format=mistral", "--config.seq_len=4096", "--config.eval_share=0",
                 "--config.max_dropped_share=0")
  ledger, size = summary["ledger"], summary["splits"]["train"]
  assert ledger["rows_in"] == ledger["rows_kept"] == imported[1]["rows"] == size["trajectories"]
  assert ledger["tokens_in"] == ledger["tokens_trained"] + ledger["tokens_masked"]
  # What is on the disk, and not what the summary says of it.
  folder = tmp_path / "packed"
  used = trained = rows = 0
  for row in tfds.builder_from_directory(str(folder)).as_data_source("train"):
    rows += 1
    used += int((row["segment_ids"] > 0).sum())
    trained += int(row["loss_mask"].sum())
    assert len(row["tokens"]) == 4096
  assert trained == ledger["tokens_trained"] == size["trained_tokens"]
  assert used == size["tokens"]
  assert 1 - used / (rows * 4096) == pytest.approx(size["padding_share"], abs=1e-9)
  assert size["padding_share"] < 0.03
  assert load_renderer(folder / "tokenizer").tokenizer.vocab_size == 32_000
