"""Measures environments: what the expert and a random agent score, and how long steps and episodes take.

  agentbank measure --config=configs/measure.py --workdir=runs/measure --config.tasks="('arithmetic', 'sql_tables')"

prints a Markdown table, which is in runs/measure/table.md too. Published data are found as in evaluation, through
AGENTBANK_DATA. One episode is played at a time, so that a step's time is the environment's own; what a task needs to
start (a browser, Java) is in the time of its episodes.
"""

import ml_collections

from configs import evaluate


def get_config() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.tasks = ()  # (): all of the catalog; those that are not ready are listed with what they lack
  config.players = ("expert", "random")
  config.split = "any"  # train | test | any: test, or train where the data of test are not here; the table says which
  config.episodes = 20  # of each task and player
  config.instance_seed = 0
  config.seed = 0  # of the random agent
  config.slots = 1  # episodes played at once; with more, a step's time has waiting in it
  config.limits = evaluate.get_config().limits
  config.workers = evaluate.get_config().workers
  return config
