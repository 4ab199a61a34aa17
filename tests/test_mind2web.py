"""Mind2Web: steps, candidates and metrics against the published definitions."""

import json
import random

from conformance import TaskConformance, last, play
import pytest

from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.mind2web import Mind2WebEnv, operation_f1
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task, splits
from agentbank_jax.tasks.mind2web import make_step

PAGES = ("mind2web", "mind2web_website", "mind2web_domain")


def candidate(number, **more):
  return {"tag": "button", "backend_node_id": str(number), "attributes": "{}", **more}


def action(uid, right=(3,), wrong=(1, 2, 4), operation="CLICK", value="", ranks=None):
  """Returns an action in the published layout, on a page of as many elements as it takes."""
  extra = lambda n: {} if ranks is None else {"rank": ranks[n]}
  nodes = "".join(f'<div><button backend_node_id="{n}" aria_label="key {n}">Word {n}&#8364; &amp; <b>more</b></button>'
                  "</div>" for n in sorted([*right, *wrong]))
  return {"action_uid": uid, "raw_html": "<html/>",
          "cleaned_html": f'<html backend_node_id="0"><body>{nodes}</body></html>',
          "operation": {"op": operation, "original_op": operation, "value": value},
          "pos_candidates": [candidate(n, **extra(n)) for n in right],
          "neg_candidates": [candidate(n, **extra(n)) for n in wrong]}


def row(name, actions, website="shop"):
  return {"annotation_id": name, "website": website, "domain": "d", "subdomain": "s", "confirmed_task": f"Do {name}.",
          "action_reprs": [f"[button]  Word -> {a['operation']['op']}" for a in actions], "actions": actions}


def make_rows(prefix, count=20):
  rng = random.Random(prefix)
  rows = []
  for n in range(count):
    actions = []
    for i in range(rng.randint(2, 4)):
      numbers = rng.sample(range(1, 200), 12)
      operation, value = rng.choice((("CLICK", ""), ("TYPE", f"new york {n}"), ("SELECT", "Two, please")))
      actions.append(action(f"{prefix}{n}-{i}", numbers[:2], numbers[2:], operation, value))
    rows.append(row(f"{prefix}{n}", actions))
  return rows


@pytest.fixture
def published(tmp_path, monkeypatch):
  folder = tmp_path / "mind2web"
  for name in ("train", "test_task", "test_website", "test_domain"):
    (folder / name).mkdir(parents=True)
    rows = make_rows(name)
    for part in range(2):
      (folder / name / f"{name}_{part}.json").write_text(json.dumps(rows[part::2]))
  raw = [{"website": f"site{n % 12}", "task": f"Task {n}", "trace_url": "",
          "actions": [["TYPE: oak chair", "[textbox]", f"Search {n}"], ["HOVER", "[link]", f"Item {n}"],
                      ["SELECT: Two: 2", "[combobox]", ""], ["ENTER", "[svg]", ""], ["CLICK", "[button]", "Buy"]]}
         for n in range(120)]
  (folder / "mind2web_raw.json").write_text(json.dumps(raw))
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  return folder


class TestPages(TaskConformance):
  split = "test"

  @pytest.fixture(params=PAGES)
  def task(self, request, published):
    return get_task(request.param)


class TestActions(TaskConformance):
  @pytest.fixture
  def task(self, published):
    return get_task("mind2web_actions")


# ---- steps and metrics


def start(*steps):
  env = Mind2WebEnv()
  first = env.reset(Instance("test-0", "test", {"task": "Buy.", "website": "shop", "steps": list(steps)}))
  return env, first


def act(env, text):
  return env.step(Action("act", text))


STEPS = (make_step(["a", "b", "c"], [1, 2], "CLICK", "", "[button]  b -> CLICK"),
         make_step(["d", "e"], [0], "TYPE", "new york", "[box]  d -> TYPE: new york"),
         make_step(["f"], [], "CLICK", "", "[x]  gone -> CLICK"),
         make_step(["g", "h"], [1], "SELECT", "Two", "[list]  h -> SELECT: Two"))


