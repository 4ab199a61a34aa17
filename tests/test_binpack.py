"""Best-fit-decreasing against its definition, and at the size of a real data set."""

import time

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from data_prep import binpack


def _by_definition(lengths, capacity):
  """The textbook: sort, then scan every open row for the tightest fit."""
  free, rows = [], {}
  for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    fits = [r for r in range(len(free)) if free[r] >= lengths[i]]
    r = min(fits, key=lambda r: free[r]) if fits else len(free)
    if r == len(free):
      free.append(capacity)
    free[r] -= lengths[i]
    rows[i] = r
  return sorted(free)


@given(st.integers(1, 40).flatmap(
    lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=60))))
def test_is_best_fit_decreasing_and_never_overlaps(case):
  capacity, lengths = case
  packing = binpack.best_fit_decreasing(np.array(lengths, np.int32), capacity)
  used = np.zeros((packing.num_rows, capacity), int)
  for row, start, length in zip(packing.row, packing.start, lengths, strict=True):
    assert start + length <= capacity
    used[row, start:start + length] += 1
  assert used.max(initial=0) <= 1
  assert used.sum() == sum(lengths)
  # Rows are filled from the left without holes.
  assert all((np.diff(row) <= 0).all() for row in used)
  assert sorted(capacity - used.sum(1)) == _by_definition(lengths, capacity)


@pytest.mark.parametrize("lengths", [[0], [9], [-1], [8, 8, 9]])
def test_lengths_outside_the_capacity_are_refused(lengths):
  with pytest.raises(ValueError, match="expected 1 to 8"):
    binpack.best_fit_decreasing(np.array(lengths), 8)


def test_nothing_to_pack():
  assert binpack.best_fit_decreasing(np.array([], np.int32), 8).num_rows == 0


def _lengths(count, seed):
  lengths = np.random.default_rng(seed).lognormal(np.log(700), 0.6, count)
  return np.clip(lengths, 20, 4096).astype(np.int32)


@pytest.mark.parametrize("seed", [0, 1])
def test_conversations_of_840_tokens_fill_rows_of_4096(seed):
  lengths = _lengths(10_000, seed)
  packing = binpack.best_fit_decreasing(lengths, 4096)
  assert lengths.sum() / (packing.num_rows * 4096) >= 0.995


def test_a_million_lengths_take_seconds():
  lengths = _lengths(1_000_000, seed=0)
  start = time.process_time()
  packing = binpack.best_fit_decreasing(lengths, 4096)
  assert time.process_time() - start < 10
  assert lengths.sum() / (packing.num_rows * 4096) >= 0.995
