"""Plays tasks with a model and scores it: success with its confidence interval, and every episode to read.

  agentbank evaluate --config=configs/evaluate.py --workdir=runs/evaluate \
      --config.engine.model=runs/train/model --config.tasks="('arithmetic', 'household')"

writes runs/evaluate/episodes/TASK.jsonl (one trajectory per episode, which can be trained on), the
scores in summary.json, and report.html. Stopped at any moment, the same command plays what is missing.
An episode that the environment or the engine spoilt is begun again, then excluded and counted; it is
never scored as a failure.

The task's own expert, which needs no model and shows what the environments expect, solves nearly all:

  agentbank evaluate --config=configs/evaluate.py --workdir=runs/expert --config.player=expert

and an agent that writes actions at random, which solves next to none:

  agentbank evaluate --config=configs/evaluate.py --workdir=runs/random --config.player=random

Any text environment of gymnasium's registry is a task too (agentbank_jax/tasks/README.md has the options):

  agentbank evaluate --config=configs/evaluate.py --workdir=runs/gym --config.player=random \
      --config.tasks="('gym:package:EnvId-v0',)"
"""

import ml_collections

from configs.base import execution_and_mesh, several_processes


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()

  config.tasks = ("arithmetic", "household")
  config.split = "test"  # train | test
  config.episodes = 100  # instances of each task; the first n of a larger number are those of n
  config.instance_seed = 0  # of the generated instances
  config.seed = 0  # of sampling; another seed adds its episodes to the same logs

  config.player = "engine"  # engine (a model) | expert (the task's own) | random (the task's own)
  config.slots = 16  # episodes played at once; the results do not depend on it

  # The model that plays, where `player` is engine.
  config.engine = ml_collections.ConfigDict()
  config.engine.model = ""  # a model's folder: of `agentbank train` or `agentbank convert`, or Hugging Face's
  config.engine.format = ""  # the chat format; "": the one that the model's folder states
  config.engine.chunk = 16  # tokens drawn between two looks at who has finished; the results do not depend on it

  # How it samples. Part of the logs' fingerprint: other settings need another workdir.
  config.sampling = ml_collections.ConfigDict()
  config.sampling.temperature = 0.0  # 0: the likeliest token
  config.sampling.top_p = 1.0  # draw among the likeliest tokens that together have this probability
  config.sampling.turn_tokens = 512  # a turn is cut there
  config.sampling.context = 4096  # tokens of a conversation; one that no longer fits ends as context_limit

  # What ends an episode, beside the task's own number of steps.
  config.limits = ml_collections.ConfigDict()
  config.limits.step_seconds = 60.0  # an environment that takes longer is abandoned; a task may allow less
  config.limits.invalid_actions = 5  # in a row
  config.limits.retries = 2  # after an error of the environment or of the engine

  # The processes that hold the environments of tasks which need some (browsers, Java, what leaks).
  config.workers = ml_collections.ConfigDict()
  config.workers.processes = 2  # while some end and others take their place, up to twice as many
  config.workers.episodes = 200  # that a process begins before another takes its place

  config.retry_excluded = False  # play episodes again that an earlier run had to exclude
  config.examples = 2  # solved, unsolved and excluded episodes of each task in the report
  execution_and_mesh(config)
  several_processes(config)
  return config
