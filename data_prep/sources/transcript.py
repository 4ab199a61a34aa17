"""Text logs of ALFWorld episodes (KnowAgent): `{name, result, traj}`, the agent's lines marked with "> ".

The lines in front of the first mark are the problem. A run of the agent's lines becomes one turn in
AgentBank's form: "> Think: x" is `Thought: x`, "> ActionPath: x" stays `ActionPath: x`, any other is
`Action: x`. What follows is the turn `Observation: ...`. The last action's observation, which no turn
answers, goes to the metadata as `final_observation`.
"""

from collections.abc import Mapping
import itertools
from typing import Any

from agentbank_jax.trajectory import Outcome, Trajectory, Turn
from data_prep.sources.source import Context, DropRow, Format, Reason, identity, outcome_of, rest_of

_MARK = "> "


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  if not isinstance(row.get("traj"), str):
    raise DropRow(Reason.MALFORMED, "no text in 'traj'")
  turns = []
  lines = row["traj"].rstrip("\n").split("\n")
  for is_agent, run in itertools.groupby(lines, lambda line: line.startswith(_MARK)):
    if is_agent:
      turns.append(Turn("assistant", "\n".join(_agent_line(line.removeprefix(_MARK)) for line in run)))
    else:
      turns.append(Turn("user", ("Observation: " if turns else "") + "\n".join(run)))
  if len(turns) < 2 or turns[0].role != "user":
    raise DropRow(Reason.NO_TURNS, "no problem, or no line of the agent's")
  metadata = rest_of(row, "id", "traj", "result")
  if turns[-1].role == "user":
    metadata["final_observation"] = turns.pop().content
  outcome = outcome_of(row, "result")
  reward = None if outcome is None else float(outcome == Outcome.SOLVED)
  name = identity(row, context, "name")
  return Trajectory(name, context.task_or("alfworld"), tuple(turns), reward, outcome, context.provenance,
                    metadata)


def _agent_line(line: str) -> str:
  if line.startswith("Think: "):
    return "Thought: " + line.removeprefix("Think: ")
  return line if line.startswith("ActionPath: ") else f"Action: {line}"


FORMAT = Format(convert)
