"""A Java machine that the environments of a process share: it starts with the first of them and ends with the last."""

from collections.abc import Callable, Sequence
import subprocess
import threading
from typing import Any

from agentbank_jax.errors import UserError

_INSTALL = "apt-get install default-jre-headless"
PROGRAMS = {"java": _INSTALL}  # as a task names them
_END_SECONDS = 5  # for the machine to end by itself


class JavaMachine:
  """Starts Java when somebody enters, and ends it when the last has left."""

  def __init__(self, name: str, find_jar: Callable[[], tuple[str, str]], options: Sequence[str]):
    """Starts nothing yet.

    Args:
      name: of whose simulator it runs, for messages: that of the task.
      find_jar: returns the jar and the folder in which Java starts. Raises ImportError where the package is absent.
      options: of the Java machine.
    """
    self._name, self._find_jar, self._options = name, find_jar, options
    self._lock = threading.Lock()
    self._users = 0
    self._gateway: Any = None

  def enter(self) -> Any:
    """Returns py4j's view of the machine's classes for one user, who calls `leave` at the end.

    Raises:
      UserError: the package or Java is not installed.
    """
    try:
      from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
      jar, folder = self._find_jar()
    except ImportError as e:
      raise UserError(f"{self._name}: {e}; pip install 'agentbank-jax[envs]'") from None
    with self._lock:
      if self._gateway is None:
        try:
          port, process = launch_gateway(classpath=jar, cwd=folder, javaopts=list(self._options), die_on_exit=True,
                                         return_proc=True)
        except FileNotFoundError:
          raise UserError(f"{self._name}: no java; {_INSTALL}") from None
        self._gateway = JavaGateway(gateway_parameters=GatewayParameters(auto_field=True, port=port),
                                    java_process=process)
      self._users += 1
      return self._gateway.jvm

  def leave(self) -> None:
    """The machine ends where this was its last user."""
    with self._lock:
      self._users -= 1
      if self._users:
        return
      gateway, self._gateway = self._gateway, None
    gateway.shutdown()
    process = gateway.java_process
    process.stdin.close()  # which it waits for (`die_on_exit`)
    try:
      process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()


def sendable(text: str) -> str:
  """Returns `text` as Java can hold it: half a surrogate pair cannot be sent."""
  return text.encode(errors="replace").decode()
