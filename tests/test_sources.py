"""Importers and `agentbank import`: loss flags, bytes, counts, and what is said about bad rows."""

import copy
import functools
import json
import operator
import pathlib

from ml_collections import ConfigDict
import pytest

from agentbank_jax.errors import UserError
from agentbank_jax.trajectory import Outcome, Trajectory, TrajectoryError
from agentbank_jax.trajectory_io import read_trajectories
from configs import import_agentbank, import_samples
from data_prep.import_sources import run
from data_prep.ledger import Ledger, Where
from data_prep.sources import agentbank, format_names, get_format
from data_prep.sources.openai_messages import to_openai
from data_prep.sources.sharegpt import to_sharegpt
from data_prep.sources.source import Context, DropRow, Reason, load_rows, mask_acknowledgement

SAMPLES = pathlib.Path(__file__).parent / "samples"
NASTY = "</s>[INST]<|eot_id|>\r\n\x1b[0m \u2028 {\"a\": 1} 🙂 "


def convert(name, row, **options):
  return get_format(name).convert(row, Context("row-1", "a_task", options=options))


def dropped(name, row, **options):
  with pytest.raises(DropRow) as drop:
    convert(name, row, **options)
  return drop.value.reason


def config(path, format_="sharegpt", **changes):
  result = ConfigDict()
  options = {"tools_in_system": False} if format_ in ("sharegpt", "openai") else {}
  result.sources = (import_agentbank.source("s", format_, str(path), task="a_task", **options),)
  result.lint = import_agentbank.lint()
  result.on_bad_row, result.max_bad_share, result.output = "drop", 0.5, "out.jsonl"
  result.update(changes)
  return result


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("samples")
  summary = run(import_samples.get_config(), workdir)
  return summary, {t.id: t for t in read_trajectories(summary["output"])}


def test_every_format_has_a_sample_and_every_row_is_accounted_for(samples):
  summary, rows = samples
  ledger = summary["ledger"]
  assert {s.format for s in import_samples.get_config().sources} == set(format_names())
  assert ledger["rows_in"] == ledger["rows_kept"] + sum(ledger["rows_dropped"].values()) == 41
  assert len(rows) == ledger["rows_kept"] == 24
  assert ledger["rows_dropped"] == {
      "answer_not_computed": 1, "bad_loss_flag": 1, "database_absent": 1, "evaluation_id_only": 1,
      "lint_calculator_error": 1, "malformed_row": 2, "no_annotation": 1, "no_turns": 2,
      "part_of_another_row": 1, "query_failed": 1, "unequal_thoughts_actions_observations": 1,
      "unknown_role": 1, "unsupported_content": 2, "wrong_value": 1}
  assert ledger["examples"]["unknown_role"] == ["agent_flan.jsonl row 3 (id 3)"]
  output = pathlib.Path(summary["output"])
  assert json.loads((output.parent / "ledger.json").read_text()) == ledger
  assert summary["differs_from_release"] == [
      "alfworld: 1 rows, the release has 3,321", "gsm8k: 2 rows, the release has 7,385"]


# The turns of every sample that is kept: system, user, assistant, tool; in capitals where there is loss.
LOSS_FLAGS = {
    "adp/adp-1": "uaAtAtA",  # "source: agent" is an observation
    "agent_flan/1": "suAtA",  # flag missing: the rule
    "agent_flan/2": "uAua",  # the last turn may be without loss
    "agentbank/alfworld/0": "uAuAuA",  # begins with an acknowledgement, which the config keeps
    "agentbank/gsm8k/0": "uAuAuA",
    "agentinstruct/os_1": "uauAuA",  # the data's own flags
    "agentinstruct/alfworld_7": "uauA",  # no flags: the acknowledgement, by the config
    "agenttraj/webshop_12": "uauA",
    "fireact/fireact-000001": "uAuA",  # observations are cut out of the agent's text
    "fireact/fireact-000002": "uA",
    "gsm8k/gsm8k-000001": "uAuAuA",
    "gsm8k/gsm8k-000002": "uAuAuA",
    "gsm8k/gsm8k-000003": "uAuA",
    "intercode/ic_sql-4": "uAuAuA",
    "lumos/sq_1": "uAuA",
    "openai/chat-1": "suAttA",
    "openai/chat-2": "uauAtA",  # "train": false
    "sharegpt/alfworld_12": "uauAuA",  # ETO's; the acknowledgement, by the config
    "sharegpt/sg-1": "suAtA",
    "sharegpt/sg-2": "uA",
    "spider/spider-000001": "uAuA",
    "spider/spider-000002": "uAuA",
    "transcript/pick_and_place_simple-Mug-None-Desk-308/trial_1": "uAuA",
    "xlam/x1": "suAtA",
}


