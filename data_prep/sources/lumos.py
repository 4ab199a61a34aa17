"""Lumos: `{dataset, id, messages: [{role, content}]}`; the task is the row's `dataset`."""

from collections.abc import Mapping
from typing import Any

from agentbank_jax.trajectory import Trajectory
from data_prep.sources.source import Context, Format, identity, messages_of, read_turns, rest_of


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  return Trajectory(identity(row, context), context.task_or(row.get("dataset")),
                    read_turns(messages_of(row, "messages")), provenance=context.provenance,
                    metadata=rest_of(row, "id", "messages"))


FORMAT = Format(convert)
