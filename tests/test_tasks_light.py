"""Tasks are listed and described without what their environments import."""

import subprocess
import sys

import pytest

_CODE = """
import sys
from agentbank_jax.tasks import get_task
for name in sys.argv[1].split(","):
  assert get_task(name).instructions
print([m for m in ("numpy", "sympy", "math_verify", "tantivy", "jax") if m in sys.modules])
"""


@pytest.mark.parametrize("names", ["hotpotqa,strategyqa,triviaqa,bamboogle", "gsm8k,mathqa,math,theoremqa"])
def test_declarations_are_light(names):
  result = subprocess.run([sys.executable, "-c", _CODE, names], capture_output=True, text=True, check=True)
  assert result.stdout == "[]\n"