def test_an_episode_goes_on_as_the_annotator_did():
  env, first = start(*STEPS)
  assert first == "Website: shop\nTask: Buy.\nPrevious actions:\nNone\nElements:\n[0] a\n[1] b\n[2] c"
  step = act(env, "CLICK [0]")  # wrong
  assert step.observation == "Previous actions:\n[button]  b -> CLICK\nElements:\n[0] d\n[1] e"
  assert step.reward == 0 and step.info == {"progress": 0.0, "element_accuracy": 0.0, "operation_f1": 1.0}
  step = act(env, "TYPE [0] york new")  # a set of words, as published
  assert step.reward == 1 / 4 and step.info["element_accuracy"] == 1 / 2
  step = act(env, "CLICK [0]")  # no answer is right where the page lost the element
  assert step.info["operation_f1"] == pytest.approx(2 / 3)
  step = act(env, "SELECT [1] Two")
  assert step.terminated and step.reward == 2 / 4 and step.info["solved"] is False
  assert step.observation == "The task has ended. Steps: 0.500, elements: 0.500, operation F1: 0.750."


@pytest.mark.parametrize("said, gold, f1", [
    ("CLICK ", "CLICK ", 1), ("TYPE new york", "TYPE new york", 1), ("TYPE york new", "TYPE new york", 1),
    ("TYPE New York", "TYPE new york", 1 / 3), ("SELECT new york", "TYPE new york", 2 / 3),
    ("TYPE new", "TYPE new york", 0.8),
    ("CLICK ", "TYPE new york", 0), ("TYPE new new york", "TYPE new york", 1), ("CLICK x", "CLICK ", 2 / 3)])
def test_operation_f1(said, gold, f1):
  assert operation_f1(said, gold) == pytest.approx(f1)


@pytest.mark.parametrize("text, right", [
    ("CLICK [1]", True), ("CLICK [2]", True), ("CLICK [0]", False), ("TYPE [1]", False), ("CLICK [1] now", False),
    ("SELECT [1] b", False)])
def test_a_step_needs_element_and_operation(text, right):
  env, _ = start(STEPS[0])
  step = act(env, text)
  assert step.terminated and step.info["solved"] is right and step.reward == right


def test_what_is_out_of_form_can_be_said_again():
  env, _ = start(STEPS[0])
  for text in ("CLICK [3]", "CLICK 1", "HOVER [1]", "click [1]", f"CLICK [{'9' * 5000}]"):
    step = act(env, text)
    assert step.info["invalid"] and not step.terminated and "1" not in step.observation.replace("[3]", ""), text
  assert act(env, "CLICK [1]").info["solved"]


# ---- candidates


def steps_of(folder, *actions):
  (folder / "test_task" / "test_task_0.json").write_text(json.dumps([row("x", list(actions))]))
  (folder / "test_task" / "test_task_1.json").unlink()
  return next(get_task("mind2web").instances("test", 1, 0)).data["steps"]


def test_an_element_reads_as_tag_attributes_and_text(published):
  step = steps_of(published, action("u", right=(3,), wrong=(1,)))[0]
  assert step["candidates"] == ["<button aria_label=key 1> Word 1€ & more </button>",
                                "<button aria_label=key 3> Word 3€ & more </button>"]
  assert step["targets"] == [1] and step["action"] == "[button]  Word -> CLICK"


def test_without_ranks_the_right_ones_are_kept_among_fifty(published):
  steps = steps_of(published, action("u", right=(150, 151), wrong=range(1, 150)),
                   action("v", right=(150, 151), wrong=range(1, 150)))
  for step in steps:
    assert len(step["candidates"]) == 50
    assert [step["candidates"][t].split()[4] for t in step["targets"]] == ["150€", "151€"]
  assert steps[0]["candidates"] != steps[1]["candidates"]  # drawn by the action's id


def test_with_ranks_the_ranker_may_lose_the_right_one(published):
  ranks = {n: n for n in range(1, 152)}
  lost, kept = steps_of(published, action("u", right=(151,), wrong=range(1, 151), ranks=ranks),
                        action("v", right=(50, 151), wrong=[n for n in range(1, 151) if n != 50], ranks=ranks))
  assert lost["targets"] == [] and len(lost["candidates"]) == 50
  assert kept["targets"] == [49]


