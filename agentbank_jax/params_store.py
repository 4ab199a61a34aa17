"""A model's parameters on disk, by Orbax: canonical nested dicts. (Train states: `checkpoint`.)"""

from collections.abc import Iterable, Mapping
import dataclasses
import sys
from typing import Any

from absl import logging
from flax import traverse_util
import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from agentbank_jax.errors import UserError
from agentbank_jax.paths import AnyPath, absolute

# Readers fetch whole chunks: these are small enough that a host which needs a part reads little more than it.
_CHUNK_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Leaf:
  """Shape and dtype of one stored parameter."""

  shape: tuple[int, ...]
  dtype: np.dtype


def quiet_orbax() -> None:
  """Keeps Orbax's threads from printing tracebacks of failed writes: where they are waited for, they are raised."""
  logging.get_absl_logger().addFilter(_is_no_orbax_traceback)  # the same filter is not added twice
  sys.unraisablehook = _unraisable


def _is_no_orbax_traceback(record) -> bool:
  return not (record.exc_info and "orbax" in record.pathname)


_other_unraisable = sys.unraisablehook


def _unraisable(unraisable) -> None:
  """After a failed write, TensorStore tells the other writes' ends to Orbax's event loop, which is closed by then."""
  if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
    _other_unraisable(unraisable)


def save_params(path: AnyPath, params: Mapping[str, Any]):
  """Saves a nested dict of arrays. With several processes all call it, each writes what it holds.

  Raises:
    ValueError: `path` is there already.
  """
  with _context():
    ocp.save(absolute(path), params)


def save_params_one_by_one(path: AnyPath, leaves: Iterable[tuple[str, np.ndarray]]):
  """Saves (dotted name, array) pairs as they come: one array in memory at a time. One process only.

  `path` appears when the last pair is written.
  """
  path = absolute(path)
  with _context():
    for name, array in leaves:
      ocp.partial.save(path, traverse_util.unflatten_dict({name: array}, sep="."))
    ocp.partial.finalize(path)


def read_metadata(path: AnyPath) -> dict[str, Leaf]:
  """Returns shape and dtype of each stored parameter by its dotted name, e.g. "layers.attention.q.kernel".

  Raises:
    UserError: there are no parameters at `path`, or writing them was never finished.
  """
  try:
    tree = ocp.metadata(absolute(path)).metadata
  except (ocp.errors.InvalidLayoutError, FileNotFoundError) as e:
    raise UserError(f"{path}: no complete parameters here ({e})") from None
  leaves = traverse_util.flatten_dict(tree, sep=".")
  return {name: Leaf(tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in leaves.items()}


def load_params(path: AnyPath, abstract: Mapping[str, jax.ShapeDtypeStruct | Leaf]) -> dict[str, Any]:
  """Loads parameters, cast to the dtypes asked for. Each process reads what its devices need, no more.

  Args:
    path: where `save_params` put them.
    abstract: what is wanted, by dotted name: a ShapeDtypeStruct with a sharding gives a jax.Array, a Leaf a
      NumPy array. Names left out are not read. Shapes must be those of `read_metadata`: Orbax does not check.

  Returns:
    Nested dict of the arrays asked for.
  """
  wanted = {name: np.empty(leaf.shape, leaf.dtype) if isinstance(leaf, Leaf) else leaf
            for name, leaf in abstract.items()}
  tree = {name: wanted.get(name, ocp.PLACEHOLDER) for name in read_metadata(path)}
  loaded = ocp.load(absolute(path), traverse_util.unflatten_dict(tree, sep="."))
  flat = traverse_util.flatten_dict(loaded, sep=".")
  return traverse_util.unflatten_dict({name: flat[name] for name in wanted}, sep=".")


def _context() -> ocp.Context:
  quiet_orbax()
  context = ocp.Context()
  context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
  context.memory.deepcopy_host_arrays = False  # saving returns when all is written: nobody changes the arrays
  return context
