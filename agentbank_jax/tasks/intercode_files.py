"""File systems for InterCode-Bash: those that InterCode's scripts build, or ours.

InterCode builds its four with scripts (docker/bash_scripts/setup_nl2b_fs_N.sh), in an Ubuntu image. Where the folder of
data has a script, it runs in the sandbox. Where it has none, there are ours: written for this project from what the
questions and gold commands name, so that these find something. Folders and files that they name are there; what is in
them is not what is in InterCode's, and nor are the outputs. The system around them is a few files of ours in both
cases, on this machine's /usr.
"""

import functools
import gzip
import io
import pathlib
import tarfile

from agentbank_jax.envs import bash, sandbox_view
from agentbank_jax.envs.file_state import File, pack, settle
from agentbank_jax.errors import UserError

NAMES = ("1", "2", "3", "4")
_NOW = 1685577600  # 2023-06-01: when whatever has no time of its own changed last; the same on every day
_DAY = 86_400


@functools.cache
def ours(name: str) -> bytes:
  """Returns our file system `name` as an archive."""
  files = dict(_SYSTEM) | {"1": _testbed, "2": _system, "3": _workspace, "4": dict}[name]()
  return _pack(files)


@functools.cache
def built(script: pathlib.Path) -> bytes:
  """Returns the file system that one of InterCode's scripts builds.

  Raises:
    UserError: this machine has no sandbox, or the script does not come to its end.
  """
  done = bash.run(bash.Shell(_pack(_SYSTEM)), script.read_text())
  if done.code is None:
    raise UserError(f"{script} did not come to its end ({done.output.strip()[-200:]}); get it again")
  return settle(done.shell.files, _NOW)


def _pack(files: dict[str, File | None]) -> bytes:
  links = sandbox_view.read_only()
  links = {path: File(link=target) for option, target, path in zip(links, links[1:], links[2:], strict=False)
           if option == "--symlink"}
  return pack(links | files, _NOW)


def _text(*lines: str, days: float = 0, mode: int = 0o644) -> File:
  """A file of lines, last changed some days before `_NOW`."""
  return File("".join(f"{line}\n" for line in lines).encode(), mode, int(_NOW - days * _DAY))


_SYSTEM: dict[str, File | None] = {
    "/boot": None, "/home": None, "/media": None, "/mnt": None, "/opt": None, "/root": None, "/run": None, "/srv": None,
    "/sys": None, "/tmp": None, "/var/tmp": None,
    "/etc/passwd": _text("root:x:0:0:root:/root:/bin/bash", "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin",
                         "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin"),
    "/etc/group": _text("root:x:0:", "daemon:x:1:", "adm:x:4:", "users:x:100:", "nogroup:x:65534:"),
    "/etc/hosts": _text("127.0.0.1 localhost", "10.0.0.2 sandbox"),
    "/etc/hostname": _text("sandbox"),
    "/etc/networks": _text("link-local 169.254.0.0", "office 10.20.0.0", "lab 10.20.0.0"),
    "/etc/os-release": _text('NAME="agentbank"', "ID=agentbank"),
    "/var/log/boot.log": _text("kernel started", "network up", days=40),
    "/var/log/apt/history.log": _text("Commandline: apt-get install jq", days=12),
}


