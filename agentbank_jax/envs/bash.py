"""InterCode-Bash's environment: commands in a file system of the episode's own, compared with what gold commands do.

Between two commands a file system is an archive in memory. A command gets a sandbox into whose memory the archive is
unpacked, runs there as the sandbox's root, and what it leaves is packed again: so episodes share nothing, nothing of
one is on a disk, and what a command starts in the background ends with it. Only the working directory is kept besides,
as InterCode keeps it. A command that is stopped leaves no trace.
"""

from collections import Counter
from collections.abc import Mapping
import functools
import math
import re
import tarfile
from typing import NamedTuple

from agentbank_jax.envs import file_state, sandbox, sandbox_view
from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.sandbox import Limits, Sandbox

COMMAND_SECONDS = 10  # InterCode's limit (intercode/utils)
MAX_COMMAND = 10_000  # characters
MAX_SHOWN = 2_000  # characters of an output that the agent is shown
_FILE_MIB = 16
_LIMITS = Limits(cpu_seconds=COMMAND_SECONDS, wall_seconds=40.0, memory_mib=512, processes=64,
                 output_bytes=(_FILE_MIB + 8) << 20, file_mib=_FILE_MIB)
_STOPPED = {"time": "Command timed out; what it changed is undone.",
            "output": "The command printed too much and was stopped; what it changed is undone.",
            "memory": "The command needed too much memory and was stopped; what it changed is undone."}
_NOT_UNPACKED = 97  # exit status of `_SCRIPT`
_KILLED = 137  # exit status of what `timeout` ends
_FENCE = re.compile(r"```(?:bash|sh|shell)?[ \t]*\n(.*?)```", re.IGNORECASE | re.DOTALL)
_SORTS = re.compile(r"\b(sort|tac)\b")

# Runs in the sandbox with the working directory, the command and its seconds. The archive comes on standard input. What
# the command prints goes to standard error; on standard output go its exit status, where it went, and the archive.
_SCRIPT = r"""
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/usr/bin/tar -xpf - -C / --no-same-owner || exit 97  # _NOT_UNPACKED
cd -- "$1" || cd /
/usr/bin/timeout -s KILL "$3" /usr/bin/bash -c 'eval "$1"; code=$?; pwd -P >/dev/shm/folder; exit $code' bash "$2" \
  </dev/null >&2
code=$?
kill -9 -1 2>/dev/null  # what is still in the background; this shell is spared
cd /
{ IFS= read -r -d '' where </dev/shm/folder; } 2>/dev/null
printf '%d\0%s\0' "$code" "$where"
/usr/bin/tar -cf - --sort=name --format=posix --pax-option=delete=atime,delete=ctime --one-file-system \
  --exclude=./usr --exclude=./proc --exclude=./dev --exclude=./etc/alternatives --exclude=./etc/ld.so.cache . \
  2>/dev/null
"""


class Shell(NamedTuple):
  """A file system and where in it one is; `made`: by a command, and so perhaps not to be unpacked."""

  files: bytes
  folder: str = "/"
  made: bool = False


class Done(NamedTuple):
  """What a command did: `code` is its exit status, None where it was stopped."""

  shell: Shell
  output: str
  code: int | None


class Score(NamedTuple):
  """InterCode's reward, and whether the episode is solved, which is more."""

  reward: float
  solved: bool


class BashEnv:
  """Commands until `submit`.

  `Instance.data`: `query`, `gold` (a command) and `files`, which file system.
  """

  def __init__(self, file_systems: Mapping[str, bytes]):
    """Takes the file systems by name, as archives."""
    sandbox.require()
    self._file_systems = file_systems

  def reset(self, instance: Instance) -> str:
    self._gold = instance.data["gold"]
    self._start = self._shell = Shell(self._file_systems[instance.data["files"]])
    self._output = ""
    return instance.data["query"]

  def step(self, action: Action) -> Step:
    blocks = _FENCE.findall(action.text)
    command = (blocks[0] if blocks else action.text).strip()
    if command == "submit":
      gold = run(self._start, self._gold)
      result = score(self._start, Done(self._shell, self._output, 0), gold, bool(_SORTS.search(self._gold)))
      return Step("Submitted.", result.reward, True, False, {"solved": result.solved})
    if len(blocks) > 1 or not command or "\0" in command or len(command) > MAX_COMMAND:
      why = "more than one block" if len(blocks) > 1 else "no command" if not command else "not a line of bash"
      return Step(f"Error: {why}; write one command, or submit.", 0.0, False, False, {"invalid": True})
    self._shell, self._output, code = run(self._shell, command)
    shown = self._output
    if len(shown) > MAX_SHOWN:
      shown = f"{shown[:MAX_SHOWN]}... ({MAX_SHOWN} of {len(self._output)} characters shown)"
    if not shown.strip():
      shown = "(no output)" if code == 0 else f"(no output, exit status {code})"
    return Step(shown, 0.0, False, False, {})

  def close(self) -> None:
    """Nothing to release: no sandbox lives between two commands."""


