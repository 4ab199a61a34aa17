"""What must be settled before jax and tqdm are imported: the platform, the heap, how often progress is logged."""

import ctypes
import importlib.util
import os
import pathlib
import sys


def prepare() -> None:
  """Chooses a platform where none is chosen, and sets what must be set before jax starts. Call it first."""
  os.environ.setdefault("JAX_PLATFORMS", _platforms())
  os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # we parallelise by processes ourselves
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that PyTorch is absent is no news
  if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "10")  # seconds between the lines that a progress bar leaves in a log
  if os.environ["JAX_PLATFORMS"] == "cpu":
    keep_heap()


def _platforms() -> str:
  """With libtpu installed and no TPU at hand, jax looks for one for a minute; so look first."""
  dev = pathlib.Path("/dev")
  if importlib.util.find_spec("libtpu") and (any(dev.glob("accel*")) or any(dev.glob("vfio/[0-9]*"))):
    return "tpu,cpu"
  if (dev / "nvidiactl").exists() and any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))):
    return "cuda,cpu"
  return "cpu"


def keep_heap() -> bool:
  """Tells glibc to keep freed memory. Returns whether it took it.

  XLA:CPU gives its step buffers, hundreds of MB, back to the kernel at every step, and the next step pays a page
  fault per 4 KB for them: about a fifth of a training step. Call it before the first large allocation.
  """
  if not sys.platform.startswith("linux"):
    return False
  try:
    mallopt = ctypes.CDLL("libc.so.6").mallopt
  except (OSError, AttributeError):
    return False  # another libc
  trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8
  return all([mallopt(mmap_max, 0), mallopt(trim_threshold, -1), mallopt(arena_max, 1), mallopt(top_pad, 64 << 20)])
