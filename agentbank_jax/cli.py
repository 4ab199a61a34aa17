"""`agentbank VERB --config=FILE --config.key=value --workdir=DIR`. Nothing else parses flags."""

from collections.abc import Callable, Mapping, Sequence
import importlib
import pathlib
import re
import sys
import time
import traceback
import types
from typing import NamedTuple

from absl import flags, logging

from agentbank_jax import distributed
from agentbank_jax.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_MISSING,
    Interrupted,
    ProcessesMissing,
    UserError,
    did_you_mean,
)


class Verb(NamedTuple):
  """One thing that `agentbank` does.

  Attributes:
    what: it in a line.
    module: whose `run(config, workdir)` does it.
    config: in configs/: the settings where no file is given, and the keys that a given file must have.
    required: whether a file must be given.
    shared: whether several processes can do it together.
  """

  what: str
  module: str
  config: str
  required: bool = False
  shared: bool = False


VERBS = {
    "quickstart": Verb("the whole chain on this machine, in minutes: trajectories, training, evaluation, export",
                       "agentbank_jax.quickstart", "quickstart"),
    "import": Verb("published trajectories -> our schema, linted and counted", "data_prep.import_sources",
                   "import_samples", required=True),
    "pack": Verb("trajectories -> packed, loss-masked token records", "data_prep.pack", "pack"),
    "inspect": Verb("show a record or a trajectory token by token, trained tokens coloured",
                    "data_prep.inspect_records", "inspect"),
    "train": Verb("tune a model on packed records; resumes where it stopped", "agentbank_jax.train",
                  "train_tiny", required=True, shared=True),
    "evaluate": Verb("play tasks with a model or an expert, and score the episodes",
                     "agentbank_jax.evaluate.run", "evaluate"),
    "convert": Verb("Hugging Face safetensors <-> our model folder, checked", "agentbank_jax.convert.run", "convert"),
    "doctor": Verb("say what is installed and ready here, and how to get the rest", "agentbank_jax.doctor", "doctor"),
}

_ROOT = pathlib.Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> None:
  """Runs a verb and exits: 0 done, 2 an error that the message explains, 75 stopped but can go on, 130 Ctrl-C.

  Of several processes, 69: some did not start, or were lost.
  """
  argv = list(sys.argv if argv is None else argv)
  try:
    code = _main(argv)
  except Exception as e:
    if not distributed.is_joined():
      raise
    if distributed.is_loss(e):
      print(f"agentbank: another process of this run was lost ({str(e).splitlines()[0]})", file=sys.stderr)
      code = EXIT_MISSING
    else:
      traceback.print_exc()
      code = 1
  distributed.leave(code)
  sys.exit(code)


def _main(argv: list[str]) -> int:
  if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
    print(_usage())
    return 0 if len(argv) > 1 else EXIT_ERROR
  return exit_code("agentbank", lambda: _do(argv))


def _do(argv: list[str]) -> int:
  verb = VERBS.get(argv[1])
  if verb is None:
    raise UserError(f"no verb {argv[1]!r}{did_you_mean(argv[1], VERBS)}; see agentbank --help")
  if any(arg in ("-h", "--help") for arg in argv[2:]):
    print(_verb_usage(argv[1], verb, argv))
    return 0
  config, workdir = _parse(argv[1], verb, argv)
  _run(argv[1], verb, config, workdir)
  return 0


def exit_code(program: str, action: Callable[[], int]) -> int:
  """Runs `action` and returns its exit code, or that of what it raises, told in one line."""
  try:
    return action()
  except UserError as e:
    print(f"{program}: error: {e}", file=sys.stderr)
    return EXIT_ERROR
  except Interrupted as e:
    if distributed.is_lead():
      print(f"{program}: {e}", file=sys.stderr)
    return EXIT_INTERRUPTED
  except ProcessesMissing as e:
    print(f"{program}: {e}", file=sys.stderr)
    return EXIT_MISSING
  except KeyboardInterrupt:
    print(f"{program}: interrupted", file=sys.stderr)
    return 130


def _run(name: str, verb: Verb, config, workdir: pathlib.Path) -> None:
  from agentbank_jax import runtime
  from agentbank_jax.summary import write_summary
  runtime.prepare()
  flags.FLAGS([name])  # absl's own, at their defaults: it complains about logging before that
  logging.set_verbosity(logging.WARNING)  # the libraries say much at INFO
  started = time.monotonic()
  if "distributed" in config:
    distributed.join(config, verb.shared)
  try:
    result = importlib.import_module(verb.module).run(config, workdir)
    if not distributed.is_lead():
      return
    path = write_summary(workdir, name, config, result, time.monotonic() - started)
  except OSError as e:  # what no verb has explained: a full disk, a folder without permission
    raise UserError(f"{e.filename or workdir}: {e.strerror or e}") from e
  print(f"summary: {path}")


