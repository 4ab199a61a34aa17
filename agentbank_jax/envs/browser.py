"""A real browser: headless Chromium, driven through ChromeDriver by selenium.

A browser reaches the hosts it is given and nothing else. It has a fresh profile in a temporary folder. `close` ends
all its processes, as a group, and removes the profile; a process that is killed takes its browsers with it, and their
profiles are removed by the next one.
"""

from collections.abc import Iterable
import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from typing import Any

from agentbank_jax.envs.process_guard import kill_session
from agentbank_jax.errors import UserError

# Debian's /usr/bin/chromium is a script that adds keys and flags of its own; the program itself comes first.
_CHROMIUM = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_INSTALL = "apt-get install --no-install-recommends chromium chromium-driver"
PROGRAMS = {"|".join(_CHROMIUM): _INSTALL, "chromedriver": _INSTALL}  # as a task names them
_PROFILE = "agentbank-browser-"
_FLAGS = (
    "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
    "--disable-extensions", "--disable-sync", "--disable-background-networking", "--disable-component-update",
    "--disable-default-apps", "--metrics-recording-only", "--mute-audio", "--password-store=basic",
    "--force-device-scale-factor=1", "--disable-smooth-scrolling",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--remote-debugging-pipe",  # Chromium ends when ChromeDriver, at the pipe's other end, does
)


def browser_errors() -> tuple[type[Exception], ...]:
  """Returns what a browser that died, or that will not do something, raises."""
  from selenium.common.exceptions import WebDriverException
  from urllib3.exceptions import HTTPError
  return WebDriverException, HTTPError


def first_line(error: Exception) -> str:
  """Returns what such an error says, without the browser's stack."""
  lines = str(error).removeprefix("Message: ").splitlines()
  return lines[0] if lines and lines[0] else type(error).__name__


class Browser:
  """One Chromium with its ChromeDriver.

  Attributes:
    driver: selenium's.
  """

  def __init__(self, hosts: Iterable[str] = (), *, width: int = 1280, height: int = 720, seconds: float = 30.0):
    """Starts a browser.

    The thread that makes it must live as long as the browser: Linux ends what a thread started with the thread.

    Args:
      hosts: names that the browser may look up and reach; files are always within reach.
      width, height: of a page, in pixels.
      seconds: that loading a page or running a script may take.

    Raises:
      UserError: selenium, Chromium or ChromeDriver is not installed.
    """
    chromium, chromedriver = find_programs()
    try:
      from selenium import webdriver
    except ImportError:
      raise UserError("a browser needs selenium; pip install 'agentbank-jax[envs]'") from None

    _remove_left_profiles()
    self._profile = tempfile.mkdtemp(prefix=f"{_PROFILE}{os.getpid()}-")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.unhandled_prompt_behavior = "dismiss"
    excluded = "".join(f" , EXCLUDE {host}" for host in hosts)
    for flag in (*_FLAGS, f"--user-data-dir={self._profile}", f"--window-size={width},{height}",
                 f"--host-resolver-rules=MAP * ~NOTFOUND{excluded}"):
      options.add_argument(flag)
    if os.geteuid() == 0:
      options.add_argument("--no-sandbox")  # Chromium's own sandbox refuses to run as root
    service = _make_service(chromedriver)
    try:
      self.driver = webdriver.Chrome(options=options, service=service)
      self.driver.set_page_load_timeout(seconds)
      self.driver.set_script_timeout(seconds)
      self._session: int | None = service.process.pid
      self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
      self.cdp("Browser.setDownloadBehavior", behavior="deny")
    except BaseException:
      self._session = service.process.pid if service.process else None
      self.close()
      raise

  def cdp(self, method: str, **params: Any) -> dict[str, Any]:
    """Calls a method of the Chrome DevTools Protocol."""
    return self.driver.execute_cdp_cmd(method, params)

  def close(self) -> None:
    """Ends the browser and all its processes, and removes its profile. May be called twice."""
    if hasattr(self, "driver"):
      with contextlib.suppress(Exception):  # a browser that hangs or is gone does not answer; it is killed below
        self.driver.quit()
    if self._session is not None:
      kill_session(self._session)
      self._session = None
    shutil.rmtree(self._profile, ignore_errors=True)


def _make_service(chromedriver: str) -> Any:
  """Returns selenium's service for a ChromeDriver that has a session of its own and ends with this thread."""
  from selenium import webdriver

  setpriv = shutil.which("setpriv")  # of util-linux; without it a killed process leaves its browsers running
  before = ["--pdeathsig", "KILL", "--", chromedriver] if setpriv else []

  class Service(webdriver.ChromeService):

    def command_line_args(self) -> list[str]:
      return [*before, *super().command_line_args()]

  return Service(executable_path=setpriv or chromedriver, popen_kw={"start_new_session": True},
                 env=os.environ | {"SE_OFFLINE": "true", "SE_AVOID_STATS": "true"})


def find_programs() -> tuple[str, str]:
  """Returns the paths of Chromium and ChromeDriver.

  Raises:
    UserError: one is not installed.
  """
  chromium = next((path for name in _CHROMIUM if (path := shutil.which(name))), None)
  chromedriver = shutil.which("chromedriver")
  if not chromium or not chromedriver:
    missing = " and ".join(name for name, path in (("Chromium", chromium), ("ChromeDriver", chromedriver)) if not path)
    raise UserError(f"no {missing} on this machine; {_INSTALL}")
  return chromium, chromedriver


def _remove_left_profiles() -> None:
  """Removes the profiles of processes that are no more."""
  for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{_PROFILE}*"):
    owner = re.match(rf"{_PROFILE}(\d+)-", folder.name)
    if owner and not pathlib.Path("/proc", owner[1]).exists():
      shutil.rmtree(folder, ignore_errors=True)
