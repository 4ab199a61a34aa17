"""InterCode-Bash (Yang et al. 2023, arXiv:2306.14898): 200 requests of NL2Bash and gold commands.

Held out: for evaluation only. The sandbox takes the place of InterCode's containers; see `envs/bash.py` for what is
compared, and `tasks/intercode_files.py` for the file systems.
"""

from collections.abc import Generator, Iterator, Mapping
import json
import random
from typing import Any

from agentbank_jax.envs.base import Instance
from agentbank_jax.envs.bash import BashEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import intercode_files, published, requirements, splits
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

_QUESTIONS = "nl2bash_fs_{name}.json"
_SCRIPT = "setup_nl2b_fs_{name}.sh"
_SOURCE = ("princeton-nlp/intercode on GitHub (data/nl2bash/nl2bash_fs_*.json and, beside them, "
           "docker/bash_scripts/setup_nl2b_fs_*.sh; MIT)")

# Beside the sandbox: what gold commands use and a machine may not have. Without it they are other commands.
_PROGRAMS = {
    **requirements.SANDBOX_PROGRAMS, "bash": "apt-get install bash", "tree": "apt-get install tree",
    "cpio": "apt-get install cpio", "pstree": "apt-get install psmisc", "column": "apt-get install bsdextrautils",
    "cal": "apt-get install ncal", "dig": "apt-get install bind9-dnsutils"}


def _instances(split: str, count: int, seed: int) -> Iterator[Instance]:
  return splits.choose("intercode_bash", lambda: _rows(split), split, count, seed)


def _rows(split: str) -> list[tuple[str, Mapping[str, Any]]]:
  if split == "train":
    raise UserError("intercode_bash: no train instances, it is held out for evaluation; use test")
  rows = []
  for name in intercode_files.NAMES:
    whose = "InterCode" if published.find_all("intercode_bash", _SCRIPT.format(name=name)) else "ours"
    for path in published.find_all("intercode_bash", _QUESTIONS.format(name=name)):
      try:
        for number, row in enumerate(json.loads(path.read_text())):
          gold = row["gold"] if isinstance(row["gold"], str) else ";".join(row["gold"])
          rows.append((f"{name}-{number:03d}", {"query": row["query"], "gold": gold, "files": name, "files_of": whose}))
      except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: not rows of InterCode-Bash ({e!r}); get the file again") from None
  if not rows:
    published.find("intercode_bash", _QUESTIONS.format(name="*"), _SOURCE)  # raises, and says what is missing
  return rows


class _FileSystems(Mapping):
  """File systems by name, each built when it is first asked for."""

  def __getitem__(self, name: str) -> bytes:
    scripts = published.find_all("intercode_bash", _SCRIPT.format(name=name))
    return intercode_files.built(scripts[0]) if scripts else intercode_files.ours(name)

  def __iter__(self) -> Iterator[str]:
    return iter(intercode_files.NAMES)

  def __len__(self) -> int:
    return len(intercode_files.NAMES)


def _expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Knows the gold command."""
  del observation
  yield f"Thought: This command does it.\nAction:\n```bash\n{instance.data['gold']}\n```"
  yield "Thought: It is done.\nAction: submit"


def _random_turn(rng: random.Random, observation: str) -> str:
  del observation
  if rng.random() < 0.3:
    return "Action: submit"
  folder = rng.choice(("/testbed", "/system", "/workspace"))
  return f"Action: {rng.choice(('ls', 'find', 'du', 'stat', 'cd', 'wc -l', 'rm', 'touch', 'cat'))} {folder}"


TASK = Task(
    name="intercode_bash",
    skill="programming",
    held_in=False,
    instructions="""\
Do what is asked on a Linux machine, where you are root. Each turn, think, then write a command, or several in a block:
Thought: ...
Action:
```bash
find /testbed -name "*.txt" | sort
```
You see what it prints. Files and the working directory stay as a command leaves them; variables and background jobs end
with it. What the last command printed is your answer, where one is asked for. When all is done, end with:
Action: submit""",
    grammar=Grammar(has_answer=False),
    max_steps=10,
    metric=MetricCard(
        reward_range=(0.0, 1.0),
        success="files changed as the gold command changes them, with the same contents, and the last output is the "
                "gold command's, up to spaces and, where that does not sort, the order of lines",
        definition="the reward is InterCode's (Yang et al. 2023, arXiv:2306.14898; its bash_env.py): 0.01 + 0.33 (1 - "
                   "erf(paths changed by one of both only)) + 0.33 (share of the added paths whose contents agree) + "
                   "0.33 (TF-IDF cosine of the last outputs), from archives of the file systems in place of docker and "
                   "git. InterCode's success rate counts rewards of 1; success here asks for more, since that reward "
                   "does not see the contents of modified files, or one-letter words of outputs"),
    make_env=lambda: BashEnv(_FileSystems()),
    instances=_instances,
    runs="bash in a sandbox, on a file system made anew for each episode",
    packages=requirements.SANDBOX_PACKAGES,
    programs=_PROGRAMS,
    problem="query",
    expert=_expert,
    random_turn=_random_turn,
    step_seconds=3_600.0,  # of waiting for the sandboxes of other episodes; each ends
    source=Source(
        where=_SOURCE, licence="MIT (InterCode); NL2Bash, where the requests come from, states none",
        checksums={
            "60f88e1aacc7ebba535093f9890c5c33203f4e5f32958e0e94fbe90ec4f01c82": "InterCode's nl2bash_fs_1.json",
            "8f4ce24e535fab782fda607e37db2ae1d6c5f99993c638d1ac0a7e0b542f633e": "InterCode's nl2bash_fs_2.json"},
        contamination="Held out. AgentBank's release has a folder intercode_bash beside its sixteen tasks: never train "
                      "on it and report this score. Where InterCode's setup scripts are absent the file systems are "
                      "ours (`files_of` of an instance): such a score, on InterCode's questions, is not comparable."),
)
