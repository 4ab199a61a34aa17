"""Tests run on eight simulated CPU devices, offline."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pathlib
import subprocess

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


@pytest.fixture(scope="module")
def one_device():
  """Runs of the module have one device; the simulated ones are for the test that asks for them."""
  import jax
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "device_count", lambda: 1)
    yield


@pytest.fixture
def in_checkout(monkeypatch):
  """The test runs in this checkout's folder."""
  monkeypatch.chdir(pathlib.Path(__file__).parents[1])


@pytest.fixture
def fakes(tmp_path, monkeypatch):
  """gcloud, kubectl, docker and SLURM's programs, played."""
  from fake_programs import Fakes
  fakes = Fakes(tmp_path / "fakes", monkeypatch)
  yield fakes
  fakes.end()


@pytest.fixture
def checkout(tmp_path):
  """A small repository in which all is committed."""
  folder = tmp_path / "checkout"
  folder.mkdir()
  (folder / "requirements.lock").write_text("jax==0.10.2\n")
  git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x"]
  for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
    subprocess.run([*git, *command], check=True)
  return folder
