"""Mixtures: shares in the declared unit, nesting, epochs, and a manifest that adds up."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from agentbank_jax.errors import UserError
from data_prep import mixture

NAMES = ["a", "b", "c"]


def _sources(seed=0, counts=(400, 1000, 150)):
  """Three sources with sizes of their own; returns seeded orders and the sizes in the three units."""
  rng = np.random.default_rng(seed)
  bounds = np.cumsum([0, *counts])
  orders = [rng.permutation(np.arange(a, b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
  spreads = zip(counts, (150, 950, 2050), strict=True)
  tokens = np.concatenate([rng.integers(50, most, n) for n, most in spreads])
  return orders, {"rows": np.ones(bounds[-1], np.int64), "tokens": tokens, "trained_tokens": tokens // 3}


@pytest.mark.parametrize("unit", mixture.UNITS)
def test_shares_and_total_are_hit_in_the_declared_unit(unit):
  orders, counts = _sources()
  weights = [0.5, 0.3, 0.2]
  total = {"rows": 500, "tokens": 150_000, "trained_tokens": 40_000}[unit]
  chosen = mixture.mix(orders, counts[unit], NAMES, weights, total)
  achieved = np.array([counts[unit][s.chosen].sum() for s in chosen])
  # Nearest whole trajectory: within half of the largest one.
  assert (np.abs(achieved - np.array(weights) * total) <= counts[unit].max() / 2).all()
  assert [s.share for s in chosen] == pytest.approx(weights)


@given(st.lists(st.floats(0.01, 10), min_size=3, max_size=3), st.floats(1, 5e5), st.floats(1, 5e5),
       st.sampled_from(mixture.UNITS), st.integers(0, 3))
def test_a_smaller_total_is_a_subset_of_a_larger_one(weights, total_a, total_b, unit, seed):
  orders, counts = _sources(seed, (40, 100, 15))
  totals = sorted([total_a, total_b])
  small, large = (mixture.mix(orders, counts[unit], NAMES, weights, total / 50) for total in totals)
  for s, l in zip(small, large, strict=True):
    assert len(s.chosen) <= len(l.chosen)
    np.testing.assert_array_equal(s.chosen, l.chosen[:len(s.chosen)])


def test_beyond_its_size_a_source_is_repeated_and_says_so():
  orders, counts = _sources()
  _, _, c = mixture.mix(orders, counts["rows"], NAMES, [0, 0, 1], 375)
  assert c.epochs == pytest.approx(2.5)
  assert sorted(np.bincount(c.chosen, minlength=1550)[1400:].tolist()) == [2] * 75 + [3] * 75


def test_all_without_weights_is_every_trajectory_once():
  orders, counts = _sources()
  for unit in mixture.UNITS:
    chosen = np.concatenate([s.chosen for s in mixture.mix(orders, counts[unit], NAMES, [None] * 3, None)])
    assert sorted(chosen.tolist()) == list(range(1550))


def test_all_with_weights_is_the_most_that_repeats_nothing():
  orders, counts = _sources()
  a, b, c = mixture.mix(orders, counts["rows"], NAMES, [1, 1, 0.5], None)
  assert [len(s.chosen) for s in (a, b, c)] == [300, 300, 150]
  assert c.epochs == pytest.approx(1)


@pytest.mark.parametrize("weights", [[1, None, 1], [0, 0, 0], [1, -1, 1], [1, float("nan"), 1]])
def test_weights_that_mean_nothing_are_refused(weights):
  orders, counts = _sources()
  with pytest.raises(UserError, match="config.sources"):
    mixture.mix(orders, counts["rows"], NAMES, weights, 10)


def test_a_source_without_trajectories_is_named():
  orders, counts = _sources()
  with pytest.raises(UserError, match="b: no trajectory"):
    mixture.mix([orders[0], orders[1][:0], orders[2]], counts["rows"], NAMES, [1, 1, 1], 10)


def test_the_manifest_adds_up_in_all_units():
  orders, counts = _sources()
  selections = mixture.mix(orders, counts["tokens"], NAMES, [1, 1, 2], 100_000)
  task_of = np.arange(1550) % 5
  tasks = ["t0", "t1", "t2", "t3", "t4"]
  skill = lambda task: "web" if task in ("t0", "t3") else "math"
  manifest = mixture.manifest(selections, counts, NAMES, task_of, tasks, skill, "tokens")
  assert [manifest["sources"][n]["requested_share"] for n in NAMES] == [0.25, 0.25, 0.5]
  achieved = [manifest["sources"][n]["tokens"]["share"] for n in NAMES]
  assert achieved == pytest.approx([0.25, 0.25, 0.5], abs=0.02)
  for unit in mixture.UNITS:
    for kind in ("sources", "tasks", "skills"):
      parts = manifest[kind].values()
      assert sum(p[unit]["count"] for p in parts) == manifest["total"][unit]
      assert sum(p[unit]["share"] for p in parts) == pytest.approx(1)
  assert set(manifest["skills"]) == {"web", "math"}
