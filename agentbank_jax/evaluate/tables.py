"""Scores as tables to read."""

from collections.abc import Sequence

from agentbank_jax.evaluate import episode_log
from agentbank_jax.evaluate.scores import (
    METHODS,
    Comparison,
    Interval,
    MeanScore,
    TaskScore,
    mean_difference,
    mean_score,
    skill_scores,
)
from agentbank_jax.report.tables import Table
from agentbank_jax.trajectory import Outcome

_NONE = "–"


def score_table(scores: Sequence[TaskScore], title: str) -> Table:
  """Returns one row for every task, then the means of skills with several tasks, then that of all tasks."""
  with_progress = any(s.progress is not None for s in scores)
  progress = lambda s: [rate(s.progress, s.progress_ci)] if with_progress else []
  rows = [[s.name, rate(s.success, s.ci), *progress(s), _NONE if s.reward is None else f"{s.reward:.3f}",
           str(s.episodes), excluded(s), _outcomes(s)] for s in scores]
  means: dict[str, MeanScore] = {f"mean of {skill}": mean for skill, mean in skill_scores(scores).items()
                                 if 1 < mean.tasks < len(scores)}
  if len(scores) > 1:
    means["mean of all tasks"] = mean_score(scores)
  blank = [""] * (1 + with_progress)
  rows += [[name, rate(m.success, m.ci), *blank, str(m.episodes), excluded(m), ""] for name, m in means.items()]
  return Table(
      title=title,
      columns=("task", "success (95% CI)", *(["progress (95% CI)"] if with_progress else []), "reward", "episodes",
               "excluded (bounds)", "outcomes"),
      rows=rows,
      summary=len(means),
      prose=True,
      note=_note("success", *(["progress"] if with_progress else []), "bounds", "reward",
                 *(["mean"] if means else [])))


def comparison_table(first: Sequence[TaskScore], second: Sequence[TaskScore],
                     comparisons: Sequence[Comparison], *, names: tuple[str, str], title: str) -> Table:
  """Returns two players side by side, task by task.

  Where two scores were not played under the same conditions, the note names what differs.

  Args:
    first, second: the scores of the same tasks in the same order.
    comparisons: of the same tasks, in the same order (`run.compare_logs`).
    names: of the two players, as heads of columns ("untrained", "tuned").
    title: of the table.
  """
  rows, unlike = [], []
  for a, b, c in zip(first, second, comparisons, strict=True):
    if differs := episode_log.difference(a.fingerprint, b.fingerprint):
      unlike.append(f"NOT played under the same conditions: {a.name}: {differs}.")
    if not a.name == b.name == c.name:
      raise ValueError(f"the scores of {a.name!r}, {b.name!r} and {c.name!r} cannot stand in one row")
    rows.append([a.name, rate(a.success, a.ci), rate(b.success, b.ci), rate(c.difference, c.ci, sign="+"),
                 _p_value(c.p_value), str(c.pairs), f"{a.excluded}, {b.excluded}"])
  if len(rows) > 1:
    a, b = mean_score(first), mean_score(second)
    difference = rate(*(mean_difference(comparisons) or (None, None)), sign="+")
    rows.append(["mean of all tasks", rate(a.success, a.ci), rate(b.success, b.ci), difference, "",
                 str(sum(c.pairs for c in comparisons)), f"{a.excluded}, {b.excluded}"])
  return Table(
      title=title,
      columns=("task", f"{names[0]} (95% CI)", f"{names[1]} (95% CI)", "difference (95% CI)", "p", "pairs",
               "excluded"),
      rows=rows,
      summary=int(len(rows) > 1),
      note=" ".join([*unlike, _note("success", "difference", *(["mean"] if len(rows) > 1 else []))]))


def _note(*methods: str) -> str:
  return " ".join(f"{name.capitalize()}: {METHODS[name]}." for name in methods)


def rate(value: float | None, interval: Interval | None, sign: str = "") -> str:
  """Returns a rate in per cent with its interval, as far as there is one."""
  if value is None:
    return _NONE
  return f"{100 * value:{sign}.1f}%" + (f" ({_interval(interval, sign)})" if interval else "")


def _interval(interval: Interval, sign: str = "") -> str:
  return f"{100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f}"


def excluded(score: TaskScore | MeanScore) -> str:
  """Returns how many episodes are excluded, with the bounds of the success rate."""
  return f"{score.excluded} ({_interval(score.bounds)})" if score.excluded else "0"


def _p_value(p: float | None) -> str:
  return _NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _outcomes(score: TaskScore) -> str:
  return ", ".join(f"{n} {str(o).replace('_', ' ')}" for o in Outcome if (n := score.outcomes[o]))
