"""AgentTraj-L (AgentGym): `<env>_train.json`, rows `{item_id, conversations: [{from, loss, value}]}`.

`loss` counts on gpt turns. AgentEval's rows have no conversations: they name evaluation problems, and are
dropped as such. `reward` and `success`, which some files have, become the reward and the outcome.
"""

from collections.abc import Mapping
import re
from typing import Any

from agentbank_jax.trajectory import Trajectory
from data_prep.sources.source import (
  Context,
  DropRow,
  Format,
  Reason,
  identity,
  messages_of,
  outcome_of,
  read_turns,
  rest_of,
)

# The environments that are tasks of ours under another name.
TASKS = {"sciworld": "scienceworld"}


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  name = identity(row, context, "item_id")
  if row.get("conversations", ()) is None:
    raise DropRow(Reason.EVALUATION_ID_ONLY, "names an evaluation problem, holds no conversation")
  environment = re.match(r"[A-Za-z_]*[A-Za-z]", name)  # "webshop_[5238]", "sciworld_12"
  environment = environment and environment[0]
  return Trajectory(name, context.task_or(TASKS.get(environment, environment)),
                    read_turns(messages_of(row, "conversations")), reward=row.get("reward"),
                    outcome=outcome_of(row, "success"), provenance=context.provenance,
                    metadata=rest_of(row, "item_id", "conversations", "reward", "success"))


FORMAT = Format(convert)
