"""A stand-in for the layouts of the package alfworld: three rooms written here, found as the package is."""

import json
import sys

import pytest

from agentbank_jax.tasks import thor_rooms

# By AI2-THOR's ids: where one stands (x, z), which way one looks, how steeply.
KITCHEN = {
    "Cabinet|+00.50|+00.50|-02.00": [0.5, -1.25, 180, 30],
    "Cabinet|+01.50|+02.00|-02.00": [1.5, -1.25, 180, -30],
    "CounterTop|+00.00|+00.95|-02.00": [0.0, -1.25, 180, 30],
    "Drawer|+03.00|+00.80|-02.00": [3.0, -1.25, 180, 30],
    "Fridge|-02.00|+00.00|+01.00": [-1.25, 1.0, 270, 0],
    "Microwave|+01.50|+01.00|-02.00": [1.5, -1.25, 180, 0],
    "Sink|-02.00|+00.90|-01.00|SinkBasin": [-1.25, -1.0, 270, 30],
    "DiningTable|+02.00|+00.90|+02.00": [2.0, 1.25, 0, 30],
}
SCENES = {"FloorPlan1": KITCHEN, "FloorPlan2": KITCHEN, "FloorPlan6": KITCHEN}


@pytest.fixture
def layouts(tmp_path, monkeypatch):
  """Puts a package alfworld that has nothing but layouts before the real one, if there is one."""
  folder = tmp_path / "packages" / "alfworld" / "gen" / "layouts"
  folder.mkdir(parents=True)
  (tmp_path / "packages" / "alfworld" / "__init__.py").touch()
  for scene, places in SCENES.items():
    (folder / f"{scene}-openable.json").write_text(json.dumps(places))
  monkeypatch.syspath_prepend(tmp_path / "packages")
  monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
  monkeypatch.delitem(sys.modules, "alfworld", raising=False)
  thor_rooms.places.cache_clear()
  yield folder
  thor_rooms.places.cache_clear()
