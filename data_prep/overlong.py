"""What becomes of a conversation that is longer than a row: nothing is ever cut inside a turn.

A conversation of T ids takes T-1 positions (the shift comes before packing), so `limit` ids is
`seq_len + 1`. The policies:

- `drop`: the whole conversation is dropped.
- `cut_at_turn`: the longest prefix that ends with the terminator of a trained turn is kept.
- `window`: several windows. Each starts with the opening (all that precedes the first assistant
  turn) and goes on with a contiguous run of turns that starts and ends with an assistant turn. Every
  trained turn is trained in exactly one window. Earlier turns fill at most half of the room that the
  opening leaves; they are context, with their loss off.
"""

import dataclasses
import itertools

import numpy as np

POLICIES = ("drop", "cut_at_turn", "window")

OVERLONG = "overlong"  # policy `drop`
TURN_TOO_LONG = "turn_too_long"  # no trained turn fits, not even alone behind the opening
NO_TRAINED_TOKENS = "no_trained_tokens"


@dataclasses.dataclass(frozen=True)
class Pieces:
  """What is kept of one conversation, and where each of its ids went: trained + masked + dropped = T.

  Attributes:
    segments: of `(ids int32 [n], train bool [n])`, 2 <= n <= limit, each with a trained target; empty
      where the conversation is dropped.
    reason: why it is dropped, or None.
    trained: ids that are a target with loss (in exactly one segment).
    masked: ids that are in a segment and carry no loss in any.
    dropped: ids that are in no segment.
  """

  segments: tuple[tuple[np.ndarray, np.ndarray], ...]
  reason: str | None
  trained: int
  masked: int
  dropped: int


def fit(ids: np.ndarray, train: np.ndarray, turn: np.ndarray, is_assistant: np.ndarray, limit: int,
        policy: str) -> Pieces:
  """Applies a policy to one rendered conversation.

  Args:
    ids: int32 [T].
    train: bool [T], loss on that id as a target.
    turn: int32 [T], the turn of each id, -1 for ids between turns.
    is_assistant: bool [turns].
    limit: the most ids a segment may have.
    policy: one of `POLICIES`.
  """
  total = len(ids)
  train = train.copy()
  train[:1] = False  # the first id is never a target
  if not train.any():
    return Pieces((), NO_TRAINED_TOKENS, 0, 0, total)
  if total <= limit:
    trained = int(np.count_nonzero(train))
    return Pieces(((ids, train),), None, trained, total - trained, 0)
  if policy == "drop":
    spans, reason = [], OVERLONG
  elif policy == "cut_at_turn":
    ends = _trained_ends(train, turn)
    end = int(ends[ends <= limit].max(initial=0))
    spans, reason = [(np.arange(end), train[:end])] if end else [], TURN_TOO_LONG
  else:
    spans, reason = _windows(train, turn, is_assistant, limit), TURN_TOO_LONG
  spans = [(where, mask) for where, mask in spans if mask.any()]
  if not spans:
    return Pieces((), reason, 0, 0, total)
  kept = np.zeros(total, bool)
  for where, _ in spans:
    kept[where] = True
  trained = sum(int(mask.sum()) for _, mask in spans)
  segments = tuple((ids[where], mask) for where, mask in spans)
  return Pieces(segments, None, trained, int(kept.sum()) - trained, total - int(kept.sum()))


def _trained_ends(train: np.ndarray, turn: np.ndarray) -> np.ndarray:
  """Returns the ends (exclusive) of the trained runs; two trained turns side by side are two runs."""
  ends = train.copy()
  ends[:-1] &= ~train[1:] | (turn[1:] != turn[:-1])
  return np.flatnonzero(ends) + 1


def _windows(train: np.ndarray, turn: np.ndarray, is_assistant: np.ndarray,
             limit: int) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns `(indices, train)` of each window, in order."""
  # A round is an assistant turn and all that follows up to the next one. Ids between two turns
  # belong to the turn behind them: they open it (a BOS per exchange, a line break).
  owner = np.where(turn >= 0, turn, np.iinfo(turn.dtype).max)
  owner = np.minimum.accumulate(owner[::-1])[::-1]
  changes = np.flatnonzero(np.diff(owner, prepend=-1)).tolist()
  starts = [i for i in changes if owner[i] < len(is_assistant) and is_assistant[owner[i]]]
  # A BOS opens every window, also where an assistant turn comes first.
  opening = starts[0] = max(starts[0], int(np.argmax(turn >= 0)))
  stops = [*starts[1:], len(train)]
  ends = _trained_ends(train, turn)
  # Where a window may end: behind the terminator of the round's trained turn; None if it has none.
  last = [next((int(e) for e in ends if a < e <= b), None) for a, b in zip(starts, stops, strict=True)]
  trained_rounds = [r for r, end in enumerate(last) if end is not None]
  room = limit - opening
  windows = []
  while trained_rounds:
    first = trained_rounds[0]
    if last[first] - starts[first] > room:
      trained_rounds.pop(0)  # does not fit even alone
      continue
    # Context: whole rounds before `first`, at most half of the room, less where the turn needs more.
    context = min(room // 2, room - (last[first] - starts[first]))
    begin = next(r for r in range(first + 1) if starts[first] - starts[r] <= context)
    fitting = list(itertools.takewhile(lambda r, b=begin: last[r] - starts[b] <= room, trained_rounds))
    end = last[fitting[-1]]
    where = np.concatenate([np.arange(opening), np.arange(starts[begin], end)])
    mask = train[where]
    mask[opening:opening + starts[first] - starts[begin]] = False
    mask[:1] = False  # without an opening, the first id is again no target
    windows.append((where, mask))
    trained_rounds = trained_rounds[len(fitting):]
  return windows
