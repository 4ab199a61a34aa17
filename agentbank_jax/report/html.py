"""One HTML file that needs nothing else: tables, curves and episodes to read, on a screen or a telephone."""

import base64
from collections.abc import Iterable, Mapping, Sequence
import pathlib

import jinja2

from agentbank_jax import __version__
from agentbank_jax.files import atomic_path
from agentbank_jax.report.plots import loss_curves, read_losses
from agentbank_jax.report.tables import Table
from agentbank_jax.trajectory import Outcome, Trajectory

_THEMES = ("light", "dark")


def write_report(path: pathlib.Path, *, title: str, tables: Sequence[Table],
                 curves: Mapping[str, pathlib.Path], episodes: Sequence[Trajectory],
                 notes: Sequence[str]) -> None:
  """Writes a report; the file appears whole or not at all. All text is escaped.

  Args:
    path: of the `.html` file.
    title: heading of the report.
    tables: in the order in which they are shown.
    curves: `metrics.jsonl` files by the label of their lines. A note says which have no losses.
    episodes: to read; `pick_examples` chooses a few.
    notes: paragraphs under the heading: what was run, and what a reader must know.
  """
  losses = {label: read_losses(file) for label, file in curves.items()}
  runs = {label: series for label, series in losses.items() if series}
  empty = [f"No losses in {curves[label]}: its curve is left out." for label in losses if label not in runs]
  environment = jinja2.Environment(loader=jinja2.PackageLoader("agentbank_jax.report"), autoescape=True,
                                   undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  html = environment.get_template("report.html.j2").render(
      title=title, tables=tables, notes=[*notes, *empty], episodes=episodes, version=__version__,
      curves={theme: _data_url(loss_curves(runs, theme)) for theme in _THEMES} if runs else None)
  with atomic_path(path) as temporary:
    temporary.write_text(html, encoding="utf-8")


def pick_examples(episodes: Iterable[Trajectory], each: int) -> list[Trajectory]:
  """Returns up to `each` solved, `each` unsolved and `each` excluded episodes, the first by id."""
  ordered = sorted(episodes, key=lambda e: e.id)
  kinds = ([e for e in ordered if e.outcome == Outcome.SOLVED],
           [e for e in ordered if e.outcome.is_scored and e.outcome != Outcome.SOLVED],
           [e for e in ordered if not e.outcome.is_scored])
  return [e for kind in kinds for e in kind[:each]]


def _data_url(svg: str) -> str:
  return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
