"""Bad input, verb by verb: exit code 2, one line that says what is wrong, and nothing half-written left."""

import json
import shutil

import numpy as np
from packing_samples import trajectories, write_rows
import pytest
from training_samples import save_model, save_packed, write_training_config

from agentbank_jax import cli
from agentbank_jax.bundle import Bundle
from agentbank_jax.convert.to_hf import export_hf
from agentbank_jax.trajectory import Trajectory
from agentbank_jax.trajectory_io import write_trajectories
from configs import import_samples

pytestmark = pytest.mark.usefixtures("one_device")
TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  return save_packed(tmp_path_factory.mktemp("data"), count=24)


@pytest.fixture(scope="module")
def model(packed, tmp_path_factory):
  return save_model(tmp_path_factory.mktemp("model") / "model", packed)


@pytest.fixture
def fails(tmp_path, capfd):
  """Runs a verb in an empty workdir; returns its one line, when nothing is left but what `left` names."""
  def run(verb, *settings, left=(), config=None):
    workdir = tmp_path / "workdir"
    args = [f"--config={config}"] if config else []
    args += [f"--config.{setting}" for setting in settings]
    capfd.readouterr()
    code = cli._main(["agentbank", verb, *args, f"--workdir={workdir}"])
    err = capfd.readouterr().err
    told = [line for line in err.splitlines() if "agentbank: error: " in line]
    assert (code, len(told)) == (2, 1), err
    assert "Traceback" not in err
    found = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    assert found == set(left)
    return told[0].removeprefix("agentbank: error: ")
  return run


def _source(path, text):
  path.write_text(text)
  return f"sources[0].path={path}"


def _row(**changes):
  return json.dumps({"id": "a", "task": "sums", "turns": TURNS} | changes) + "\n"


# pack


@pytest.mark.parametrize("text, told", [
    (_row() + _row(id="b")[:40], "row 2: not JSON"),
    (_row() + "[1, 2]\n", "row 2: row is list"),
    (_row() + json.dumps({"id": "b", "conversations": TURNS}) + "\n", "row 2 (id 'b')"),
    (_row(turns=[{"role": "robot", "content": "x"}]), "robot"),
    (_row(turns=[{"role": "user", "content": None}]), "content"),
    (_row(turns=[{"role": "user", "content": "x", "los": True}]), "los"),
    (_row(reward="high"), "reward"),
    ("\x00\x01\x02", "row 1: not JSON"),
    (_row() + _row(turns=[]), "row 2"),
], ids=["truncated", "no object", "other schema", "role", "content", "turn key", "reward", "binary", "no turns"])
def test_pack_bad_rows(fails, tmp_path, packed, text, told):
  line = fails("pack", _source(tmp_path / "bad.jsonl", text), f"tokenizer={packed / 'tokenizer'}", "format=llama3")
  assert "bad.jsonl" in line
  assert told in line


@pytest.mark.parametrize("suffix", ["jsonl.gz", "parquet"])
def test_pack_a_file_cut_short(fails, tmp_path, packed, suffix):
  path = tmp_path / f"rows.{suffix}"
  write_trajectories(path, map(Trajectory.from_json, trajectories(200)))
  path.write_bytes(path.read_bytes()[:-500])
  line = fails("pack", f"sources[0].path={path}", f"tokenizer={packed / 'tokenizer'}", "format=llama3")
  assert f"{path}: not a whole" in line