def test_loss_flags(samples):
  _, rows = samples
  found = {name: "".join(t.role[0].upper() if t.train else t.role[0] for t in row.turns) for name, row in rows.items()}
  assert found == LOSS_FLAGS
  assert {name.split("/")[0] for name in LOSS_FLAGS} == set(format_names())


def test_what_the_source_says_beside_the_turns_is_kept(samples):
  _, rows = samples
  assert rows["agentbank/alfworld/0"].metadata["game_file"].endswith("trial_1")
  assert (rows["agenttraj/webshop_12"].reward, rows["agenttraj/webshop_12"].outcome) == (0.5, Outcome.FAILED)
  assert rows["intercode/ic_sql-4"].reward == 1.0
  assert rows["gsm8k/gsm8k-000001"].provenance.technique == "reformatting"
  assert all(row.provenance.licence == "Apache-2.0" for row in rows.values())


@pytest.mark.parametrize("name, row, key", [
    ("agenttraj", {"item_id": "webshop_1", "conversations": [{"from": "human", "value": "Go."},
                                                             {"from": "gpt", "value": "OK"}]}, "success"),
    ("transcript", {"name": "game", "traj": "A room.\n> look\nA hall."}, "result")])
def test_an_outcome_is_true_or_false(name, row, key):
  outcome = lambda value: get_format(name).convert(row | {key: value}, Context("x", task="t")).outcome
  assert [outcome(value) for value in (True, 1, False, 0, None)] == ["solved", "solved", "failed", "failed", None]
  for value in ("false", 0.5, []):
    with pytest.raises(DropRow, match=f"{key} is .*, expected true or false"):
      outcome(value)


def test_fireact_observations_have_no_loss_and_no_byte_is_lost():
  output = f"Thought: a\nAction: search[b]\nObservation: {NASTY}\nmore\n\nThought: c\nAction: finish[d]"
  row = convert("fireact", {"instruction": "q", "input": "", "output": output})
  assert "\n".join(t.content for t in row.turns[1:]) == output
  assert [t.role for t in row.turns] == ["user", "assistant", "user", "assistant"]
  assert row.turns[2].content.startswith("Observation: ") and row.reward is None
  finished = "\nObservation: Episode finished, reward = True\n"
  row = convert("fireact", {"instruction": "q", "output": output + finished})
  assert "\n".join(t.content for t in row.turns[1:]) == output
  assert (row.reward, row.outcome) == (1.0, Outcome.SOLVED)


@pytest.mark.parametrize("name, key, role, content", [
    ("agentbank", "conversations", "from", "value"), ("agentinstruct", "conversations", "from", "value"),
    ("agenttraj", "conversations", "from", "value"), ("agent_flan", "conversation", "role", "content"),
    ("lumos", "messages", "role", "content"), ("openai", "messages", "role", "content"),
    ("sharegpt", "conversations", "from", "value")])
def test_content_keeps_its_bytes(name, key, role, content):
  names = ("human", "gpt") if role == "from" else ("user", "assistant")
  contents = [NASTY, "", NASTY * 2, "\n"]
  row = {key: [{role: names[i % 2], content: c} for i, c in enumerate(contents)]}
  options = {"tools_in_system": True} if name in ("openai", "sharegpt") else {}
  assert [t.content for t in convert(name, row, **options).turns] == contents


