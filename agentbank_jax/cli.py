"""`agentbank VERB --config=FILE --config.key=value --workdir=DIR`. Nothing else parses flags."""

from collections.abc import Sequence
import importlib
import pathlib
import re
import sys
import time
import traceback
from typing import Any, NamedTuple

from absl import flags, logging

from agentbank_jax.errors import EXIT_ERROR, EXIT_INTERRUPTED, Interrupted, Terminated, UserError, did_you_mean
from agentbank_jax.files import write_failure


class Verb(NamedTuple):
  """One thing that `agentbank` does.

  Attributes:
    what: it in a line.
    module: whose `run(config, workdir)` does it.
    config: in configs/: the settings where no file is given, and the keys that a given file must have.
    required: whether a file must be given.
    shortcuts: flags of its own -> the config keys they set.
  """

  what: str
  module: str
  config: str
  required: bool = False
  shortcuts: tuple[tuple[str, str], ...] = ()


VERBS = {
    "quickstart": Verb("the whole chain on this machine, in minutes: trajectories, training, evaluation, export",
                       "agentbank_jax.quickstart", "quickstart"),
    "import": Verb("published trajectories -> our schema, linted and counted", "data_prep.import_sources",
                   "import_samples", required=True),
    "pack": Verb("trajectories -> packed, loss-masked token records", "data_prep.pack", "pack"),
    "inspect": Verb("show a record or a trajectory token by token, trained tokens coloured",
                    "data_prep.inspect_records", "inspect"),
    "train": Verb("tune a model on packed records; resumes where it stopped", "agentbank_jax.train",
                  "train_tiny", required=True),
    "compile": Verb("compile a training config for a TPU pod nobody has at hand: does it fit?",
                    "agentbank_jax.compile", "train_tiny", required=True,
                    shortcuts=(("topology", "compile.topology"),)),
    "evaluate": Verb("play tasks with a model or an expert, and score the episodes",
                     "agentbank_jax.evaluate.run", "evaluate"),
    "measure": Verb("play tasks' experts and random agents, and say how well and how fast",
                    "agentbank_jax.evaluate.measure", "measure"),
    "convert": Verb("Hugging Face safetensors <-> our model folder, checked", "agentbank_jax.convert.run", "convert"),
    "doctor": Verb("say what is installed and ready here, and how to get the rest", "agentbank_jax.doctor", "doctor"),
}


def main(argv: Sequence[str] | None = None) -> None:
  """Runs a verb and exits: 0 done, 2 an error that the message explains, 75 stopped but can go on, 130 Ctrl-C."""
  argv = list(sys.argv if argv is None else argv)
  sys.exit(_main(argv))


def _main(argv: list[str]) -> int:
  if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
    print(_usage())
    return 0 if len(argv) > 1 else EXIT_ERROR
  try:
    verb = VERBS.get(argv[1])
    if verb is None:
      raise UserError(f"no verb {argv[1]!r}{did_you_mean(argv[1], VERBS)}; see agentbank --help")
    if any(arg in ("-h", "--help") for arg in argv[2:]):
      print(_verb_usage(argv[1], verb, argv))
      return 0
    config, workdir = _parse(argv[1], verb, argv)
    _run(argv[1], verb, config, workdir)
    return 0
  except UserError as e:
    _tell(e, f"agentbank: error: {e}")
    return EXIT_ERROR
  except Interrupted as e:
    _tell(e, f"agentbank: {e}")
    return EXIT_INTERRUPTED
  except Terminated as e:
    _tell(e, "agentbank: stopped on request; run the same command to go on")
    return EXIT_INTERRUPTED
  except KeyboardInterrupt as e:
    _tell(e, "agentbank: interrupted")
    return 130


def _tell(error: BaseException | None, message: str) -> None:
  """Prints `message` on a line of its own: progress bars that the error broke off are closed first."""
  while error:
    traceback.clear_frames(error.__traceback__)
    error = error.__context__
  print(message, file=sys.stderr)


