"""Scores and their intervals, against closed forms and published numbers."""

import dataclasses
import math

from fake_tasks import COUNT
import numpy as np
import pytest

from agentbank_jax.evaluate import scores
from agentbank_jax.evaluate.tables import comparison_table, score_table
from agentbank_jax.trajectory import Outcome, Provenance, Trajectory, Turn

PROGRESS = dataclasses.replace(COUNT, progress="numbers said")


def episode(i, outcome, reward=None, model="m", steps=4, invalid=1, errors=(), **more):
  if reward is None and outcome.is_scored:
    reward = float(outcome == Outcome.SOLVED)
  metadata = {"instance": f"test-{i:06d}", "steps": steps, "invalid_actions": invalid, "errors": list(errors), **more}
  return Trajectory(f"count/{i}/{model}", "count", (Turn("user", "x"),), reward, outcome,
                    Provenance(teacher=model, seed=0), metadata)


def episodes(model="m", **counts):
  """That many episodes of each outcome."""
  outcomes = [Outcome(name) for name, n in counts.items() for _ in range(n)]
  return [episode(i, outcome, model=model) for i, outcome in enumerate(outcomes)]


def score_of(**counts):
  return scores.score(COUNT, episodes(**counts))


def test_excluded_episodes_are_counted_and_never_scored():
  result = score_of(solved=6, failed=2, step_limit=1, invalid_action=1, environment_error=3, agent_error=2)
  assert (result.episodes, result.scored, result.excluded) == (15, 10, 5)
  assert result.success == 0.6
  assert result.bounds == (6 / 15, 11 / 15)
  assert sum(result.outcomes.values()) == result.episodes
  assert set(result.outcomes) == {str(o) for o in Outcome}
  assert result.outcomes["context_limit"] == 0
  assert (result.steps, result.invalid_actions) == (4.0, 0.25)


@pytest.mark.parametrize("excluded", range(4))
def test_injected_errors_do_not_move_the_score(excluded):
  result = score_of(solved=3, failed=4, environment_error=excluded)
  assert (result.success, result.ci) == (3 / 7, scores.wilson(3, 7))
  assert result.bounds[0] <= result.success <= result.bounds[1]


def test_nothing_scored_is_no_score():
  result = score_of(environment_error=3)
  assert (result.success, result.ci, result.reward, result.reward_ci, result.steps) == (None,) * 5
  assert result.bounds == (0.0, 1.0)
  mean = scores.mean_score([score_of(solved=1), result])
  assert (mean.success, mean.ci, mean.bounds) == (None, None, (0.5, 1.0))


@pytest.mark.parametrize("k, n", [(0, 10), (3, 10), (10, 10), (81, 263), (1, 1)])
def test_wilson_is_the_closed_form(k, n):
  z, p = 1.959963984540054, k / n
  middle = (p + z * z / (2 * n)) / (1 + z * z / n)
  half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
  assert scores.wilson(k, n) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_wilson_is_newcombes_published_example():
  assert scores.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I


def test_reward_interval_is_students():
  values = [0.0, 0.5, 1.0, 0.25]
  half = 3.182446305 * np.std(values, ddof=1) / 2  # the 97.5% point of t with 3 degrees of freedom
  assert scores.student_t(values) == pytest.approx((0.4375 - half, 0.4375 + half))
  assert scores.student_t([1.0]) is None


def test_progress_is_the_mean_of_what_episodes_reached():
  reached = [0.0, 0.5, 1.0, 0.25]
  episodes = [episode(i, Outcome.FAILED, progress=p) for i, p in enumerate(reached)]
  episodes.append(episode(9, Outcome.ENVIRONMENT_ERROR, progress=1.0))
  result = scores.score(PROGRESS, episodes)
  low, high = scores.student_t(reached)
  assert low < 0 < result.progress == 0.4375
  assert result.progress_ci == (0.0, 1.0) and high > 1 and result.reward == 0
  assert (score_of(solved=2).progress, score_of(solved=2).progress_ci) == (None, None)
  with pytest.raises(ValueError, match="an episode has none"):
    scores.score(PROGRESS, [episode(0, Outcome.SOLVED)])
  table = score_table([result, score_of(solved=1)], "t")
  column = table.columns.index("progress (95% CI)")
  assert [row[column] for row in table.rows] == ["43.8% (0.0 to 100.0)", "–", ""]
  assert "best progress" in table.note and "progress" not in score_table([score_of(solved=1)], "t").note


def test_scores_of_other_conditions_are_not_compared_without_a_word():
  one, other = ({"split": "test", "versions": {"numpy": v}} for v in ("2.0", "2.1"))
  a = scores.score(COUNT, episodes("a", solved=4), one)
  pair = scores.compare("count", episodes("a", solved=4), episodes("b", solved=4))
  for fingerprint, told in [(one, False), (other, True)]:
    b = scores.score(COUNT, episodes("b", solved=4), fingerprint)
    note = comparison_table([a], [b], [pair], names=("a", "b"), title="t").note
    said = 'NOT played under the same conditions: count: versions.numpy is "2.0" here and "2.1" there.'
    assert (said in note) == told