@pytest.mark.parametrize("message, reason", [
    ({"from": "human", "value": "x", "loss": True}, Reason.BAD_LOSS_FLAG),
    ({"from": "gpt", "value": "x", "loss": "yes"}, Reason.BAD_LOSS_FLAG),
    ({"from": "gpt", "value": "x", "weight": 0.5}, Reason.BAD_LOSS_FLAG),
    ({"from": "gpt", "value": "x", "loss": True, "train": False}, Reason.BAD_LOSS_FLAG),
    ({"from": "gpt", "value": "x", "loss_mask": [1, 0]}, Reason.BAD_LOSS_FLAG),
    ({"from": "gpt", "value": "x", "train_detail": [{"begin_offset": 0}]}, Reason.BAD_LOSS_FLAG),
    ({"from": "gpt", "value": [{"type": "text", "text": "x", "train": False}]}, Reason.BAD_LOSS_FLAG),
    ({"from": "gpt", "value": [{"type": "image"}]}, Reason.UNSUPPORTED),
    ({"from": "critic", "value": "x"}, Reason.UNKNOWN_ROLE),
    ({"from": "gpt", "value": 3}, Reason.MALFORMED),
    ({"from": "gpt"}, Reason.MALFORMED),
    ({"value": "x"}, Reason.MALFORMED),
    ("text", Reason.MALFORMED),
])
def test_a_malformed_turn_has_a_reason(message, reason):
  row = {"conversations": [{"from": "human", "value": "q"}, message]}
  assert dropped("sharegpt", row, tools_in_system=False) == reason


@pytest.mark.parametrize(
    "flag", [{"loss": False}, {"train": False}, {"loss_mask": 0}, {"trainable": False}, {"weight": 0}])
def test_every_trainers_flag_is_honoured(flag):
  row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **flag}]}
  assert convert("openai", row, tools_in_system=False).turns[1].train is False


@pytest.mark.parametrize("tools_in_system", [True, False])
@pytest.mark.parametrize("name, export", [("openai.jsonl", to_openai), ("sharegpt.json", to_sharegpt)])
def test_export_undoes_import(name, export, tools_in_system):
  rows, kept = list(load_rows(SAMPLES / name)), 0
  for row in rows:
    try:
      trajectory = convert(name.split(".")[0], row, tools_in_system=tools_in_system)
    except DropRow:
      continue
    kept += 1
    assert export(trajectory) == row
  assert kept == 2


@pytest.mark.parametrize("arguments", [
    '{"a":1}', '{ "a" : [1, 2.50, "\\u00e9", "é\u2028"] }', "{}", "", "not JSON", '"text"', "[1]",
    '{"a": "\\n}"}', NASTY])
@pytest.mark.parametrize("text", [None, "", "Thought: look\n", 'Action: {"name": "x", "arguments": {}}'])
def test_tool_calls_survive_the_round_trip(arguments, text):
  function = {"name": 'f"\n', "arguments": arguments}
  calls = [{"id": f"c{i}", "type": "function", "function": function} for i in (1, 2)]
  row = {"id": "1", "messages": [{"role": "user", "content": "q"},
                                 {"role": "assistant", "content": text, "tool_calls": calls}]}
  trajectory = convert("openai", row, tools_in_system=False)
  assert to_openai(trajectory) == row
  lines = trajectory.turns[1].content.split("\n")
  assert all(line.startswith('Action: {"name": ') for line in lines[-2:])
  assert [json.loads(line[8:])["name"] for line in lines[-2:]] == ['f"\n'] * 2


def test_arguments_may_be_an_object():
  call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}
  row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]}
  trajectory = convert("openai", row, tools_in_system=False)
  assert trajectory.turns[1].content == 'Action: {"name": "f", "arguments": {"a": "é"}}'
  exported = to_openai(trajectory)["messages"][1]["tool_calls"][0]["function"]
  assert json.loads(exported["arguments"]) == {"a": "é"}


def test_legacy_function_calls_are_not_silently_lost():
  call = {"name": "f", "arguments": "{}"}
  row = {"messages": [{"role": "user", "content": "q"},
                      {"role": "assistant", "content": "", "function_call": call}]}
  assert dropped("openai", row, tools_in_system=False) == Reason.UNSUPPORTED


JUNK = (None, True, 3, -1.5, float("nan"), "x", "", [], {}, [1], {"a": 1}, [None], ["a"], "\ud800")


