"""What episodes say about a model: success, reward, their confidence intervals, and what was excluded.

An episode whose outcome is the infrastructure's fault (`Outcome.is_scored` is false) is never scored.
It is counted, and `bounds` says how low and how high the success rate could be had it been played.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np
from scipy import stats

from agentbank_jax.tasks.task import SKILLS, Task
from agentbank_jax.trajectory import Outcome, Trajectory

Interval = tuple[float, float]

CONFIDENCE = 0.95
METHODS = {
    "success": "solved / scored episodes; 95% Wilson score interval",
    "bounds": "success rate if all excluded episodes had failed, and if all had been solved",
    "reward": "mean over scored episodes; 95% Student t interval",
    "progress": "mean over scored episodes of the best progress in each (0 to 1); 95% Student t interval, cut off at "
                "0 and 1",
    "mean": "mean over tasks, every task the same weight; 95% interval from the tasks' own limits by "
            "variance recovery (MOVER, Zou and Donner 2008)",
    "difference": "second minus first, over the instances that both scored; 95% Agresti-Min interval for "
                  "paired proportions (2005); exact McNemar p-value",
}


@dataclasses.dataclass(frozen=True)
class TaskScore:
  """The score of one model on one task. Rates and means are None where no episode is scored.

  Attributes:
    name: of the task.
    skill: of the task.
    model: the player's name.
    episodes: how many were played; the sum of `outcomes`.
    scored: how many count in `success` and `reward`.
    excluded: how many do not; `episodes - scored`.
    outcomes: every outcome with its count, zeros included.
    success: solved / scored.
    ci: Wilson interval of `success`.
    bounds: success if all excluded episodes had failed, and if all had been solved.
    reward: mean reward.
    reward_ci: Student t interval of `reward`; None for fewer than two episodes.
    progress: mean of the best progress of every episode; None where the task reports none.
    progress_ci: Student t interval of `progress`.
    steps: mean number of agent turns.
    invalid_actions: share of agent turns that were no valid action.
    retries: attempts that failed for the infrastructure's sake, in all episodes.
    fingerprint: what the score depends on, apart from model and seed (`episode_log.fingerprint`).
  """

  name: str
  skill: str
  model: str
  episodes: int
  scored: int
  excluded: int
  outcomes: Mapping[str, int]
  success: float | None
  ci: Interval | None
  bounds: Interval
  reward: float | None
  reward_ci: Interval | None
  progress: float | None
  progress_ci: Interval | None
  steps: float | None
  invalid_actions: float | None
  retries: int
  fingerprint: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class MeanScore:
  """The mean over tasks. `success` and `ci` are None where a task has no scored episode."""

  tasks: int
  episodes: int
  excluded: int
  success: float | None
  ci: Interval | None
  bounds: Interval


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two players on the same instances of one task.

  Attributes:
    name: of the task.
    pairs: instances that both scored.
    unpaired: instances that only one of them scored, or played.
    only_first, only_second: pairs that only one of them solved.
    difference: success of the second minus the first, over the pairs; None without pairs.
    ci: Agresti-Min interval of the difference.
    p_value: exact McNemar test, two-sided.
  """

  name: str
  pairs: int
  unpaired: int
  only_first: int
  only_second: int
  difference: float | None
  ci: Interval | None
  p_value: float | None


def wilson(successes: int, count: int) -> Interval:
  """Returns the 95% Wilson score interval of a proportion (Wilson 1927)."""
  interval = stats.binomtest(successes, count).proportion_ci(CONFIDENCE, method="wilson")
  return float(interval.low), float(interval.high)


def student_t(values: Sequence[float]) -> Interval | None:
  """Returns the 95% t interval of a mean, or None for fewer than two values."""
  if len(values) < 2:
    return None
  half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
  return float(np.mean(values) - half), float(np.mean(values) + half)


def _within(low: float, high: float, interval: Interval | None) -> Interval | None:
  return interval and (max(low, interval[0]), min(high, interval[1]))


def mover(estimates: Sequence[float], intervals: Sequence[Interval]) -> Interval:
  """Returns the interval of the mean of independent estimates from their own intervals (Zou and Donner 2008).

  The distance from the mean to each limit is the root of the summed squares of the estimates' own
  distances; a rate of 0 or 1 therefore adds its uncertainty too, which a bootstrap would not.
  """
  mean = float(np.mean(estimates))
  below = math.hypot(*(p - low for p, (low, _) in zip(estimates, intervals, strict=True))) / len(estimates)
  above = math.hypot(*(high - p for p, (_, high) in zip(estimates, intervals, strict=True))) / len(estimates)
  return mean - below, mean + above


