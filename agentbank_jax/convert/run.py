"""`agentbank convert`: HF folder -> bundle and back, with a parity check before the result appears."""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from agentbank_jax.bundle import Bundle
from agentbank_jax.convert.check import check_parity, require
from agentbank_jax.convert.from_hf import import_hf
from agentbank_jax.convert.to_hf import export_hf
from agentbank_jax.errors import UserError
from agentbank_jax.models.config import num_params
from agentbank_jax.paths import as_path, in_bucket

DTYPES = ("keep", "float32", "bfloat16")
DIRECTIONS = ("from_hf", "to_hf")


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Converts one model; see configs/convert.py.

  Returns:
    What was converted, and what the parity check found (None where it was switched off).

  Raises:
    UserError: see `import_hf` and `export_hf`; or both models do not compute the same: then nothing appears.
  """
  for key, choices in (("direction", DIRECTIONS), ("dtype", DTYPES)):
    if config[key] not in choices:
      raise UserError(f"config.{key} is {config[key]!r}; choose one of {', '.join(choices)}")
  for key in ("source", "target"):
    if not config[key]:
      raise UserError(f"config.{key} is not set; pass --config.{key}=FOLDER")
  for key, least in (("rows", 1), ("length", 1), ("greedy_tokens", 0)):
    if config.check[key] < least:
      raise UserError(f"config.check.{key} is {config.check[key]}, expected {least} or more")
  source, target = as_path(config.source), as_path(config.target)
  if config.direction == "to_hf" and in_bucket(target):
    raise UserError(f"config.target is {target}: safetensors are written to local files alone; give a folder of this "
                    "machine, and copy it")

  def verify(written: pathlib.Path):
    if not config.check.enabled:
      return None
    bundle, hf = (written, source) if config.direction == "from_hf" else (source, written)
    parity = check_parity(Bundle.open(bundle), hf, rows=config.check.rows, length=config.check.length,
                          greedy_tokens=config.check.greedy_tokens, seed=config.check.seed,
                          round_to="float32" if config.dtype == "keep" else config.dtype)
    require(parity, config.check.tolerance, f"{source} -> {target}")
    print(f"checked: logits within {parity.max_abs_difference:.1e} of {parity.reference}'s at {parity.positions} "
          f"positions, greedy text equal on {parity.greedy_equal:.0%} of rows, {parity.greedy_tokens} tokens each")
    return dataclasses.asdict(parity)

  if config.direction == "from_hf":
    parity = import_hf(source, target, config.dtype, config.overwrite, verify)
  else:
    parity = export_hf(source, target, config.dtype, config.max_shard_size, config.overwrite, verify)
  result = Bundle.open(target)
  return {"source": str(source), "target": str(target), "model_type": result.config.model_type,
          "parameters": num_params(result.config), "dtypes": sorted({str(d) for d in result.dtypes.values()}),
          "parity": parity}