def places(value, path=()):
  """Yields the path of everything inside a row."""
  inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
  for key, inner in inside:
    yield (*path, key)
    yield from places(inner, (*path, key))


@pytest.mark.parametrize("source", import_samples.get_config().sources, ids=lambda source: source.format)
def test_no_row_however_broken_breaks_an_importer(source):
  context = Context("1", source.task or "a_task", options=source.options)
  fmt, refused = get_format(source.format), 0
  for path, _ in fmt.files(pathlib.Path(source.path), source.options):
    for row in load_rows(path):
      for *outer, key in places(row):
        for junk in JUNK:
          broken = copy.deepcopy(row)
          functools.reduce(operator.getitem, outer, broken)[key] = junk
          try:
            assert isinstance(fmt.convert(broken, context), Trajectory)
          except (DropRow, TrajectoryError) as e:
            assert str(e)  # the reason is told
            refused += 1
  assert refused > len(JUNK)  # junk in a turn's place is no turn


def test_only_an_acknowledgement_loses_its_loss():
  def first(answer):
    row = {"conversations": [{"from": "human", "value": "Rules."}, {"from": "gpt", "value": answer},
                             {"from": "human", "value": "Go."}, {"from": "gpt", "value": "Action: look"}]}
    return [t.train for t in mask_acknowledgement(convert("agentbank", row)).turns]
  agreed = "OK. I'll follow your instructions and try my best to solve the task."
  assert first(agreed) == [False, False, False, True]
  assert first("Ok.") == [False, False, False, True]
  for answer in ("OK. Action: look", "Okra is a vegetable.", "Ok.\nThought: x\nAction: y", "Action: go"):
    assert first(answer) == [False, True, False, True]


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


TALK = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def test_bad_rows_are_dropped_counted_and_limited(tmp_path):
  rows = [{"id": str(i), "conversations": TALK} for i in range(8)] + [{"id": "8"}, ["not a row"]]
  write(tmp_path / "in.jsonl", rows)
  summary = run(config(tmp_path / "in.jsonl"), tmp_path / "out")
  assert summary["ledger"]["rows_dropped"] == {"malformed_row": 2} and summary["rows"] == 8
  with pytest.raises(UserError, match="source 's': 2 of 10 rows are bad .malformed_row 2."):
    run(config(tmp_path / "in.jsonl", max_bad_share=0.1), tmp_path / "limited")
  with pytest.raises(UserError, match=r"in.jsonl row 9 \(id '8'\): no field 'conversations'"):
    run(config(tmp_path / "in.jsonl", on_bad_row="error"), tmp_path / "strict")
  for folder in ("limited", "strict"):
    assert not list((tmp_path / folder).iterdir())  # whole, or not at all


def test_text_that_no_file_can_hold_is_dropped(tmp_path):
  bad = [{"from": "human", "value": "\ud800"}, {"from": "gpt", "value": "a"}]
  write(tmp_path / "in.jsonl", [{"id": "1", "conversations": TALK}, {"id": "2", "conversations": bad},
                                {"id": "3", "conversations": TALK, "note": "\ud800"},
                                {"id": "4", "conversations": TALK, "score": float("nan")},
                                {"id": "5", "conversations": TALK}])
  summary = run(config(tmp_path / "in.jsonl", max_bad_share=0.7), tmp_path / "out")
  assert summary["ledger"]["rows_dropped"] == {"malformed_row": 3} and summary["rows"] == 2


def test_repeated_ids_are_dropped_and_a_prefix_keeps_two_sources_apart(tmp_path):
  write(tmp_path / "in.jsonl", [{"id": "1", "conversations": TALK}, {"id": "1", "conversations": TALK}])
  both = config(tmp_path / "in.jsonl")
  again = import_agentbank.source("t", "sharegpt", str(tmp_path / "in.jsonl"), task="b", id_prefix="t/",
                                  tools_in_system=False)
  both.sources = (*both.sources, again)
  summary = run(both, tmp_path / "out")
  assert summary["ledger"]["rows_dropped"] == {"lint_duplicate_id": 2}
  assert [t.id for t in read_trajectories(summary["output"])] == ["1", "t/1"]


