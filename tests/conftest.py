"""Tests run on eight simulated CPU devices, offline."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pathlib

import pytest


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
  """The folder of real rows, where there is one; the test is skipped, saying so, where there is not."""
  path = pathlib.Path(os.environ.get("AGENTBANK_REAL_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
  if not path.is_dir():
    pytest.skip(f"no real data at {path}; set AGENTBANK_REAL_DATA to a folder that has it")
  return path


@pytest.fixture(scope="module")
def compile_cache(tmp_path_factory):
  """Programs that a module compiles more than once are read from disk the second time. Yields the cache's folder."""
  import jax
  settings = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
              "jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
  before = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  yield settings["jax_compilation_cache_dir"]
  for name, value in before.items():
    jax.config.update(name, value)
