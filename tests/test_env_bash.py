"""InterCode-Bash: what a command does and leaves, what is compared, and the gold commands of the real rows."""

import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
import tarfile
import types

from conformance import TaskConformance
import pytest

from agentbank_jax.envs import bash, file_state, sandbox
from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.bash import BashEnv, Done, Shell, run, score, similarity
from agentbank_jax.envs.file_state import File, changes, pack, read
from agentbank_jax.envs.sandbox import Finished
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task, intercode_files
from agentbank_jax.tasks.catalog import intercode_bash

needs_sandbox = pytest.mark.skipif(bool(sandbox.missing()), reason=f"no sandbox here: {sandbox.missing()}")
FILES = pack({"/root": None, "/tmp": None, "/etc/hosts": File(b"127.0.0.1 localhost\n"),
              "/data/a.txt": File(b"one\ntwo\n"), "/data/b.sh": File(b"#!/bin/sh\necho b\n", 0o755),
              "/data/deep/c.txt": File(b"three\n"), "/data/link": File(link="a.txt")}, 1685577600)
START = Shell(FILES)


@pytest.fixture
def published(tmp_path, monkeypatch):
  """Rows in the published layout, on file systems of ours, and one that a script builds."""
  folder = tmp_path / "intercode_bash"
  folder.mkdir()
  rows = {"1": [f"find /testbed -name '*{n}*' | sort | head -n {n}" for n in range(1, 9)],
          "2": [f"mv /system/text1.txt /system/{n}.txt" for n in range(8)], "3": ["cat /made/by/script"] * 4}
  for name, golds in rows.items():
    (folder / f"nl2bash_fs_{name}.json").write_text(json.dumps([{"query": f"Do {g}", "gold": g} for g in golds]))
  (folder / "setup_nl2b_fs_3.sh").write_text("mkdir -p /made/by\necho made > /made/by/script\n")
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  return folder


@needs_sandbox
class TestInterCodeBash(TaskConformance):
  split = "test"
  few = 3

  @pytest.fixture
  def task(self, published):
    return get_task("intercode_bash")


@needs_sandbox
def test_files_and_folder_stay_and_nothing_else():
  done = run(START, "cd /data/deep; echo new > d.txt; chmod +x c.txt; mkdir e; X=1; ln -s /etc f; exit_code=3; false")
  assert (done.output, done.code, done.shell.folder) == ("", 1, "/data/deep")
  done = run(done.shell, "pwd; ls -A; cat d.txt; echo \"[$X]\"; stat -c %a c.txt; readlink f; exit 3")
  assert done.output == "/data/deep\nc.txt\nd.txt\ne\nf\nnew\n[]\n755\n/etc\n" and done.code == 3
  assert run(done.shell, "pwd").output == "/data/deep\n"
  assert run(START, "pwd; ls /data").output == "/\na.txt\nb.sh\ndeep\nlink\n"  # another episode
  assert run(START, "ls -l --time-style=+%Y /data/a.txt; id -u; hostname; /data/b.sh").output == (
      "-rw-r--r-- 1 0 0 8 2023 /data/a.txt\n0\nsandbox\nb\n")


@needs_sandbox
def test_what_a_command_prints_comes_in_order_with_its_errors():
  assert run(START, "echo 1; echo 2 >&2; cat /none; fi (").output == (
      "bash: eval: line 1: syntax error near unexpected token `fi'\n"
      "bash: eval: line 1: `echo 1; echo 2 >&2; cat /none; fi ('\n")
  assert run(START, "echo 1; echo 2 >&2; cat /none").output == "1\n2\ncat: /none: No such file or directory\n"
  assert run(START, "printf '\\xff\\x00é\\n'").output == "\ufffd\0é\n"
  assert run(START, "cat; read x; echo end").output == "end\n"  # no input, and nobody to wait for


@needs_sandbox
@pytest.mark.parametrize("command, says", [
    ("sleep 100 & echo started", "started\n"),
    ("kill -9 $PPID", "was killed"), ("kill -9 -1", "The shell was lost"),
    ("yes", "printed too much"), ("exec 1>&-; echo x", "Bad file descriptor"), ("rm -rf /data", ""),
    ("rm -f /lib64 /lib /bin", ""), ("dd if=/dev/zero of=/big bs=1M count=100", "No space left"),
    ("for i in $(seq 40); do head -c 1M /dev/zero > /f$i; done", "No space left"),
    ("chmod 000 /data; rm -r /etc/hosts; mkfifo /p; echo > '/na\nme'", ""),
    ("cd /data; rm -r /data", ""),
    ("tar --version | head -n1; ln -s / /loop; ln -s /root/x x", "tar (GNU tar)"),
    ("exec bash -c 'echo in; exit 5'", "in\n"),
    (":(){ :|:& };:", ""),
])
def test_whatever_a_command_does_the_next_one_runs(command, says):
  done = run(START, command)
  assert says in done.output, done
  after = run(done.shell, "echo alive")
  assert after.output == "alive\n" or command.startswith("rm -f /lib64")
  assert run(START, "cat /data/a.txt").output == "one\ntwo\n"


