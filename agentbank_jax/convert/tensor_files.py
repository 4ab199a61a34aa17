"""The safetensors files of an HF folder: what is in them, read tensor by tensor. Knows no model."""

from collections.abc import Iterable
import dataclasses
import json
import pathlib

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from agentbank_jax.errors import UserError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where a tensor is, its shape and dtype."""

  file: pathlib.Path
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype

  def read(self, index: tuple[slice, ...] | None = None) -> np.ndarray:
    """Reads the tensor, or only the part `index` cuts out of it."""
    # Opened for one tensor: a mapping kept open holds on to every page that was read through it.
    with safe_open(self.file, "numpy") as f:
      return f.get_tensor(self.name) if index is None else f.get_slice(self.name)[index]

  def check_finite(self, array: np.ndarray):
    """Raises UserError if `array`, read from this tensor, has NaN or infinity."""
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
      raise UserError(f"{self.file}: tensor {self.name} has {bad} values that are NaN or infinite")


def open_tensors(folder: pathlib.Path) -> dict[str, Tensor]:
  """Returns the tensors of a folder by name, from the files' headers: no data is read.

  Raises:
    UserError: no safetensors, a shard missing or damaged, a tensor in two shards, an index at odds with its
      shards, a dtype that is not float32, float16 or bfloat16.
  """
  index = _read_index(folder / INDEX) if (folder / INDEX).exists() else None
  if (folder / WHOLE).exists() and index is None:
    files = [folder / WHOLE]
  elif index is not None:
    files = [folder / name for name in sorted(set(index.values()))]
  else:
    pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
    hint = "; pickled weights can run code when they are read: save them as safetensors" if pickles else ""
    raise UserError(f"{folder}: neither {WHOLE} nor {INDEX} is here{hint}")
  tensors = {}
  for tensor in _headers(files):
    if tensor.name in tensors:
      raise UserError(f"{tensor.file}: tensor {tensor.name} is also in {tensors[tensor.name].file.name}")
    if index is not None and index.get(tensor.name) != tensor.file.name:
      raise UserError(f"{tensor.file}: tensor {tensor.name} is here, but {INDEX} has "
                      + (f"it in {index[tensor.name]}" if tensor.name in index else "no such tensor"))
    tensors[tensor.name] = tensor
  for name, file in (index or {}).items():
    if name not in tensors:
      raise UserError(f"{folder / file}: tensor {name} is not here, where {INDEX} has it")
  return tensors


def _read_index(path: pathlib.Path) -> dict[str, str]:
  try:
    return {str(name): str(file) for name, file in json.loads(path.read_text())["weight_map"].items()}
  except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
    raise UserError(f"{path}: not an index of safetensors ({type(e).__name__}: {e})") from None


def _headers(files: Iterable[pathlib.Path]):
  for file in files:
    try:
      with safe_open(file, "numpy") as f:
        for name in f.keys():
          part = f.get_slice(name)
          if part.get_dtype() not in DTYPES:
            raise UserError(f"{file}: tensor {name} is {part.get_dtype()}; supported: {', '.join(DTYPES)}")
          yield Tensor(file, name, tuple(part.get_shape()), DTYPES[part.get_dtype()])
    except FileNotFoundError:
      raise UserError(f"{file}: no such file; {INDEX} names it") from None
    except SafetensorError as e:
      raise UserError(f"{file}: damaged or cut short ({e})") from None
