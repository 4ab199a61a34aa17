"""The sandbox against programs that mean harm: each is contained, the host is untouched, the outcome has a type."""

import concurrent.futures
import os
import pathlib
import socket
import subprocess
import sys
import time
import uuid

import pytest

from agentbank_jax.envs import sandbox, sandbox_view
from agentbank_jax.envs.sandbox import Limits, Sandbox, SandboxError
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import published

needs_sandbox = pytest.mark.skipif(bool(sandbox.missing()), reason=f"no sandbox here: {sandbox.missing()}")
SECRET = f"secret-{uuid.uuid4()}"
QUICK = Limits(cpu_seconds=2, wall_seconds=20, memory_mib=256, processes=32, output_bytes=10_000, file_mib=16)


def python(code, limits=QUICK, **kwargs):
  return Sandbox(limits).python(code, **kwargs)


def bash(command, limits=QUICK, **kwargs):
  return Sandbox(limits).run(["bash", "-c", command], **kwargs)


def processes_with(marker):
  """Returns the processes of this machine whose command line or variables have `marker`."""
  found = []
  for path in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      found += [path] if marker.encode() in (path / "cmdline").read_bytes() + (path / "environ").read_bytes() else []
    except OSError:
      pass
  return found


@needs_sandbox
def test_a_program_has_input_files_output_and_a_status():
  code = "import sys; print(input() + open('a/b.txt').read()); print('oh', file=sys.stderr); sys.exit(3)"
  assert python(code, stdin=b"in\n", files={"a/b.txt": b"file"}) == (b"infile\n", b"oh\n", 3, "")
  assert python("print(1)").stdout == b"1\n"
  assert bash("echo $HOME; pwd; kill -SEGV $$") == (b"/tmp\n/tmp\n", b"", 139, "")
  assert python("import sys; sys.stdout.buffer.write(bytes(range(256)))").stdout == bytes(range(256))
  assert python("pass", stdin=b"x" * 1_000_000).returncode == 0  # nobody reads it
  assert python("print(len(input()))", stdin=b"x" * 300_000).stdout == b"300000\n"


@needs_sandbox
def test_nothing_is_kept_between_two_runs():
  assert bash("echo hi > /tmp/x; ls /tmp").stdout == b"x\n"
  assert bash("ls -A /tmp /dev/shm").stdout == b"/dev/shm:\n\n/tmp:\n"


@needs_sandbox
def test_a_program_to_talk_with():
  with sandbox.turn(), Sandbox(QUICK).start([*sandbox.python_command(), "-uc", "while True: print(int(input()) * 2)"]
                                            ) as program:
    for n in (1, 20):
      assert program.write(b"%d\n" % n) and program.read_line() == b"%d" % (2 * n)
    program.write(b"x\n")
    assert program.read_line() is None
    assert program.wait().returncode == 1 and b"ValueError" in program.wait().stderr
    program.close()
    program.close()


@needs_sandbox
def test_its_environment_is_the_same_on_every_machine(monkeypatch):
  monkeypatch.setenv("MY_KEY", SECRET)
  out = bash("env; id; hostname; cat /proc/*/environ; python3 -c 'import sys; print(sys.path)'").stdout.decode()
  assert SECRET not in out and "uid=1000 gid=1000 groups=1000" in out and "\nsandbox\n" in out
  assert not any(name in out for name in ("site-packages", str(pathlib.Path.cwd()), "MY_KEY"))


@needs_sandbox
def test_the_same_program_prints_the_same():
  code = "print({'a', 'b', 'c', 'd', 'e', 'f'}, hash('x'), [*map(str, {str(n) for n in range(20)})])"
  assert len({python(code).stdout for _ in range(4)}) == 1


