"""Mixing sources: declared shares in a declared unit, seeded, nested, and reported in all three units.

Each source has one seeded order of its trajectories and gives a prefix of it; beyond its end it starts
over (another epoch of the same order). A larger total therefore only adds to what a smaller total with
the same seed and weights selected.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from agentbank_jax.errors import UserError

UNITS = ("rows", "tokens", "trained_tokens")  # rows are trajectories, tokens are positions in packed rows


@dataclasses.dataclass(frozen=True)
class Selection:
  """What a mixture takes of one source.

  Attributes:
    chosen: int64 [n], trajectories in the source's order, repeated where there is more than one epoch.
    epochs: passes over the source, in the mixture's unit (0.25: a quarter of it; 3: three times).
    share: requested share, of 1.
  """

  chosen: np.ndarray
  epochs: float
  share: float


def mix(orders: Sequence[np.ndarray], sizes: np.ndarray, names: Sequence[str],
        weights: Sequence[float | None], total: float | None) -> list[Selection]:
  """Selects trajectories of each source.

  Args:
    orders: of each source, int64 [n] trajectories in its seeded order.
    sizes: int64 [N], each trajectory's size in the mixture's unit.
    names: of the sources, for messages.
    weights: relative shares, or None for all sources: in proportion to their sizes.
    total: units to select, or None for the most that repeats nothing.

  Raises:
    UserError: weights that cannot be met.
  """
  available = np.array([sizes[order].sum() for order in orders], np.float64)
  if not available.any():
    raise UserError("no trajectory to mix in: every one was dropped or held out; "
                    "mend the files, or choose another config.overlong or config.eval_share")
  if all(weight is None for weight in weights):
    weights = available
  elif any(weight is None for weight in weights):
    raise UserError("config.sources: give every source a weight, or none (None: in proportion to its size)")
  weights = np.array(weights, np.float64)
  if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
    raise UserError(f"config.sources: weights {weights.tolist()} must be zero or more, and not all zero")
  shares = weights / weights.sum()
  for name, units, share in zip(names, available, shares, strict=True):
    if share and not units:
      raise UserError(f"{name}: no trajectory to mix in, every one was dropped or held out; "
                      "mend the file, or remove it from config.sources")
  if total is None:
    total = (available[shares > 0] / shares[shares > 0]).min()
  return [_take(order, sizes[order], float(share * total), float(share))
          for order, share in zip(orders, shares, strict=True)]


def _take(order: np.ndarray, sizes: np.ndarray, quota: float, share: float) -> Selection:
  """Takes whole epochs and then the prefix that comes nearest to the rest of the quota."""
  units = sizes.sum()
  if not units:
    return Selection(order[:0], 0.0, share)
  full, rest = divmod(quota, float(units))
  count = int(np.searchsorted(np.cumsum(sizes) - sizes / 2, rest, side="right"))
  return Selection(np.concatenate([np.tile(order, int(full)), order[:count]]), quota / float(units), share)


def manifest(selections: Sequence[Selection], counts: dict[str, np.ndarray], names: Sequence[str],
             task_of: np.ndarray, tasks: Sequence[str], skill: Callable[[str], str], unit: str) -> dict:
  """Returns requested and achieved shares in all three units, by source, task and skill.

  Args:
    selections: of each source.
    counts: of each unit, int64 [N], each trajectory's size.
    names: of the sources.
    task_of: int [N], each trajectory's index into `tasks`.
    tasks: names.
    skill: maps a task's name to its skill.
    unit: the mixture's.
  """
  totals = {u: int(sum(counts[u][s.chosen].sum() for s in selections)) for u in UNITS}

  def achieved(chosen: np.ndarray) -> dict:
    return {u: {"count": int(counts[u][chosen].sum()),
                "share": float(counts[u][chosen].sum() / totals[u]) if totals[u] else 0.0} for u in UNITS}

  chosen = np.concatenate([s.chosen for s in selections])
  by_task = {tasks[t]: chosen[task_of[chosen] == t] for t in np.unique(task_of[chosen])}
  by_skill: dict[str, list[np.ndarray]] = {}
  for task, members in by_task.items():
    by_skill.setdefault(skill(task), []).append(members)
  return {
      "unit": unit,
      "total": totals,
      "sources": {name: {"requested_share": s.share, "epochs": s.epochs, **achieved(s.chosen)}
                  for name, s in zip(names, selections, strict=True)},
      "tasks": {task: achieved(members) for task, members in sorted(by_task.items())},
      "skills": {name: achieved(np.concatenate(members)) for name, members in sorted(by_skill.items())},
  }