def _testbed() -> dict[str, File | None]:
  """/testbed: texts, scripts and sources, three folders deep."""
  deep = "/testbed/dir3/subdir1/subsubdir1"
  java = lambda name, word: _text(f"class {name} {{", f'  static String greet() {{ return "{word}"; }}', "}")
  script = lambda n: _text("#!/bin/sh", f"echo step {n}", mode=0o755)
  python = lambda n: _text("#!/usr/bin/env python3", *(f"print({n} * {i})" for i in range(n)), mode=0o755)
  return {
      "/testbed/dir1/subdir2": None, "/testbed/dir2/subdir2/subsubdir1": None,
      "/testbed/Hello.java": java("Hello", "Hello"), "/testbed/Hello1.java": java("Hello", "Hello"),
      "/testbed/dir1/AnotherHello.java": java("Hello", "Hello"), "/testbed/NewClass.java": java("NewClass", "new"),
      "/testbed/dir2/subdir1/javafile1.java": java("Javafile1", "one"),
      "/testbed/dir1/textfile1.txt": _text("a banana a day", "keeps nobody away"),
      "/testbed/dir2/subdir1/textfile2.txt": _text("oak", "elm", "ash", "fir"),
      f"{deep}/textfile3.txt": _text("oak", "fir", "yew"),
      "/testbed/dir1/subdir1/textfile4.txt": _text("Gene Size Sample", "abc1 120 one", "tnf4 88 two", "egf2 230 one"),
      "/testbed/dir2/subdir2/textfile5.txt": _text("Gene Organ", "egf2 skin", "abc1 liver"),
      "/testbed/dir3/textfile6.txt": _text(*(f"line {n} of the longest text in here" for n in range(1, 41))),
      "/testbed/textfile7.txt": _text("sixteen letters and some more of them"),
      "/testbed/recent.txt": _text(days=1),
      f"{deep}/file.txt": _text("plain file"), f"{deep}/FooBar/file.txt": _text("file below FooBar"),
      f"{deep}/tmp/tmp.txt": _text("left over", days=300), f"{deep}/tmp/draft.txt": _text("left over too", days=20),
      "/testbed/dir1/subdir1/shellscript1.sh": script(1), "/testbed/dir2/shellscript2.sh": script(2),
      f"{deep}/shellscript3.sh": script(3),
      "/testbed/dir1/subdir1/pythonscript4.py": python(4),
      "/testbed/dir1/subdir1/subsubdir1/pythonscript1.py": python(1),
      "/testbed/dir2/subdir2/pythonscript2.py": python(2), "/testbed/dir3/subdir1/pythonscript3.py": python(3),
      "/testbed/dir1/subdir1/jsonfile1.json": _text('{"port": 8080, "debug": false}'),
      "/testbed/dir3/subdir2/csvfile1.csv": _text("name,year", "ada,1815", "alan,1912"),
      "/testbed/hello.php": _text("<?php", "", 'echo "Hello world";', "", "?>"),
      "/testbed/dir1/info.php": _text("<?php", "// versions", "phpinfo();"),
      "/testbed/dir2/page.php": _text("<?php", "echo date('Y');"),
      "/testbed/dir2/menu.js": _text("const items = [];", "items.push('home');"),
      "/testbed/hello.c": _text("#include <stdio.h>", "int main(void) {", '  puts("hello");', "  return 0;", "}"),
      "/testbed/FooBar.html": _text("<h1>FooBar</h1>", "<p>a foo and a bar</p>"),
      "/testbed/dir3/index.html": _text("<h1>Index</h1>"), "/testbed/dir1/foo01": _text("first", "second"),
      "/testbed/dir2/foo.1": _text("third"), "/testbed/dir1/job.history": _text("run 1 OK", "run 2 FAIL"),
      "/testbed/dir3/job.history": _text("run 1 OK"), "/testbed/dir2/old.gz": _zip("one", "two", "three"),
      "/testbed/dir1/locked.txt": _text("read and run by some", mode=0o553),
      "/testbed/dir3/subdir2/TEXTFILE6.txt": _text("same name in capitals", days=90),
  }


