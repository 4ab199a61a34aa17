"""The whole chain in miniature, and that what it tests on is not what it trained on."""

import json

import jax
import pytest

from agentbank_jax import quickstart
from agentbank_jax.bundle import Bundle
from agentbank_jax.chat import load_renderer
from agentbank_jax.envs import household_world
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task
from agentbank_jax.trajectory_io import read_trajectories
from configs.quickstart import get_config

TASKS = {"arithmetic": 16, "sql_tables": 12, "household": 6}
TURN_TOKENS = 12
CONTENT = {
    "arithmetic": lambda data: data["question"],
    "sql_tables": lambda data: (data["question"], *sorted((t["name"], *(c for c, _ in t["columns"]))
                                                          for t in data["tables"])),
    "household": household_world.content,
}


def _config():
  config = get_config()
  config.update_from_flattened_dict({f"trajectories.{name}": count for name, count in TASKS.items()} | {
      "tokenizer.vocab_size": 400, "pack.eval_share": 0.1, "pack.max_dropped_share": 1.0,
      "training.train.epochs": None, "training.train.steps": 4, "training.train.eval_batch_size": 2,
      "recitations": 20, "base.recitations": 60, "base.training.train.steps": 3,
      "base.training.train.eval_batch_size": 2, "evaluation.episodes": 2, "evaluation.slots": 4,
      "evaluation.sampling.turn_tokens": TURN_TOKENS, "evaluation.sampling.context": 1024,
      "evaluation.limits.invalid_actions": 2, "check.rows": 2, "check.length": 16, "check.greedy_tokens": 8})
  config.base.training.model.overrides.update({
      "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2,
      "head_dim": 16})
  return config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("quickstart")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "device_count", lambda: 1)
    yield workdir, quickstart.run(_config(), workdir)


def _episodes(workdir):
  return {path.relative_to(workdir): path.read_bytes() for path in workdir.glob("*/episodes/*.jsonl")}


def test_every_task_is_played_by_both_models(done):
  workdir, result = done
  assert {task["name"] for task in result["tasks"]} == set(TASKS)
  for task in result["tasks"]:
    for label in ("untrained", "tuned"):
      score = task[label]
      assert score["episodes"] == sum(score["outcomes"].values()) == 2
      assert score["excluded"] == 0
      low, high = score["ci"]
      assert 0 <= low <= score["success"] <= high <= 1
      assert len(list(read_trajectories(workdir / label / "episodes" / f"{task['name']}.jsonl"))) == 2
  assert result["mean"].keys() == {"untrained", "tuned"}
  assert result["training"]["steps"] == 4
  assert all(found["greedy_equal"] == 1 for found in result["parity"].values())
  assert json.dumps(result["packed"])


def test_every_trajectory_is_accounted_for(done):
  workdir, result = done
  for name, count in TASKS.items():
    rows = list(read_trajectories(workdir / "trajectories" / f"{name}.jsonl"))
    assert len(rows) == count
    assert {row.task for row in rows} == {name}
  assert sum(split["trajectories"] for split in result["packed"]["splits"].values()) == sum(TASKS.values()) + 20


def test_the_report_is_one_page_that_needs_no_other(done):
  workdir, result = done
  page = (workdir / "report.html").read_text()
  assert result["report"] == str(workdir / "report.html")
  assert all(name in page for name in TASKS)
  assert "src=\"http" not in page


def test_transformers_says_what_our_model_said(done):
  """The first turns that the tuned model played, again, by transformers from the exported folder."""
  torch = pytest.importorskip("torch")
  import transformers
  workdir, _ = done
  model = transformers.AutoModelForCausalLM.from_pretrained(workdir / "hf").eval()
  tokenizer = transformers.AutoTokenizer.from_pretrained(workdir / "hf")
  renderer = load_renderer(workdir / "packed" / "tokenizer")
  compared = 0
  for name in TASKS:
    for episode in read_trajectories(workdir / "tuned" / "episodes" / f"{name}.jsonl"):
      turn = next(i for i, t in enumerate(episode.turns) if t.role == "assistant")
      prompt = renderer.prompt(episode.turns[:turn])
      messages = [{"role": t.role, "content": t.content} for t in episode.turns[:turn]]
      assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompt
      ids = model.generate(torch.tensor([prompt]), max_new_tokens=TURN_TOKENS, do_sample=False,
                           eos_token_id=list(renderer.stop_ids), pad_token_id=0)[0, len(prompt):].tolist()
      if ids[-1] in renderer.stop_ids:
        ids.pop()
      assert renderer.parse(tokenizer.decode(ids)) == episode.turns[turn].content
      compared += 1
  assert compared == 2 * len(TASKS)


def test_the_untrained_model_is_the_tuned_one_before_training(done):
  workdir, _ = done
  untrained, tuned = (Bundle.open(workdir / path) for path in ("base/model", "train/model"))
  assert untrained.config == tuned.config
  leaves = [jax.tree.leaves(bundle.load_params()) for bundle in (untrained, tuned)]
  assert all((a != b).any() for a, b in zip(*leaves, strict=True))


def test_run_again_it_does_nothing_twice(done, monkeypatch):
  workdir, result = done
  before = _episodes(workdir)
  assert len(before) == 2 * len(TASKS)
  model = Bundle.open(workdir / "train/model").load_params()

  def refuse(*_, **__):
    raise AssertionError("done before")

  monkeypatch.setattr(quickstart, "make_trajectories", refuse)
  monkeypatch.setattr(quickstart.pack, "run", refuse)
  monkeypatch.setattr(quickstart.train.Trainer, "_to_device", refuse)
  again = quickstart.run(_config(), workdir)
  assert _episodes(workdir) == before
  assert again["tasks"] == result["tasks"]
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), model,
                                   Bundle.open(workdir / "train/model").load_params()))


def test_another_config_in_the_same_place_is_refused(done):
  config = _config()
  config.evaluation.episodes = 3
  before = _episodes(done[0])
  with pytest.raises(UserError, match="other settings"):
    quickstart.run(config, done[0])
  assert _episodes(done[0]) == before


@pytest.mark.parametrize("name", get_config().trajectories)
def test_no_test_instance_is_among_the_training_instances(name):
  """By what makes a problem, not by id."""
  config, task = get_config(), get_task(name)
  drawn = {"train": task.instances("train", min(config.trajectories[name], 1000), config.seed),
           "test": task.instances("test", config.evaluation.episodes, config.evaluation.instance_seed)}
  problems = {split: {CONTENT[name](instance.data) for instance in instances} for split, instances in drawn.items()}
  assert len(problems["test"]) == config.evaluation.episodes
  assert not problems["train"] & problems["test"]
