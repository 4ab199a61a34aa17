"""Agent-FLAN: `{id, conversation | conversations: [{role, content, loss?}]}`.

A missing `loss` means the rule (the agent's turns train); a last turn with `loss: false` is allowed.
"""

from collections.abc import Mapping
from typing import Any

from agentbank_jax.trajectory import Trajectory
from data_prep.sources.source import Context, Format, identity, messages_of, read_turns, rest_of


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  turns = read_turns(messages_of(row, "conversation", "conversations"))
  return Trajectory(identity(row, context), context.task_or(None), turns, provenance=context.provenance,
                    metadata=rest_of(row, "id", "conversation", "conversations"))


FORMAT = Format(convert)
