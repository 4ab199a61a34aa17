"""The guide's worked example (agentbank_jax/tasks/README.md) is run as it stands there."""

import pathlib
import re
import shutil
import subprocess
import sys

import agentbank_jax

ROOT = pathlib.Path(agentbank_jax.__file__).parents[1]
GUIDE = ROOT / "agentbank_jax" / "tasks" / "README.md"


def test_one_file_and_one_test_make_a_task(tmp_path):
  task, test = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
  assert "`catalog/guess.py`" in GUIDE.read_text() and "`tests/test_guess.py`" in GUIDE.read_text()
  for folder in ("agentbank_jax", "configs"):
    shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
  (tmp_path / "tests").mkdir()
  shutil.copy(ROOT / "tests" / "conformance.py", tmp_path / "tests")
  (tmp_path / "agentbank_jax" / "tasks" / "catalog" / "guess.py").write_text(task)
  (tmp_path / "tests" / "test_guess.py").write_text(test)
  run = lambda *args: subprocess.run([sys.executable, "-m", *args], cwd=tmp_path, capture_output=True, text=True,
                                     env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"})
  done = run("pytest", "-q", "--strict-markers", "tests/test_guess.py")
  assert done.returncode == 0 and "passed" in done.stdout and "skipped" not in done.stdout, done.stdout
  done = run("agentbank_jax.cli", "measure", "--config.tasks=('guess',)", "--config.episodes=5", "--config.slots=5")
  assert done.returncode == 0 and "| `guess` | test | expert | 100.0%" in done.stdout, done.stderr + done.stdout
  done = run("agentbank_jax.cli", "doctor", "--config.markdown=long")
  assert "| reasoning | `guess` | held-in | a guessing game | generated |" in done.stdout


def test_the_examples_have_no_line_that_the_linter_refuses():
  for block in re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL):
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "-"],
                          input=block, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
