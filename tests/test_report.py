"""Reports and the `evaluate` verb: self-contained, escaped, readable, and true to the episodes."""

import dataclasses
import html.parser
import io
import json
import re

from fake_tasks import COUNT, CountEnv, FakePlayer, gamble
import pytest
import rich.console

from agentbank_jax import tasks
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate import measure
from agentbank_jax.evaluate import run as evaluate
from agentbank_jax.report.html import pick_examples, write_report
from agentbank_jax.report.plots import loss_curves, read_losses
from agentbank_jax.report.tables import Table, print_table
from agentbank_jax.trajectory import Outcome, Trajectory, Turn
from agentbank_jax.trajectory_io import read_trajectories
from configs.evaluate import get_config
from configs.measure import get_config as measure_config

EVIL = "<script>alert('x')</script> & \"quotes\" {{ 7 * 7 }}"


class Page(html.parser.HTMLParser):
  """Tags with attributes, and the text of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.text, self._open = [], "", []
    self.feed(text)
    assert not self._open, f"not closed: {self._open}"

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ("meta", "img", "source"):
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.text += data


def trajectory(i=0, outcome=Outcome.SOLVED, text="hello", **metadata):
  turns = (Turn("system", text), Turn("user", text), Turn("assistant", text), Turn("tool", text))
  return Trajectory(f"t/{i}", "t", turns, 0.5, outcome, metadata=metadata)


@pytest.fixture
def metrics(tmp_path):
  path = tmp_path / "metrics.jsonl"
  rows = [{"step": i, "loss": 2 - i / 50, "lr": 1.0} for i in range(50)]
  rows += [{"step": 20, "eval/loss": 1.7}, {"step": 40, "eval/loss": 1.4}]
  path.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 50, "lo')
  return path


def write(path, **changes):
  write_report(path, **({"title": "T", "tables": [], "curves": {}, "episodes": [], "notes": []} | changes))
  return path.read_text()


def test_all_content_is_escaped(tmp_path):
  table = Table(EVIL, ("a", EVIL), [[EVIL, EVIL]], note=EVIL)
  episode = trajectory(text=EVIL, final_observation=EVIL, errors=[EVIL])
  page = write(tmp_path / "r.html", title=EVIL, tables=[table], episodes=[episode], notes=[EVIL])
  assert "<script" not in page and "49" not in page
  parsed = Page(page)
  assert parsed.text.count(EVIL) == 2 + 5 + 6 + 1  # title and heading, table, episode, note


def test_a_report_asks_for_nothing_from_elsewhere(tmp_path, metrics):
  page = write(tmp_path / "r.html", curves={"run": metrics}, episodes=[trajectory()])
  links = [value for _, attrs in Page(page).tags for key, value in attrs.items()
           if key in ("src", "href", "srcset", "action", "data")]
  assert len(links) == 2 and all(link.startswith("data:image/svg+xml;base64,") for link in links)
  assert not re.search(r"@import|url\(", page)
  assert [p.name for p in tmp_path.iterdir() if p.name != "metrics.jsonl"] == ["r.html"]
  assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in Page(page).tags


def test_losses_are_read_from_what_is_there(tmp_path, metrics):
  training, evaluation = read_losses(metrics)
  assert (training.name, len(training.steps), training.values[0]) == ("loss", 50, 2.0)
  assert (evaluation.name, evaluation.steps, evaluation.values) == ("eval/loss", (20, 40), (1.7, 1.4))
  assert read_losses(tmp_path / "absent.jsonl") == []
  page = write(tmp_path / "r.html", curves={"run": tmp_path / "absent.jsonl"})
  assert "No losses in" in page and "<img" not in page
  (tmp_path / "other.jsonl").write_text("5\n" + metrics.read_text())
  with pytest.raises(UserError, match="other.jsonl line 1 is not a metrics line"):
    read_losses(tmp_path / "other.jsonl")


def test_the_same_losses_give_the_same_plot(metrics):
  runs = {"<run>": read_losses(metrics)}
  svg = loss_curves(runs, "light")
  assert svg == loss_curves(runs, "light") != loss_curves(runs, "dark")
  assert "&lt;run&gt;: loss" in svg and "loss (nats per trained token)" in svg


def test_examples_are_solved_unsolved_and_excluded():
  outcomes = [Outcome.SOLVED] * 5 + [Outcome.FAILED, Outcome.STEP_LIMIT, Outcome.FAILED, Outcome.AGENT_ERROR]
  picked = pick_examples([trajectory(i, o) for i, o in enumerate(outcomes)][::-1], 2)
  assert [e.id for e in picked] == ["t/0", "t/1", "t/5", "t/6", "t/8"]


def test_terminal_table_shows_brackets_as_they_are():
  console = rich.console.Console(file=io.StringIO(), width=80)
  print_table(Table("[bold]T", ("a", "b"), [["[red]x", "1"], ["sum", "2"]], summary=1, note="[n]"), console)
  text = console.file.getvalue()
  assert all(part in text for part in ("[bold]T", "[red]x", "[n]", "sum"))
  with pytest.raises(ValueError, match="has 1 cells"):
    Table("T", ("a", "b"), [["x"]])


@pytest.fixture
def registry(monkeypatch):
  monkeypatch.setattr(evaluate, "get_task", {"count": COUNT}.__getitem__)


def config(**changes):
  config = get_config()
  config.update({"tasks": ("count",), "player": "expert", "episodes": 12} | changes)
  return config


def test_the_verb_plays_the_expert(tmp_path, registry, capsys):
  summary = evaluate.run(config(), tmp_path)
  (task,) = summary["tasks"]
  assert (task["name"], task["success"], task["episodes"], task["excluded"]) == ("count", 1.0, 12, 0)
  assert task["ci"] == pytest.approx((0.757506, 1.0), abs=1e-6)
  assert task["outcomes"]["solved"] == 12 and summary["mean"]["success"] == 1.0
  assert json.loads(json.dumps(summary))["skills"]["math"]["tasks"] == 1
  assert "100.0%" in capsys.readouterr().out
  page = (tmp_path / "report.html").read_text()
  assert "Count to 1." in page and page.count('<details class="episode">') == 2
  rows = list(read_trajectories(tmp_path / "episodes" / "count.jsonl"))
  assert len(rows) == 12 and {r.provenance.technique for r in rows} == {"expert"}


def test_the_sampling_settings_are_in_the_fingerprint(tmp_path, registry, monkeypatch):
  made = []
  monkeypatch.setattr(evaluate, "make_player", lambda c, p: made.append(c) or FakePlayer(gamble))
  summary = evaluate.run(config(player="engine"), tmp_path)
  assert made and 0 < summary["mean"]["success"] < 1
  fingerprint = json.loads((tmp_path / "episodes" / "count.fingerprint.json").read_text())
  assert fingerprint["sampling"] == get_config().sampling.to_dict()


@pytest.mark.parametrize("changes, message", [
    ({"tasks": ()}, "tasks is empty"), ({"tasks": ("count", "count")}, "names 'count' twice"),
    ({"episodes": 0}, "episodes is 0"), ({"player": "oracle"}, "player is 'oracle'")])
def test_a_config_that_makes_no_sense_is_refused(tmp_path, registry, changes, message):
  with pytest.raises(UserError, match=message):
    evaluate.run(config(**changes), tmp_path)
  assert not list(tmp_path.iterdir())


def test_readers_of_a_report_learn_what_a_score_rests_on(tmp_path, monkeypatch):
  source = dataclasses.replace(COUNT.source, contamination="Everybody has learnt to count.")
  task = dataclasses.replace(COUNT, source=source, progress="numbers said", make_env=Progress)
  monkeypatch.setattr(evaluate, "get_task", {"count": task}.__getitem__)
  files = {"count/rows.jsonl": {"sha256": "ab", "known_as": None}, "count/known": {"sha256": "cd", "known_as": "rows"}}
  monkeypatch.setattr(evaluate.published, "describe", lambda *_: files)
  (score,) = evaluate.run(config(), tmp_path)["tasks"]
  assert score["progress"] == 1.0 and score["fingerprint"]["files"] == files
  text = Page((tmp_path / "report.html").read_text()).text
  assert "count: Everybody has learnt to count." in text and "progress 100%" in text
  assert "count: not the published files that are known here: count/rows.jsonl." in text


class Progress(CountEnv):
  def step(self, action):
    step = super().step(action)
    return step._replace(info=step.info | {"progress": self.said / self.goal})


def test_measuring_says_how_well_and_how_fast(tmp_path, monkeypatch, capsys):
  random_turn = lambda rng, observation: f"Action: {rng.randint(2, 3)}"
  known = {"count": COUNT, "both": dataclasses.replace(COUNT, name="both", random_turn=random_turn)}
  monkeypatch.setattr(evaluate, "get_task", known.__getitem__)
  monkeypatch.setattr(measure, "get_task", known.__getitem__)
  settings = measure_config()
  settings.update({"tasks": ("count", "both"), "episodes": 8})
  summary = measure.run(settings, tmp_path)
  assert [(m["score"].name, m["score"].model, m["score"].success) for m in summary["measured"]] == [
      ("count", "expert", 1.0), ("both", "expert", 1.0), ("both", "random", 0.0)]
  assert all(0 < m["p50"] <= m["p95"] and m["episodes_per_minute"] > 0 for m in summary["measured"])
  assert summary["not_measured"] == {"count, random": "the task has none"}
  assert all(m["score"].fingerprint["instances"] == 8 and m["split"] == "test" for m in summary["measured"])
  table = (tmp_path / "table.md").read_text()
  assert table in capsys.readouterr().out + "\n" and table.count("\n") == 5
  assert "| `both` | test | random | 0.0% (" in table
  settings.players = ("oracle",)
  with pytest.raises(UserError, match="players has 'oracle'"):
    measure.run(settings, tmp_path)


@pytest.mark.parametrize("name", ["arithmetic", "household", "sql_tables"])
def test_experts_solve_the_real_tasks(tmp_path, name):
  if name not in tasks.task_names():
    pytest.skip(f"task {name} is not there")
  summary = evaluate.run(config(tasks=(name,), episodes=5), tmp_path)
  assert summary["mean"]["success"] == 1.0


@pytest.mark.parametrize("prose", [False, True])
def test_a_table_wider_than_the_terminal_is_printed_whole(prose):
  out = io.StringIO()
  cells = ["household", "100.0% (94.0 to 100.0)", "+86.7% (+80.1 to +90.3)", "word " * 30 if prose else "12,345"]
  table = Table("T", ["task", "b (95% CI)", "difference", "x"], [cells], prose=prose)
  print_table(table, rich.console.Console(file=out, width=40))
  assert all(cell in out.getvalue() for cell in cells[:3]) and out.getvalue().count("word") == 30 * prose
