"""The templates, rendered: every value that a shell sees is quoted where it is not a plain word."""

import re
import shlex

import jinja2

from agentbank_jax.errors import UserError

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


def render(template: str, **values) -> str:
  """Returns a template of launch/templates filled in. A value it needs and does not get is an error."""
  environment = jinja2.Environment(loader=jinja2.PackageLoader("launch"), undefined=jinja2.StrictUndefined,
                                   trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
  environment.filters["quote"] = shlex.quote
  return environment.get_template(template).render(**values)


def check(config, *plain: str) -> None:
  """Checks what every platform needs, and that the settings `plain` hold no character a shell would read.

  Raises:
    UserError: names the setting.
  """
  if not _NAME.fullmatch(config.name):
    raise UserError(f"name is {config.name!r}; use up to 40 lower-case letters, digits and -, beginning with a letter")
  for key in plain:
    value = config[key]
    if value not in (None, "") and not re.fullmatch(r"[\w@%+=:,./-]+", str(value)):
      raise UserError(f"{key} is {value!r}; it has characters that do not belong there")


def command_of(config) -> str:
  """Returns the command that every process runs.

  Raises:
    UserError: there is none.
  """
  if not config.command.strip():
    raise UserError('command is empty; give what every process runs: --config.command="agentbank train ..."')
  return config.command.strip()