def test_what_the_person_can_mend_is_a_user_error(tmp_path):
  good = tmp_path / "in.jsonl"
  write(good, [{"id": "1", "conversations": TALK}])

  def fails(match, change=None, source=None):
    bad = config(good, **(change or {}))
    bad.sources[0].update(source or {})
    with pytest.raises(UserError, match=match) as error:
      run(bad, tmp_path / "out")
    assert "\n" not in str(error.value)

  fails("unknown format 'sharegtp'; did you mean 'sharegpt'", source={"format": "sharegtp"})
  fails("no such file", source={"path": "nowhere.jsonl"})
  fails("do not say which task", source={"task": ""})
  fails("options of the source 's': unknown key 'tools_in_system'", source={"format": "agentbank"})
  fails("options of the source 's': unknown key 'tools_in_system'", source={"format": "fireact"})
  fails("on_bad_row is 'ignore'", {"on_bad_row": "ignore"})
  (tmp_path / "cut.json").write_text('[{"id": "1", "conv')
  fails("cut.json: not JSON.*cut short", source={"path": str(tmp_path / "cut.json")})
  (tmp_path / "empty.json").write_text("[]")
  fails("no rows in", source={"path": str(tmp_path / "empty.json")})
  (tmp_path / "number.json").write_text("3")
  fails("holds int, expected a list", source={"path": str(tmp_path / "number.json")})
  (tmp_path / "folder").mkdir()
  fails("no .jsonl", source={"path": str(tmp_path / "folder")})
  twice = config(good)
  twice.sources = twice.sources * 2
  with pytest.raises(UserError, match="two sources have the name 's'"):
    run(twice, tmp_path / "out")
  bare = config(good, "fireact")
  bare.sources[0].options = ConfigDict({})
  bare.sources[0].format = "agentbank"
  with pytest.raises(UserError, match="options of the source 's': no key 'configs'"):
    run(bare, tmp_path / "out")


def test_agentbank_configs_are_checked(capsys, tmp_path):
  def agentbank(*configs):
    result = config(tmp_path)
    folder = str(SAMPLES / "agentbank")
    result.sources = (import_agentbank.source("AB", "agentbank", folder, configs=configs),)
    return result
  with pytest.raises(UserError, match="no config 'gsm8'; did you mean 'gsm8k'"):
    run(agentbank("gsm8"), tmp_path)
  with pytest.raises(UserError, match="webshop: no parquet file here"):
    run(agentbank("gsm8k", "webshop"), tmp_path)
  run(agentbank("gsm8k"), tmp_path)
  said = capsys.readouterr().out
  assert "'mbpp_before' is left out: an older copy of mbpp" in said and "'intercode_bash' is left out" in said


def test_what_is_left_out_of_agentbank_is_left_out_by_default():
  (source,) = import_agentbank.get_config().sources
  assert len(agentbank.CONFIGS) == 19
  assert set(source.options.configs) == set(agentbank.CONFIGS) - {"mbpp_before", "alfred", "intercode_bash"}
  assert agentbank.LEFT_OUT.keys() == {"mbpp_before", "alfred", "intercode_bash"}


@pytest.mark.parametrize("extra", [{}, {"game_file": "g"}, {"meta_information": {"query": "ls", "gold": None, "n": 2}}])
def test_agentbanks_three_layouts(tmp_path, extra):
  """Columns `id` and `conversations` alone, alfworld's, and those with a struct beside them; by `datasets` itself."""
  datasets = pytest.importorskip("datasets")
  talk = [{"from": "human", "value": NASTY}, {"from": "gpt", "value": "Thought: a\nAction: b"},
          {"from": "human", "value": "Observation: c"}, {"from": "gpt", "value": "Final Answer: d"}]
  folder = tmp_path / "AgentBank" / "webshop"
  folder.mkdir(parents=True)
  table = datasets.Dataset.from_list([{"id": f"webshop_{i}", "conversations": talk, **extra} for i in range(3)])
  table.to_parquet(folder / "train-00000-of-00001.parquet")
  bank = config(folder.parent, max_bad_share=0.0)
  bank.sources = (import_agentbank.source("AB", "agentbank", str(folder.parent), configs=("webshop",)),)
  summary = run(bank, tmp_path / "out")
  rows = list(read_trajectories(summary["output"]))
  assert [(row.id, row.task) for row in rows] == [(f"webshop_{i}", "webshop") for i in range(3)]
  assert [(t.role, t.content) for t in rows[0].turns] == [
      ({"human": "user", "gpt": "assistant"}[m["from"]], m["value"]) for m in talk]
  assert rows[0].metadata == extra
  assert summary["differs_from_release"] == ["webshop: 3 rows, the release has 4,958"]


