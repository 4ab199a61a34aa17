"""What a query may see."""

MASKED = -1e30  # not -inf: a row of padding alone must not make NaN


def causal_mask(query_positions, key_positions, window: int | None):
  """Returns [..., queries, keys]: whether the key is not after the query, and within the window."""
  distance = query_positions[..., :, None] - key_positions[..., None, :]
  return (distance >= 0) if window is None else (distance >= 0) & (distance < window)
