"""`python -m launch VERB --config=launch/configs/X.py [--config.key=value ...] [--workdir=DIR] [--dry_run]`."""

import importlib
import pathlib
import sys

from agentbank_jax import cli, command_line
from agentbank_jax.errors import EXIT_ERROR, UserError, did_you_mean
from agentbank_jax.paths import as_path, in_bucket
from launch.shell import Shell

VERBS = {
    "create": "get the machines, and wait until they are there",
    "setup": "bring the committed code and its packages to the machines",
    "run": "run the command on all of them; again after a preemption; gather logs and exit codes",
    "status": "say how the machines and the processes are",
    "logs": "gather the logs",
    "stop": "ask the run to save and end (SIGTERM)",
    "delete": "give the machines back",
}
SWITCHES = {"dry_run": "print what would be run, as a script, and run nothing"}
_CONFIGS = pathlib.Path(__file__).parent / "configs"
_PROGRAM = "python -m launch"


def main(argv: list[str] | None = None) -> int:
  """Returns the exit code: 0 done, 2 an error that the message explains, else that of the run."""
  argv = list(sys.argv if argv is None else argv)
  if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
    print(_usage())
    return 0 if len(argv) > 1 else EXIT_ERROR
  return cli.exit_code(_PROGRAM, lambda: _do(argv))


def _do(argv: list[str]) -> int:
  verb = argv[1]
  if verb not in VERBS:
    raise UserError(f"no verb {verb!r}{did_you_mean(verb, VERBS)}; see {_PROGRAM} --help")
  if any(arg in ("-h", "--help") for arg in argv[2:]):
    print(_verb_usage(verb, argv))
    return 0
  values = command_line.parse(f"{_PROGRAM} {verb}", argv, _CONFIGS / "base.py", required=True, workdir="runs/launch",
                              switches=SWITCHES)
  config, known = values.config, sorted(p.stem for p in _CONFIGS.glob("*.py") if p.stem not in ("__init__", "base"))
  if config.platform not in known:
    raise UserError(f"platform is {config.platform!r}; choose {', '.join(known)}")
  actions = importlib.import_module(f"launch.platforms.{config.platform}").VERBS
  if verb not in actions:
    raise UserError(f"{config.platform} has nothing to {verb}; it has: {', '.join(v for v in VERBS if v in actions)}")
  if in_bucket(values.workdir):
    raise UserError(f"--workdir={values.workdir}: logs and scripts are written here; give a folder of this machine. "
                    "The run's own --workdir, in its command, may be in a bucket")
  workdir = as_path(values.workdir)
  try:
    return actions[verb](config, workdir, Shell(values.dry_run))
  except OSError as e:  # the workdir is a file, is not ours to write, or the disk is full
    raise UserError(f"{e.filename or workdir}: {e.strerror or e}") from e


def _usage() -> str:
  width = max(map(len, VERBS))
  return "\n".join([
      f"usage: {_PROGRAM} VERB --config=FILE [--config.key=value ...] [--workdir=DIR] [--dry_run]", "",
      "Starts runs on TPU VMs, GKE, SLURM and this machine. The files in launch/configs are the platforms.", "",
      *(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()), "",
      "--dry_run prints what would be run, as a script. Logs and exit codes go to --workdir (runs/launch).",
      "Exit codes: 0 done; 2 an error; 75 stopped on request, run again to go on; else that of the process that "
      "failed."])


def _verb_usage(verb: str, argv: list[str]) -> str:
  """Returns what a verb does, and the settings of the config file that is given."""
  lines = [f"{_PROGRAM} {verb}: {VERBS[verb]}", ""]
  if given := command_line.given_files(argv[2:]):
    return "\n".join([*lines, *command_line.settings_of(pathlib.Path(given[-1]), _CONFIGS)])
  return "\n".join([
      *lines, f"usage: {_PROGRAM} {verb} --config=FILE [--config.key=value ...] [--workdir=DIR] [--dry_run]", "",
      f"Its settings are those of its config file: {_PROGRAM} {verb} --config=launch/configs/tpu_vm.py --help"])


if __name__ == "__main__":
  sys.exit(main())
