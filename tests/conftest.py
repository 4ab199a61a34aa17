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