def tar_of(size=0, format=tarfile.PAX_FORMAT, content=b"", **headers):
  """An archive of one file, which says what it likes of itself."""
  member = tarfile.TarInfo("./y")
  member.size, member.pax_headers = size, headers
  return member.tobuf(format) + content + bytes(1024)


FORGED = {
    "nothing": b"", "no status": b"x\0/\0" + START.files, "no number": b"9" * 5_000 + b"\0/\0" + START.files,
    "no archive": b"0\0/\0what", "compressed": b"0\0/\0" + gzip.compress(START.files),
    "sparse, and enormous": b"0\0/\0" + tar_of(**{
        "GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,0", "GNU.sparse.numblocks": "1"}),
    "shorter than it says": b"0\0/\0" + tar_of(1 << 40, tarfile.GNU_FORMAT),
    "header in header": b"0\0/\0" + tarfile.TarInfo("x" * 200).tobuf(tarfile.GNU_FORMAT)[:512] * 5_000,
}


@pytest.mark.parametrize("name", FORGED)
def test_what_a_command_forges_is_a_shell_that_was_lost(monkeypatch, name):
  """A command runs as the user that its result is written by, so it may write there too."""
  finished = Finished(FORGED[name], b"said\n", 0, "")
  monkeypatch.setattr(bash, "_sandbox", lambda: types.SimpleNamespace(run=lambda *arguments: finished))
  assert run(START, "x") == (START, "said\nThe shell was lost; what the command changed is undone.", None)


@needs_sandbox
def test_what_a_command_made_and_cannot_be_unpacked_is_the_agents_fault():
  broken = START._replace(files=b"0" * 10_240)
  with pytest.raises(sandbox.SandboxError, match="a file system cannot be unpacked"):
    run(broken, "pwd")
  assert "The shell was lost" in run(broken._replace(made=True), "pwd").output


@needs_sandbox
def test_a_command_that_waits_is_stopped_and_its_changes_stay(monkeypatch):
  monkeypatch.setattr(bash, "COMMAND_SECONDS", 1)
  done = run(START, "echo a > /x; sleep 100")
  assert done.output.endswith("Command timed out, or was killed.") and done.code == 137
  assert run(done.shell, "cat /x").output == "a\n"


@needs_sandbox
def test_neither_gold_command_nor_host_is_in_reach(tmp_path):
  (tmp_path / "gold").write_text("secret-gold")
  env = BashEnv({"x": FILES})
  env.reset(Instance("test-0", "test", {"query": "Do it.", "gold": "echo secret-gold", "files": "x"}))
  for command in (f"cat {tmp_path}/gold; ls /root /home /var", "cat /proc/*/cmdline /proc/*/environ; env",
                  "grep -r secret-gold /tmp /etc /root /data"):
    assert "secret-gold" not in env.step(Action("act", command)).observation.replace(command, "")
  assert env.step(Action("act", "submit")).info == {"solved": False}
  env.close()


@needs_sandbox
def test_an_action_is_a_command_plain_or_in_a_block():
  env = BashEnv({"x": FILES})
  assert env.reset(Instance("test-0", "test", {"query": "Do it.", "gold": "cat /data/a.txt", "files": "x"})) == "Do it."
  for text in ("", "\0", "x" * 20_000, "```bash\nls\n```\n```bash\nls\n```", "```\n```"):
    step = env.step(Action("act", text))
    assert step.info == {"invalid": True} and step.observation.startswith("Error: ")
  assert env.step(Action("act", "true")).observation == "(no output)"
  assert env.step(Action("act", "false")).observation == "(no output, exit status 1)"
  assert env.step(Action("act", "seq 1000")).observation.endswith("... (2000 of 3893 characters shown)")
  assert env.step(Action("act", "```bash\nfor x in one two; do\n  echo $x\ndone\n```")).observation == "one\ntwo\n"
  step = env.step(Action("act", "submit"))
  assert (step.reward, step.terminated, step.info) == (1.0, True, {"solved": True})