def _run(name: str, verb: Verb, config, workdir: pathlib.Path) -> None:
  from agentbank_jax import runtime
  from agentbank_jax.summary import write_summary
  runtime.prepare()
  flags.FLAGS([name])  # absl's own, at their defaults: it complains about logging before that
  logging.set_verbosity(logging.WARNING)  # the libraries say much at INFO
  started = time.monotonic()
  try:
    result = importlib.import_module(verb.module).run(config, workdir)
    path = write_summary(workdir, name, config, result, time.monotonic() - started)
  except UserError:
    raise
  except Exception as e:  # what no verb has explained: a full disk, a folder without permission
    reason = write_failure(e)
    if reason is None and not isinstance(e, OSError):
      raise
    raise UserError(f"{getattr(e, 'filename', None) or workdir}: {reason or e.strerror or e}") from e
  print(f"summary: {path}")


def _parse(name: str, verb: Verb, argv: list[str]):
  """Returns the locked config, overrides applied, and the workdir.

  Raises:
    UserError: a flag, a file, a key or a value that is wrong; a key gets the nearest that exists.
  """
  default = str(_config_path(verb.config))
  args = [argv[0], *argv[2:]]
  for flag, key in verb.shortcuts:
    args = [re.sub(f"^--?{flag}=", f"--config.{key}=", a) for a in args]
  if verb.required and not any(re.match(r"--?config(=|$)", a) for a in args):
    raise UserError(f"agentbank {name} needs --config=FILE; see configs/ and agentbank {name} --help")
  for path in _given_files(args):
    if not pathlib.Path(path.split(":")[0]).is_file():
      raise UserError(f"{path}: no such config file; see configs/")
  overrides = [m for a in args if (m := re.match(r"--?config\.([^=]+)(=|$)", a))]
  files = [a for a in args if not re.match(r"--?config\.", a)]
  config = _flag_values(name, default, files).config
  missing = [key for key in _flag_values(name, default, args[:1]).config if key not in config]
  if missing:
    raise UserError(f"the config has no key {missing[0]!r}; is it one of agentbank {name}? "
                    f"Such a file is configs/{verb.config}.py")
  # absl cannot read None: such a setting is set afterwards, if None is the last word on it.
  last, nones = {m[1]: m.string for m in overrides}, set()
  for match in overrides:
    if _find_setting(config, match[1]).optional and match.string.endswith("=None"):
      nones.add(match.string)
  values = _flag_values(name, default, [a for a in args if a not in nones])
  for key in (key for key, arg in last.items() if arg in nones):
    setting = _find_setting(values.config, key)
    setting.group[setting.key] = None
  return values.config, pathlib.Path(values.workdir)


def _flag_values(name: str, default: str, args: list[str]) -> flags.FlagValues:
  from ml_collections import ConfigDict, config_flags
  values, file = flags.FlagValues(), (_given_files(args) or [default])[-1].split(":")[0]
  sys.modules.pop("config_config", None)  # ml_collections would run the next file in what the last one left
  try:
    config_flags.DEFINE_config_file("config", default, "the config file", lock_config=True, flag_values=values,
                                    sys_argv=args)
    flags.DEFINE_string("workdir", f"runs/{name}", "where results go", flag_values=values)
    rest = values(args)
    config = values.config
    if config is not None:
      config.keys()  # an OSError of the file is raised no sooner
  except Exception as e:  # the config file is a program of the user's: it can raise anything
    raise UserError(_explain(e, file)) from e
  if not isinstance(config, ConfigDict):
    raise UserError(f"{file}: get_config returns no ConfigDict; see configs/")
  if rest[1:]:
    raise UserError(f"unexpected argument {rest[1]!r}; settings are given as --config.key=value")
  return values


