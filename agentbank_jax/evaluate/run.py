"""`agentbank evaluate`: plays tasks, keeps every episode, and says what they amount to."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import pathlib
import signal
import threading
from typing import Any, NamedTuple
import urllib.parse

from absl import logging
import ml_collections
import tqdm

from agentbank_jax.agents import Player
from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.worker_pool import PoolSize
from agentbank_jax.errors import Terminated, UserError
from agentbank_jax.evaluate.episode_log import EpisodeLog, difference, fingerprint, read_fingerprint
from agentbank_jax.evaluate.rollout import Limits, episode_id, play
from agentbank_jax.evaluate.scores import (
    METHODS,
    Comparison,
    TaskScore,
    compare,
    mean_score,
    score,
    skill_scores,
)
from agentbank_jax.evaluate.tables import score_table
from agentbank_jax.experts import ExpertPlayer, RandomPlayer
from agentbank_jax.report.html import pick_examples, write_report
from agentbank_jax.report.tables import print_table
from agentbank_jax.tasks import get_task, published, requirements
from agentbank_jax.tasks.task import Task
from agentbank_jax.trajectory import Outcome, Trajectory
from agentbank_jax.trajectory_io import read_trajectories


class Problems(NamedTuple):
  """A task and the instances of it that are to be played.

  `files` are the published files that the instances are made of, as `published.describe` has them.
  """

  task: Task
  instances: tuple[Instance, ...]
  files: Mapping[str, Any] = {}


def draw(names: Sequence[str], split: str, count: int, seed: int) -> list[Problems]:
  """Returns `count` instances of every task in `names`.

  Raises:
    UserError: no task, an unknown task, a task named twice, one whose packages or programs are not installed, or
      instances that are not to be had.
  """
  if not names:
    raise UserError("tasks is empty; name at least one task")
  if len(set(names)) != len(names):
    raise UserError(f"tasks names {next(n for n in names if list(names).count(n) > 1)!r} twice")
  if count < 1:
    raise UserError(f"episodes is {count}, expected 1 or more")
  problems = []
  for task in map(get_task, names):
    requirements.check(task)
    with published.files_used() as files:
      instances = tuple(task.instances(split, count, seed))
    problems.append(Problems(task, instances, published.describe(task, files)))
  return problems


def draw_from_any(name: str, count: int, seed: int) -> tuple[Problems, str]:
  """Returns `count` instances of a task from the test split, else from train, and then why there are none in test.

  Raises:
    UserError: there are none in either; it says what the test split lacks.
  """
  try:
    return draw([name], "test", count, seed)[0], ""
  except UserError as e:
    try:
      return draw([name], "train", count, seed)[0], str(e)
    except UserError:
      raise e from None


def log_path(workdir: pathlib.Path, task: str) -> pathlib.Path:
  """Returns where `evaluate_tasks` keeps the episodes of `task`."""
  return workdir / "episodes" / f"{urllib.parse.quote(task, safe='')}.jsonl"  # an adapter's names are no file names


def evaluate_tasks(player: Player, problems: Sequence[Problems], workdir: pathlib.Path, *, seed: int,
                   limits: Limits, sampling: Mapping[str, Any], technique: str = "sampling",
                   retry_excluded: bool = False, workers: PoolSize | None = None) -> list[TaskScore]:
  """Plays what `workdir` does not hold yet, and returns one score for every task.

  Args:
    player: its name stands for the model in the log: another model needs another name.
    problems: what to play.
    workdir: gets `episodes/TASK.jsonl`.
    seed: of sampling.
    limits: what ends an episode.
    sampling: the sampling settings, for the fingerprint of the log.
    technique: "sampling", "expert" or "random".
    retry_excluded: plays episodes again that an earlier run had to exclude.
    workers: see `rollout.play`.

  Raises:
    UserError: a log in `workdir` was played with other settings, or cannot be read.
    KeyboardInterrupt: on Ctrl-C; Terminated: on SIGTERM. What has ended is in the log; the same call plays the rest.
  """
  scores = []
  for task, instances, files in problems:
    ids = {episode_id(task.name, i.id, seed, player.name): i for i in instances}
    if len(ids) != len(instances):
      raise ValueError(f"task {task.name!r} has two instances of one id")
    settings = {"invalid_actions": limits.invalid_actions, "sampling": dict(sampling)}
    path = log_path(workdir, task.name)
    conditions = fingerprint(task, instances, files, **settings)
    with EpisodeLog(path, conditions) as log:
      excluded = [id_ for id_ in ids if id_ in log.episodes and not log.episodes[id_].outcome.is_scored]
      if retry_excluded and excluded:
        logging.warning("%s: %d excluded episodes of an earlier run are played again", path, len(excluded))
        log.forget(excluded)
      done = [log.episodes[id_] for id_ in ids if id_ in log.episodes]
      todo = [instance for id_, instance in ids.items() if id_ not in log.episodes]
      episodes = play(task, todo, player, seed=seed, limits=limits, technique=technique, workers=workers)
      with _terminate_as_interrupt(), contextlib.closing(episodes):
        try:
          for episode in _show_progress(task.name, episodes, done, len(ids)):
            log.append(episode)
        except KeyboardInterrupt:
          logging.warning("stopped: %d of %d episodes of %s are in %s; the same command plays the rest",
                          sum(id_ in log.episodes for id_ in ids), len(ids), task.name, path)
          raise
      scores.append(score(task, [log.episodes[id_] for id_ in ids], conditions))
  return scores


def _show_progress(name: str, episodes: Iterable[Trajectory], done: Sequence[Trajectory],
                   total: int) -> Iterator[Trajectory]:
  """Passes `episodes` on under a progress bar that counts those already `done` too."""
  solved = sum(e.outcome == Outcome.SOLVED for e in done)
  excluded = sum(not e.outcome.is_scored for e in done)
  with tqdm.tqdm(total=total, initial=len(done), desc=name, unit="episode") as bar:
    for episode in episodes:
      yield episode
      solved += episode.outcome == Outcome.SOLVED
      excluded += not episode.outcome.is_scored
      bar.set_postfix(solved=solved, excluded=excluded, refresh=False)
      bar.update()


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
  """SIGTERM, which a scheduler sends, stops a run as Ctrl-C does."""
  if threading.current_thread() is not threading.main_thread():  # only the main thread can set a handler
    yield
    return
  before = signal.signal(signal.SIGTERM, _terminate)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def _terminate(number, frame):
  raise Terminated


def compare_logs(task: str, first: pathlib.Path, second: pathlib.Path, *, seed: int,
                 models: tuple[str, str]) -> Comparison:
  """Compares two models on the instances of `task` that both were scored on.

  Args:
    task: a name.
    first, second: working directories of `evaluate_tasks`.
    seed: of sampling.
    models: the players' names.

  Raises:
    UserError: the two were not played under the same conditions; the message names the field.
  """
  logs = [log_path(workdir, task) for workdir in (first, second)]
  if differs := difference(*map(read_fingerprint, logs)):
    raise UserError(f"{logs[0]} and {logs[1]} cannot be compared: {differs}; "
                    "evaluate both under the same settings")
  return compare(task, *(episodes_of(workdir, task, model, seed)
                         for workdir, model in zip((first, second), models, strict=True)))


def episodes_of(workdir: pathlib.Path, task: str, model: str, seed: int) -> list[Trajectory]:
  """Returns the episodes that `model` played on `task` with `seed`, from `evaluate_tasks`'s log."""
  return [e for e in read_trajectories(log_path(workdir, task))
          if e.provenance.teacher == model and e.provenance.seed == seed]