def run(shell: Shell, command: str) -> Done:
  """Runs a command.

  Raises:
    UserError: this machine has no sandbox.
    SandboxError: it failed.
  """
  command = command.encode("utf-8", "replace").decode()
  finished = _sandbox().run(["/usr/bin/bash", "-c", _SCRIPT, "bash", shell.folder, command, str(COMMAND_SECONDS)],
                            shell.files)
  output = finished.stderr.decode(errors="replace")
  if finished.stopped:
    return Done(shell, _STOPPED[finished.stopped], None)
  if finished.returncode == _NOT_UNPACKED and not shell.made:
    raise sandbox.SandboxError(f"a file system cannot be unpacked: {output.strip()[-300:]}")
  status, _, rest = finished.stdout.partition(b"\0")
  where, _, archive = rest.partition(b"\0")
  try:
    code = int(status)
    file_state.read(archive)
  except (tarfile.TarError, ValueError):  # it killed the shell, filled the disk, or wrote there itself
    return Done(shell, f"{output}The shell was lost; what the command changed is undone.", None)
  folder = where.decode(errors="replace").removesuffix("\n") or shell.folder  # none where the command was `exit`
  if code == _KILLED:
    output += "Command timed out, or was killed."
  return Done(Shell(archive, folder, made=True), output, code)


def score(start: Shell, done: Done, gold: Done, ordered: bool) -> Score:
  """Returns InterCode's reward, from its code (`bash_env.py`, `get_reward`), and whether everything agrees.

  The reward is 0.01 + three times up to 0.33, each rounded to two decimals:
  1. changes: 0.33 (1 - erf(n)), where n paths were changed by one of the two and not, or otherwise, by the other;
  2. contents: the share of paths added by both whose contents are equal, all where there are none;
  3. outputs: the cosine of their TF-IDF vectors.
  Changes are as `file_state.changes` finds them, which is what InterCode asks git for.

  The third part takes "3 files" for "4 files" (words of one letter are no words to it), and no part looks into files
  that both changed. So `solved` asks for more than a reward of 1: the same changes with the same contents, and the same
  output but for spaces and, unless `ordered`, the order of the lines.
  """
  before = file_state.read(start.files)
  ours, theirs = (file_state.changes(before, file_state.read(shell.files)) for shell in (done.shell, gold.shell))
  kinds = lambda found: {(path, what.split()[0]) for path, what in found.items()}
  differing = len(kinds(ours) ^ kinds(theirs))
  added = [path for path, kind in kinds(ours) & kinds(theirs) if kind == "added"]
  equal = sum(ours[path] == theirs[path] for path in added)
  reward = (0.01 + round(0.33 * (1 - math.erf(differing)), 2) + round(0.33 * (equal / len(added) if added else 1), 2)
            + round(0.33 * similarity(done.output, gold.output), 2))
  same = _lines(done.output, ordered) == _lines(gold.output, ordered)
  return Score(round(reward, 2), ours == theirs and same)


def similarity(a: str, b: str) -> float:
  """Returns the cosine of two texts' TF-IDF vectors, as scikit-learn's TfidfVectorizer makes them by default.

  Where neither has a word (two letters or more), 1 or 0: whether they are equal.
  """
  counts = [Counter(re.findall(r"\b\w\w+\b", text.lower())) for text in (a, b)]
  if not counts[0] and not counts[1]:
    return float(a == b)
  weight = lambda word: math.log(3 / (1 + sum(word in c for c in counts))) + 1  # smoothed, of two documents
  vectors = [{word: n * weight(word) for word, n in count.items()} for count in counts]
  norms = [math.sqrt(sum(x * x for x in vector.values())) for vector in vectors]
  if not all(norms):
    return 0.0
  return min(1.0, sum(x * vectors[1].get(word, 0.0) for word, x in vectors[0].items()) / (norms[0] * norms[1]))


def _lines(output: str, ordered: bool) -> list[str]:
  lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
  return lines if ordered else sorted(lines)


@functools.cache
def _sandbox() -> Sandbox:
  size = str(_FILE_MIB << 20)
  view = ["--size", size, "--perms", "0755", "--tmpfs", "/", *sandbox_view.read_only(), *sandbox_view.devices(size),
          "--perms", "1777", "--dir", "/tmp"]
  return Sandbox(_LIMITS, view=view, root=True)
