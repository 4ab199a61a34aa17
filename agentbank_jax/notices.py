"""Notices that this machine is about to go, from the metadata server of Google's cloud.

What is asked for, and which answer means that the machine goes (a `MIGRATE_ON_HOST_MAINTENANCE` moves it while it runs,
and is none):
  maintenance-event     https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
  upcoming-maintenance  https://cloud.google.com/tpu/docs/view-maintenance-notifications
  preempted             https://cloud.google.com/compute/docs/instances/create-use-spot
"""

from collections.abc import Callable
import os
import re
import threading
import urllib.request

from absl import logging

from agentbank_jax.errors import UserError

CHOICES = ("auto", "off")

_GONE = {"maintenance-event": "TERMINATE", "upcoming-maintenance?alt=json": "ONGOING", "preempted": "TRUE"}
_TIMEOUT_SECONDS = 3.0
_EVERY_SECONDS = 5.0  # a notice comes 30 to 60 seconds before the end, if not earlier


def _ask(key: str) -> str | None:
  """Returns the server's answer, or None where there is no server or no such key."""
  host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")  # the variable of Google's own libraries
  request = urllib.request.Request(f"http://{host}/computeMetadata/v1/instance/{key}",
                                   headers={"Metadata-Flavor": "Google"})
  opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine's own network
  try:
    with opener.open(request, timeout=_TIMEOUT_SECONDS) as reply:
      return reply.read().decode(errors="replace")
  except (OSError, ValueError):  # URLError and HTTPError are OSErrors
    return None


def find() -> str | None:
  """Returns what the metadata server says of this machine's end, such as "preempted: TRUE", or None."""
  for key, gone in _GONE.items():
    if re.search(gone, answer := _ask(key) or ""):
      return f"{key.partition('?')[0]}: {' '.join(answer.split())}"
  return None


class Watch:
  """Asks every few seconds in a thread, where there is a metadata server. Use as a context manager."""

  def __init__(self, choice: str, tell: Callable[[], None]):
    """Args:
      choice: "auto" or "off".
      tell: called once, in the thread, when the machine is about to go.
    """
    self._tell, self._done = tell, threading.Event()
    self._thread = threading.Thread(target=self._watch, name="notices", daemon=True) if choice == "auto" else None

  def __enter__(self):
    if self._thread:
      self._thread.start()
    return self

  def __exit__(self, *_):
    self._done.set()

  def _watch(self) -> None:
    if _ask("id") is None:
      return  # not a machine of this cloud
    while not self._done.is_set():
      if notice := find():
        logging.warning("this machine is about to go (%s): saving and stopping", notice)
        self._tell()
        return
      self._done.wait(_EVERY_SECONDS)


def check(choice: str) -> None:
  """Raises UserError for what is no choice."""
  if choice not in CHOICES:
    raise UserError(f"train.maintenance is {choice!r}; choose one of {', '.join(CHOICES)}")