def test_a_step_without_the_annotated_element_stays_and_fails(published):
  step = steps_of(published, action("u", right=(), wrong=(1, 2)))[0]
  assert step["targets"] == [] and len(step["candidates"]) == 2
  instance = next(get_task("mind2web").instances("test", 1, 0))
  _, end = last(play(get_task("mind2web"), Mind2WebEnv(), instance))
  assert end.terminated and end.reward == 0


def test_candidates_that_are_not_on_the_page_are_said(published, caplog):
  broken = action("u")
  broken["neg_candidates"].append(candidate(99))
  with caplog.at_level("WARNING"):
    step = steps_of(published, broken)[0]
  assert len(step["candidates"]) == 4 and "action u: 1 of 5 candidates are not on its page" in caplog.text


def test_actions_alone_draw_on_elements_of_the_same_site(published):
  rows = {i.data["task"]: i for split in splits.SPLITS
          for i in get_task("mind2web_actions").instances(split, 1, 0)}
  instance = next(iter(rows.values()))
  number = int(instance.data["task"].split()[1])
  first = instance.data["steps"][0]
  same_site = {f"[textbox] Search {n}" for n in range(120) if n % 12 == number % 12}
  assert {c for c in first["candidates"] if "Search" in c} == same_site
  assert first["candidates"] == sorted(first["candidates"]) and first["operation"] == "TYPE"
  assert [s["operation"] for s in instance.data["steps"]] == ["TYPE", "CLICK", "SELECT", "CLICK", "CLICK"]
  assert instance.data["steps"][2]["value"] == "Two: 2"


def test_test_websites_are_not_trained_on(published):
  task = get_task("mind2web_actions")
  sites = {split: {row["website"] for row in (i.data for i in task.instances(split, 20, 0))} for split in splits.SPLITS}
  assert not sites["train"] & sites["test"]


# ---- files


@pytest.mark.parametrize("text, message", [
    ("[", "test_task_1.json, row 0: not a task of Mind2Web"), ("[{}]", r"row 0: .*KeyError: 'actions'"),
    (json.dumps([row("a", [action("u")]), row("b", [])]), "row 1: .*no actions"),
    (json.dumps([row("a", [action("u", operation="WAIT")])]), "operation 'WAIT'"),
    (json.dumps([row("a", [action("u") | {"cleaned_html": ""}])]), "row 0"),
])
def test_broken_pages(published, text, message):
  (published / "test_task" / "test_task_1.json").write_text(text)
  with pytest.raises(UserError, match=message):
    list(get_task("mind2web").instances("test", 1, 0))


def test_broken_actions(published):
  (published / "mind2web_raw.json").write_text('[{"website": "s", "task": "t", "actions": [["JUMP", "[a]", ""]]}]')
  with pytest.raises(UserError, match="row 0: .*operation 'JUMP'"):
    list(get_task("mind2web_actions").instances("test", 1, 0))


def test_every_real_task_is_solved_by_its_annotation(real_data, monkeypatch):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  task = get_task("mind2web_actions")
  rows = len(json.loads((real_data / "mind2web" / "mind2web_raw_1009.json").read_text()))
  env, played, lucky = task.make_env(), 0, 0
  for split in splits.SPLITS:
    from agentbank_jax.tasks.catalog import mind2web_actions
    count = sum(splits.split_of(data["website"]) == split for _, data in mind2web_actions._rows())
    for instance in task.instances(split, count, 0):
      _, step = last(play(task, env, instance))
      assert step.info["solved"] and step.info["operation_f1"] == 1, instance.id
      played += 1
      rng, observation = random.Random(instance.id), env.reset(instance)
      while not (step := env.step(task.grammar.parse(task.random_turn(rng, observation)))).terminated:
        observation = step.observation
      lucky += step.reward
  assert played == rows and lucky / rows < 0.05
