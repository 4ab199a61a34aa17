"""HF safetensors -> bundle, one canonical parameter at a time."""

from collections.abc import Callable, Iterator
import pathlib
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from agentbank_jax.bundle import Bundle, write_bundle

T = TypeVar("T")


def import_hf(source: pathlib.Path, target: pathlib.Path, dtype: str = "keep", overwrite: bool = False,
              verify: Callable[[pathlib.Path], T] = lambda folder: None) -> T:
  """Converts an HF folder, one canonical parameter (all layers of one) in memory at a time, with write buffers.

  Args:
    source: HF folder: config.json, safetensors, tokenizer files.
    target: where the bundle shall appear.
    dtype: "keep", "float32" or "bfloat16".
    overwrite: whether a target that is there is replaced.
    verify: called with the finished folder before it takes its name; if it raises, nothing appears.

  Returns:
    What `verify` returned.

  Raises:
    UserError: a tensor that is missing, unexpected, twice there, of the wrong shape or dtype, or not finite;
      a model that is not supported; a target that is there.
  """
  bundle = Bundle.open(source)

  def leaves() -> Iterator[tuple[str, np.ndarray]]:
    for name in tqdm(bundle.dtypes, desc=f"import {source.name}", unit="parameter", leave=False):
      array = bundle.load_param(name, check_finite=True)
      yield name, array if dtype == "keep" else array.astype(dtype, copy=False)

  return write_bundle(target, bundle.config, leaves(), bundle.find_tokenizer(), bundle.chat_format, overwrite,
                      verify)
