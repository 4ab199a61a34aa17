"""Overlong policies: no cut inside a turn, every trained turn once, every id accounted for."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from data_prep import overlong


def _conversation(turns, bos=1):
  """Renders `(is_assistant, train, length)` turns: two header ids, content, a terminator; ids are unique.

  Returns ids, train, turn, is_assistant, and each trained turn's ids (content and terminator).
  """
  train, turn, spans = [False] * bos, [-1] * bos, []
  for k, (_, trained, length) in enumerate(turns):
    start = len(train) + 2
    train += [False] * 2 + [trained] * (length + 1)
    turn += [k] * (length + 3)
    if trained:
      spans.append(range(start, start + length + 1))
  ids = np.arange(len(train), dtype=np.int32) + 100
  return (ids, np.array(train, bool), np.array(turn, np.int32), np.array([t[0] for t in turns]),
          [[i + 100 for i in span] for span in spans])


_KINDS = {"other": (False, False), "agent": (True, True), "silent": (True, False)}
_TURNS = st.lists(
    st.tuples(st.sampled_from(["other", "other", "agent", "agent", "silent"]), st.integers(0, 12)),
    min_size=1, max_size=12).map(lambda turns: [(*_KINDS[kind], length) for kind, length in turns])


@given(_TURNS, st.integers(3, 60), st.sampled_from(overlong.POLICIES), st.integers(0, 1))
def test_the_properties_of_every_policy(turns, limit, policy, bos):
  ids, train, turn, is_assistant, spans = _conversation(turns, bos)
  pieces = overlong.fit(ids, train, turn, is_assistant, limit, policy)
  assert pieces.trained + pieces.masked + pieces.dropped == len(ids)
  assert (pieces.reason is None) == bool(pieces.segments)
  seen = []
  for segment, mask in pieces.segments:
    assert 2 <= len(segment) <= limit
    assert len(segment) == len(mask)
    assert mask.any()
    assert not mask[0]
    seen += segment[mask].tolist()
    # Wherever a trained turn begins in a segment, it is there to its terminator.
    for span in spans:
      if span[0] in segment.tolist():
        assert set(span) <= set(segment.tolist())
  assert len(seen) == len(set(seen)) == pieces.trained
  assert set(seen) <= set(ids[train].tolist())
  # A turn is trained whole or not at all.
  for span in spans:
    assert len(set(span) & set(seen)) in (0, len(span))
  present = {i for segment, _ in pieces.segments for i in segment.tolist()}
  assert pieces.dropped == len(ids) - len(present)
  if len(ids) <= limit and spans:
    np.testing.assert_array_equal(pieces.segments[0][0], ids)
    assert pieces.dropped == 0


@given(_TURNS, st.integers(12, 60))
def test_windows_train_every_turn_that_fits_behind_the_opening(turns, limit):
  ids, train, turn, is_assistant, spans = _conversation(turns)
  pieces = overlong.fit(ids, train, turn, is_assistant, limit, "window")
  if len(ids) <= limit:
    return
  first = np.flatnonzero(is_assistant[np.maximum(turn, 0)] & (turn >= 0))
  opening = ids[:first[0]].tolist() if len(first) else []
  trained = {i for segment, mask in pieces.segments for i in segment[mask].tolist()}
  for span in spans:
    fits = len(opening) + 2 + len(span) <= limit  # its header, content and terminator
    assert (span[0] in trained) == fits
  for segment, mask in pieces.segments:
    assert segment[:len(opening)].tolist() == opening
    run = segment[len(opening):]
    assert (np.diff(run) == 1).all()  # contiguous
    assert is_assistant[turn[run[0] - 100]]
    assert mask[-1]  # ends with a trained terminator
    if len(run) and mask[len(opening):].any():
      context = int(np.argmax(mask[len(opening):])) - 2
      assert context <= (limit - len(opening)) // 2


def test_an_example_of_each_policy():
  # [BOS] user(1+3) | agent(2+3) user(2+3) agent(2+3) user(2+3) agent(2+3): 1 + 4 + 25 ids.
  agent, other = (True, True, 2), (False, False, 2)
  conversation = _conversation([(False, False, 1), agent, other, agent, other, agent])[:4]
  ids = conversation[0]
  fit = lambda limit, policy: overlong.fit(*conversation, limit, policy)
  assert fit(30, "drop").segments[0][0].tolist() == ids.tolist()
  assert fit(29, "drop") == overlong.Pieces((), "overlong", 0, 0, 30)
  cut = fit(29, "cut_at_turn")
  assert cut.segments[0][0].tolist() == ids[:20].tolist()  # ends with the second agent turn
  assert (cut.trained, cut.masked, cut.dropped) == (6, 14, 10)
  windows = fit(25, "window")
  assert [s.tolist() for s, _ in windows.segments] == [ids[:20].tolist(),
                                                       [*ids[:5].tolist(), *ids[15:30].tolist()]]
  assert [m.sum() for _, m in windows.segments] == [6, 3]  # the second agent turn is context in the second
  assert (windows.trained, windows.masked, windows.dropped) == (9, 21, 0)


@pytest.mark.parametrize("policy", overlong.POLICIES)
def test_a_conversation_without_loss_is_dropped(policy):
  pieces = overlong.fit(*_conversation([(False, False, 3), (True, False, 3)])[:4], 50, policy)
  assert pieces.segments == ()
  assert pieces.reason == overlong.NO_TRAINED_TOKENS


@pytest.mark.parametrize("policy", ["cut_at_turn", "window"])
def test_a_single_turn_that_does_not_fit_is_dropped(policy):
  pieces = overlong.fit(*_conversation([(False, False, 3), (True, True, 30)])[:4], 20, policy)
  assert pieces.reason == overlong.TURN_TOO_LONG
  assert pieces.dropped == 40
