"""Best-fit-decreasing bin packing of lengths into rows of one capacity."""

from typing import NamedTuple

import numpy as np


class Packing(NamedTuple):
  """Where every item lies.

  Attributes:
    row: int32 [N], the row of each item.
    start: int32 [N], the item's first position in that row.
    num_rows: rows in use.
  """

  row: np.ndarray
  start: np.ndarray
  num_rows: int


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> Packing:
  """Puts each item, the longest first, into the open row with the least space that still holds it.

  Deterministic: items of one length go in the order given, rows of one free space last in, first out.
  Open rows are kept by their free space, and a bit set over the spaces in use finds the least that
  fits, so the work is O(n log n) for the sort and O(capacity / 64) words per item: a million
  conversations take one to three seconds.

  Args:
    lengths: int [N], each from 1 to `capacity`.
    capacity: positions in a row.

  Raises:
    ValueError: a length outside that range.
  """
  lengths = np.asarray(lengths)
  if len(lengths) and not (1 <= lengths.min() and lengths.max() <= capacity):
    raise ValueError(f"lengths run from {lengths.min()} to {lengths.max()}, expected 1 to {capacity}")
  row = np.empty(len(lengths), np.int32)
  start = np.empty(len(lengths), np.int32)
  open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]  # by free space
  spaces = 0  # bit s is set where open_rows[s] is not empty
  num_rows = 0
  order = np.argsort(-lengths.astype(np.int64), kind="stable")
  for item, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
    fitting = spaces >> length
    if fitting:
      space = length + (fitting & -fitting).bit_length() - 1
      chosen = open_rows[space].pop()
      if not open_rows[space]:
        spaces ^= 1 << space
    else:
      space, chosen = capacity, num_rows
      num_rows += 1
    row[item] = chosen
    start[item] = capacity - space
    if space > length:
      open_rows[space - length].append(chosen)
      spaces |= 1 << (space - length)
  return Packing(row, start, num_rows)
