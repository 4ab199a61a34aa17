"""A model on disk: config, parameters, tokenizer and chat format, in one folder.

    folder/
      config.json   HF's form: what any other tool reads
      params/       canonical parameters, by Orbax
      tokenizer/    HF's tokenizer files, or a SentencePiece tokenizer.model
      chat.json     {"format": "llama3"}: how conversations were written for this model; may be absent

An HF folder (config.json, safetensors, tokenizer files) opens as a bundle too, converted while it is read.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import json
import os
from typing import Any, TypeVar

from flax import traverse_util
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from agentbank_jax import params_store
from agentbank_jax.convert.hf_params import HfParams
from agentbank_jax.errors import UserError
from agentbank_jax.files import whole_folder
from agentbank_jax.models.config import LlamaConfig, param_shapes
from agentbank_jax.models.hf_config import read_hf_config, to_hf
from agentbank_jax.paths import AnyPath, as_path, copy, in_bucket, make_folder

# What a tokenizer may consist of; the chat template is part of it.
TOKENIZER_FILES = (
  "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
  "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
  "additional_chat_templates",
)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Bundle:
  """A model's folder, opened; parameters are read when asked for.

  Attributes:
    path: the folder.
    config: its architecture.
    chat_format: name of the chat format, None where the folder states none.
    dtypes: stored dtype of each canonical parameter, by dotted name.
  """

  path: AnyPath
  config: LlamaConfig
  chat_format: str | None
  dtypes: dict[str, np.dtype]
  _hf: HfParams | None

  @classmethod
  def open(cls, path: str | os.PathLike) -> "Bundle":
    """Opens a bundle or an HF folder; reads no parameter, but checks their names and shapes.

    Raises:
      UserError: no such folder, or its parts do not fit each other; names file and parameter.
    """
    path = as_path(path)
    if not path.is_dir():
      raise UserError(f"{path}: no such folder; expected a model: a bundle or an HF folder with safetensors")
    config = read_hf_config(path / "config.json")
    chat_format = _read_chat(path / "chat.json")
    if not (path / "params").exists():
      if in_bucket(path):
        raise UserError(f"{path}: safetensors are opened from local files alone; copy the folder to this machine, and "
                        "convert it: agentbank convert --config.source=COPY --config.target=gs://...")
      hf = HfParams(path, config)
      return cls(path, config, chat_format, {name: hf.dtype(name) for name in hf.entries}, hf)
    leaves = params_store.read_metadata(path / "params")
    _check_shapes(path / "params", {name: leaf.shape for name, leaf in leaves.items()}, config)
    return cls(path, config, chat_format, {name: leaf.dtype for name, leaf in leaves.items()}, None)

  @property
  def tokenizer(self) -> AnyPath:
    """The tokenizer: a folder with a tokenizer.json, or a SentencePiece file.

    Raises:
      UserError: the model came without one.
    """
    found = self.find_tokenizer()
    if found is None:
      raise UserError(f"{self.path}: no tokenizer here (tokenizer.json or tokenizer.model)")
    return found

  def find_tokenizer(self) -> AnyPath | None:
    """Returns `tokenizer`, or None for a model that came without one."""
    folder = self.path if self._hf else self.path / "tokenizer"
    if (folder / "tokenizer.json").exists():
      return folder
    return folder / "tokenizer.model" if (folder / "tokenizer.model").exists() else None

  def load_params(self, shardings: Mapping[str, Any] | None = None, dtype: np.dtype | str | None = None,
                  check_finite: bool = False) -> dict[str, Any]:
    """Reads all parameters.

    Args:
      shardings: nested dict of NamedSharding; each process reads what its devices need, no more. None: all of
        it, in NumPy arrays.
      dtype: to cast to; None keeps the stored ones.
      check_finite: whether NaN or infinity is an error.

    Returns:
      Canonical nested dict.

    Raises:
      UserError: NaN or infinity in a parameter; names it.
    """
    flat = None if shardings is None else traverse_util.flatten_dict(shardings, sep=".")
    dtypes = {name: np.dtype(dtype or stored) for name, stored in self.dtypes.items()}
    if self._hf:
      params = {name: self._read_hf(name, flat and flat[name], dtypes[name], check_finite) for name in dtypes}
      return traverse_util.unflatten_dict(params, sep=".")
    shapes = param_shapes(self.config)
    params = params_store.load_params(self.path / "params", {
      name: params_store.Leaf(shapes[name], dtypes[name]) if flat is None
      else jax.ShapeDtypeStruct(shapes[name], dtypes[name], sharding=flat[name]) for name in dtypes})
    if check_finite:
      self._check_finite(params)
    return params

  def load_param(self, name: str, check_finite: bool = False) -> np.ndarray:
    """Reads one canonical parameter, by its dotted name, as it is stored."""
    if self._hf:
      return self._hf.read(name, check_finite=check_finite)
    leaf = params_store.Leaf(param_shapes(self.config)[name], self.dtypes[name])
    params = params_store.load_params(self.path / "params", {name: leaf})
    if check_finite:
      self._check_finite(params)
    return traverse_util.flatten_dict(params, sep=".")[name]

  def _read_hf(self, name: str, sharding, dtype: np.dtype, check_finite: bool):
    if sharding is None:
      return self._hf.read(name, None, dtype, check_finite)
    parts = {}  # devices that hold the same part share one reading of it

    def read(index):
      key = repr(index)
      if key not in parts:
        parts[key] = self._hf.read(name, index, dtype, check_finite)
      return parts[key]

    return jax.make_array_from_callback(param_shapes(self.config)[name], sharding, read, dtype=dtype)

  def _check_finite(self, params):
    for name, array in traverse_util.flatten_dict(params, sep=".").items():
      isfinite = jnp.isfinite if isinstance(array, jax.Array) else np.isfinite
      if not isfinite(array).all():
        raise UserError(f"{self.path / 'params'}: {name} has values that are NaN or infinite")


def write_bundle(path: AnyPath, config: LlamaConfig,
                 params: Mapping[str, Any] | Iterable[tuple[str, np.ndarray]], tokenizer: AnyPath | None,
                 chat_format: str | None = None, overwrite: bool = False,
                 verify: Callable[[AnyPath], T] = lambda folder: None) -> T:
  """Writes a bundle, whole or not at all. With several processes all call it, and must share the folder.

  Args:
    path: where it shall appear.
    config: the architecture.
    params: canonical nested dict of arrays, or (dotted name, array) pairs that are written as they come: then
      one array at a time is in memory (one process only).
    tokenizer: folder or file of the tokenizer, as `Bundle.tokenizer` gives it; None for a model without one.
    chat_format: name of the chat format the model was trained with.
    overwrite: whether a folder that is there is replaced.
    verify: called with the finished folder before it takes its name; if it raises, nothing appears.

  Returns:
    What `verify` returned.

  Raises:
    UserError: `path` is there already, HF's config.json has no field for something in `config`, or `params`
      are not those of `config`; names the parameter.
  """
  hf = to_hf(config)
  lead, sync = jax.process_index() == 0, multihost_utils.sync_global_devices
  several = {"lead": lead, "sync": sync} if jax.process_count() > 1 else {}
  with whole_folder(path, overwrite, **several) as folder:
    if isinstance(params, Mapping):
      flat = traverse_util.flatten_dict(params, sep=".")
      _check_shapes(path, {name: array.shape for name, array in flat.items()}, config)
      params_store.save_params(folder / "params", params)
    else:
      params_store.save_params_one_by_one(folder / "params", params)
      written = params_store.read_metadata(folder / "params")
      _check_shapes(path, {name: leaf.shape for name, leaf in written.items()}, config)
    if lead:
      make_folder(folder / "tokenizer")
      copy_chat(tokenizer, folder / "tokenizer", chat_format, folder)
      (folder / "config.json").write_text(json.dumps(hf, indent=2) + "\n")  # nothing opens without it
    return verify(folder)


def copy_chat(tokenizer: AnyPath | None, tokenizer_folder: AnyPath, chat_format: str | None, folder: AnyPath):
  """Copies a tokenizer, its chat template with it, and states the chat format, where there are such.

  Args:
    tokenizer: HF's folder or a SentencePiece file.
    tokenizer_folder: where the files go.
    chat_format: its name.
    folder: where chat.json goes.
  """
  if chat_format is not None:
    (folder / "chat.json").write_text(json.dumps({"format": chat_format}) + "\n")
  if tokenizer is None:
    return
  source = tokenizer if tokenizer.is_dir() else tokenizer.parent
  for name in TOKENIZER_FILES:
    if (source / name).exists():
      copy(source / name, tokenizer_folder / name)


def _check_shapes(path: AnyPath, shapes: Mapping[str, tuple[int, ...]], config: LlamaConfig):
  expected = param_shapes(config)
  for name, shape in expected.items():
    if name not in shapes:
      raise UserError(f"{path}: parameter {name} is missing; config.json makes it {shape}")
    if tuple(shapes[name]) != shape:
      raise UserError(f"{path}: parameter {name} has shape {tuple(shapes[name])}, by config.json {shape}")
  for name in shapes:
    if name not in expected:
      raise UserError(f"{path}: unexpected parameter {name}; config.json makes a model without it")


def _read_chat(path: AnyPath) -> str | None:
  if not path.exists():
    return None
  try:
    chat_format = json.loads(path.read_text())["format"]
    if not isinstance(chat_format, str):
      raise TypeError(f"{chat_format!r} is no name")
  except (ValueError, KeyError, TypeError) as e:
    raise UserError(f'{path}: expected {{"format": NAME}} ({type(e).__name__}: {e})') from None
  return chat_format