@needs_sandbox
def test_packages_that_are_named_can_be_imported_and_no_others():
  if not sandbox_view.readable(pathlib.Path(sys.prefix, "lib")):
    pytest.skip(f"a sandbox's user cannot read {sys.prefix}")
  limits = Limits(cpu_seconds=20, wall_seconds=100, memory_mib=1024)
  code = (f"import os, numpy, scipy.linalg\nprint(numpy.linalg.det(numpy.eye(3)), scipy.linalg.norm([3, 4]))\n"
          "print(sorted(os.listdir('/packages')))\n"
          "for name in ('jax', 'agentbank_jax', 'pip', 'yaml'):\n  try: __import__(name); print(name)\n"
          "  except ImportError: pass\n"
          f"print([p for p in ({sys.prefix!r}, {__file__!r}) if os.path.lexists(p)])\n"
          "try: open('/packages/numpy/x', 'w')\nexcept OSError as e: print(e.errno)")
  done = Sandbox(limits, packages=("numpy", "scipy")).python(code)
  assert done.stdout.decode().splitlines() == [
      "1.0 5.0", "['numpy', 'numpy.libs', 'scipy', 'scipy.libs']", "[]", "30"], done  # 30: a read-only file system
  with pytest.raises(UserError, match="no Python package 'no_such_package' for the sandbox"):
    Sandbox(packages=("no_such_package",)).python("")


@needs_sandbox
def test_no_file_of_the_host_is_there(tmp_path):
  (tmp_path / "gold").write_text(SECRET)
  paths = [tmp_path / "gold", __file__, sandbox.__file__, sys.prefix, "/etc/passwd", "/etc/shadow", "/root",
           "/home", "/var", "/run", "/sys", "/etc/hostname", "/boot", "/usr/src/x", "/opt", "/mnt", "/srv"]
  paths = [path for path in map(str, paths) if path != "/usr"]
  code = (f"import os\nfor root in ('', '/proc/1/root', '/proc/self/root', '/proc/1/cwd/..', '/tmp/../../..'):\n"
          f"  for path in {paths!r}:\n"
          "    if os.path.lexists(root + path): print(root + path)\n"
          "print(sorted(os.listdir('/')), os.listdir('/etc'), os.listdir('/usr/local'))")
  out = python(code).stdout.decode()
  assert out.startswith("[") and "'etc'" in out and "'root'" not in out, out
  assert set(eval(out.partition("] ")[2].partition("] ")[0] + "]")) <= {"alternatives", "ld.so.cache"}


@needs_sandbox
def test_data_and_project_are_hidden_even_in_a_folder_that_is_shown(monkeypatch):
  monkeypatch.setenv(published.VARIABLE, "/usr/share")  # in /usr, which is shown
  monkeypatch.setattr(sandbox_view, "__file__", "/usr/lib/python3/agentbank_jax/envs/x.py")
  assert bash("ls /usr/share /usr/lib/python3; touch /usr/share/x").stdout.split() == [b"/usr/lib/python3:",
                                                                                      b"/usr/share:"]


@needs_sandbox
def test_it_can_write_to_its_tmp_and_nowhere_else():
  code = """
import os
mounts = [line.split()[4] for line in open('/proc/self/mountinfo')]
folders = {d for m in mounts if os.path.isdir(m) for d in [m, *[os.path.join(m, x) for x in os.listdir(m)]]}
for folder in sorted(folders | {'/', '/etc', '/usr/bin', '/dev', '/proc/sys/kernel', '/proc/self'}):
  try: open(os.path.join(folder, 'x'), 'w').close(); print(folder)
  except OSError: pass
for path in ('/proc/sys/kernel/hostname', '/proc/sysrq-trigger', '/proc/1/oom_score_adj',
             '/proc/sys/user/max_user_namespaces', '/proc/1/mem', '/proc/kcore', '/dev/mem', '/usr/bin/bash',
             '/proc/self/exe'):
  try: open(path, 'r+b').close(); print(path)
  except OSError: pass
"""
  before = pathlib.Path("/usr/bin/bash").stat()
  assert python(code).stdout.split() == [b"/dev/shm", b"/tmp"]
  assert pathlib.Path("/usr/bin/bash").stat() == before


