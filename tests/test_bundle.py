"""Bundles on disk: sharded reading and writing, and what is said of one that does not fit itself."""

import dataclasses
import json
import shutil

from flax import traverse_util
from hf_models import save_random_model
import jax
import numpy as np
import pytest

from agentbank_jax import params_store
from agentbank_jax.bundle import Bundle, write_bundle
from agentbank_jax.convert import tensor_files
from agentbank_jax.convert.from_hf import import_hf
from agentbank_jax.convert.to_hf import export_hf
from agentbank_jax.errors import UserError
from agentbank_jax.models.config import param_shapes
from agentbank_jax.models.presets import preset

TINY = preset("tiny_test")


def random_params(config, seed=0):
  rng = np.random.default_rng(seed)
  shapes = param_shapes(config)
  flat = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
  return traverse_util.unflatten_dict(flat, sep=".")


def shardings_of(config):
  """Cuts each kernel along both mesh axes, stacked ones along the layers too; vectors are replicated."""
  mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
  spec = {1: jax.P(), 2: jax.P("fsdp", "tensor"), 3: jax.P("data", "fsdp", "tensor")}
  flat = {n: jax.NamedSharding(mesh, spec[len(shape)]) for n, shape in param_shapes(config).items()}
  return traverse_util.unflatten_dict(flat, sep=".")


@pytest.mark.parametrize("kind", ["hf", "bundle"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_sharded_reading(kind, dtype, tmp_path):
  config = dataclasses.replace(TINY, model_type="qwen2", qkv_bias=True, tie_embeddings=True)
  save_random_model(config, tmp_path / "hf", max_shard_size="100KB")
  whole = Bundle.open(tmp_path / "hf").load_params()
  if kind == "bundle":
    import_hf(tmp_path / "hf", tmp_path / "bundle")
  shardings = shardings_of(config)
  params = Bundle.open(tmp_path / kind).load_params(shardings, dtype, check_finite=True)

  def check(got, sharding, expected):
    assert isinstance(got, jax.Array) and got.sharding == sharding
    np.testing.assert_array_equal(np.asarray(got), expected.astype(dtype or expected.dtype))

  jax.tree.map(check, params, shardings, whole)


def test_hf_folder_reads_only_what_a_device_needs(tmp_path, monkeypatch):
  save_random_model(TINY, tmp_path / "hf")
  read = []
  original = tensor_files.Tensor.read

  def counting(self, index=None):
    array = original(self, index)
    read.append(array.nbytes)
    return array

  monkeypatch.setattr(tensor_files.Tensor, "read", counting)
  bundle = Bundle.open(tmp_path / "hf")
  shardings = shardings_of(TINY)
  params = bundle.load_params(shardings)
  total = sum(array.nbytes for array in jax.tree.leaves(params))
  assert sum(read) == total  # eight devices, but no part is read twice
  assert max(read) <= 512 * 64 * 4 / 4  # the largest tensors came in quarters


def test_params_of_another_shape_are_refused(tmp_path):
  params = random_params(TINY)
  params["layers"]["mlp"]["up"]["kernel"] = params["layers"]["mlp"]["up"]["kernel"][:, :, :-1]
  message = r"parameter layers.mlp.up.kernel has shape \(2, 64, 175\), by config.json \(2, 64, 176\)"
  with pytest.raises(UserError, match=message):
    write_bundle(tmp_path / "bundle", TINY, params, None)
  write_bundle(tmp_path / "bundle", TINY, random_params(TINY), None)
  config_file = tmp_path / "bundle" / "config.json"
  config = json.loads(config_file.read_text())
  config_file.write_text(json.dumps(config | {"intermediate_size": 175}))
  with pytest.raises(UserError, match=r"layers.mlp.gate.kernel has shape \(2, 64, 176\), by .* 175\)"):
    Bundle.open(tmp_path / "bundle")
  config_file.write_text(json.dumps(config | {"tie_word_embeddings": True}))
  with pytest.raises(UserError, match="unexpected parameter head.kernel"):
    Bundle.open(tmp_path / "bundle")
  config_file.write_text(json.dumps(config | {"mlp_bias": True}))
  with pytest.raises(UserError, match="parameter layers.mlp.gate.bias is missing"):
    Bundle.open(tmp_path / "bundle")


def test_a_model_hf_cannot_hold_is_refused_before_anything_is_written(tmp_path):
  with pytest.raises(UserError, match="llama has no field for sliding_window"):
    write_bundle(tmp_path / "bundle", dataclasses.replace(TINY, sliding_window=4), random_params(TINY), None)
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("placed", ["numpy", "sharded"])
def test_finiteness_is_checked_when_asked_for(placed, tmp_path):
  params = random_params(TINY)
  params["norm"]["scale"][5] = np.nan
  write_bundle(tmp_path / "bundle", TINY, params, None)
  bundle = Bundle.open(tmp_path / "bundle")
  shardings = shardings_of(TINY) if placed == "sharded" else None
  bundle.load_params(shardings)
  with pytest.raises(UserError, match="params: norm.scale has values that are NaN or infinite"):
    bundle.load_params(shardings, check_finite=True)
  with pytest.raises(UserError, match="norm.scale has values"):
    export_hf(tmp_path / "bundle", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_sharded_params_are_saved_and_read_back_elsewhere(tmp_path):
  params = random_params(TINY)
  write_bundle(tmp_path / "bundle", TINY, jax.device_put(params, shardings_of(TINY)), None, "chatml")
  bundle = Bundle.open(tmp_path / "bundle")
  assert bundle.chat_format == "chatml"
  jax.tree.map(np.testing.assert_array_equal, bundle.load_params(), params)
  np.testing.assert_array_equal(bundle.load_param("head.kernel"), params["head"]["kernel"])


def test_not_a_model(tmp_path):
  with pytest.raises(UserError, match="no such folder"):
    Bundle.open(tmp_path / "nothing")
  with pytest.raises(UserError, match="config.json: no such file"):
    Bundle.open(tmp_path)
  write_bundle(tmp_path / "bundle", TINY, random_params(TINY), None)
  shutil.rmtree(tmp_path / "bundle" / "params")
  (tmp_path / "bundle" / "params").mkdir()
  with pytest.raises(UserError, match="no complete parameters here"):
    Bundle.open(tmp_path / "bundle")
  for content in (b"\xff", b"[]", b'{"format": 5}'):
    (tmp_path / "bundle" / "chat.json").write_bytes(content)
    with pytest.raises(UserError, match='chat.json: expected {"format": NAME}'):
      Bundle.open(tmp_path / "bundle")


def test_unfinished_writing_is_no_checkpoint(tmp_path):
  def leaves():
    yield "norm.scale", np.ones(64, np.float32)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    params_store.save_params_one_by_one(tmp_path / "params", leaves())
  with pytest.raises(UserError, match="no complete parameters here"):
    params_store.read_metadata(tmp_path / "params")
