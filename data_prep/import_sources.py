"""`agentbank import`: published trajectories -> one file in our schema, with its ledger."""

from collections import Counter
from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import ml_collections
from rich.console import Console
from tqdm import tqdm

from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.files import atomic_path
from agentbank_jax.paths import local_path
from agentbank_jax.trajectory import Provenance, Trajectory, TrajectoryError
from agentbank_jax.trajectory_io import row_name, to_row, write_trajectories
from data_prep.ledger import Ledger, Where
from data_prep.lint import Linter
from data_prep.sources import agentbank, get_format
from data_prep.sources.source import Context, DropRow, Format, Reason, load_rows, mask_acknowledgement

_SOURCE_KEYS = ("name", "format", "path", "task", "licence", "id_prefix", "train_acknowledgement", "options")


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
  """Imports all sources of `config` into `workdir/config.output`.

  Args:
    config: `sources` (see configs/import_agentbank.py for the keys of one), `lint` (an action for every
      rule), `on_bad_row` ("drop" or "error"), `max_bad_share` (of a source's rows; above it the run
      stops), `output` (a file name; its suffix chooses the format).
    workdir: gets the trajectories, `ledger.json` and `lint.json`.

  Returns:
    The output's path, the ledger and lint counts, and where row counts differ from AgentBank's release.

  Raises:
    UserError: a source that cannot be read, too many bad rows, or nothing to import.
  """
  if config.on_bad_row not in ("drop", "error"):
    raise UserError(f"on_bad_row is {config.on_bad_row!r}, expected 'drop' or 'error'")
  importer = _Importer(config)
  output = pathlib.Path(workdir) / config.output
  with contextlib.ExitStack() as stack:  # all files, or none
    rows, ledger, lint = (stack.enter_context(atomic_path(output.with_name(name)))
                          for name in (output.name, "ledger.json", "lint.json"))
    written = write_trajectories(rows, importer.trajectories())
    importer.ledger.check()
    if written != importer.ledger.total.rows_kept:
      raise AssertionError(f"{written} rows written, {importer.ledger.total.rows_kept} kept")
    differences = agentbank.differences(importer.agentbank_rows)
    _write_json(ledger, importer.ledger.to_json())
    _write_json(lint, importer.linter.to_json())

  console = Console()
  importer.ledger.print(console)
  importer.linter.print(console)
  for line in differences:
    console.print(f"AgentBank's {line}", markup=False, highlight=False)
  return {"output": str(output), "rows": written, "ledger": importer.ledger.to_json(),
          "lint": importer.linter.to_json(), "differs_from_release": differences}


class _Importer:
  """One run: the sources in order, and what was counted on the way."""

  def __init__(self, config: ml_collections.ConfigDict):
    self._config = config
    self.ledger = Ledger()
    self.linter = Linter(config.lint)
    self.agentbank_rows: Counter[str] = Counter()  # rows in, by config
    names = [_checked(source).name for source in config.sources]
    if not names:
      raise UserError("sources is empty: there is nothing to import")
    if twice := [name for name, n in Counter(names).items() if n > 1]:
      raise UserError(f"two sources have the name {twice[0]!r}")

  def trajectories(self) -> Iterator[Trajectory]:
    """Yields what is kept, of all sources."""
    for source in self._config.sources:
      try:
        yield from self._source(source)
      except UserError as e:
        raise UserError(f"source {source.name!r}: {e}") from None

  def _source(self, source: ml_collections.ConfigDict) -> Iterator[Trajectory]:
    if source.format == "agentbank" and source.options.configs:
      for name in sorted(agentbank.LEFT_OUT.keys() - source.options.configs):
        tqdm.write(f"{source.name}: config {name!r} is left out: {agentbank.LEFT_OUT[name]}")
    fmt = get_format(source.format)
    provenance = Provenance(source=source.name, technique=fmt.technique, licence=source.licence or None)
    bad: Counter[str] = Counter()
    for path, task in fmt.files(local_path(source.path), source.options):
      context = Context("", source.task or task, provenance, source.options)
      rows = tqdm(fmt.prepare(load_rows(path)), desc=f"{source.name} {path.name}", unit=" rows")
      for number, row in enumerate(rows, start=1):
        self.ledger.read(source.name)
        if source.format == "agentbank" and task:
          self.agentbank_rows[task] += 1
        try:
          here = dataclasses.replace(context, id=f"{path.stem}-{number:06d}")
          trajectory = _convert(fmt, source, row, here)
        except DropRow as drop:
          where = Where(source.name, context.task or "", f"{path.name} {row_name(number, row)}")
          self.ledger.drop(drop.reason, where)
          if drop.reason.is_bad:
            bad[drop.reason] += 1
            if self._config.on_bad_row == "error":
              raise UserError(f"{path} {row_name(number, row)}: {drop}") from None
        else:
          yield from self._lint(source, trajectory)
    self._check_share(source, bad)

  def _lint(self, source: ml_collections.ConfigDict, trajectory: Trajectory) -> Iterator[Trajectory]:
    where = Where(source.name, trajectory.task, trajectory.id)
    if rule := self.linter.check(trajectory):
      self.ledger.drop(f"lint_{rule}", where)
    else:
      self.ledger.keep(where)
      yield trajectory

  def _check_share(self, source: ml_collections.ConfigDict, bad: Counter[str]) -> None:
    total = self.ledger.rows_in(source.name)
    if not total:
      raise UserError(f"no rows in {source.path}")
    if bad.total() > self._config.max_bad_share * total:
      why = ", ".join(f"{reason} {n}" for reason, n in bad.most_common())
      raise UserError(f"{bad.total()} of {total} rows are bad ({why}), a larger share than max_bad_share = "
                      f"{self._config.max_bad_share}; is their format {source.format!r}? "
                      "on_bad_row='error' shows the first")


def _convert(fmt: Format, source: ml_collections.ConfigDict, row: Any, context: Context) -> Trajectory:
  """Returns the row's trajectory, which can be written. Raises `DropRow`."""
  if not isinstance(row, dict):
    raise DropRow(Reason.MALFORMED, f"the row is {type(row).__name__}, expected an object")
  try:
    trajectory = fmt.convert(row, context)
    to_row(trajectory)
  except TrajectoryError as e:
    raise DropRow(Reason.MALFORMED, str(e)) from None
  if not source.train_acknowledgement:
    trajectory = mask_acknowledgement(trajectory)
  return dataclasses.replace(trajectory, id=source.id_prefix + trajectory.id)


def _checked(source: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns `source`; raises UserError unless it has all the keys of a source and its format's options."""
  _check_keys("a source", source, _SOURCE_KEYS)
  _check_keys(f"options of the source {source.name!r}", source.options, get_format(source.format).options)
  return source


def _check_keys(what: str, given: ml_collections.ConfigDict, wanted: tuple[str, ...]) -> None:
  for key in given:
    if key not in wanted:
      known = ", ".join(wanted) or "none"
      raise UserError(f"{what}: unknown key {key!r}{did_you_mean(key, wanted)} (known: {known})")
  for key in wanted:
    if key not in given:
      raise UserError(f"{what}: no key {key!r}")


def _write_json(path: pathlib.Path, value: Any) -> None:
  path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