@needs_sandbox
def test_there_is_no_network():
  with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
    abstract.bind(f"\0{SECRET}")
    abstract.listen()
    port = server.getsockname()[1]
    code = f"""
import socket
def attempt(name, *args):
  try:
    s = socket.socket(*args[:-1]); s.settimeout(2); s.connect(args[-1]); print('connected', name)
  except OSError as e: print(name, e.errno)
attempt('host', socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', {port}))
attempt('away', socket.AF_INET, socket.SOCK_STREAM, ('1.1.1.1', 53))
attempt('abstract', socket.AF_UNIX, socket.SOCK_STREAM, '\\0{SECRET}')
attempt('vsock', 40, socket.SOCK_STREAM, (2, 1024))
attempt('netlink', socket.AF_NETLINK, socket.SOCK_RAW, (0, 0))
attempt('packet', 17, socket.SOCK_RAW, ('lo', 0))
attempt('alg', 38, socket.SOCK_SEQPACKET, ('hash', 'sha256'))
print(socket.if_nameindex() if False else open('/proc/net/dev').read().count(':'))
"""
    out = python(code).stdout.decode().split("\n")
  assert out[:3] == ["host 111", "away 101", "abstract 111"]  # refused, unreachable, refused
  assert out[3:8] == [f"{name} 97" for name in ("vsock", "netlink", "packet", "alg")] + ["1"]  # no such family


