"""InterCode's result logs: `{environment, task_id, query, turn_history: {thoughts, actions, ...}, summary}`.

Each step becomes `Thought: ...` and an `Action:` in AgentBank's form: `execute[X]` is X in a fence of the
environment's language, `submit` stays. The observation behind `submit` repeats the one before and is
answered by nobody: it goes to the metadata as `final_observation`.
"""

from collections.abc import Mapping
from typing import Any

from agentbank_jax.trajectory import Outcome, Trajectory, Turn
from data_prep.sources.source import Context, DropRow, Format, Reason, rest_of

LANGUAGES = {"ic_sql": ("intercode_sql", "sql"), "ic_bash": ("intercode_bash", "bash")}  # to task and fence


def render_action(code: str, language: str) -> str:
  """Returns code as an action: fenced, below the marker."""
  return f"Action:\n```{language}\n{code}\n```"


def convert(row: Mapping[str, Any], context: Context) -> Trajectory:
  history, query, environment = row.get("turn_history"), row.get("query"), row.get("environment")
  if not isinstance(environment, str) or environment not in LANGUAGES:
    raise DropRow(Reason.MALFORMED, f"environment is {environment!r} (known: {', '.join(LANGUAGES)})")
  if not isinstance(history, Mapping) or not isinstance(query, str):
    raise DropRow(Reason.MALFORMED, "no 'turn_history' object, or no text in 'query'")
  task, language = LANGUAGES[environment]
  steps = [history.get(key) or [] for key in ("thoughts", "actions", "observations")]
  rewards = history.get("rewards") or []
  if not all(isinstance(values, list) for values in (*steps, rewards)):
    raise DropRow(Reason.MALFORMED, "thoughts, actions, observations or rewards are not a list")
  if len({len(s) for s in steps}) != 1:
    raise DropRow(Reason.UNEQUAL_COUNTS,
                  "{} thoughts, {} actions and {} observations".format(*(len(s) for s in steps)))
  turns = [Turn("user", query)]
  for i, step in enumerate(zip(*steps, strict=True)):
    if not all(isinstance(text, str) for text in step):
      raise DropRow(Reason.MALFORMED, f"step {i}: a thought, action or observation is not text")
    thought, action, observation = step
    turns.append(Turn("assistant", f"Thought: {thought}\n{_action(action, language)}"))
    turns.append(Turn("user", f"Observation: {observation}"))
  if len(turns) == 1:
    raise DropRow(Reason.NO_TURNS, "no step")
  metadata = rest_of(row, "query", "turn_history", "summary") | {"final_observation": turns.pop().content}
  reward = rewards[-1] if rewards else None
  outcome = None if reward is None else Outcome.SOLVED if reward == 1 else Outcome.FAILED
  name = f"{environment}-{row['task_id']}" if row.get("task_id") is not None else context.id
  return Trajectory(name, context.task_or(task), tuple(turns), reward, outcome, context.provenance, metadata)


def _action(action: str, language: str) -> str:
  if action.startswith("execute[") and action.endswith("]"):
    return render_action(action.removeprefix("execute[").removesuffix("]"), language)
  return f"Action: {action}"


FORMAT = Format(convert)
