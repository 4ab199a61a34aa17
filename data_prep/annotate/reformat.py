"""Reformatting: gold solutions rewritten as trajectories, every observation computed, none copied.

GSM8K: each calculation of the solution becomes a step, as the task's expert plays it (`tasks/gsm8k_solution.py` says
which solutions can be read, and how); the observation is its value as the calculator computes it.

Spider and InterCode questions: the gold query is the one action, the environment gives its observation.
"""

from collections.abc import Mapping, Sequence
import pathlib
import re
from typing import Any

from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.sql import SqlEnv
from agentbank_jax.tasks.gsm8k_solution import SolutionError, replies
from agentbank_jax.trajectory import Outcome, Trajectory, Turn
from data_prep.sources.intercode import render_action
from data_prep.sources.source import Context, DropRow, Format, Reason, identity, rest_of


def gsm8k(row: Mapping[str, Any], context: Context) -> Trajectory:
  """Rewrites a GSM8K row `{question, answer}` in AgentBank's form.

  Raises:
    DropRow: the solution is not calculator steps that lead to its answer.
  """
  question, solution = row.get("question"), row.get("answer")
  if not isinstance(question, str) or not isinstance(solution, str):
    raise DropRow(Reason.MALFORMED, "no text in 'question' or 'answer'")
  try:
    steps, conclusion = replies(solution)
  except SolutionError as e:
    raise DropRow(Reason.MALFORMED if e.reason == "no_answer" else Reason(e.reason), str(e)) from None
  turns = [Turn("user", question)]
  for text, value in steps:
    turns.append(Turn("assistant", text))
    turns.append(Turn("user", f"Observation: {value}"))
  turns.append(Turn("assistant", conclusion))
  return Trajectory(identity(row, context), context.task_or("gsm8k"), tuple(turns), 1.0, Outcome.SOLVED,
                    context.provenance, rest_of(row, "id", "question", "answer"))


def spider(row: Mapping[str, Any], context: Context) -> Trajectory:
  """Rewrites a question and its gold query as one action.

  Rows are InterCode's `{db, query, gold}`, or Spider's `{db_id, question, query}`.

  Option `databases`: folder of `<db>.sqlite`, opened read-only.

  Raises:
    DropRow: a field or the database is missing, or the query fails.
  """
  question, gold, name = ((row.get("query"), row["gold"], row.get("db")) if "gold" in row
                          else (row.get("question"), row.get("query"), row.get("db_id")))
  if not all(isinstance(text, str) and text for text in (question, gold, name)):
    raise DropRow(Reason.MALFORMED, "no text in the question, the query or the database's name")
  folder = pathlib.Path(context.options["databases"])
  if not re.fullmatch(r"\w+", name) or not (folder / f"{name}.sqlite").is_file():
    raise DropRow(Reason.DATABASE_ABSENT, f"no database {name!r} in {folder}")
  instance = Instance(identity(row, context), "train", {"question": question, "gold": gold, "db": name})
  actions = (render_action(gold, "sql"), "Action: submit")
  observation = _play_sql(folder, instance, [action.removeprefix("Action:").strip() for action in actions])
  turns = (Turn("user", question), Turn("assistant", actions[0]), Turn("user", f"Observation: {observation}"),
           Turn("assistant", actions[1]))
  return Trajectory(instance.id, context.task_or("intercode_sql"), turns, 1.0, Outcome.SOLVED,
                    context.provenance, rest_of(row, "id", "query", "gold", "question", "db_tables"))


def _play_sql(folder: pathlib.Path, instance: Instance, actions: Sequence[str]) -> str:
  """Returns the observation of the first action. Raises `DropRow` unless the second solves the instance."""
  env = SqlEnv(folder)
  try:
    env.reset(instance)
    shown, done = (env.step(Action("act", action)) for action in actions)
  except ValueError as e:
    raise DropRow(Reason.QUERY_FAILED, str(e)) from None
  finally:
    env.close()
  if not done.info.get("solved"):
    raise DropRow(Reason.QUERY_FAILED, f"{shown.observation}; the reward is {done.reward}")
  return shown.observation


GSM8K = Format(gsm8k, technique="reformatting")
SPIDER = Format(spider, options=("databases",), technique="reformatting")
