"""The command line: help, errors in one line, summaries; and the rules that the modules keep among themselves."""

import ast
import json
import operator
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
import typing

from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags
import pytest

import agentbank_jax
from agentbank_jax import cli
from agentbank_jax.models.config import LlamaConfig, RopeScaling
from configs.base import training
from data_prep import lint

ROOT = pathlib.Path(agentbank_jax.__file__).parents[1]
CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "base"))
SOURCES = sorted(p for folder in ("agentbank_jax", "data_prep") for p in (ROOT / folder).rglob("*.py"))
TREES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in SOURCES}


def _fails(capfd, *args):
  """Returns the line that a wrong command is answered with."""
  assert cli._main(["agentbank", *map(str, args)]) == 2
  out, err = capfd.readouterr()
  assert err.startswith("agentbank: error: "), err
  assert err.count("\n") == 1, err
  assert out == ""
  return err


# Help.


def test_help_names_every_verb(capfd):
  assert cli._main(["agentbank", "--help"]) == 0
  out = capfd.readouterr().out
  for verb in cli.VERBS:
    assert re.search(rf"^  {verb} ", out, re.MULTILINE)
  assert "usage: agentbank VERB --config=FILE" in out


def test_no_verb_is_an_error_that_shows_the_help(capfd):
  assert cli._main(["agentbank"]) == 2
  assert "usage:" in capfd.readouterr().out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb, capfd):
  assert cli._main(["agentbank", verb, "--help"]) == 0
  out = capfd.readouterr().out
  assert out.startswith(f"agentbank {verb}: ")
  required = cli.VERBS[verb].required
  assert (f"usage: agentbank {verb} --config=FILE" if required else "def get_config") in out


def test_help_of_a_given_config_shows_its_settings(capfd):
  assert cli._main(["agentbank", "train", f"--config={ROOT / 'configs/train_tiny.py'}", "--help"]) == 0
  out = capfd.readouterr().out
  assert "learning_rate = 3e-3" in out
  assert "keep_every = " in out  # of configs/base.py, which it starts from
  assert cli._main(["agentbank", "train", f"--config={ROOT / 'configs/lora_13b.py'}", "--help"]) == 0
  out = capfd.readouterr().out
  assert [out.count(f"It starts from configs/{name}.py") for name in ("lora_7b", "samoyed_7b", "base")] == [1, 1, 1]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_module_with_run(verb):
  path = ROOT / (cli.VERBS[verb].module.replace(".", "/") + ".py")
  functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef) and n.name == "run"]
  told = ["started"] if cli.VERBS[verb].timed else []
  assert [arg.arg for arg in functions[0].args.args] == ["config", "workdir", *told]


# Errors.

TRAIN = ("train", f"--config={ROOT / 'configs/train_tiny.py'}")


@pytest.mark.parametrize("args, told", [
    (["trian"], "no verb 'trian'; did you mean 'train'?"),
    (["train"], "needs --config=FILE"),
    (["import"], "needs --config=FILE"),
    (["train", "--config=nowhere.py"], "nowhere.py: no such config file"),
    (["train", "--help", "--config=nowhere.py"], "nowhere.py: no such config file"),
    (["pack", "--wrokdir=x"], "wrokdir"),
    (["pack", "x"], "unexpected argument 'x'"),
    (["pack", "--config.seqlen=3"], "unknown config key 'seqlen': no 'seqlen'; did you mean 'seq_len'?"),
    (["pack", "--config.sources[0].pth=a"], "no 'pth' in sources[0]; did you mean 'path'?"),
    (["pack", "--config.sources[7].path=a"], "sources has no element [7]"),
    (["pack", "--config.seq_len[0]=3"], "seq_len has no element [0]"),
    (["pack", "--config.seq_len.x=3"], "no 'x' in seq_len"),
    (["evaluate", "--config.sampling.temprature=1"], "no 'temprature' in sampling; did you mean 'temperature'?"),
    (["pack", "--config.seq_len=long"], "seq_len"),
    (["pack", "--config.seq_len"], "seq_len"),
    (["pack", "--config.overwrite=perhaps"], "overwrite"),
    (["pack", "--config.seq_len=None"], "seq_len"),
    (["pack", "--config.sources=x", "--config.sources[0]=3"], "config key 'sources[0]' is a group of settings"),
    (["evaluate", "--config.sampling={'temperature': 1}"], "such as --config.sampling.context="),
    ([*TRAIN, "--config.model.overrides.hiden_size=3"], "in model.overrides; did you mean 'hidden_size'?"),
    ([*TRAIN, "--config.model.overrides.rope_scaling.fctor=3"], "did you mean 'factor'?"),
    ([*TRAIN, "--config.model.overrides.bos_id=3"], "no 'bos_id' in model.overrides"),
    ([*TRAIN, "--config.model.overrides.num_layers=two"], "num_layers"),
    ([*TRAIN, "--config.model.overrides.tie_embeddings=perhaps"], "tie_embeddings"),
    ([*TRAIN, "--config.data.batch_size=None"], "batch_size"),
])
def test_a_wrong_command_is_answered_in_one_line(args, told, capfd):
  assert told in _fails(capfd, *args)


