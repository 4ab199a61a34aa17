"""The canonical parameters of an HF folder, read one by one and in parts."""

import pathlib

import numpy as np

from agentbank_jax.convert.mapping import HARMLESS, Entry, entries
from agentbank_jax.convert.tensor_files import Tensor, open_tensors
from agentbank_jax.errors import UserError
from agentbank_jax.models.config import LlamaConfig

_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_ROWS = 4096  # of the embedding, compared at one time


class HfParams:
  """What the folder holds is what the config says, tensor for tensor, or opening it fails.

  Attributes:
    entries: the canonical parameters by name, in the order of the table.
  """

  def __init__(self, folder: pathlib.Path, config: LlamaConfig):
    """Checks names, shapes and dtypes; reads no data but that of a head which should be tied.

    Raises:
      UserError: a tensor that is missing, unexpected, of another shape, or of another dtype than its layer's.
    """
    self.entries = {entry.name: entry for entry in entries(config)}
    tensors = open_tensors(folder)
    self._parts = {entry.name: [_take(tensors, folder, name, entry) for name in entry.hf_names]
                   for entry in self.entries.values()}
    for name, parts in self._parts.items():
      for part in parts:
        if part.dtype != parts[0].dtype:
          raise UserError(f"{part.file}: tensor {part.name} is {part.dtype}, but {parts[0].name} is "
                          f"{parts[0].dtype}; all layers' {name} must have one dtype")
    if config.tie_embeddings and _HEAD in tensors:
      _check_tied(tensors.pop(_HEAD), self._parts["embed.embedding"][0])
    for name, tensor in tensors.items():
      if not HARMLESS.fullmatch(name):
        raise UserError(f"{tensor.file}: unexpected tensor {name}; config.json makes a model without it")

  def dtype(self, name: str) -> np.dtype:
    """Returns the dtype a canonical parameter is stored in."""
    return self._parts[name][0].dtype

  def read(self, name: str, index: tuple[slice, ...] | None = None, dtype: np.dtype | None = None,
           check_finite: bool = True) -> np.ndarray:
    """Reads a canonical parameter, layer by layer, or a part of it.

    Args:
      name: canonical, dotted.
      index: slices of the canonical shape, step 1; None for all. Nothing else is read.
      dtype: to cast to; None keeps the stored one.
      check_finite: whether NaN or infinity in the file is an error.

    Raises:
      UserError: NaN or infinity; names tensor and file.
    """
    entry, parts = self.entries[name], self._parts[name]
    if index is not None and entry.stacked:
      parts, index = parts[index[0]], index[1:]
    if index is not None and entry.transposed:
      index = index[::-1]
    out = None
    for i, part in enumerate(parts):
      array = part.read(index)
      if check_finite:
        part.check_finite(array)
      array = array.T if entry.transposed else array
      if out is None:
        out = np.empty((len(parts), *array.shape), dtype or part.dtype)
      out[i] = array
    return out if entry.stacked else out[0]


def _take(tensors: dict[str, Tensor], folder: pathlib.Path, name: str, entry: Entry) -> Tensor:
  if name not in tensors:
    raise UserError(f"{folder}: tensor {name} is missing")
  tensor = tensors.pop(name)
  if tensor.shape != entry.hf_shape:
    raise UserError(f"{tensor.file}: tensor {name} has shape {tensor.shape}, by config.json {entry.hf_shape}")
  return tensor


def _check_tied(head: Tensor, embedding: Tensor):
  """Some tools write a tied head out; it must then be the embedding."""
  equal = head.shape == embedding.shape
  for start in range(0, embedding.shape[0] if equal else 0, _ROWS):
    rows = (slice(start, min(start + _ROWS, embedding.shape[0])), slice(None))
    equal = equal and np.array_equal(head.read(rows), embedding.read(rows))
  if not equal:
    raise UserError(f"{head.file}: tensor {_HEAD} differs from {_EMBEDDING}, but config.json has "
                    "tie_word_embeddings = true; set it to false to keep both")