def test_pack_a_tokenizer_cut_short(fails, tmp_path, packed):
  good = _source(tmp_path / "good.jsonl", _row())
  shutil.copytree(packed / "tokenizer", tmp_path / "tokenizer")
  path = tmp_path / "tokenizer" / "tokenizer.json"
  path.write_bytes(path.read_bytes()[:2000])
  assert "tokenizer.json: cannot be read" in fails("pack", good, f"tokenizer={path.parent}", "format=llama3")
  (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05")
  assert "truncated" in fails("pack", good, f"tokenizer={tmp_path / 'tokenizer.model'}", "format=plain")
  path.unlink()
  assert "no tokenizer.json" in fails("pack", good, f"tokenizer={path.parent}", "format=llama3")


def test_pack_missing_files(fails, tmp_path, packed):
  good = _source(tmp_path / "good.jsonl", _row())
  assert "nowhere.jsonl" in fails("pack", "sources[0].path=nowhere.jsonl", f"tokenizer={packed / 'tokenizer'}")
  assert "nowhere" in fails("pack", good, "tokenizer=nowhere")
  assert "tokenizer" in fails("pack", good)
  assert "llama4" in fails("pack", good, f"tokenizer={packed / 'tokenizer'}", "format=llama4")


def test_pack_a_tokenizer_without_eos(fails, tmp_path):
  import tokenizers
  folder = tmp_path / "tokenizer"
  folder.mkdir()
  tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, [])).save(str(folder / "tokenizer.json"))
  (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
  line = fails("pack", _source(tmp_path / "good.jsonl", _row()), f"tokenizer={folder}", "format=llama3")
  assert "no eos token" in line


# import


@pytest.fixture
def import_config(tmp_path):
  """Returns a config file that imports one file as ShareGPT's."""
  def write(path, format="sharegpt"):
    config = tmp_path / "config.py"
    config.write_text(f'''from ml_collections import ConfigDict
from configs.import_agentbank import lint, source


def get_config():
  return ConfigDict({{"sources": (source("bad", {format!r}, {str(path)!r}, task="sums", tools_in_system=True),),
                     "lint": lint(), "on_bad_row": "drop", "max_bad_share": 0.0, "output": "out.jsonl"}})
''')
    return config
  return write


@pytest.mark.parametrize("text, told", [
    ('[{"id": "a", "conversations": [{"from": "human", "value"', "bad.json"),
    ('[{"id": "a", "conversations": [{"from": "robot", "value": "x"}]}]', "bad"),
    ('[{"id": "a", "messages": []}]', "bad"),
    ("[]", "no rows"),
    ("", "bad.json"),
], ids=["truncated", "role", "other schema", "no rows", "empty"])
def test_import_bad_rows(fails, tmp_path, import_config, text, told):
  (tmp_path / "bad.json").write_text(text)
  assert told in fails("import", config=import_config(tmp_path / "bad.json"))


def test_import_missing_file_and_unknown_format(fails, tmp_path, import_config):
  assert "nowhere.json" in fails("import", config=import_config(tmp_path / "nowhere.json"))
  assert "did you mean 'sharegpt'" in fails("import", config=import_config(tmp_path / "x.json", "sharegtp"))


def test_import_a_parquet_file_cut_short(fails, tmp_path, import_config):
  path = tmp_path / "rows.parquet"
  write_trajectories(path, map(Trajectory.from_json, trajectories(200)))
  path.write_bytes(path.read_bytes()[:-500])
  assert f"{path}: not a whole parquet file" in fails("import", config=import_config(path))


# train


def test_train_data_that_is_damaged(fails, tmp_path, packed):
  def damaged(pattern, change):
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    shutil.copytree(packed, tmp_path / "copy")
    path, = (tmp_path / "copy").glob(pattern)
    change(path)
    return fails("train", config=write_training_config(tmp_path / "config.py", tmp_path / "copy"))

  def cut(path):
    path.write_bytes(path.read_bytes()[:-3000])

  assert "damaged or cut short" in damaged("*-train.array_record*", cut)
  assert "is missing" in damaged("*-eval.array_record*", lambda path: path.unlink())
  assert "pack.json" in damaged("pack.json", cut)
  assert "tokenizer.json" in damaged("tokenizer/tokenizer.json", cut)
  assert "not the one that was saved" in damaged(
      "tokenizer/chat.json", lambda path: path.write_text(path.read_text().replace("llama3", "plain")))


def test_train_goes_on_with_another_model(fails, tmp_path, packed, capfd):
  """A run's own checkpoint of another shape, and one that is damaged: the folder is left as it was."""
  config = write_training_config(tmp_path / "config.py", packed, {"train.steps": 1})
  done = tmp_path / "done"
  assert cli._main(["agentbank", "train", f"--config={config}", f"--workdir={done}"]) == 0
  shutil.copytree(done / "checkpoints", tmp_path / "workdir" / "checkpoints")
  before = sorted(str(p.relative_to(tmp_path / "workdir")) for p in (tmp_path / "workdir").rglob("*") if p.is_file())
  line = fails("train", "model.overrides.intermediate_size=96", config=config, left=before)
  assert "has shape" in line and "checkpoint of another model" in line
  for path in (tmp_path / "workdir").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2])
  assert "none of the 1 checkpoints can be read" in fails("train", config=config, left=before)


