"""The templates, rendered: every value that a shell sees is quoted where it is not a plain word."""

import re
import shlex

import jinja2

from agentbank_jax.errors import UserError

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_MAY_BE_ZERO = ("max_restarts", "grace_seconds")  # of a config's numbers; the others count or time something


def render(template: str, **values) -> str:
  """Returns a template of launch/templates filled in. A value it needs and does not get is an error."""
  environment = jinja2.Environment(loader=jinja2.PackageLoader("launch"), undefined=jinja2.StrictUndefined,
                                   trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
  environment.filters["quote"] = shlex.quote
  return environment.get_template(template).render(**values)


def check(config, *plain: str) -> None:
  """Checks what every platform needs, and that the settings `plain` are set and hold nothing that a shell would read.

  Raises:
    UserError: names the setting.
  """
  if not _NAME.fullmatch(config.name):
    raise UserError(f"name is {config.name!r}; use up to 40 lower-case letters, digits and -, beginning with a letter")
  for key, value in config.items():
    if type(value) in (int, float) and (value < 0 or (value == 0 and key not in _MAY_BE_ZERO)):
      raise UserError(f"{key} is {value}; it must be {'0 or more' if key in _MAY_BE_ZERO else 'above 0'}")
  for key in plain:
    value = config[key]
    if value == "":
      raise UserError(f"{key} is not set")
    if value is not None and not re.fullmatch(r"[\w@%+=:,./-]+", value):
      raise UserError(f"{key} is {value!r}; it has characters that do not belong there")
  if "bucket" in plain and config.bucket is not None and (":" in config.bucket or "/" in config.bucket):
    raise UserError(f"bucket is {config.bucket!r}; give its name alone: it is mounted at {config.mount}")
  if "mount" in plain and not config.mount.startswith("/"):
    raise UserError(f"mount is {config.mount!r}; give an absolute folder, such as /mnt/agentbank")


def command_of(config) -> str:
  """Returns the command that every process runs.

  Raises:
    UserError: there is none.
  """
  if not config.command.strip():
    raise UserError('command is empty; give what every process runs: --config.command="agentbank train ..."')
  return config.command.strip()
