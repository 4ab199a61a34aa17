"""Lint: each rule finds what it is for, and nothing in a sound trajectory."""

import pytest

from agentbank_jax.errors import UserError
from agentbank_jax.trajectory import Trajectory, Turn
from configs import import_agentbank
from data_prep.lint import RULES, Linter

REPORT = dict.fromkeys(RULES, "report") | {"duplicate_id": "drop"}
SOUND = (("system", "Rules."), ("user", "2 * 3, and twice that?"), ("assistant", "Thought: x\nAction: 2 * 3"),
         ("user", "Observation: 6"), ("assistant", "Action: 6 * 2"), ("user", "Observation: 12"),
         ("assistant", "Final Answer: 12"))


def make(*turns, task="gsm8k", id_="a"):
  return Trajectory(id_, task, tuple(Turn(*t) for t in turns))


def found(trajectory):
  linter = Linter(REPORT)
  assert linter.check(trajectory) is None
  return set(linter.counts)


def test_a_sound_trajectory_breaks_no_rule():
  assert not found(make(*SOUND))
  call = make(("user", "q"), ("assistant", "two calls"), ("tool", "a"), ("tool", "b"), ("assistant", "done"))
  assert not found(call)


BROKEN = [
    ("empty_turn", (*SOUND[:-1], ("assistant", " \n"))),
    ("role_order", (SOUND[1], SOUND[0], *SOUND[2:])),
    ("role_order", SOUND[2:]),
    ("role_order", (*SOUND, ("assistant", "again"))),
    ("role_order", (SOUND[1], *SOUND[1:])),
    ("observation_count", (*SOUND[:4], ("assistant", "no mark"), *SOUND[5:])),
    ("observation_count", (*SOUND[:4], ("assistant", "Action: 1\nAction: 2\nAction: 3"), *SOUND[5:])),
    ("truncated_observation", (*SOUND[:3], ("user", "Observation: 6 and more...\n"), *SOUND[4:])),
    ("truncated_observation", (*SOUND[:3], ("user", "Observation: 6 …"), *SOUND[4:])),
    ("ansi_escape", (*SOUND[:3], ("user", "Observation: \x1b[01;34mbin\x1b[0m"), *SOUND[4:])),
    ("calculator_error", (*SOUND[:3], ("user", "Observation: Error: cannot read"), *SOUND[4:])),
    ("single_action", SOUND[:3]),
    ("last_turn", SOUND[:-1]),
    ("no_trained_turn", (("user", "q"), ("assistant", "a", False), ("user", "b"), ("assistant", "c", False))),
]


@pytest.mark.parametrize("rule, turns", BROKEN)
def test_each_rule_finds_what_it_is_for(rule, turns):
  assert rule in found(make(*turns))


def test_no_rule_is_untested():
  assert {rule for rule, _ in BROKEN} == RULES.keys()  # duplicate_id has a test below


def test_a_question_may_end_in_dots_and_speak_of_errors():
  assert not found(make(("user", "The error is 2, and so on..."), *SOUND[2:]))
  program = make(*SOUND[:3], ("user", "Observation: error"), *SOUND[4:], task="apps")
  assert "calculator_error" not in found(program)


def test_rows_are_dropped_as_the_config_says():
  linter = Linter(REPORT | {"last_turn": "drop"})
  assert linter.check(make(*SOUND)) is None
  assert linter.check(make(*SOUND[:-1], id_="b")) == "last_turn"
  assert linter.check(make(*SOUND)) == "duplicate_id"
  report = linter.to_json()
  assert report["last_turn"] == {"action": "drop", "count": 1, "examples": ["b"]}
  assert report["duplicate_id"]["count"] == 1 and report["empty_turn"]["count"] == 0


def test_the_config_names_every_rule():
  Linter(import_agentbank.lint())
  for change, message in [({"emty_turn": "drop"}, "unknown rule 'emty_turn'; did you mean 'empty_turn'"),
                          ({"empty_turn": "warn"}, "lint.empty_turn is 'warn', expected report or drop"),
                          ({"duplicate_id": "report"}, "cannot hold one id twice")]:
    with pytest.raises(UserError, match=message):
      Linter(REPORT | change)
  with pytest.raises(UserError, match="lint.last_turn is missing"):
    Linter({k: v for k, v in REPORT.items() if k != "last_turn"})
