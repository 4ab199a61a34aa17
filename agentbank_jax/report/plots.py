"""Plots for reports, as SVG text: the same data give the same bytes."""

from collections.abc import Mapping, Sequence
import io
import pathlib
from typing import NamedTuple

from agentbank_jax.files import read_lines

# Okabe and Ito's palette: told apart by colour-blind readers, legible on white and on near-black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK = {"light": "#333333", "dark": "#d8d8d8"}


class Series(NamedTuple):
  """One line of a plot: `values[i]` at `steps[i]`."""

  name: str
  steps: Sequence[int]
  values: Sequence[float]


def read_losses(path: pathlib.Path) -> list[Series]:
  """Returns the losses in a `metrics.jsonl`, if there is one: `loss`, and every other key that ends in `/loss`.

  Raises:
    UserError: a line is none of metrics.
  """
  found: dict[str, list[tuple[int, float]]] = {}
  for row in read_lines(path, "metrics", "step"):
    for key, value in row.items():
      if key.split("/")[-1] == "loss":
        found.setdefault(key, []).append((row["step"], value))
  return [Series(key, *zip(*sorted(found[key]), strict=True)) for key in sorted(found, reverse=True)]


def loss_curves(runs: Mapping[str, Sequence[Series]], theme: str) -> str:
  """Returns an SVG of the runs' losses over steps.

  Args:
    runs: by label. `loss` is drawn as a line, any other loss with marks.
    theme: "light" or "dark": the colour of text and axes. The background is transparent.
  """
  import matplotlib
  from matplotlib.figure import Figure

  ink = _INK[theme]
  style = {
      "svg.fonttype": "none",  # text stays text
      "svg.hashsalt": "agentbank-jax",  # ids do not change from run to run
      **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color",
                       "grid.color"), ink),
      "axes.prop_cycle": matplotlib.cycler(color=_COLOURS),
      "axes.spines.top": False,
      "axes.spines.right": False,
      "axes.grid": True,
      "grid.alpha": 0.2,
      "legend.frameon": False,
  }
  lines = [(label, one) for label, series in runs.items() for one in series]
  with matplotlib.rc_context(style):
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats per trained token)")
    for label, (name, steps, values) in lines:
      # Losses of every step are noisy and many: thin, behind those of an evaluation.
      dense = name == "loss" and len(steps) > 1
      look = dict(linewidth=1, zorder=2) if dense else dict(marker="o", markersize=4, zorder=3)
      axes.plot(steps, values, label=f"{label}: {name}", **look)
    if len(lines) > 1:
      axes.legend()
    svg = io.StringIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
  return svg.getvalue()
