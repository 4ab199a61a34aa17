"""ReAct's search environment: what each action shows."""

import re

import pytest

from agentbank_jax.envs import corpus
from agentbank_jax.envs.answer_match import hotpot_match
from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.corpus import Corpus, Page
from agentbank_jax.envs.search import SearchEnv

TOWER = Page("Tower", ("One is a tower.", "Two has red bricks.", "Three.", "Four.", "Five.", "Six has Red doors.",
                       "Seven."))
BRIDGE = Page("Bridge", ("A bridge is red.",))
DATA = {"question": "Which colour?", "gold": "dark red", "pages": ["Tower", "Bridge"]}


@pytest.fixture
def env(tmp_path):
  corpus.build(tmp_path / "index", (TOWER, BRIDGE, Page("Long", ("x" * 5_000,))), {})
  env = SearchEnv(lambda: Corpus(tmp_path / "index"), lambda answer, data: hotpot_match(answer, data["gold"]), True)
  assert env.reset(Instance("test-0", "test", DATA)) == "Which colour?"
  yield env
  env.close()


def act(env, text):
  step = env.step(Action("act", text))
  assert not step.terminated and not step.truncated and step.reward == 0.0
  return step


def test_a_search_shows_five_sentences_and_a_lookup_the_next_with_the_word(env):
  assert act(env, "search[tower]").observation == " ".join(TOWER.sentences[:5])
  assert act(env, "lookup[red]").observation == "(Result 1 / 2) Two has red bricks."
  assert act(env, "lookup[red]").observation == "(Result 2 / 2) Six has Red doors."
  assert act(env, "lookup[red]").observation == "No more results."
  assert act(env, "Lookup[Seven]").observation == "(Result 1 / 1) Seven."
  assert act(env, "lookup[red]").observation == "(Result 1 / 2) Two has red bricks."  # another word begins anew
  assert act(env, "lookup[nothing]").observation == "No more results."


def test_a_search_in_vain_names_titles_and_leaves_the_page_open(env):
  act(env, "search[Bridge]")
  assert act(env, "search[red tower]").observation == "Could not find red tower. Similar: ['Tower', 'Bridge']."
  assert act(env, "lookup[red]").observation == "(Result 1 / 1) A bridge is red."
  assert act(env, "search[zzz]").observation == "Could not find zzz. Nothing is similar."


def test_a_new_page_begins_the_lookups_anew(env):
  act(env, "search[Tower]")
  act(env, "lookup[red]")
  act(env, "search[Bridge]")
  assert act(env, "lookup[red]").observation == "(Result 1 / 1) A bridge is red."


@pytest.mark.parametrize("text, why", [
    ("Tower", "write one of search"), ("search Tower", "write one of search"), ("search[]", r"search\[\] is empty"),
    ("search[Tower]\nObservation: it is red", "nothing after it"), ("find[Tower]", "write one of search"),
    ("lookup[red]", "no page is open; search first"), ("search[ ]", "is empty"), ("research[Tower]", "write one of"),
])
def test_what_cannot_be_done_says_why_and_the_episode_goes_on(env, text, why):
  step = act(env, text)
  assert step.info["invalid"] and step.observation.startswith("Invalid action: ")
  assert re.search(why, step.observation)
  assert act(env, "search[Tower]").info == {"progress": 0.5}


def test_progress_is_the_share_of_pages_opened(env):
  assert act(env, "search[Long]").info["progress"] == 0.0
  assert act(env, "search[Tower]").info["progress"] == 0.5
  assert act(env, "search[Tower]").info["progress"] == 0.5
  assert act(env, "search[Bridge]").info["progress"] == 1.0
  assert env.step(Action("answer", "dark red")).info == {"solved": True, "progress": 1.0}


def test_the_reward_is_f1_and_solved_is_the_exact_match(env):
  for answer, reward, solved in [("Dark red!", 1.0, True), ("red", 2 / 3, False), ("blue", 0.0, False)]:
    step = env.step(Action("answer", answer))
    assert (step.reward, step.terminated, step.info["solved"]) == (pytest.approx(reward), True, solved)
    assert "red" not in step.observation


def test_long_things_are_cut_and_said(env):
  assert act(env, "search[Long]").observation.endswith("... (2000 of 5000 characters shown)")
  assert len(act(env, f"search[{'y' * 3_000}]").observation) < 300
