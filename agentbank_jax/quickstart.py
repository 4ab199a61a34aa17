"""`agentbank quickstart`: the whole chain in one command. Like `cli.py` it stands above all other modules."""

from collections.abc import Iterator
import dataclasses
import json
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from agentbank_jax import train
from agentbank_jax.bundle import Bundle
from agentbank_jax.chat import load_renderer, make_renderer
from agentbank_jax.chat_template import FORMATS
from agentbank_jax.convert.check import Parity, check_parity, require
from agentbank_jax.convert.to_hf import export_hf
from agentbank_jax.decode.player import make_engine_player
from agentbank_jax.envs.worker_pool import PoolSize
from agentbank_jax.errors import UserError
from agentbank_jax.evaluate.rollout import Limits
from agentbank_jax.evaluate.run import compare_logs, draw, episodes_of, evaluate_tasks
from agentbank_jax.evaluate.scores import TaskScore, mean_score
from agentbank_jax.evaluate.tables import comparison_table
from agentbank_jax.experts import make_trajectories
from agentbank_jax.recitation import write_recitations
from agentbank_jax.report.html import pick_examples, write_report
from agentbank_jax.report.tables import print_table
from agentbank_jax.tasks import get_task
from agentbank_jax.tokenizer import train_tokenizer
from agentbank_jax.trajectory_io import read_trajectories
from data_prep import pack


def run(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
  """Runs the chain; see `configs/quickstart.py`. What an earlier, stopped run has finished is not done again.

  Returns:
    {"tasks": [{"name", "untrained": {...}, "tuned": {...}}], "mean", "ledger", "training", "parity", "report"}.

  Raises:
    UserError: `workdir` holds a run of another config.
  """
  _claim(config, workdir)
  steps = _Steps()
  steps.say("experts play training instances")
  files = _trajectories(config, workdir / "trajectories")

  steps.say("tokenizer, rendering, packing")
  packed = _pack(config, workdir, files)

  steps.say("a base model learns to repeat words: what pretraining brings to a larger one")
  base = _train_base(config, workdir / "base", files)

  steps.say("training on the trajectories")
  training = _unlocked(config.training)
  training.data.path, training.model.init_from = str(packed), str(base / "model")
  trained = train.run(training, workdir / "train")
  untrained, tuned = base / "model", workdir / "train" / "model"

  scores, names = {}, {}
  for label, model in (("untrained", untrained), ("tuned", tuned)):
    steps.say(f"the {label} model plays unseen instances")
    scores[label], names[label] = _play(config, model, workdir / label)

  steps.say("export to Hugging Face's form, reload, compare")
  export = workdir / "hf"
  export_hf(tuned, export, overwrite=True)
  parity = _parities(config.check, tuned, export)

  steps.say("results")
  return _report(config, workdir, scores, names, trained, packed, parity)


class _Steps:
  """Announces the steps of the chain."""

  count = 0

  def say(self, what: str) -> None:
    self.count += 1
    print(f"\n[{self.count}/8] {what}", flush=True)


def _claim(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Notes the config in the workdir, or checks that it is the one noted there."""
  path, text = workdir / "quickstart.json", json.dumps(config.to_dict(), indent=2, sort_keys=True, default=str) + "\n"
  if path.exists() and path.read_text() != text:
    raise UserError(f"{workdir} holds a run with other settings; give another --workdir, or remove it")
  workdir.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def _limits(config: ConfigDict) -> Limits:
  return Limits(**config.evaluation.limits)


def _workers(config: ConfigDict) -> PoolSize:
  return PoolSize(**config.evaluation.workers)


def _trajectories(config: ConfigDict, folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Writes the experts' trajectories, one file for each task."""
  files = {name: folder / f"{name}.jsonl" for name in config.trajectories}
  folder.mkdir(parents=True, exist_ok=True)
  for name, path in files.items():
    if not path.exists():
      make_trajectories(get_task(name), "train", config.trajectories[name], config.seed, path,
                        limits=_limits(config), slots=config.evaluation.slots, workers=_workers(config))
  return files


def _unlocked(config: ConfigDict) -> ConfigDict:
  """Returns a copy that can be changed and leaves the original as it is."""
  config = config.copy_and_resolve_references()
  config.unlock()
  return config


def _contents(files: dict[str, pathlib.Path]) -> Iterator[str]:
  return (turn.content for path in files.values() for t in read_trajectories(path) for turn in t.turns)


def _pack(config: ConfigDict, workdir: pathlib.Path, files: dict[str, pathlib.Path]) -> pathlib.Path:
  """Trains a tokenizer on the trajectories, and packs them, and words to repeat, with it. Returns the data set."""
  if not (workdir / "packed").exists():
    format = config.tokenizer.format
    tokenizer = train_tokenizer(_contents(files), config.tokenizer.vocab_size, FORMATS[format].control_tokens)
    make_renderer(tokenizer, format).save(workdir / "tokenizer")
    recitations = workdir / "trajectories" / "recitation.jsonl"
    write_recitations(recitations, _contents(files), tokenizer, config.recitations, tuple(config.recitation_words),
                      seed=config.seed)
    _pack_files(config, [*files.values(), recitations], workdir / "tokenizer", workdir)
  return workdir / "packed"


def _pack_files(config: ConfigDict, paths: list[pathlib.Path], tokenizer: pathlib.Path, workdir: pathlib.Path) -> None:
  settings = _unlocked(config.pack)
  settings.sources = tuple(ConfigDict({"path": str(path), "weight": None}, convert_dict=False) for path in paths)
  settings.tokenizer, settings.format = str(tokenizer), config.tokenizer.format
  pack.run(settings, workdir)


def _train_base(config: ConfigDict, workdir: pathlib.Path, files: dict[str, pathlib.Path]) -> pathlib.Path:
  """Trains the model that the trajectories then tune, from random weights. Returns the run's folder."""
  base, tokenizer = config.base, workdir.parent / "tokenizer"
  if not (workdir / "packed").exists():
    recitations = workdir / "recitations.jsonl"
    write_recitations(recitations, _contents(files), load_renderer(tokenizer).tokenizer, base.recitations,
                      tuple(config.recitation_words), seed=config.seed + 1)
    _pack_files(config, [recitations], tokenizer, workdir)
  training = _unlocked(base.training)
  training.data.path = str(workdir / "packed")
  train.run(training, workdir)
  return workdir


def _play(config: ConfigDict, model: pathlib.Path, workdir: pathlib.Path) -> tuple[list[TaskScore], str]:
  """Plays every task's test instances; returns the scores and the player's name."""
  settings = _unlocked(config.evaluation)
  settings.engine.model = str(model)
  player = make_engine_player(settings)
  problems = draw(tuple(config.trajectories), "test", settings.episodes, settings.instance_seed)
  scores = evaluate_tasks(player, problems, workdir, seed=settings.seed, limits=_limits(config),
                          sampling=settings.sampling, workers=_workers(config))
  return scores, player.name


def _parities(check: ConfigDict, model: pathlib.Path, export: pathlib.Path) -> dict[str, Parity]:
  """Compares the model with its export: reloaded by us, by NumPy alone, and by transformers where PyTorch is there.

  Raises:
    UserError: logits or greedy text differ.
  """
  sizes = {"rows": check.rows, "length": check.length, "greedy_tokens": check.greedy_tokens, "seed": 0}
  original = Bundle.open(model).load_params(dtype="float32")
  reloaded = Bundle.open(export).load_params(dtype="float32")
  same = jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), original, reloaded))
  if not same:
    raise UserError(f"{export}: reloaded parameters differ from those of {model}")
  parity = {}
  for reference in ("numpy", "auto"):
    found = check_parity(Bundle.open(model), export, reference=reference, **sizes)
    require(found, check.tolerance, f"export of {model}")
    if found.greedy_equal < 1:
      raise UserError(f"export of {model}: greedy text differs from {found.reference}'s in "
                      f"{1 - found.greedy_equal:.0%} of rows")
    parity[found.reference] = found
  return parity


