"""Bundle -> HF safetensors, cut into shards that transformers and the tools around it read."""

from collections.abc import Callable, Iterator
import dataclasses
import json
import math
import pathlib
import re
from typing import TypeVar

import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from agentbank_jax.bundle import Bundle, copy_chat
from agentbank_jax.convert.mapping import Entry, entries
from agentbank_jax.convert.tensor_files import INDEX, WHOLE
from agentbank_jax.errors import UserError
from agentbank_jax.files import whole_folder
from agentbank_jax.models.config import LlamaConfig
from agentbank_jax.models.hf_config import to_hf

T = TypeVar("T")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def export_hf(source: pathlib.Path, target: pathlib.Path, dtype: str = "keep", max_shard_size: str = "5GB",
              overwrite: bool = False, verify: Callable[[pathlib.Path], T] = lambda folder: None) -> T:
  """Converts a bundle, one canonical parameter and one shard in memory at a time, with read buffers.

  Args:
    source: the bundle.
    target: where the HF folder shall appear.
    dtype: "keep", "float32" or "bfloat16".
    max_shard_size: such as "5GB" or "500MB"; a tensor larger than that gets a shard of its own.
    overwrite: whether a target that is there is replaced.
    verify: called with the finished folder before it takes its name; if it raises, nothing appears.

  Returns:
    What `verify` returned.

  Raises:
    UserError: a parameter that is not finite, a model HF has no fields for, a target that is there.
  """
  bundle = Bundle.open(source)
  dtypes = {name: stored if dtype == "keep" else np.dtype(dtype) for name, stored in bundle.dtypes.items()}
  table = entries(bundle.config)
  shards = _plan(table, dtypes, parse_size(max_shard_size))
  with whole_folder(target, overwrite) as folder:
    _write_shards(folder, shards, _tensors(bundle, table, dtypes))
    if len(shards) > 1:
      _write_json(folder / INDEX, _index(shards))
    # Norms may be stored wider than the rest: the embedding stands for the whole.
    _write_json(folder / "config.json", to_hf(bundle.config, str(dtypes["embed.embedding"])))
    _write_json(folder / "generation_config.json", _generation_config(bundle.config))
    copy_chat(bundle.find_tokenizer(), folder, bundle.chat_format, folder)
    return verify(folder)


def parse_size(text: str) -> int:
  """Returns the bytes of "5GB", "500MB" (powers of ten) or "2GiB" (powers of two).

  Raises:
    UserError: anything else.
  """
  match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]i?B)", text)
  size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
  if size < 1:
    raise UserError(f"max_shard_size is {text!r}; expected a size such as 5GB or 500MB")
  return size


@dataclasses.dataclass
class _Shard:
  """Tensors of one file, by HF's names, with their bytes."""

  file: str
  sizes: dict[str, int]


def _plan(table: list[Entry], dtypes: dict[str, np.dtype], max_bytes: int) -> list[_Shard]:
  """Deals the tensors out, in the order they will come."""
  groups = [{}]
  for entry in table:
    size = math.prod(entry.hf_shape) * dtypes[entry.name].itemsize
    for name in entry.hf_names:
      if groups[-1] and sum(groups[-1].values()) + size > max_bytes:
        groups.append({})
      groups[-1][name] = size
  if len(groups) == 1:
    return [_Shard(WHOLE, groups[0])]
  count = len(groups)
  return [_Shard(f"model-{i:05d}-of-{count:05d}.safetensors", sizes) for i, sizes in enumerate(groups, 1)]


def _tensors(bundle: Bundle, table: list[Entry], dtypes) -> Iterator[tuple[str, np.ndarray]]:
  """Yields HF's tensors, all layers of one parameter after another: a parameter is read once."""
  for entry in table:
    array = bundle.load_param(entry.name, check_finite=True)
    for name, part in zip(entry.hf_names, array if entry.stacked else [array], strict=True):
      # safetensors writes the buffer as it lies in memory: a transposed view would come out wrong.
      yield name, np.ascontiguousarray(part.T if entry.transposed else part, dtypes[entry.name])


def _write_shards(folder: pathlib.Path, shards: list[_Shard], tensors: Iterator[tuple[str, np.ndarray]]):
  with tqdm(total=sum(len(s.sizes) for s in shards), desc="export", unit="tensor", leave=False) as bar:
    for shard in shards:
      held = {}
      for _ in shard.sizes:
        name, held[name] = next(tensors)
        bar.update()
      assert held.keys() == shard.sizes.keys()
      save_file(held, folder / shard.file, metadata={"format": "pt"})  # transformers wants to be told


def _index(shards: list[_Shard]) -> dict:
  total = sum(sum(shard.sizes.values()) for shard in shards)
  return {"metadata": {"total_size": total},
          "weight_map": {name: shard.file for shard in shards for name in shard.sizes}}


def _generation_config(config: LlamaConfig) -> dict:
  hf = to_hf(config)
  return {key: hf[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if hf[key] is not None}


def _write_json(path: pathlib.Path, value: dict):
  path.write_text(json.dumps(value, indent=2) + "\n")
