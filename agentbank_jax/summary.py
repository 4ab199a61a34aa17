"""`summary.json`: what a verb did, with what, on what."""

from collections.abc import Mapping
import dataclasses
import importlib.metadata
import json
import math
import pathlib
import platform
import subprocess
from typing import Any

from agentbank_jax.files import atomic_path
from agentbank_jax.paths import AnyPath

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "transformers",
            "tokenizers", "numpy")


def write_summary(workdir: AnyPath, verb: str, config, result: Mapping[str, Any], seconds: float) -> AnyPath:
  """Writes `workdir/summary.json`: the verb's own result first, then config, seed, versions, revision, wall time.

  The file appears whole or not at all.
  """
  config = config.to_dict()
  summary = {
      "verb": verb,
      **result,
      "config": config,
      "seed": config.get("seed"),  # a verb without randomness has none
      "versions": versions(),
      "git_revision": git_revision(),
      "wall_seconds": round(seconds, 3),
  }
  path = workdir / "summary.json"
  with atomic_path(path) as temporary:
    temporary.write_text(json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")
  return path


def versions() -> dict[str, str]:
  """Returns the versions of Python, this package and the packages whose versions can change a result."""
  from agentbank_jax import __version__
  found = {"python": platform.python_version(), "agentbank-jax": __version__}
  for name in PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "absent"
  return found


def git_revision() -> str | None:
  """Returns the revision of the checkout this package lies in, "+changes" where files differ, or None outside one."""
  folder = pathlib.Path(__file__).parent
  git = lambda *args: subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=20)
  try:
    revision, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
  except (OSError, subprocess.TimeoutExpired):
    return None
  if revision.returncode:
    return None
  return revision.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _plain(value: Any) -> Any:
  """Turns a value into what JSON holds; numbers that are not finite become text, so that no reader stumbles."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return _plain(dataclasses.asdict(value))
  if isinstance(value, Mapping):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(v) for v in value]
  if value is None or isinstance(value, bool | int | str):
    return str(value) if isinstance(value, str) else value
  if hasattr(value, "item"):
    return _plain(value.item())
  if isinstance(value, float):
    return value if math.isfinite(value) else str(value)
  return str(value)