def test_mean_over_tasks():
  results = [score_of(solved=8, failed=2), score_of(solved=0, failed=20)]
  mean = scores.mean_score(results)
  assert mean.success == pytest.approx(0.4)
  (l1, u1), (l2, u2) = scores.wilson(8, 10), scores.wilson(0, 20)
  assert mean.ci == pytest.approx((0.4 - math.sqrt((0.8 - l1) ** 2 + (0 - l2) ** 2) / 2,
                                   0.4 + math.sqrt((u1 - 0.8) ** 2 + (u2 - 0) ** 2) / 2))
  assert scores.mean_score(results[:1]).ci == pytest.approx(results[0].ci)
  assert list(scores.skill_scores(results)) == ["math"]
  assert (mean.tasks, mean.episodes, mean.excluded) == (2, 30, 0)


def test_intervals_cover_what_they_promise():
  """Simulated: at least 93% of the intervals of the mean and of the difference hold the truth."""
  rng = np.random.default_rng(0)
  rates, n, trials = (0.9, 0.5, 0.05), 30, 400
  held = 0
  for _ in range(trials):
    solved = [int(rng.binomial(n, p)) for p in rates]
    low, high = scores.mover([k / n for k in solved], [scores.wilson(k, n) for k in solved])
    held += low <= np.mean(rates) <= high
  assert held / trials > 0.93
  held = 0
  for _ in range(trials):
    both, first, second, _ = rng.multinomial(40, (0.5, 0.1, 0.25, 0.15))
    low, high = scores.agresti_min(int(first), int(second), 40)
    held += low <= 0.15 <= high
  assert held / trials > 0.93


def test_paired_comparison_by_hand():
  a = episodes("a", solved=5, failed=5)
  b = [episode(i, Outcome.SOLVED if i < 3 or i >= 5 else Outcome.FAILED, model="b") for i in range(9)]
  b.append(episode(9, Outcome.ENVIRONMENT_ERROR, model="b"))
  result = scores.compare("count", a, b)
  assert (result.pairs, result.unpaired, result.only_first, result.only_second) == (9, 1, 2, 4)
  assert result.difference == pytest.approx(2 / 9)
  # Two-sided sign test on 6 discordant pairs, 2 against 4: 2 (1 + 6 + 15) / 64.
  assert result.p_value == pytest.approx(44 / 64)
  half = 1.959963984540054 * math.sqrt(2.5 + 4.5 - 4 / 11) / 11
  assert result.ci == pytest.approx((2 / 11 - half, 2 / 11 + half))


def test_comparison_without_disagreement_and_without_pairs():
  a = episodes("a", solved=3)
  same = scores.compare("count", a, episodes("b", solved=3))
  assert (same.difference, same.p_value) == (0.0, 1.0)
  assert same.ci[0] < 0 < same.ci[1]
  mean, (low, high) = scores.mean_difference([same, same])
  assert mean == 0.0 and high == -low == pytest.approx(same.ci[1] / math.sqrt(2))
  none = scores.compare("count", a, episodes("b", agent_error=3))
  assert (none.pairs, none.unpaired, none.difference, none.ci, none.p_value) == (0, 3, None, None, None)
  assert scores.mean_difference([same, none]) is None


def test_mixed_models_and_repeated_episodes_are_refused():
  a = episodes("a", solved=1)
  with pytest.raises(ValueError, match="one model"):
    scores.score(COUNT, a + episodes("b", solved=1))
  with pytest.raises(ValueError, match="same id"):
    scores.score(COUNT, a + a)
  with pytest.raises(ValueError, match="twice"):
    scores.compare("count", a + episodes("b", solved=1), a)


def test_tables_read_as_the_scores_do():
  results = [score_of(solved=8, failed=2, environment_error=1), score_of(failed=3)]
  table = score_table(results, "scores")
  first = dict(zip(table.columns, table.rows[0], strict=True))
  assert first["success (95% CI)"] == "80.0% (49.0 to 94.3)"
  assert first["excluded (bounds)"] == "1 (72.7 to 81.8)"
  assert first["outcomes"] == "8 solved, 2 failed, 1 environment error"
  assert table.rows[-1][0] == "mean of all tasks" and table.rows[-1][1].startswith("40.0% (")
  assert table.rows[1][4] == "0" and table.summary == 1
  assert "Wilson" in table.note

  pair = scores.compare("count", episodes("a", failed=4), episodes("b", solved=4))
  both = comparison_table([score_of(failed=4)], [score_of(solved=4)], [pair], names=("before", "after"),
                          title="t")
  assert both.columns[1:3] == ("before (95% CI)", "after (95% CI)")
  assert both.rows[0][3].startswith("+100.0% (+") and both.rows[0][4] == "0.125" and both.summary == 0