def make_player(config: ml_collections.ConfigDict, problems: Sequence[Problems]) -> Player:
  """Returns the player that `config.player` names."""
  if config.player == "expert":
    return ExpertPlayer([(p.task, p.instances) for p in problems], slots=config.slots)
  if config.player == "random":
    return RandomPlayer([p.task for p in problems], slots=config.slots)
  if config.player == "engine":
    from agentbank_jax.decode.player import make_engine_player  # JAX is loaded only where a model plays

    return make_engine_player(config)
  raise UserError(f"player is {config.player!r}, expected 'engine', 'expert' or 'random'")


def _remarks(problems: Sequence[Problems]) -> Iterator[str]:
  """Yields what a reader of the tasks' scores must know about their instances."""
  for task, _, files in problems:
    if task.source.contamination:
      yield f"{task.name}: {task.source.contamination}"
    if unknown := [name for name, file in files.items() if file["known_as"] is None]:
      yield f"{task.name}: not the published files that are known here: {', '.join(unknown)}."


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
  """Evaluates `config.player` on `config.tasks`; see `configs/evaluate.py`."""
  problems = draw(config.tasks, config.split, config.episodes, config.instance_seed)
  player = make_player(config, problems)
  # Only a model samples: the others' episodes do not depend on the sampling settings.
  sampling, technique = (config.sampling, "sampling") if config.player == "engine" else ({}, config.player)
  scores = evaluate_tasks(player, problems, workdir, seed=config.seed, limits=Limits(**config.limits),
                          sampling=sampling, technique=technique, retry_excluded=config.retry_excluded,
                          workers=PoolSize(**config.workers))
  table = score_table(scores, f"{player.name}, {config.split} split")
  print_table(table)
  examples = [e for s in scores
              for e in pick_examples(episodes_of(workdir, s.name, player.name, config.seed), config.examples)]
  report = workdir / "report.html"
  write_report(report, title=f"Evaluation of {player.name}", tables=[table], curves={}, episodes=examples,
               notes=[f"{config.episodes} instances of each task from the {config.split} split, "
                      f"sampling seed {config.seed}.", *_remarks(problems)])
  return {
      "tasks": [dataclasses.asdict(s) for s in scores],
      "mean": dataclasses.asdict(mean_score(scores)),
      "skills": {skill: dataclasses.asdict(mean) for skill, mean in skill_scores(scores).items()},
      "methods": METHODS,
      "report": str(report),
  }