def _parse(name: str, verb: Verb, argv: list[str]):
  """Returns the locked config of a verb, overrides applied, and the workdir."""
  values = parse(f"agentbank {name}", argv, _config_path(verb.config), verb.required, f"runs/{name}")
  return values.config, pathlib.Path(values.workdir)


def parse(command: str, argv: list[str], default: pathlib.Path, required: bool, workdir: str,
          switches: Mapping[str, str] = types.MappingProxyType({})) -> flags.FlagValues:
  """Returns the flags of a command: `config` (locked, overrides applied), `workdir` and the switches.

  Args:
    command: as it is typed, such as "agentbank train".
    argv: all of it; the flags begin with argv[2].
    default: the config file where none is given, and the keys that a given file must have.
    required: whether a file must be given.
    workdir: where results go by default.
    switches: more flags, false by default, with what they are for.

  Raises:
    UserError: a flag, a file, a key or a value that is wrong; a key gets the nearest that exists.
  """
  args = [argv[0], *argv[2:]]
  folder = f"{default.parent.relative_to(_ROOT)}/"
  if required and not any(re.match(r"--?config(=|$)", a) for a in args):
    raise UserError(f"{command} needs --config=FILE; see {folder} and {command} --help")
  for arg in args[1:]:
    if (match := re.match(r"--?config=(.*)", arg)) and not pathlib.Path(match[1].split(":")[0]).is_file():
      raise UserError(f"{match[1]}: no such config file; see {folder}")
  overrides = [m for a in args if (m := re.match(r"--?config\.([^=]+)(=|$)", a))]
  files = [a for a in args if not re.match(r"--?config\.", a)]
  read = lambda arguments: _flag_values(default, workdir, switches, arguments)
  config = read(files).config
  missing = [key for key in read(args[:1]).config if key not in config]
  if missing:
    raise UserError(f"the config has no key {missing[0]!r}; is it one of {command}? "
                    f"Such a file is {folder}{default.name}")
  for override in overrides:
    _check_key(config, override[1])
  return read(args)


def _flag_values(default: pathlib.Path, workdir: str, switches: Mapping[str, str],
                 args: list[str]) -> flags.FlagValues:
  from ml_collections import config_flags
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_file("config", str(default), "the config file", lock_config=True, flag_values=values,
                                    sys_argv=args)
    flags.DEFINE_string("workdir", workdir, "where results go", flag_values=values)
    for switch, what in switches.items():
      flags.DEFINE_bool(switch, False, what, flag_values=values)
    rest = values(args)
  except Exception as e:  # the config file is a program of the user's: it can raise anything
    raise UserError(" ".join(str(e).split()) or type(e).__name__) from e
  if rest[1:]:
    raise UserError(f"unexpected argument {rest[1]!r}; settings are given as --config.key=value")
  return values


def _check_key(config, key: str) -> None:
  """Raises UserError where `key`, such as "sources[0].path", names nothing; tells the nearest key."""
  node, seen = config, ""
  for part in re.findall(r"[^.\[\]]+|\[\d+\]", key):
    if part.startswith("["):
      if not isinstance(node, list | tuple) or int(part[1:-1]) >= len(node):
        raise UserError(f"unknown config key {key!r}: {seen or 'config'} has no element {part}")
      node = node[int(part[1:-1])]
    else:
      known = list(node.keys()) if hasattr(node, "keys") else []
      if part not in known:
        where = f" in {seen}" if seen else ""
        raise UserError(f"unknown config key {key!r}: no {part!r}{where}{did_you_mean(part, known)}")
      node = node[part]
    seen += part if part.startswith("[") or not seen else f".{part}"


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
      "Exit codes: 0 done; 2 an error, explained in one line; 69 a process of the run did not start or was lost; 75 "
      "stopped on request, run again to go on; 130 Ctrl-C."])


def _verb_usage(name: str, verb: Verb, argv: list[str]) -> str:
  """Returns what a verb does, and its config file's own text and settings."""
  lines = [f"agentbank {name}: {verb.what}", ""]
  given = [m[1] for a in argv[2:] if (m := re.match(r"--?config=(.*)", a))]
  path = pathlib.Path(given[-1]) if given else _config_path(verb.config)
  if verb.required and not given:
    return "\n".join([
        *lines, f"usage: agentbank {name} --config=FILE [--config.key=value ...] [--workdir=runs/{name}]", "",
        f"Its settings are those of its config file, such as configs/{verb.config}.py: "
        f"agentbank {name} --config=FILE --help shows them."])
  if not path.is_file():
    raise UserError(f"{path}: no such config file; see configs/")
  return "\n".join([
      *lines, f"Settings of {path}; override any with --config.key=value:", "", path.read_text().rstrip(), "",
      f"  --workdir=DIR  where results and summary.json go (runs/{name})"])


if __name__ == "__main__":
  main()