def _system() -> dict[str, File | None]:
  """/system: files of many kinds to remove, rename and pack."""
  one, two, three = "/system/folder1", "/system/folder2", "/system/folder3"
  folder2 = {f"{two}/text1.txt": _text("foo is the first word"), f"{two}/special_text1.txt": _text("a special text"),
             f"{two}/.hidden": _text("not seen by ls"), f"{two}/special text3.txt": _text("a name with a blank")}
  return {
      f"{three}/temp/temp1/temp": None, f"{three}/temp/temp1/temp_1": None, f"{three}/backup_dbg/backup": None,
      "/backup": None,
      "/system/text1.txt": _text("Hello there", "tab\there"), "/system/text3.txt": _text("Foo and foo", "bar"),
      "/system/notes.txt": _text("ten chars", days=45), "/system/ten": File(b"0123456789"),
      f"{one}/text2.txt": _text("hello again", "and HELLO"), f"{one}/text3.txt": _text("nothing to see"),
      f"{one}/text2": _text("two"), f"{one}/text3": _text("three"), f"{one}/text4": _text("four"),
      f"{one}/keep.txt": _text("keep this"), f"{one}/special_report.md": _text("# special"),
      f"{one}/old2.txt": _text("old", days=92), f"{one}/a.out": File(b"\x7fELF" + bytes(60), 0o755, _NOW - 60 * _DAY),
      "/system/a.out": File(b"\x7fELF" + bytes(20), 0o755), f"{one}/part.o": File(bytes(range(64))),
      "/system/core": File(bytes(2_000), time=_NOW - 3 * _DAY), f"{one}/doc1.doc": _text("a document"),
      f"{one}/log1.log": _text("started", "stopped"), f"{one}/data.csv": _text("1,2,3,4,5,6,7", "a,b,c,d,e,f,g"),
      f"{one}/new.sh": _text("#!/bin/bash", mode=0o755), f"{one}/newer.sh": _text("#!/bin/bash", mode=0o755),
      f"{one}/script1.sh": _text("#!/bin/bash", "date", mode=0o755),
      f"{three}/temp/temp1/text1.txt": File(b"first\r\nsecond\r\nthird\r\n"), f"{three}/temp/empty.txt": File(),
      f"{three}/temp/.DS_Store": File(b"\0\0\0\1"), f"{three}/temp/._report": File(b"\0"),
      f"{three}/temp/.apdisk": File(), f"{three}/special text4.txt": _text("foo with a blank"),
      f"{three}/backup_dbg/text1_dbg.txt": _text("debug"),
      f"{three}/backup_dbg/sql1.sql": _text("SELECT 1;", days=90), f"{three}/backup_dbg/sql2.sql": _text("SELECT 2;"),
      "/system/MANIFEST": _text("text1.txt", "text3.txt"), "/system/.DS_Store": File(),
      "/system/temp/keep.txt": _text("keep", days=95), "/system/html1.html": _text("<p>hello</p>"),
      "/system/folder2.tar.gz": _tar(folder2), **folder2,
  }


def _workspace() -> dict[str, File | None]:
  """/workspace: sizes, permissions, hidden and empty files, archives."""
  one, two = "/workspace/dir1", "/workspace/dir2"
  long = [f"{n}: the number {n} and its square {n * n}" for n in range(1, 61)]
  return {
      f"{two}/mysql": None, "/workspace/dir3/empty_folder": None, "/backup": None, "/root/newlinks": None,
      f"{one}/long.txt": _text(*long), f"{one}/terminate.txt": _text(*long[:50], "the end"),
      f"{one}/a.txt": _text("first", "", "   ", "hello second", "", "last", ""),
      f"{one}/sum.c": _text("int sum(int a, int b) {", "  return a + b;", "}"),
      f"{one}/big.c": _text(*(f"int f{n}(void) {{ return {n}; }}" for n in range(80)), days=10),
      f"{one}/file.txt": _text("/usr/bin/env", "/workspace/dir1/a.txt", "plain"),
      f"{one}/foo": _text("foo of dir1", days=2), f"{two}/foo": _text("foo of dir2", days=50),
      f"{two}/A.TXT": _text("Hello in capitals"), f"{two}/copy.txt": _text("foo of dir1"),
      f"{two}/large.bin": File(bytes(range(256)) * 160, time=_NOW - 400 * _DAY),
      f"{two}/private.txt": _text("for the owner", mode=0o400), f"{two}/open.txt": _text("for all", mode=0o777),
      f"{two}/run.sh": _text("#!/bin/sh", "echo run", mode=0o755), "/workspace/dir3/setup.sh": _text("#!/bin/sh"),
      "/workspace/.hidden": _text("hidden"), "/workspace/.config": _text("colour=red"),
      f"{two}/.cache": _text("old", days=70), "/workspace/empty.txt": File(), "/workspace/readme.md": _text("# hello"),
      "/workspace/files.txt": _text(f"{one}/a.txt", f"{one}/sum.c", f"{two}/foo"),
      "/workspace/results.txt": _text(f"{one}/a.txt", f"{two}/foo"),
      "/workspace/archive.tar.gz": _tar({"/report/one.txt": _text("one"), "/report/two.txt": _text("two")}),
      "/workspace/dir3/notes.gz": _zip("packed", "notes"),
  }


def _zip(*lines: str) -> File:
  return File(gzip.compress(_text(*lines).content, mtime=_NOW))


def _tar(files: dict[str, File | None]) -> File:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as tar:
    for path, file in sorted(files.items()):
      member = tarfile.TarInfo(path.strip("/"))
      member.size, member.mtime = len(file.content), _NOW
      tar.addfile(member, io.BytesIO(file.content))
  return File(gzip.compress(buffer.getvalue(), mtime=_NOW))
