"""AgentInstruct: `{id: "os_42", conversations: [{from, loss, value}]}`; `loss` counts on gpt turns.

Copies with `{role, content}` and without `loss` are read too; without it the agent's turns train. The task
is the part of the id in front of its number.
"""

from collections.abc import Mapping
from typing import Any

from agentbank_jax.trajectory import Trajectory
from data_prep.sources.source import Context, Format, identity, messages_of, read_turns, rest_of


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  name, turns = identity(row, context), read_turns(messages_of(row, "conversations"))
  return Trajectory(name, context.task_or(name.rpartition("_")[0]), turns, provenance=context.provenance,
                    metadata=rest_of(row, "id", "conversations"))


FORMAT = Format(convert)
