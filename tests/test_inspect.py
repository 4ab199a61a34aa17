"""The inspector shows every token as it is trained, and shows content as content."""

import html
import io
import json
import re

import ml_collections
import numpy as np
from packing_samples import make_config, save_tokenizer, trajectories, write_rows
import pytest
from rich.console import Console

from agentbank_jax.chat import load_renderer
from agentbank_jax.data import PackedDataset
from agentbank_jax.errors import UserError
from agentbank_jax.tokenizer import load_tokenizer
from configs import inspect as inspect_config
from data_prep import inspect_records, pack

NASTY = "<script>alert('x')</script> & <|eot_id|> \x1b[31mred [bold]not markup[/bold] 漢字"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("inspect")
  nasty = {"id": "nasty", "task": "sums", "turns": [{"role": "user", "content": NASTY},
                                                    {"role": "assistant", "content": "Action: été"}]}
  write_rows(folder / "rows.jsonl", [*trajectories(12), nasty])
  pack.run(make_config(save_tokenizer(folder / "tokenizer"), folder / "rows.jsonl", eval_share=0.0), folder)
  return folder


def _config(**changes) -> ml_collections.ConfigDict:
  config = inspect_config.get_config()
  config.update(changes)
  return config


def _shown(page, segment):
  """Returns `(text, classes, id)` of every token of one segment of a page."""
  body = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)[segment]
  spans = re.findall(r'<span class="(.*?)" title="(\d+)">(.*?)</span>', body, re.DOTALL)
  return [(html.unescape(text), set(classes.split()), int(number)) for classes, number, text in spans]


def test_a_packed_record_and_the_file_it_came_from_look_the_same(folder, tmp_path):
  packed = inspect_records.run(_config(data=str(folder / "packed"), id="t3"), tmp_path / "a")
  plain = inspect_records.run(_config(data=str(folder / "rows.jsonl"), id="t3", format="llama3",
                                      tokenizer=str(folder / "tokenizer")), tmp_path / "b")
  number = [s["trajectory_id"] for s in packed["segments"]].index("t3")
  assert packed["segments"][number] == plain["segments"][0]
  pages = [(tmp_path / name / "record.html").read_text() for name in "ab"]
  assert _shown(pages[0], number) == _shown(pages[1], 0)


def test_the_page_shows_the_content_the_mask_and_the_control_tokens(folder, tmp_path):
  result = inspect_records.run(_config(data=str(folder / "packed"), id="nasty"), tmp_path)
  page = (tmp_path / "record.html").read_text()
  assert "<script>" not in page
  number = [s["trajectory_id"] for s in result["segments"]].index("nasty")
  tokens = _shown(page, number)
  text = "".join(t for t, _, _ in tokens)
  assert NASTY.replace("\x1b", "␛") in text
  trained = "".join(t for t, classes, _ in tokens if "t" in classes)
  assert trained == "Action: été<|eot_id|>"
  tok = load_tokenizer(folder / "tokenizer")
  control = [(t, i) for t, classes, i in tokens if "c" in classes]
  assert all(tok.decode([i]) == t for t, i in control)
  # The content's own "<|eot_id|>" is text: only the two terminators are control tokens.
  assert [t for t, _ in control].count("<|eot_id|>") == 2
  assert result["segments"][number]["trained"] == len("Action: été".encode()) + 1
  assert "http" not in page and "src=" not in page  # self-contained


def test_the_terminal_gets_no_markup_and_no_escape_sequences_from_the_content(folder):
  rows = PackedDataset.open(folder / "packed").source("train")
  row = next(row for row in rows if "nasty" in json.loads(row["trajectory_ids"]))
  renderer = load_renderer(folder / "packed/tokenizer")
  shown = [(s, inspect_records.tokens_of(s, renderer)) for s in inspect_records.unpack(row, ["a", "b"])]
  out = io.StringIO()
  inspect_records.print_record("title", shown, Console(file=out, force_terminal=False, width=200))
  assert NASTY.replace("\x1b", "␛") in out.getvalue()
  coloured = io.StringIO()
  console = Console(file=coloured, force_terminal=True, color_system="standard")
  inspect_records.print_record("title", shown, console)
  assert "\x1b[1;32mA" in coloured.getvalue()  # the first trained character, bold green


def test_records_are_found_by_index(folder, tmp_path):
  rows = json.loads((folder / "packed/pack.json").read_text())["splits"]["train"]["rows"]
  ids = []
  for index in range(rows):
    result = inspect_records.run(_config(data=str(folder / "packed"), index=index), tmp_path)
    ids += [s["trajectory_id"] for s in result["segments"]]
  assert sorted(ids) == sorted(["nasty", *(f"t{i}" for i in range(12))])


@pytest.mark.parametrize("changes, told", [
    (dict(data="packed", index=10_000), "has the rows 0 to"),
    (dict(data="packed", index=-1), "has the rows 0 to"),
    (dict(data="packed", id="nobody"), "nobody"),
    (dict(data="packed", split="eval"), "no split 'eval'"),
    (dict(data="packed", format="llama3"), "has its own"),
    (dict(data="rows.jsonl"), "config.tokenizer"),
    (dict(data="rows.jsonl", id="nobody", tokenizer="tokenizer", format="llama3"), "no trajectory 'nobody'"),
    (dict(data="rows.jsonl", index=99, tokenizer="tokenizer", format="llama3"), "no trajectory 99"),
    (dict(data="nowhere.jsonl", tokenizer="tokenizer", format="llama3"), "no such file"),
], ids=str)
def test_what_is_not_there_is_told(folder, tmp_path, changes, told):
  changes = {k: str(folder / v) if k in ("data", "tokenizer") else v for k, v in changes.items()}
  with pytest.raises(UserError, match=told):
    inspect_records.run(_config(**changes), tmp_path)


def test_a_damaged_row_is_told():
  row = {"tokens": np.array([1, 2, 3]), "targets": np.array([2, 9, 4]), "segment_ids": np.ones(3, int),
         "loss_mask": np.ones(3, bool), "segment_tasks": np.array([0]), "trajectory_ids": '["a"]'}
  with pytest.raises(UserError, match="not its tokens shifted"):
    inspect_records.unpack(row, ["sums"])
