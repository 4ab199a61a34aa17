"""What README and the configs say of memory is what `benchmarks/fits.py` measured last, and it covers every config."""

import importlib
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import fits  # noqa: E402

from agentbank_jax.topologies import GENERATIONS, Topology, parse_topology  # noqa: E402


def test_readme_has_the_table_as_it_was_measured():
  assert fits.table(fits.results()) in (ROOT / "README.md").read_text()


def test_every_line_was_compiled():
  missing = [job for job in fits.jobs() if job not in fits.results()]
  assert not missing, f"run python benchmarks/fits.py: {missing}"


def test_every_training_config_is_compiled_for_every_generation():
  configs = {path.stem for path in (ROOT / "configs").glob("*.py") if "agentbank compile" in path.read_text()}
  assert set(fits.TOPOLOGIES) == configs - {"base"}
  for config, lines in fits.TOPOLOGIES.items():
    machines = [parse_topology(line.split()[0]) for line in lines]
    assert {m.generation.name for m in machines if isinstance(m, Topology)} == set(GENERATIONS), config


@pytest.mark.parametrize("name", fits.TOPOLOGIES)
def test_a_config_says_what_was_measured_and_planned(name):
  line, _, changes = fits.TOPOLOGIES[name][0].partition(" ")
  row = fits.results()[name, line, changes]
  said = " ".join(importlib.import_module(f"configs.{name}").__doc__.split())
  assert f"{line} (" in said and f"peak {row['peak_hbm_gib']:.2f} GiB of {row['hbm_gib']} per chip" in said
  assert f"compiled on {row['date']}" in said
  steps, tokens, hours = re.search(r"([\d,]+ steps), (\d+M tokens), ([\d.]+ hours)", fits.plan(name)).groups()
  assert f"{steps}, {tokens} with padding, {hours}" in said
