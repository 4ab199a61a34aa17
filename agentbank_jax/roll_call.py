"""Who is there? Every process reports in to process 0 before jax starts, and who is missing is told by name.

jax.distributed.initialize waits for all processes in one call; where one does not come, it aborts every process
without a word about which (jaxlib 0.10). So process 0 listens on the coordinator's own port first, which jax takes
over when all have come. One line of JSON each way: a report, and "go" or the reason why not.
"""

from collections.abc import Mapping
import errno
import json
import os
import socket
import time
from typing import Any, NamedTuple

from absl import logging

from agentbank_jax.errors import ProcessesMissing, UserError

_LINE_SECONDS = 5.0  # for a report to come through once its sender is connected
_TICK_SECONDS = 0.5  # between two looks at who has left again, and between two attempts to connect
_LONGEST_LINE = 1 << 16


class Report(NamedTuple):
  """What a process says of itself.

  Attributes:
    process_id: its number.
    host: the machine's name.
    run: what must be the same in every process (versions, the config's digest), by name.
  """

  process_id: int
  host: str
  run: Mapping[str, Any]


def hold(port: int, num_processes: int, own: Report, seconds: float) -> dict[int, str]:
  """Process 0's part: waits until all have reported in. Returns the host of each process.

  Raises:
    ProcessesMissing: some did not come in `seconds`; the message says which, and they all get it too.
    UserError: the port is taken, two processes have one number, or one runs something else.
  """
  deadline = time.monotonic() + seconds
  callers: dict[int, tuple[socket.socket, Report]] = {}
  try:
    with _listen(port, own) as server:
      while len(callers) < num_processes - 1 and (left := deadline - time.monotonic()) > 0:
        for number in [n for n, (connection, _) in callers.items() if _is_closed(connection)]:
          connection, report = callers.pop(number)
          logging.warning("process %d on %s reported in and left again", number, report.host)
          connection.close()
        server.settimeout(min(_TICK_SECONDS, left))
        try:
          connection, address = server.accept()
        except TimeoutError:
          continue
        report = _read_report(connection, address)
        if report is None:
          continue
        if problem := _problem(report, own, num_processes, callers):
          connection.close()
          raise UserError(problem)
        callers[report.process_id] = connection, report
    hosts = {0: own.host} | {number: report.host for number, (_, report) in callers.items()}
    if len(hosts) < num_processes:
      raise ProcessesMissing(_missing(hosts, num_processes, seconds))
  except (UserError, ProcessesMissing) as e:
    for connection, _ in callers.values():
      _write(connection, {"error": str(e), "missing": isinstance(e, ProcessesMissing)})
    raise
  else:
    for connection, _ in callers.values():
      _write(connection, {"go": True})
    return hosts
  finally:
    for connection, _ in callers.values():
      connection.close()


def answer(address: str, own: Report, seconds: float) -> None:
  """Every other process's part: reports in at `address` ("host:port") and waits for the word to go.

  Raises:
    ProcessesMissing: process 0 is not there, or says who is not.
    UserError: process 0 says what is wrong.
  """
  import tenacity
  who = f"process {own.process_id} on {own.host}"
  host, _, port = address.rpartition(":")
  deadline = time.monotonic() + seconds
  connect = tenacity.Retrying(retry=tenacity.retry_if_exception_type(OSError), wait=tenacity.wait_fixed(_TICK_SECONDS),
                              stop=tenacity.stop_after_delay(seconds), reraise=True)
  try:
    connection = connect(socket.create_connection, (host.strip("[]"), int(port)), timeout=min(seconds, _LINE_SECONDS))
  except OSError as e:
    raise ProcessesMissing(f"{who} cannot reach the coordinator at {address} within {seconds:g} s ({e}): is process 0 "
                           "started, is the address right, and may this host connect to that port?") from e
  with connection:
    _write(connection, own._asdict())
    # Process 0 gives up `seconds` after it has begun, which may be later than we have.
    connection.settimeout(max(deadline - time.monotonic(), 0) + seconds)
    try:
      reply = json.loads(_read_line(connection) or "{}")
    except (OSError, ValueError) as e:
      raise ProcessesMissing(f"{who} reported in at {address} and got no answer ({e})") from e
  if reply.get("go"):
    return
  if "error" not in reply:
    raise ProcessesMissing(f"{who} reported in at {address} and process 0 left without an answer: see its log")
  raise (ProcessesMissing if reply["missing"] else UserError)(reply["error"])


def _listen(port: int, own: Report) -> socket.socket:
  """Listens on all of the host's addresses, IPv6's among them where it has such."""
  taken = lambda e: UserError(f"process 0 on {own.host} cannot listen on port {port} ({os.strerror(e.errno)}): is "
                              "another run there? Else choose another coordinator address")
  if socket.has_dualstack_ipv6():
    try:
      return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    except OSError as e:
      if e.errno in (errno.EADDRINUSE, errno.EACCES):
        raise taken(e) from e  # else: a container whose kernel knows IPv6 and whose network does not
  try:
    return socket.create_server(("", port), backlog=1024)
  except OSError as e:
    raise taken(e) from e


def _read_report(connection: socket.socket, address) -> Report | None:
  """Returns None, with a warning, for a caller that is none of ours, such as a port scanner."""
  connection.settimeout(_LINE_SECONDS)
  try:
    fields = json.loads(_read_line(connection))
    return Report(int(fields["process_id"]), str(fields["host"]), dict(fields["run"]))
  except (OSError, ValueError, KeyError, TypeError) as e:
    logging.warning("a caller from %s said nothing of use (%s: %s)", address[0], type(e).__name__, e)
    connection.close()
    return None


def _problem(report: Report, own: Report, num_processes: int, callers) -> str | None:
  who = f"process {report.process_id} on {report.host}"
  if not 0 < report.process_id < num_processes:
    return f"{who} reported in, but the processes are 0 to {num_processes - 1}, and 0 is on {own.host}"
  if report.process_id in callers:
    return f"two processes have number {report.process_id}: on {callers[report.process_id][1].host} and {report.host}"
  for name, value in own.run.items():
    if report.run.get(name) != value:
      return f"{who} has {name} {report.run.get(name)}, process 0 on {own.host} has {value}; start all alike"
  return None


def _missing(hosts: Mapping[int, str], num_processes: int, seconds: float) -> str:
  absent = [str(n) for n in range(num_processes) if n not in hosts]
  present = ", ".join(f"{n} on {hosts[n]}" for n in sorted(hosts))
  return (f"{len(absent)} of {num_processes} processes did not report in within {seconds:g} s: {', '.join(absent)}. "
          f"Here are: {present}. Look at the logs of the missing ones")


def _is_closed(connection: socket.socket) -> bool:
  """Whether the other side has hung up; it has nothing to say before we answer."""
  connection.setblocking(False)
  try:
    return connection.recv(1, socket.MSG_PEEK) == b""
  except BlockingIOError:
    return False
  except OSError:
    return True


def _read_line(connection: socket.socket) -> str:
  with connection.makefile("r", encoding="utf-8") as file:
    return file.readline(_LONGEST_LINE)


def _write(connection: socket.socket, message: Mapping[str, Any]) -> None:
  connection.settimeout(_LINE_SECONDS)
  try:
    connection.sendall(json.dumps(message).encode() + b"\n")
  except OSError as e:  # it left; whoever waits for it will say so
    logging.warning("a process left before it was answered (%s)", e)