def test_the_ledger_finds_a_missing_row():
  ledger = Ledger()
  ledger.read("s", rows=3, tokens=30)
  ledger.keep(Where("s", "t", "1"), trained=4, masked=6)
  ledger.drop("too_long", Where("s", "t", "2"), tokens=10)
  with pytest.raises(AssertionError, match="s: 3 rows in, but 2 kept or dropped"):
    ledger.check()
  ledger.keep(Where("s", "u", "3"), trained=1, masked=8)
  with pytest.raises(AssertionError, match="s: 30 tokens in, but 29 kept or dropped"):
    ledger.check()
  ledger.drop("cut", Where("s", "u", "3"), rows=0, tokens=1)
  ledger.check()
  other = Ledger()
  other.merge(ledger)
  other.merge(ledger)
  other.check()
  totals = other.to_json()
  assert (totals["rows_in"], totals["rows_kept"], totals["rows_dropped"]) == (6, 4, {"too_long": 2})
  assert (totals["tokens_in"], totals["tokens_trained"], totals["tokens_masked"]) == (60, 10, 28)
  assert totals["tokens_dropped"] == {"cut": 2, "too_long": 20}


REAL = (  # format, path, task, options
    ("agentinstruct", "trajectories/adp_agenttuning_db_sample_raw.json", "", {}),
    ("agentinstruct", "trajectories/adp_agenttuning_os_sample_raw.json", "", {}),
    ("sharegpt", "trajectories/adp_codeactinstruct_sample_raw.json", "codeact", {"tools_in_system": False}),
    ("agentbank", "trajectories/agentbank_alfred_recovered.jsonl", "alfred", {"configs": ()}),
    ("agentbank", "trajectories/agentbank_like.jsonl", "hotpotqa", {"configs": ()}),
    ("fireact", "trajectories/fireact_hotpotqa.json", "hotpotqa", {}),
    ("sharegpt", "trajectories/glaive_toolcall_en_demo.json", "tools", {"tools_in_system": True}),
    ("agentinstruct", "alfworld/agenttuning_alfworld_sample_raw.json", "", {}),
    ("transcript", "alfworld/knowagent_success_218.jsonl", "", {}),
    ("agenttraj", "webshop/agentgym_fncall.jsonl", "", {}),
    ("agentinstruct", "webshop/agenttuning_webshop_sample_raw.json", "", {}),
    ("agentinstruct", "mind2web/agenttuning_mind2web_sample_raw.json", "", {}),
    ("sharegpt", "mind2web/adp_sample_sft_alt.json", "mind2web", {"tools_in_system": False}),
    ("intercode", "intercode_sql/react_gpt35_reward1_sample.json", "", {}),
)


@pytest.mark.parametrize("name, path, task, options", REAL, ids=[path for _, path, _, _ in REAL])
def test_real_rows_are_all_imported(real_data, tmp_path, name, path, task, options):
  result = config(real_data / path, max_bad_share=0.0)
  result.sources = (import_agentbank.source("real", name, str(real_data / path), task=task, **options),)
  summary = run(result, tmp_path)
  rows = list(load_rows(real_data / path))
  assert summary["rows"] == len(rows) > 0 and not summary["ledger"]["rows_dropped"]
  # Whatever text the conversations hold, the trajectories hold.
  raw = [m.get("value", m.get("content")) for row in rows
         for m in row.get("conversations", row.get("conversation", []))]
  imported = "\0".join(t.content for row in read_trajectories(summary["output"]) for t in row.turns)
  parts = [part["text"] for text in raw if isinstance(text, list) for part in text]
  assert all(text in imported for text in [*parts, *(text for text in raw if isinstance(text, str))])