def score(task: Task, episodes: Iterable[Trajectory], fingerprint: Mapping[str, Any] | None = None) -> TaskScore:
  """Scores the episodes of one model on `task`, played under the conditions of `fingerprint`.

  Raises:
    ValueError: no episodes, an episode of another task or model, two of one id, or one without the progress
      that the task reports.
  """
  episodes = list(episodes)
  models = {e.provenance.teacher for e in episodes}
  if len(models) != 1 or {e.task for e in episodes} != {task.name}:
    raise ValueError(f"expected episodes of one model on {task.name!r}, got {len(episodes)} of "
                     f"{sorted(map(str, models))} on {sorted({e.task for e in episodes})}")
  if len({e.id for e in episodes}) != len(episodes):
    raise ValueError("two episodes have the same id")
  outcomes = {str(o): sum(e.outcome == o for e in episodes) for o in Outcome}
  scored = [e for e in episodes if e.outcome.is_scored]
  solved, excluded = outcomes[Outcome.SOLVED], len(episodes) - len(scored)
  rewards = [e.reward for e in scored]
  progress = [e.metadata.get("progress") for e in scored] if task.progress else []
  if None in progress:
    raise ValueError(f"{task.name!r} reports progress, and an episode has none: the log is of another version")
  steps = sum(e.metadata["steps"] for e in scored)
  return TaskScore(
      name=task.name,
      skill=task.skill,
      model=models.pop(),
      episodes=len(episodes),
      scored=len(scored),
      excluded=excluded,
      outcomes=outcomes,
      success=solved / len(scored) if scored else None,
      ci=wilson(solved, len(scored)) if scored else None,
      bounds=(solved / len(episodes), (solved + excluded) / len(episodes)),
      reward=float(np.mean(rewards)) if scored else None,
      reward_ci=student_t(rewards),
      progress=float(np.mean(progress)) if progress else None,
      progress_ci=_within(0.0, 1.0, student_t(progress)),
      steps=steps / len(scored) if scored else None,
      invalid_actions=sum(e.metadata["invalid_actions"] for e in scored) / steps if steps else None,
      retries=sum(len(e.metadata.get("errors", ())) for e in episodes),
      fingerprint=dict(fingerprint or {}))


def mean_score(scores: Sequence[TaskScore]) -> MeanScore:
  """Returns the mean over tasks, every task the same weight."""
  complete = all(s.scored for s in scores)
  return MeanScore(
      tasks=len(scores),
      episodes=sum(s.episodes for s in scores),
      excluded=sum(s.excluded for s in scores),
      success=float(np.mean([s.success for s in scores])) if complete else None,
      ci=mover([s.success for s in scores], [s.ci for s in scores]) if complete else None,
      bounds=(float(np.mean([s.bounds[0] for s in scores])), float(np.mean([s.bounds[1] for s in scores]))))


def skill_scores(scores: Sequence[TaskScore]) -> dict[str, MeanScore]:
  """Returns the mean over the tasks of every skill that has any, in the order of `SKILLS`."""
  return {skill: mean_score([s for s in scores if s.skill == skill])
          for skill in SKILLS if any(s.skill == skill for s in scores)}


def compare(name: str, first: Iterable[Trajectory], second: Iterable[Trajectory]) -> Comparison:
  """Compares two players on the instances of task `name` that both scored, with one seed each.

  Raises:
    ValueError: an instance occurs twice on one side (several seeds or models are mixed).
  """
  a, b = _solved_by_instance(first), _solved_by_instance(second)
  pairs = a.keys() & b.keys()
  only_first = sum(a[k] and not b[k] for k in pairs)
  only_second = sum(b[k] and not a[k] for k in pairs)
  return Comparison(
      name=name,
      pairs=len(pairs),
      unpaired=len(a.keys() ^ b.keys()),
      only_first=only_first,
      only_second=only_second,
      difference=(only_second - only_first) / len(pairs) if pairs else None,
      ci=agresti_min(only_first, only_second, len(pairs)) if pairs else None,
      p_value=mcnemar(only_first, only_second) if pairs else None)


def mean_difference(comparisons: Sequence[Comparison]) -> tuple[float, Interval] | None:
  """Returns the mean of the tasks' differences and its interval, or None where a task has no pairs."""
  if not all(c.pairs for c in comparisons):
    return None
  differences = [c.difference for c in comparisons]
  return float(np.mean(differences)), mover(differences, [c.ci for c in comparisons])


def _solved_by_instance(episodes: Iterable[Trajectory]) -> dict[str, bool]:
  episodes = list(episodes)
  instances = [e.metadata["instance"] for e in episodes]
  if len(set(instances)) != len(instances):
    raise ValueError("an instance occurs twice: several seeds or models are mixed")
  return {e.metadata["instance"]: e.outcome == Outcome.SOLVED for e in episodes if e.outcome.is_scored}


def mcnemar(only_first: int, only_second: int) -> float:
  """Returns the two-sided p-value of the exact McNemar test; 1 where no pair disagrees."""
  discordant = only_first + only_second
  return float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0


def agresti_min(only_first: int, only_second: int, pairs: int) -> Interval:
  """Returns the 95% interval of a difference of paired proportions (Agresti and Min 2005).

  Wald's interval after adding half a pair to each of the four cells: unlike Wald's own it has a width
  where no pair disagrees.
  """
  n, b, c = pairs + 2, only_first + 0.5, only_second + 0.5
  difference = (c - b) / n
  half = stats.norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt(b + c - (c - b) ** 2 / n) / n
  return max(-1.0, difference - half), min(1.0, difference + half)