def test_train_data_that_is_not_packed(fails, tmp_path):
  (tmp_path / "folder").mkdir()
  (tmp_path / "file").write_text("")
  for name, told in {"nowhere": "no such directory", "folder": "not a packed data set",
                     "file": "no such directory"}.items():
    assert told in fails("train", config=write_training_config(tmp_path / "config.py", tmp_path / name))


def test_train_a_model_that_does_not_fit_or_is_damaged(fails, tmp_path, packed, model):
  def start(path):
    return write_training_config(tmp_path / "config.py", packed, {"model.preset": None, "model.init_from": str(path)})

  assert "nowhere" in fails("train", config=start("nowhere"))
  assert "NaN" in fails("train", config=start(save_model(tmp_path / "nan", packed, np.nan)))
  cut = save_model(tmp_path / "cut", packed)
  config = json.loads((cut / "config.json").read_text())
  (cut / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
  assert "shape" in fails("train", config=start(cut))
  (cut / "config.json").write_text("{")
  assert "config.json" in fails("train", config=start(cut))


# evaluate


def test_evaluate_a_log_that_is_damaged(fails, tmp_path):
  args = "tasks=('arithmetic',)", "player=expert", "episodes=2"
  workdir = tmp_path / "workdir"
  assert cli._main(["agentbank", "evaluate", *(f"--config.{a}" for a in args), f"--workdir={workdir}"]) == 0
  for name in ("summary.json", "report.html"):
    (workdir / name).unlink()
  left = ("episodes/arithmetic.jsonl", "episodes/arithmetic.fingerprint.json")
  log = workdir / left[0]
  whole = log.read_text()
  log.write_text(whole[50:])
  assert "arithmetic.jsonl row 1: not JSON" in fails("evaluate", *args, left=left)
  log.write_text(whole)
  assert "invalid_actions is 7 here and 5 there" in fails("evaluate", *args, "limits.invalid_actions=7", left=left)
  (workdir / left[1]).write_text("{")
  assert "fingerprint.json is not JSON" in fails("evaluate", *args, left=left)
  (workdir / left[1]).unlink()
  assert "fingerprint.json is missing" in fails("evaluate", *args, left=left[:1])


def test_evaluate_bad_settings(fails, model):
  assert "did you mean 'arithmetic'" in fails("evaluate", "tasks=('arithmetik',)", "player=expert")
  assert "split" in fails("evaluate", "tasks=('arithmetic',)", "player=expert", "split=tset")
  assert "expert" in fails("evaluate", "tasks=('arithmetic',)", "player=human")
  assert "episodes" in fails("evaluate", "tasks=('arithmetic',)", "player=expert", "episodes=0")
  for player in ("expert", "random"):
    assert fails("evaluate", "tasks=('arithmetic',)", f"player={player}", "slots=0") == "slots is 0, expected 1 or more"


def test_evaluate_bad_models(fails, tmp_path, packed, model):
  tasks = "tasks=('arithmetic',)"
  assert "nowhere" in fails("evaluate", tasks, "engine.model=nowhere")
  assert "model" in fails("evaluate", tasks)
  (tmp_path / "empty").mkdir()
  assert "config.json" in fails("evaluate", tasks, f"engine.model={tmp_path / 'empty'}")
  assert "llama4" in fails("evaluate", tasks, f"engine.model={model}", "engine.format=llama4")
  nan = save_model(tmp_path / "nan", packed, np.inf)
  assert "NaN or infinite" in fails("evaluate", tasks, f"engine.model={nan}", "episodes=1",
                                    "sampling.context=256")


# convert


def test_convert_bad_models(fails, tmp_path, packed, model):
  target = tmp_path / "target"
  args = "direction=to_hf", f"target={target}"
  assert "nowhere" in fails("convert", *args, "source=nowhere")
  assert "source is not set" in fails("convert", *args)
  assert "choose one of" in fails("convert", "direction=to_hg", f"source={model}", f"target={target}")
  for key in ("rows=0", "length=0", "greedy_tokens=-1"):
    assert f"config.check.{key.replace('=', ' is ')}" in fails("convert", *args, f"source={model}", f"check.{key}")
  nan = save_model(tmp_path / "nan", packed, np.nan)
  line = fails("convert", *args, f"source={nan}")
  assert "layers.mlp.up.kernel" in line
  assert "NaN" in line
  assert not target.exists()
  assert [path.name for path in tmp_path.iterdir()] == ["nan"]


def test_convert_a_damaged_hugging_face_folder(fails, tmp_path, model):
  hf = tmp_path / "hf"
  export_hf(model, hf)
  args = f"source={hf}", f"target={tmp_path / 'target'}"
  weights = hf / "model.safetensors"
  whole = weights.read_bytes()
  weights.write_bytes(whole[:-100])
  assert "model.safetensors" in fails("convert", *args)
  weights.write_bytes(whole)
  config = json.loads((hf / "config.json").read_text())
  (hf / "config.json").write_text(json.dumps(config | {"hidden_size": 40}))
  assert "shape" in fails("convert", *args)
  (hf / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
  assert "hidden_act" in fails("convert", *args)
  (hf / "config.json").write_text(json.dumps(config))
  weights.unlink()
  assert "safetensors" in fails("convert", *args)
  assert not (tmp_path / "target").exists()
  assert Bundle.open(model)  # the sources are untouched


# all


@pytest.mark.parametrize("verb", ["import", "pack", "convert", "train", "evaluate", "inspect", "doctor"])
def test_a_workdir_that_is_a_file(tmp_path, packed, model, capfd, verb):
  (tmp_path / "workdir").write_text("mine")
  data, tokenizer = write_rows(tmp_path / "rows.jsonl", trajectories(20)), f"tokenizer={packed / 'tokenizer'}"
  settings = {
      "pack": (f"sources[0].path={data}", tokenizer, "format=llama3", "eval_share=0.2"),
      "convert": (f"source={model}", "direction=to_hf", f"target={tmp_path / 'workdir' / 'hf'}"),
      "evaluate": ("tasks=('arithmetic',)", "player=expert", "episodes=1"),
      "inspect": (f"data={packed}",),
  }.get(verb, ())
  config = {"import": import_samples.__file__,
            "train": write_training_config(tmp_path / "config.py", packed)}.get(verb)
  args = [f"--config={config}"] if config else []
  capfd.readouterr()
  assert cli._main(["agentbank", verb, *args, *(f"--config.{s}" for s in settings),
                    f"--workdir={tmp_path / 'workdir'}"]) == 2
  told = capfd.readouterr().err.splitlines()[-1]
  assert told.startswith("agentbank: error: ") and str(tmp_path / "workdir") in told
  assert (tmp_path / "workdir").read_text() == "mine"


# inspect


def test_inspect(fails, tmp_path, packed):
  good = write_rows(tmp_path / "good.jsonl", trajectories(2))
  (tmp_path / "folder").mkdir()
  render = f"tokenizer={packed / 'tokenizer'}", "format=llama3"
  assert "nowhere.jsonl" in fails("inspect", "data=nowhere.jsonl", *render)
  assert "not a packed data set" in fails("inspect", f"data={tmp_path / 'folder'}")
  assert "config.tokenizer" in fails("inspect", f"data={good}")
  assert "no trajectory 7" in fails("inspect", f"data={good}", *render, "index=7")
  assert "not 999" in fails("inspect", f"data={packed}", "index=999")
  assert "no split 'test'" in fails("inspect", f"data={packed}", "split=test")
  assert "nobody" in fails("inspect", f"data={packed}", "id=nobody")
  (tmp_path / "bad.jsonl").write_text(_row()[:30])
  assert "bad.jsonl" in fails("inspect", f"data={tmp_path / 'bad.jsonl'}", *render)
  assert "data" in fails("inspect")