def _explain(error: BaseException, file: str) -> str:
  """Returns one line: what is wrong, and where in the config file if it was raised there."""
  line, raised = None, error
  while raised and not line:  # absl and ml_collections wrap what was raised in the file
    lines = [frame.lineno for frame in traceback.extract_tb(raised.__traceback__) if frame.filename == file]
    if lines:
      error, line = raised, lines[-1]
    raised = raised.__cause__ or raised.__context__
  text = " ".join(str(error).split()) or type(error).__name__
  if "no attribute 'get_config'" in text:
    return f"{file}: not a config file, it has no function get_config; see configs/"
  if unknown := re.search(r'Key "([^"]+)" does not exist', text):  # ml_collections goes on with the whole config
    near = re.search(r'Did you mean "([^"]+)" instead', text)
    text = f"unknown config key {unknown[1]!r}" + (f"; did you mean {near[1]!r}?" if near else "")
  elif line:
    text = f"{type(error).__name__}: {text}"
  return f"{file} line {line}: {text}" if line else text


class _Setting(NamedTuple):
  """Where a setting is, and whether it may be None: `group[key]`."""

  group: Any
  key: str
  optional: bool


def _find_setting(config, path: str) -> _Setting:
  """Returns the setting that `path`, such as "sources[0].path", names.

  Raises:
    UserError: it names nothing (tells the nearest key), or a group of settings.
  """
  from ml_collections import FieldReference
  node, setting, seen = config, None, ""
  for part in re.findall(r"[^.\[\]]+|\[\d+\]", path):
    if part.startswith("["):
      if not isinstance(node, list | tuple) or int(part[1:-1]) >= len(node):
        raise UserError(f"unknown config key {path!r}: {seen or 'config'} has no element {part}")
      node, setting = node[int(part[1:-1])], _Setting(node, part, False)
    else:
      known = list(node.keys()) if hasattr(node, "keys") else []
      if part not in known:
        where = f" in {seen}" if seen else ""
        raise UserError(f"unknown config key {path!r}: no {part!r}{where}{did_you_mean(part, known)}")
      kept = dict(node.items(preserve_field_references=True))[part]  # `configs.base.optional` makes references
      node, setting = node[part], _Setting(node, part, isinstance(kept, FieldReference))
    seen += part if part.startswith("[") or not seen else f".{part}"
  if hasattr(node, "keys"):
    some = next(iter(node.keys()), "key")
    raise UserError(f"config key {path!r} is a group of settings; give one of them, such as --config.{path}.{some}=...")
  return setting


def _given_files(args: Sequence[str]) -> list[str]:
  return [m[1] for a in args if (m := re.match(r"--?config=(.*)", a))]


def _config_path(name: str) -> pathlib.Path:
  import configs
  return pathlib.Path(configs.__file__).parent / f"{name}.py"


def _usage() -> str:
  width = max(map(len, VERBS))
  lines = [f"  {name:<{width}}  {verb.what}" for name, verb in VERBS.items()]
  return "\n".join([
      "usage: agentbank VERB --config=FILE [--config.key=value ...] [--workdir=DIR]", "",
      "Trajectory tuning of language-model agents, in JAX.", "", *lines, "",
      "agentbank VERB --help shows a verb's settings. Results and summary.json go to --workdir (runs/VERB).",
      "Exit codes: 0 done; 2 an error, explained in one line; 75 stopped on request, run again to go on; 130 Ctrl-C."])


def _verb_usage(name: str, verb: Verb, argv: list[str]) -> str:
  """Returns what a verb does, and its config file's own text and settings."""
  lines = [f"agentbank {name}: {verb.what}", ""]
  given = _given_files(argv[2:])
  path = pathlib.Path(given[-1]) if given else _config_path(verb.config)
  if verb.required and not given:
    return "\n".join([
        *lines, f"usage: agentbank {name} --config=FILE [--config.key=value ...] [--workdir=runs/{name}]", "",
        f"Its settings are those of its config file, such as configs/{verb.config}.py: "
        f"agentbank {name} --config=FILE --help shows them."])
  if not path.is_file():
    raise UserError(f"{path}: no such config file; see configs/")
  text = path.read_text().rstrip()
  base = _config_path("base").read_text().rstrip()
  start = ["", "It starts from configs/base.py:", "", base] if "configs.base import training" in text else []
  return "\n".join([
      *lines, f"Settings of {path}; override any with --config.key=value:", "", text, *start, "",
      f"  --workdir=DIR  where results and summary.json go (runs/{name})"])


if __name__ == "__main__":
  main()