def judged(ours, theirs, output="", gold_output="", ordered=False):
  shell = lambda files: Shell(pack({path: File(text) for path, text in files.items()}, 0))
  start = {"/d/a": b"a", "/d/b": b"b"}
  done, gold = Done(shell({**start, **ours}), output, 0), Done(shell({**start, **theirs}), gold_output, 0)
  return score(shell(start), done, gold, ordered)


@pytest.mark.parametrize("ours, theirs, outputs, reward, solved", [
    # By hand: 0.01 + 0.33 (1 - erf(n)) + 0.33 agreeing / added + 0.33 cosine; erf(1) = 0.8427, erf(2) = 0.9953.
    ({}, {}, ("", ""), 1.0, True),
    ({"/d/x": b"1"}, {"/d/x": b"1"}, ("", ""), 1.0, True),
    ({}, {"/d/x": b"1"}, ("", ""), 0.72, False),
    ({"/d/y": b"1"}, {}, ("", ""), 0.72, False),
    ({"/d/x": b"1"}, {"/d/y": b"1"}, ("", ""), 0.67, False),
    ({"/d/x": b"1"}, {"/d/x": b"2"}, ("", ""), 0.67, False),
    ({"/d/x": b"1", "/d/y": b"1"}, {"/d/x": b"2", "/d/y": b"1"}, ("", ""), 0.84, False),
    ({"/d/a": b"new"}, {"/d/a": b"other"}, ("", ""), 1.0, False),  # InterCode does not look into what was modified
    ({"/e/x": b"1", "/e/y": b"1"}, {}, ("", ""), 0.72, False),  # a new folder is one change, as for git
    ({"/etc/x": b"1", "/d/usr/y": b"1"}, {}, ("", ""), 1.0, True),  # not in git
    ({}, {}, ("apple banana", "apple cherry"), 0.78, False),  # cosine 1 / (1 + (1 + ln 1.5)^2) = 0.3361
    ({}, {}, ("apple", "cherry"), 0.67, False),
    ({}, {}, ("3 files\n", "4 files\n"), 1.0, False),  # one-letter words are none
    ({}, {}, ("3\n", "4\n"), 0.67, False),
    ({}, {}, ("12 lines", "13 lines"), 0.78, False),
    ({}, {}, ("bb aa\ncc", "bb  aa \ncc\n\n"), 1.0, True),
    ({}, {}, ("", "something"), 0.67, False),
    ({}, {}, ("one two", "one, two"), 1.0, False),
])
def test_reward_by_hand(ours, theirs, outputs, reward, solved):
  assert judged(ours, theirs, *outputs) == (pytest.approx(reward), solved)


def test_order_counts_where_the_gold_command_sorts():
  assert judged({}, {}, "aa\nbb", "bb\naa") == (1.0, True)
  assert judged({}, {}, "aa\nbb", "bb\naa", ordered=True) == (1.0, False)
  assert judged({}, {}, "aa\nbb\nbb", "bb\naa").solved is False


def test_similarity_is_scikit_learns():
  # TfidfVectorizer().fit_transform([a, b]) of scikit-learn 1.5, rows multiplied.
  assert similarity("apple banana", "apple cherry") == pytest.approx(0.33609692727625756)
  assert similarity("The the cat", "the dog") == pytest.approx(0.4744, abs=1e-4)
  assert similarity("", "") == similarity("1", "1") == 1.0 and similarity("1", "2") == similarity("", "word") == 0.0


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_changes_are_those_that_git_sees(tmp_path):
  """Against git itself: random files, random changes."""

  def archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
      tar.add(tmp_path, ".", filter=lambda member: None if "/.git" in member.name else member)
    return read(buffer.getvalue())

  def git(*args):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "core.quotePath=false", *args]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment).stdout

  rng = random.Random(0)
  (tmp_path / ".gitignore").write_text("bin\netc\nusr\n")
  for _ in range(40):
    path = tmp_path / "/".join(rng.choices("abc", k=rng.randint(1, 3)) + [rng.choice(("x", "y.txt", "bin"))])
    if not any(parent.is_file() for parent in path.parents):
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(rng.choice("123"))
  git("init", "-q")
  git("add", "-A")
  git("commit", "-qm", "start")
  before = archive()
  for _ in range(60):
    files = [p for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts and p.name != ".gitignore"]
    path = rng.choice(files)
    match rng.randrange(6):
      case 0:
        path.unlink()
      case 1:
        path.write_text(rng.choice("123"))
      case 2:
        path.chmod(rng.choice((0o644, 0o755)))
      case 3:
        (path.parent / rng.choice(("new", "z.txt", "etc"))).write_text("new")
      case 4:
        (path.parent / "n" / "m").mkdir(parents=True, exist_ok=True)
        (path.parent / "n" / "m" / rng.choice("pq")).write_text("deep")
      case 5:
        (path.parent / "empty").mkdir(exist_ok=True)
  kinds = {"D": "deleted", "M": "modified", "??": "added"}
  seen = {("/" + line[3:], kinds[line[:2].strip()]) for line in git("status", "--short").splitlines()}
  assert {(path, what.split()[0]) for path, what in changes(before, archive()).items()} == seen and len(seen) > 8


