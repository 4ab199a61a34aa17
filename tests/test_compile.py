"""Topologies, the reading of compiled programs, and `agentbank compile` with the real TPU compiler."""

import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from tiny_models import mesh

from agentbank_jax.errors import UserError
from agentbank_jax.hlo import Traffic, collectives
from agentbank_jax.topologies import parse_topology


@pytest.mark.parametrize("text, grid, chips, ordered", [
    ("v5e:4x4", (4, 4), 16, "v5litepod-16"), ("v5e-16", (4, 4), 16, "v5litepod-16"),
    ("v5e-8", (2, 4), 8, "v5litepod-8"),
    ("v5e-4", (2, 2), 4, "v5litepod-4"), ("v5p-16", (2, 2, 2), 8, "v5p-16"), ("v5p-8", (2, 2, 1), 4, "v5p-8"),
    ("v5p-128", (4, 4, 4), 64, "v5p-128"), ("v6e-64", (8, 8), 64, "v6e-64"), ("v4:2x2x4", (2, 2, 4), 16, "v4-32"),
    ("2xv5e:8x8", (8, 8), 128, "v5litepod-64")])
def test_topologies_are_read(text, grid, chips, ordered):
  topology = parse_topology(text)
  assert (topology.shape, topology.chips, topology.accelerator_type) == (grid, chips, ordered)


@pytest.mark.parametrize("text, message", [
    ("v5e", "not of the form"), ("v5:4x4", "unknown kind of TPU 'v5'.*did you mean 'v5"), ("v5e:2x2x2", "2 dimensions"),
    ("v5e-12", "power of two"), ("v5p-4", "2 times")])
def test_wrong_topologies_are_told(text, message):
  with pytest.raises(UserError, match=message):
    parse_topology(text)


def test_collectives_are_counted_as_often_as_loops_turn():
  """A program whose traffic is known: seven turns with a sum over the devices in each, and one gather at the end."""
  sharding = mesh(fsdp=8)
  cut, whole = sharding.named("embed"), sharding.replicated

  def program(x_64):
    x_64, _ = jax.lax.scan(lambda x, factor: (x * jnp.sum(factor * x), None), x_64, jnp.arange(7.0))
    return jax.lax.with_sharding_constraint(x_64, whole)

  abstract = jax.ShapeDtypeStruct((64,), jnp.float32, sharding=cut)
  traffic = collectives(jax.jit(program).lower(abstract).compile().as_text())
  assert traffic == {"all-reduce": Traffic(7, 7 * 4), "all-gather": Traffic(1, 64 * 4)}


def compile_cli(tmp_path, *args):
  return subprocess.run([sys.executable, "-m", "agentbank_jax.cli", "compile", f"--workdir={tmp_path}", *args],
                        capture_output=True, text=True)


def test_what_is_missing_is_told(tmp_path):
  result = compile_cli(tmp_path, "--config=configs/train_tiny.py")
  assert result.returncode == 2 and "name a topology" in result.stderr
  result = compile_cli(tmp_path, "--config=configs/train_tiny.py", "--topology=v5e:4x4", "--config.data.seq_len=None")
  assert result.returncode == 2 and "data.seq_len is None" in result.stderr


@pytest.mark.slow
def test_a_small_model_fits_and_a_large_one_is_helped(tmp_path):
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("no TPU compiler: pip install 'agentbank-jax[tpu]'")
  small = ["--config=configs/train_tiny.py", "--topology=v5e:2x2", "--config.model.overrides.head_dim=128",
           "--config.data.seq_len=512"]
  result = compile_cli(tmp_path, *small)
  assert result.returncode == 0, result.stderr
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert summary["fits"] and 0 < summary["peak_hbm_gib"] < 1 and summary["collectives"]["all-gather"]["count"] > 4