@pytest.mark.parametrize("text, told", [
    ("def get_config(:", "invalid syntax"),
    ("x = 1", "config.py: not a config file, it has no function get_config"),
    ("from configs.pack import get_config", "no key 'compile'; is it one of agentbank train?"),
    ("from configs.base import training\ndef get_config():\n  config = training()\n"
     "  config.optim.learningrate = 1e-3\n  return config",
     "config.py line 4: unknown config key 'learningrate'; did you mean 'learning_rate'?\n"),
    ("from configs.base import training\ndef get_config():\n  config = training()\n"
     "  config.model.overrides.update({'hiden_size': 3})\n  return config",
     "config.py line 4: unknown config key 'hiden_size'; did you mean 'hidden_size'?\n"),
    ("from configs.base import training\ndef get_config():\n  config = training()\n"
     "  config.model.overrides.num_layers = 'two'\n  return config", "config.py line 4: TypeError: Could not override"),
    ("def get_config():\n  return 1 / 0", "config.py line 2: ZeroDivisionError: division by zero"),
    ("def get_config():\n  return open('/nowhere/x')", "config.py line 2: FileNotFoundError: [Errno 2]"),
    ("def get_config():\n  pass", "config.py: get_config returns no ConfigDict"),
    ("import nothing_like_it", "nothing_like_it"),
])
def test_a_broken_config_file_is_answered_in_one_line(tmp_path, capfd, text, told):
  path = tmp_path / "config.py"
  path.write_text(text)
  assert told in _fails(capfd, "train", f"--config={path}")


@pytest.mark.parametrize("given, key, value", [
    ("train.steps=5", "train.steps", 5),
    ("train.epochs=None", "train.epochs", None),  # a number in this file
    ("model.init_from=models/7", "model.init_from", "models/7"),
    ("optim.clip_norm=None", "optim.clip_norm", None),
    ("train.write_model=None", "train.write_model", None),
    ("train.peak_flops=1e12", "train.peak_flops", 1e12),
    ("rules.embed=None", "rules.embed", None),
    ("rules.length=tensor", "rules.length", "tensor"),
    ("rules.mlp=('fsdp','tensor')", "rules.mlp", ("fsdp", "tensor")),
    ("model.overrides.num_layers=3", "model.overrides.num_layers", 3),
    ("model.overrides.rope_theta=500000", "model.overrides.rope_theta", 5e5),
    ("model.overrides.tie_embeddings=true", "model.overrides.tie_embeddings", True),
    ("model.overrides.model_type=qwen2", "model.overrides.model_type", "qwen2"),
    ("model.overrides.rope_scaling.factor=8", "model.overrides.rope_scaling.factor", 8.0),
])
def test_settings_that_may_be_none_are_set_from_the_command_line(given, key, value):
  config, _ = cli._parse("train", cli.VERBS["train"], ["agentbank", *TRAIN, f"--config.{given}"])
  assert operator.attrgetter(key)(config) == value
  assert config.is_locked