def test_links_and_other_names_of_a_file():
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name, kind, link in (("./a", tarfile.REGTYPE, ""), ("./b", tarfile.LNKTYPE, "./a"),
                             ("./c", tarfile.SYMTYPE, "/a"), ("./p", tarfile.FIFOTYPE, ""),
                             ("./d", tarfile.DIRTYPE, "")):
      member = tarfile.TarInfo(name)
      member.type, member.linkname = kind, link
      tar.addfile(member)
  found = read(buffer.getvalue())
  assert found.keys() == {"/a", "/b", "/c"} and found["/a"] == found["/b"] and found["/c"].digest == "link to /a"


@needs_sandbox
def test_scripts_that_the_folder_has_are_used_and_named(published):
  rows = {i.id: i.data["files_of"] for i in get_task("intercode_bash").instances("test", 20, 0)}
  assert rows["test-1-000"] == "ours" and rows["test-3-000"] == "InterCode"
  assert run(Shell(intercode_bash._FileSystems()["3"]), "stat -c %Y /made/by/script").output == "1685577600\n"
  (published / "setup_nl2b_fs_3.sh").write_text("kill -9 -1")
  intercode_files.built.cache_clear()
  with pytest.raises(UserError, match="setup_nl2b_fs_3.sh did not come to its end"):
    intercode_bash._FileSystems()["3"]


def test_what_cannot_be_had_is_a_user_error(published):
  have = lambda split: list(get_task("intercode_bash").instances(split, 1, 0))
  with pytest.raises(UserError, match="held out for evaluation; use test"):
    have("train")
  (published / "nl2bash_fs_1.json").write_text('[{"query": "x"}]')
  with pytest.raises(UserError, match="nl2bash_fs_1.json: not rows of InterCode-Bash"):
    have("test")
  shutil.rmtree(published)
  with pytest.raises(UserError, match="intercode_bash: no .*get it from princeton-nlp"):
    have("test")


# Gold commands that do not do the same twice: searches of the whole machine that run out of time or meet what changes
# meanwhile, programs that race to print, and those that print how late it is or how long they took.
UNSTEADY = {"test-1-006", "test-1-011", "test-1-021", "test-1-030", "test-1-055", "test-2-010", "test-2-042",
            "test-2-049"}


@needs_sandbox
@pytest.mark.parametrize("rows", [15, pytest.param(None, marks=pytest.mark.slow)])
def test_the_real_gold_commands(real_data, monkeypatch, rows):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  task = get_task("intercode_bash")
  rows = rows or len(intercode_bash._rows("test"))
  env, failed = task.make_env(), set()
  for instance in task.instances("test", rows, 0):
    env.reset(instance)
    for text in task.expert(instance, ""):
      step = env.step(task.grammar.parse(text))
    failed |= set() if step.info["solved"] else {instance.id}
  assert failed <= UNSTEADY


@needs_sandbox
def test_our_file_systems_have_what_the_real_rows_name(real_data, monkeypatch):
  """Every absolute path of a gold command is there before it runs, but for those that it makes, or means not to be."""
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  missing = set()
  for _, data in intercode_bash._rows("test"):
    known = file_state.read(intercode_files.ours(data["files"]))
    with tarfile.open(fileobj=io.BytesIO(intercode_files.ours(data["files"]))) as tar:
      known = known.keys() | {name.removeprefix(".") for name in tar.getnames()}
    paths = re.findall(r"(?<![\w.*])/(?:testbed|system|workspace)(?:/[\w.]+)*", data["gold"])
    missing |= {path for path in paths if path not in known}
  assert missing <= {"/testbed/logs.tar.gz", "/system/textfile.txt", "/system/folder3/temp/temp1_old"}


def test_ours_are_the_same_every_time():
  assert intercode_files.ours("1") == intercode_files.ours.__wrapped__("1")