@needs_sandbox
def test_it_has_no_rights_and_gets_none():
  status = bash("grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status").stdout.decode()
  values = dict(line.split(":\t") for line in status.splitlines())
  assert {values[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
  assert values["NoNewPrivs"] == "1" and values["Seccomp"] == "2"
  for command in ("unshare -U true", "unshare -r true", "mount -t tmpfs x /tmp", "chroot / true", "su -c true",
                  "mknod /tmp/x b 8 0", "chown 0 /tmp", "nsenter -t 1 -m true", "umount /usr", "renice -5 $$",
                  "ulimit -u 9999", "ulimit -v unlimited", "hostname evil", "date -s 2001-01-01"):
    finished = bash(command)
    assert finished.returncode not in (0, None) and finished.stderr, command
  code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
# clone(CLONE_NEWUSER), memfd_create, shmget, keyctl, io_uring_setup, bpf, ptrace(PTRACE_TRACEME), msgget
for number, args in ((56, (0x10000011, 0, 0, 0, 0)), (319, (b'x', 0)), (29, (0, 1 << 20, 0o1666)), (250, (0, 0, 0)),
                     (425, (8, 0)), (321, (0, 0, 0)), (101, (0, 0, 0, 0)), (68, (0, 0o1666))):
  print(libc.syscall(number, *args), ctypes.get_errno())
"""
  if os.uname().machine == "x86_64":
    assert python(code).stdout.split(b"\n")[:-1] == [b"-1 %d" % e for e in (1, 38, 38, 1, 38, 1, 1, 38)]


@needs_sandbox
def test_root_in_the_sandbox_has_no_rights_either():
  command = ("id -u; grep CapEff /proc/self/status; mount -t tmpfs x /tmp; chown 1 /tmp; cat /etc/shadow; "
             "touch /usr/x || exit 7")
  finished = Sandbox(QUICK, root=True).run(["bash", "-c", command])
  assert finished.stdout == b"0\nCapEff:\t0000000000000000\n" and finished.returncode == 7


HANGS = {
    "loop": ("python", "while True: pass"),
    "loop that ignores signals": ("python", "import signal\nfor s in range(1, 65):\n"
                                  "  try: signal.signal(s, signal.SIG_IGN)\n  except OSError: pass\nwhile True: pass"),
    "sleep": ("bash", "sleep 1000"),
    "sleep in the background": ("bash", "trap '' TERM INT HUP; sleep 1000 & wait"),
    "waits for input that never comes": ("bash", "mkfifo /tmp/f; cat /tmp/f"),
    "stops itself": ("bash", "kill -STOP $$"),
    "stops everybody": ("bash", "kill -STOP -1; sleep 1000"),
    "loops in the regular expression engine": ("python", "import re; re.match('(a+)+$', 'a' * 60 + 'b')"),
    "loops in one long step": ("python", "10 ** (10 ** 9)"),
}


@needs_sandbox
@pytest.mark.parametrize("name", HANGS)
def test_what_would_run_on_is_stopped(name):
  language, code = HANGS[name]
  limits = Limits(cpu_seconds=1, wall_seconds=3, memory_mib=512)
  finished = {"python": python, "bash": bash}[language](code, limits)
  assert finished.stopped == "time" and finished.returncode is None


@needs_sandbox
def test_a_fork_bomb_dies_with_its_sandbox():
  marker = f"bomb{uuid.uuid4().hex}"
  limits = Limits(cpu_seconds=2, wall_seconds=3, processes=32)
  for run, code in ((bash, f"{marker}() {{ {marker} | {marker} & }}; {marker}; sleep 100"),
                    (python, f"import os\n'{marker}'\nwhile True:\n  try: os.fork()\n  except OSError: pass")):
    assert run(code, limits).stopped == "time"
    assert not processes_with(marker)
  assert python("print(1)").stdout == b"1\n"


@needs_sandbox
def test_processes_are_counted():
  code = ("import os, time\nn = 0\ntry:\n  while True:\n    if not os.fork(): time.sleep(100)\n    n += 1\n"
          "except BlockingIOError: print(n, flush=True); os._exit(0)")
  assert 16 <= int(python(code, Limits(processes=32)).stdout) < 32


@needs_sandbox
def test_what_goes_into_the_background_does_not_outlive_its_program():
  marker = f"daemon{uuid.uuid4().hex}"
  assert bash(f"nohup setsid bash -c 'exec -a {marker} sleep 1000' >/dev/null 2>&1 & disown; sleep 0.2") == (
      b"", b"", 0, "")
  code = f"import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    '{marker}'; time.sleep(1000)"
  assert python(code).returncode == 0  # although the daemon holds its standard output
  assert not processes_with(marker)


@needs_sandbox
def test_it_can_kill_nobody_but_its_own():
  me = os.getpid()
  finished = bash(f"kill -9 1; kill -9 {me}; kill -9 {os.getppid()}; kill -9 $PPID; echo alive; kill -9 -1; echo never")
  assert finished.stdout in (b"alive\n", b"alive\nnever\n") and not finished.stopped
  assert python("import os, signal\nos.kill(os.getppid(), 9)\nos.kill(1, 9)\nprint('alive')").stdout == b"alive\n"


MEMORY = {
    "ten gigabytes at once": "x = bytearray(10 << 30)",
    "little by little": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "in many processes": ("import os, time\nfor _ in range(30):\n  if not os.fork():\n"
                          "    x = bytearray(os.urandom(1 << 20)) * 30\n    time.sleep(99)\ntime.sleep(99)"),
    "in files of /tmp": "for i in range(99): open(f'/tmp/{i}', 'wb').write(bytes(15 << 20))",
    "in files of /dev/shm": "for i in range(99): open(f'/dev/shm/{i}', 'wb').write(bytes(15 << 20))",
    "in one file": "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "in empty files": "import os\nfor i in range(10**9): os.symlink('x', str(i))",
    "as shared memory": ("import mmap\nx = []\nwhile True:\n  x.append(mmap.mmap(-1, 1 << 20))\n"
                         "  x[-1].write(b'x' * (1 << 20))"),
    "as a string": "x = 'x' * (10 ** 11)",
    "as a number": "x = 1 << (1 << 40)",
    "as threads": ("import threading, time\nwhile True:\n"
                   "  threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"),
    "in pipes": "import os\nx = []\nwhile True: x.append(os.pipe())",
}


@needs_sandbox
@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_limited(name):
  finished = python(MEMORY[name], Limits(cpu_seconds=60, wall_seconds=200, memory_mib=64, file_mib=16))
  assert finished.stopped == "memory" or not finished.stopped and finished.returncode != 0, finished


@needs_sandbox
def test_a_user_without_rights_has_the_same_sandbox():
  """What the others test as root, in short; there the pipes to us are the program's own user's, too."""
  if os.geteuid() != 0:
    pytest.skip("all tests here run as a user without rights")
  root = pathlib.Path(sandbox.__file__).parents[2]
  if not (sandbox_view.readable(root) and sandbox_view.readable(pathlib.Path(sys.prefix, "bin"))):
    pytest.skip(f"another user cannot read {root} or {sys.prefix}")
  code = f"""
from agentbank_jax.envs.sandbox import Limits, Sandbox
sandbox = Sandbox(Limits(cpu_seconds=2, wall_seconds=5, memory_mib=256, processes=32, file_mib=16))
python = lambda code: print(*sandbox.python(code)[::3])
python("import os; print(os.getuid(), os.path.exists({__file__!r}), 'MY_KEY' in os.environ)")
python("import os\\nwhile True:\\n  try: os.fork()\\n  except OSError: pass")
python({MEMORY["in many processes"]!r})
python("import os, signal\\nfor p in (1, {os.getpid()}, os.getppid()):\\n"
       "  try: os.kill(p, 9)\\n  except OSError: pass\\nprint('alive')")
python("import os, socket\\nfor path in ('/usr/x', '/proc/1/mem', '/proc/1/oom_score_adj'):\\n"
       "  try: open(path, 'w'); print(path)\\n  except OSError: pass\\n"
       "print(socket.socket().connect_ex(('1.1.1.1', 53)))")
"""
  done = subprocess.run(
      ["setpriv", "--reuid=60705", "--regid=60705", "--clear-groups", "--", sys.executable, "-c", code], cwd=root,
      env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root), "MY_KEY": SECRET}, capture_output=True, text=True)
  assert done.stdout.splitlines() == [
      "b'1000 False False\\n' ", "b'' time", "b'' memory", "b'alive\\n' ", "b'101\\n' "], done


@needs_sandbox
@pytest.mark.parametrize("code", [
    "while True: print('x' * 1000)", "import os\nwhile True: os.write(2, b'x' * 99999)",
    "import os\nfor _ in range(9): os.fork()\nwhile True: os.write(1, b'x')",
    "import sys\nsys.stdout.write('x' * 10**7)"], ids=range(4))
def test_output_is_limited(code):
  finished = python(code, Limits(cpu_seconds=20, wall_seconds=100, output_bytes=10_000))
  assert finished.stopped == "output" and len(finished.stdout) + len(finished.stderr) == 10_000
  with sandbox.turn(), Sandbox(QUICK).start(["yes"]) as program:
    while program.read_line() is not None:
      pass
    assert program.wait().stopped == "output"
  with sandbox.turn(), Sandbox(QUICK).start(["bash", "-c", "yes | tr -d '\\n'"]) as program:
    assert program.read_line() is None and program.wait().stopped == "output"


@needs_sandbox
def test_links_lead_nowhere(tmp_path):
  (tmp_path / "gold").write_text(SECRET)
  command = (f"ln -s {tmp_path}/gold a; ln -s / b; ln -s /proc/1/root{tmp_path}/gold c; cat a b{tmp_path}/gold c; "
             f"echo overwritten > a; ln {tmp_path}/gold d; ls")
  finished = bash(command)
  assert SECRET.encode() not in finished.stdout + finished.stderr and finished.stdout.split() == [b"a", b"b", b"c"]
  assert (tmp_path / "gold").read_text() == SECRET and sorted(os.listdir(tmp_path)) == ["gold"]


@needs_sandbox
def test_no_file_of_ours_is_open_in_it():
  with open(__file__):
    assert bash("ls /proc/self/fd | wc -w; ls -l /proc/1/fd /proc/self/fd | grep -c agentbank").stdout == b"4\n0\n"


@needs_sandbox
def test_a_program_that_cannot_start_is_an_error_of_the_program():
  assert Sandbox(QUICK).run(["no-such-program"]).returncode == 127
  assert python("(").returncode == 1


@needs_sandbox
def test_everything_is_released_when_the_caller_gives_up():
  marker = f"left{uuid.uuid4().hex}"
  opened = set(os.listdir("/proc/self/fd"))
  with pytest.raises(KeyboardInterrupt), sandbox.turn(), Sandbox(QUICK).start(
      ["bash", "-c", f"exec -a {marker} sleep 1000"]):
    time.sleep(0.1)
    raise KeyboardInterrupt
  assert not processes_with(marker) and set(os.listdir("/proc/self/fd")) == opened


@needs_sandbox
def test_a_sandbox_that_is_given_up_while_it_is_made_leaves_nothing():
  """Ended after no time to twelve milliseconds: before bubblewrap has made its child, and told of it, and after."""
  marker = f"early{uuid.uuid4().hex}"
  for n in range(40):
    program = Sandbox(QUICK).start(["bash", "-c", f"exec -a {marker} sleep 1000"])
    time.sleep(n * 0.0003)
    program.close()
  assert not processes_with(marker)


@needs_sandbox
def test_it_dies_with_us():
  marker = f"orphan{uuid.uuid4().hex}"
  code = ("import sys; from agentbank_jax.envs.sandbox import Sandbox; "
          f"Sandbox().run(['bash', '-c', 'echo {marker}; exec -a {marker} sleep 1000'])")
  process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
  wait_for(lambda: any((path / "cmdline").read_bytes().startswith(marker.encode()) for path in processes_with(marker)))
  process.kill()
  process.wait()
  wait_for(lambda: not processes_with(marker))
  assert not processes_with(marker)


def wait_for(condition, seconds=30.0):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)


@needs_sandbox
@pytest.mark.parametrize("count", [12, pytest.param(64, marks=pytest.mark.slow)])
def test_many_at_once_do_not_disturb_each_other(count):
  """A third of them attack; the others must come to their results."""
  attacks = ["import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
             "x = []\nwhile True: x.append(bytearray(1 << 20))", "while True: print('x' * 1000)",
             "import os\nos.kill(-1, 9)"]
  work = "import os, time\nopen('x', 'a').write('{0}')\ntime.sleep(0.1)\nassert os.fork() >= 0\nprint(open('x').read())"

  def one(n):
    if n % 3 == 0:
      return python(attacks[n // 3 % 4], Limits(cpu_seconds=1, wall_seconds=4, memory_mib=128, processes=16))
    return python(work.format(n), Limits(cpu_seconds=5, processes=16, memory_mib=128))

  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    results = list(pool.map(one, range(count)))
  for n, finished in enumerate(results):
    if n % 3:
      assert finished.stdout.split()[0] == str(n).encode() and finished.returncode == 0, finished
    else:
      assert finished.stopped or finished.returncode != 0


def test_a_machine_without_a_sandbox_refuses(monkeypatch):
  for path, message in (("/nowhere", "no 'bwrap'; install it"), ):
    sandbox.missing.cache_clear()
    monkeypatch.setenv("PATH", path)
    with pytest.raises(UserError, match=f"programs cannot be run safely here: {message}"):
      Sandbox().run(["true"])
  sandbox.missing.cache_clear()


@needs_sandbox
def test_a_sandbox_that_does_not_work_is_not_used(monkeypatch):
  sandbox.require()
  monkeypatch.setattr(sandbox_view, "system", lambda size, packages: ["--ro-bind", "/nonexistent", "/usr"])
  with pytest.raises(SandboxError, match="did not start its program: bwrap: .*nonexistent"):
    python("print(1)")
  sandbox.missing.cache_clear()
  with pytest.raises(UserError, match="bubblewrap does not work"):
    python("print(1)")
  sandbox.missing.cache_clear()


def test_limits_are_positive():
  with pytest.raises(ValueError, match="processes is 0"):
    Limits(processes=0)