def test_the_last_word_counts():
  def steps(*values):
    args = ["agentbank", *TRAIN, *(f"--config.train.steps={v}" for v in values)]
    return cli._parse("train", cli.VERBS["train"], args)[0].train.steps
  assert (steps(5, None), steps(None, 5), steps(None, 5, None), steps(5, None, 6)) == (None, 5, None, 6)


def test_every_field_of_the_model_can_be_overridden():
  fields = typing.get_type_hints(LlamaConfig) | {"rope_scaling": typing.get_type_hints(RopeScaling)}
  types = {name: kind for name, kind in fields.items() if name not in ("bos_id", "eos_ids", "pad_id", "lora")}
  found = training().model.overrides
  scaling = {name: found.rope_scaling.get_type(name) for name in found.rope_scaling}
  assert {name: found.get_type(name) for name in found} | {"rope_scaling": scaling} == types | {"sliding_window": int}


def test_as_a_program_it_has_exit_code_2_and_no_traceback():
  done = subprocess.run([sys.executable, "-m", "agentbank_jax.cli", "evaluate", "--config.episodez=3"], cwd=ROOT,
                        capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr == "agentbank: error: unknown config key 'episodez': no 'episodez'; did you mean 'episodes'?\n"
  assert done.stdout == ""


def test_a_failing_verb_writes_no_summary(tmp_path, capfd):
  assert cli._main(["agentbank", "convert", f"--workdir={tmp_path}"]) == 2
  assert "config.source is not set" in capfd.readouterr().err
  assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("sent, code, told", [
    (signal.SIGTERM, 75, "agentbank: stopped on request; run the same command to go on"),
    (signal.SIGINT, 130, "agentbank: interrupted")])
def test_an_evaluation_that_is_stopped_has_a_code_of_its_own(tmp_path, sent, code, told):
  args = ["evaluate", "--config.player=expert", "--config.tasks=('household',)", "--config.episodes=20000",
          f"--workdir={tmp_path}"]
  # A shell that runs the tests in the background has its children ignore SIGINT.
  command = ["env", "--default-signal=INT", sys.executable, "-m", "agentbank_jax.cli", *args]
  process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
  log = tmp_path / "episodes" / "household.jsonl"
  while process.poll() is None and not (log.exists() and log.stat().st_size):
    time.sleep(0.02)
  process.send_signal(sent)
  _, err = process.communicate(timeout=60)
  assert (process.returncode, err.splitlines()[-1]) == (code, told), err
  assert not (tmp_path / "summary.json").exists()


# Summaries.


def test_the_summary_says_what_was_done_with_what(tmp_path):
  workdir = tmp_path / "deep" / "run"
  args = ["--config.player=expert", "--config.tasks=('arithmetic',)", "--config.episodes=2", "--config.seed=7",
          f"--workdir={workdir}"]
  assert cli._main(["agentbank", "evaluate", *args]) == 0
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["verb"] == "evaluate"
  assert summary["tasks"][0]["name"] == "arithmetic"
  assert summary["tasks"][0]["success"] == 1.0
  assert summary["config"]["episodes"] == 2
  assert summary["config"]["tasks"] == ["arithmetic"]
  assert summary["config"]["sampling"]["temperature"] == 0.0
  assert summary["seed"] == 7
  assert summary["versions"]["agentbank-jax"] == agentbank_jax.__version__
  assert {"python", "jax", "flax", "optax", "orbax-checkpoint", "grain"} <= summary["versions"].keys()
  assert summary["git_revision"] is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", summary["git_revision"])
  assert 0 < summary["wall_seconds"] < 300
  assert not list(workdir.glob("*.partial"))


def test_doctor_knows_every_task_and_how_to_get_what_is_missing(tmp_path, capfd):
  from agentbank_jax.tasks import task_names
  assert cli._main(["agentbank", "doctor", f"--workdir={tmp_path}"]) == 0
  out = capfd.readouterr().out
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert summary["tasks"].keys() == set(task_names())
  assert summary["tasks"]["arithmetic"] == "ready"
  assert summary["seed"] is None
  for package, version in summary["optional"].items():
    assert package in out
    assert version or "pip install" in out


# Config files.


def test_there_are_configs():
  assert len(CONFIGS) > 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_is_locked_and_its_commands_work(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  docstring = ast.get_docstring(ast.parse(path.read_text()), clean=False)
  commands = re.findall(r"^ +agentbank ((?:.*\\\n)*.*)", docstring, re.MULTILINE)
  assert commands, "a config's docstring has the command that uses it"
  for command in commands:
    verb, *args = shlex.split(command.replace("\\\n", " "))
    config, workdir = cli._parse(verb, cli.VERBS[verb], ["agentbank", verb, *args])
    assert isinstance(config, ConfigDict)
    assert config.is_locked
    assert str(workdir).startswith("runs/")
    file = next((a.removeprefix("--config=") for a in args if a.startswith("--config=")), None)
    assert (file or f"configs/{cli.VERBS[verb].config}.py") == f"configs/{path.name}"


def _names_in_the_code():
  """Returns what the sources read by name: attributes, strings that are no docstrings, fields, keywords."""
  names = set()
  for tree in TREES.values():
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    docstrings = {id(node.body[0].value) for node in ast.walk(tree)
                  if isinstance(node, documented) and ast.get_docstring(node, clean=False)}
    for node in ast.walk(tree):
      if isinstance(node, ast.Attribute):
        names.add(node.attr)
      elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
        names.add(node.value)
      elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        names.add(node.target.id)
  return names | set(lint.RULES)


def _keys(config):
  for key, value in config.items():
    yield key
    for inner in value if isinstance(value, tuple) else (value,):
      if isinstance(inner, ConfigDict):
        yield from _keys(inner)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_no_key_of_a_config_is_dead(path):
  config = config_flags._LoadConfigModule("config", str(path)).get_config()
  tasks = set(config.get("trajectories", {})) if path.stem == "quickstart" else set()  # names, not settings
  dead = set(_keys(config)) - _names_in_the_code() - tasks
  assert not dead, f"nothing reads {sorted(dead)}"


# Rules among the modules.


def _imports(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _importers(*prefixes):
  """Returns the modules that import one of `prefixes` or what is below it."""
  inside = lambda name: any(name == p or name.startswith(p + ".") for p in prefixes)
  return {str(path) for path, tree in TREES.items() if any(map(inside, _imports(tree)))}


def _below(*folders):
  return {str(path) for path in TREES if str(path).startswith(folders)}


def test_imports_go_one_way():
  library = _below("agentbank_jax/")
  assert _importers("data_prep") & library == {"agentbank_jax/quickstart.py"}
  assert not _importers("torch", "tensorflow", "torch_xla")
  assert not _importers("configs") - {"agentbank_jax/cli.py"}
  assert _importers("absl.flags", "argparse", "click", "ml_collections.config_flags") == {
      "agentbank_jax/cli.py", "agentbank_jax/command_line.py"}
  assert _importers("orbax") == {"agentbank_jax/checkpoint.py", "agentbank_jax/params_store.py"}
  assert not _importers("agentbank_jax.tasks", "agentbank_jax.envs", "agentbank_jax.evaluate") & _below(
      "agentbank_jax/models", "agentbank_jax/decode")
  assert not _importers("agentbank_jax.models", "agentbank_jax.decode", "jax") & _below(
      "agentbank_jax/envs", "agentbank_jax/tasks")
  assert not _importers("tests", "pytest")


def test_importing_the_package_or_the_command_line_does_not_load_jax():
  code = "import sys, agentbank_jax, agentbank_jax.cli; print(*sorted({m.split('.')[0] for m in sys.modules}))"
  loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
  assert not {"jax", "jaxlib", "flax", "optax", "orbax", "numpy", "transformers", "torch", "tensorflow",
              "pyarrow", "matplotlib"} & set(loaded.split())
