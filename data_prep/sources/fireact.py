"""FireAct: `{instruction, input, output}` with a whole ReAct episode in `output`.

`output` is cut at the lines that begin with "Observation:": those are environment text and get no loss.
An observation ends where a line begins with "Thought:" or "Action:". The closing line "Observation: Episode
finished, reward = True" is not part of the conversation: it becomes the reward and the outcome. Between
the cuts every byte is kept.
"""

from collections.abc import Mapping
import re
from typing import Any

from agentbank_jax.trajectory import Outcome, Trajectory, Turn
from data_prep.sources.source import Context, DropRow, Format, Reason, identity, rest_of

_OBSERVATION = re.compile(r"^(Observation:.*?)(?=\n(?:Thought|Action):|\n?\Z)\n?", re.MULTILINE | re.DOTALL)
_FINISHED = re.compile(r"\n?Observation: Episode finished, reward = (True|False)\s*\Z")


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  for field in ("instruction", "output"):
    if not isinstance(row.get(field), str):
      raise DropRow(Reason.MALFORMED, f"{field} is {type(row.get(field)).__name__}, expected text")
  question = row["instruction"] + (f"\n{row['input']}" if row.get("input") else "")
  episode, solved = row["output"], None
  if finished := _FINISHED.search(episode):
    episode, solved = episode[:finished.start()], finished[1] == "True"
  # The odd pieces are the observations; the newline in front of one is the cut.
  pieces = _OBSERVATION.split(episode)
  turns = [Turn("user", question)]
  for i, piece in enumerate(pieces):
    if i % 2:
      turns.append(Turn("user", piece))
    elif piece:
      turns.append(Turn("assistant", piece.removesuffix("\n")))
  reward, outcome = None, None
  if solved is not None:
    reward, outcome = float(solved), Outcome.SOLVED if solved else Outcome.FAILED
  return Trajectory(identity(row, context), context.task_or(None), tuple(turns), reward, outcome,
                    context.provenance, rest_of(row, "id", "instruction", "input", "output"))


FORMAT = Format(convert)