def _report(config: ConfigDict, workdir: pathlib.Path, scores, names, trained, packed, parity) -> dict[str, Any]:
  seed = config.evaluation.seed
  comparisons = [compare_logs(name, workdir / "untrained", workdir / "tuned", seed=seed,
                              models=(names["untrained"], names["tuned"])) for name in config.trajectories]
  table = comparison_table(scores["untrained"], scores["tuned"], comparisons, names=("untrained", "tuned"),
                           title=f"{config.evaluation.episodes} unseen instances of each task")
  print_table(table)
  for reference, found in parity.items():
    print(f"export: logits within {found.max_abs_difference:.1e} of {reference}'s, greedy text equal on "
          f"{found.greedy_equal:.0%} of rows, {found.greedy_tokens} tokens each")
  episodes = [e for name in config.trajectories
              for e in pick_examples(episodes_of(workdir / "tuned", name, names["tuned"], seed),
                                     config.evaluation.examples)]
  report = workdir / "report.html"
  write_report(report, title="Quickstart: untrained and tuned", tables=[table],
               curves={"training": workdir / "train" / "metrics.jsonl"}, episodes=episodes,
               notes=["A small Llama learned to repeat words, from random weights: the untrained model. Experts played "
                      "training instances, and it learned from their trajectories: the tuned model. Both then played "
                      "instances of the test split, which share no problem with the training split."])
  print(f"report: {report}")
  return {
      "tasks": [{"name": a.name, "untrained": dataclasses.asdict(a), "tuned": dataclasses.asdict(b)}
                for a, b in zip(scores["untrained"], scores["tuned"], strict=True)],
      "mean": {label: dataclasses.asdict(mean_score(s)) for label, s in scores.items()},
      "comparisons": [dataclasses.asdict(c) for c in comparisons],
      "packed": json.loads((packed / "pack.json").read_text()),
      "training": trained,
      "parity": {reference: dataclasses.asdict(found) for reference, found in parity.items()},
      "report": str(report),
  }
