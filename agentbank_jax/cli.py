"""`agentbank VERB --config=FILE --config.key=value --workdir=DIR`. Nothing else parses flags."""

from collections.abc import Callable, Sequence
import importlib
import pathlib
import sys
import time
import traceback
from typing import NamedTuple

from absl import flags, logging

from agentbank_jax import command_line, distributed
from agentbank_jax.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_MISSING,
    Interrupted,
    ProcessesMissing,
    Terminated,
    UserError,
    did_you_mean,
)
from agentbank_jax.files import write_failure
from agentbank_jax.paths import AnyPath, as_path, in_bucket


class Verb(NamedTuple):
  """One thing that `agentbank` does.

  Attributes:
    what: it in a line.
    module: whose `run(config, workdir)` does it.
    config: in configs/: the settings where no file is given, and the keys that a given file must have.
    required: whether a file must be given.
    shared: whether several processes can do it together.
    bucket: whether its workdir may be in a bucket.
    timed: whether it is told when this process was made.
    shortcuts: flags of its own -> the config keys they set.
  """

  what: str
  module: str
  config: str
  required: bool = False
  shared: bool = False
  bucket: bool = False
  timed: bool = False
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
                  "train_tiny", required=True, shared=True, bucket=True, timed=True),
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
    _tell(e, f"{program}: error: {e}")
    return EXIT_ERROR
  except Interrupted as e:
    if distributed.is_lead():
      _tell(e, f"{program}: {e}")
    return EXIT_INTERRUPTED
  except Terminated as e:
    _tell(e, f"{program}: stopped on request; run the same command to go on")
    return EXIT_INTERRUPTED
  except ProcessesMissing as e:
    _tell(e, f"{program}: {e}")
    return EXIT_MISSING
  except KeyboardInterrupt as e:
    _tell(e, f"{program}: interrupted")
    return 130


def _tell(error: BaseException | None, message: str) -> None:
  """Prints `message` on a line of its own: progress bars that the error broke off are closed first."""
  while error:
    traceback.clear_frames(error.__traceback__)
    error = error.__context__
  print(message, file=sys.stderr)


def _run(name: str, verb: Verb, config, workdir: AnyPath) -> None:
  from agentbank_jax import runtime
  from agentbank_jax.goodput import process_started
  from agentbank_jax.summary import write_summary
  runtime.prepare()
  flags.FLAGS([name])  # absl's own, at their defaults: it complains about logging before that
  logging.set_verbosity(logging.WARNING)  # the libraries say much at INFO
  started = time.monotonic()
  if "distributed" in config:
    distributed.join(config, verb.shared)
  try:
    told = {"started": process_started()} if verb.timed else {}
    result = importlib.import_module(verb.module).run(config, workdir, **told)
    if not distributed.is_lead():
      return
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
  """Returns the locked config of a verb, overrides applied, and the workdir."""
  values = command_line.parse(f"agentbank {name}", argv, _config_path(verb.config), required=verb.required,
                              workdir=f"runs/{name}", shortcuts=dict(verb.shortcuts))
  workdir = as_path(values.workdir)
  if in_bucket(workdir) and not verb.bucket:
    raise UserError(f"--workdir={workdir}: {name} writes local files; give a folder of this machine, and copy it: "
                    "gcloud storage cp -r")
  return values.config, workdir


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
  given = command_line.given_files(argv[2:])
  path = pathlib.Path(given[-1]) if given else _config_path(verb.config)
  if verb.required and not given:
    return "\n".join([
        *lines, f"usage: agentbank {name} --config=FILE [--config.key=value ...] [--workdir=runs/{name}]", "",
        f"Its settings are those of its config file, such as configs/{verb.config}.py: "
        f"agentbank {name} --config=FILE --help shows them."])
  return "\n".join([
      *lines, *command_line.settings_of(path, _config_path("base").parent), "",
      f"  --workdir=DIR  where results and summary.json go (runs/{name})"])


if __name__ == "__main__":
  main()
