"""A command's flags: a config file that is locked, its settings on the command line, a workdir."""

from collections.abc import Mapping, Sequence
import pathlib
import re
import sys
import traceback
import types
from typing import Any, NamedTuple

from absl import flags

from agentbank_jax.errors import UserError, did_you_mean

_ROOT = pathlib.Path(__file__).parents[1]
_NONE = types.MappingProxyType({})


def parse(command: str, argv: list[str], default: pathlib.Path, *, required: bool, workdir: str,
          switches: Mapping[str, str] = _NONE, shortcuts: Mapping[str, str] = _NONE) -> flags.FlagValues:
  """Returns the flags of a command: `config` (locked, overrides applied), `workdir` and the switches.

  Args:
    command: as it is typed, such as "agentbank train".
    argv: all of it; the flags begin with argv[2].
    default: the config file where none is given, and the keys that a given file must have.
    required: whether a file must be given.
    workdir: where results go by default.
    switches: more flags, false by default, with what they are for.
    shortcuts: flags that stand for config keys, such as "topology": "compile.topology".

  Raises:
    UserError: a flag, a file, a key or a value that is wrong; a key gets the nearest that exists.
  """
  args = [argv[0], *argv[2:]]
  folder = f"{default.parent.relative_to(_ROOT)}/"
  for flag, key in shortcuts.items():
    args = [re.sub(f"^--?{flag}=", f"--config.{key}=", a) for a in args]
  if required and not any(re.match(r"--?config(=|$)", a) for a in args):
    raise UserError(f"{command} needs --config=FILE; see {folder} and {command} --help")
  for path in given_files(args):
    if not pathlib.Path(path.split(":")[0]).is_file():
      raise UserError(f"{path}: no such config file; see {folder}")
  overrides = [m for a in args if (m := re.match(r"--?config\.([^=]+)(=|$)", a))]
  files = [a for a in args if not re.match(r"--?config\.", a)]
  read = lambda arguments: _flag_values(default, workdir, switches, arguments)
  config = read(files).config
  missing = [key for key in read(args[:1]).config if key not in config]
  if missing:
    raise UserError(f"the config has no key {missing[0]!r}; is it one of {command}? "
                    f"Such a file is {folder}{default.name}")
  # absl cannot read None: such a setting is set afterwards, if None is the last word on it.
  last, nones = {m[1]: m.string for m in overrides}, set()
  for match in overrides:
    if _find_setting(config, match[1]).optional and match.string.endswith("=None"):
      nones.add(match.string)
  values = read([a for a in args if a not in nones])
  for key in (key for key, arg in last.items() if arg in nones):
    setting = _find_setting(values.config, key)
    setting.group[setting.key] = None
  return values


def _flag_values(default: pathlib.Path, workdir: str, switches: Mapping[str, str],
                 args: list[str]) -> flags.FlagValues:
  from ml_collections import ConfigDict, config_flags
  values, file = flags.FlagValues(), (given_files(args) or [str(default)])[-1].split(":")[0]
  sys.modules.pop("config_config", None)  # ml_collections would run the next file in what the last one left
  try:
    config_flags.DEFINE_config_file("config", str(default), "the config file", lock_config=True, flag_values=values,
                                    sys_argv=args)
    flags.DEFINE_string("workdir", workdir, "where results go", flag_values=values)
    for switch, what in switches.items():
      flags.DEFINE_bool(switch, False, what, flag_values=values)
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


def settings_of(path: pathlib.Path, folder: pathlib.Path) -> list[str]:
  """Returns, line by line, a config file for a person to read, and those in `folder` that it starts from.

  Raises:
    UserError: no such file.
  """
  name = str(folder.relative_to(_ROOT))
  if not path.is_file():
    raise UserError(f"{path}: no such config file; see {name}/")
  lines, start = [f"Settings of {path}; override any with --config.key=value:"], path
  package = name.replace("/", "[.]")
  starts_from = re.compile(rf"^from {package}(?:[.](base) import training| import (\w+))$", re.MULTILINE)
  while True:
    text = start.read_text().rstrip()
    lines += ["", text]
    if not (found := starts_from.search(text)):
      return lines
    start = folder / f"{found[1] or found[2]}.py"
    lines += ["", f"It starts from {name}/{start.name}:"]


def given_files(args: Sequence[str]) -> list[str]:
  """Returns the files of all `--config=FILE` in `args`."""
  return [m[1] for a in args if (m := re.match(r"--?config=(.*)", a))]
