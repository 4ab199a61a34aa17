"""Meshes and rules: what cannot be is told, what can is cut as it says; checkpoints cross meshes."""

import dataclasses
import math

import jax
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict
import numpy as np
import pytest
from tiny_models import TINY, execution, mesh, random_params

from agentbank_jax import checkpoint, optim, sharding, state
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama
from configs.base import training

RULES = training().rules.to_dict()


@pytest.mark.parametrize("shape, message", [
  (dict(fspd=8), "unknown mesh axis 'fspd' .*did you mean 'fsdp'"),
  (dict(data=3), r"mesh {'data': 3} needs 3 devices, there are 8"),
  (dict(data=2, fsdp=2), r"needs 4 devices, there are 8"),
  (dict(data=3, fsdp=-1), r"needs 3 devices or a multiple, there are 8"),
  (dict(data=-1, fsdp=-1), "at most one -1"),
  (dict(data=0, fsdp=8), "sizes must be positive"),
  (dict(data=-2), "sizes must be positive")])
def test_wrong_meshes_are_told(shape, message):
  with pytest.raises(UserError, match=message):
    sharding.make_mesh(shape)


def test_minus_one_takes_what_is_left():
  assert dict(sharding.make_mesh(dict(data=1, fsdp=-1, tensor=2)).shape) == dict(data=1, fsdp=4, context=1, tensor=2)
  assert dict(sharding.make_mesh(dict(data=2, fsdp=-1, tensor=4)).shape) == dict(data=2, fsdp=1, context=1, tensor=4)
  assert dict(sharding.make_mesh({}, jax.devices()[:1]).shape) == dict(data=1, fsdp=1, context=1, tensor=1)
  assert mesh(data=2, fsdp=2, tensor=2).shards("batch") == 4


@pytest.mark.parametrize("rules, message", [
  (RULES | {"emded": "fsdp"}, "unknown logical axis 'emded'; did you mean 'embed'"),
  ({k: v for k, v in RULES.items() if k != "mlp"}, "no sharding rule for logical axis 'mlp'"),
  (RULES | {"mlp": "tensr"}, "rule 'mlp': unknown mesh axis 'tensr'; did you mean 'tensor'"),
  (RULES | {"mlp": 2}, "rule 'mlp' is 2; expected a mesh axis"),
  (RULES | {"batch": ("data", "pipe")}, "rule 'batch': unknown mesh axis 'pipe'")])
def test_wrong_rules_are_told(rules, message):
  with pytest.raises(UserError, match=message):
    sharding.make_sharding(dict(fsdp=8), rules)


def test_collisions_and_remainders_name_the_parameter():
  twice = sharding.make_sharding(dict(fsdp=8), RULES | {"mlp": "fsdp"})
  with pytest.raises(UserError, match=r"cut layers\.mlp\.\w+\.kernel twice along mesh axis 'fsdp': .*'embed'.*'mlp'|"
                                      r"cut layers\.mlp\.\w+\.kernel twice along mesh axis 'fsdp': .*'mlp'.*'embed'"):
    llama.init_params(TINY, 0, twice)
  config = dataclasses.replace(TINY, vocab_size=97)
  with pytest.raises(UserError, match=r"embed\.embedding has vocab = 97, which mesh axes \('tensor',\) of 2 devices"):
    llama.init_params(config, 0, mesh(fsdp=4, tensor=2))
  llama.param_shardings(config, mesh(fsdp=8))  # and where nothing cuts it, it may be anything


def test_specs_are_what_the_rules_say():
  cut = mesh(data=2, fsdp=2, tensor=2)
  assert cut.spec(("batch", "length", None)) == PartitionSpec(("data", "fsdp"), "context", None)
  shardings = llama.param_shardings(TINY, cut)
  assert shardings["embed"]["embedding"].spec == PartitionSpec("tensor", ("fsdp", "context"))
  assert shardings["layers"]["attention"]["q"]["kernel"].spec == PartitionSpec(None, ("fsdp", "context"), "tensor")
  assert shardings["layers"]["attention"]["o"]["kernel"].spec == PartitionSpec(None, "tensor", ("fsdp", "context"))
  assert shardings["layers"]["mlp"]["down"]["kernel"].spec == PartitionSpec(None, "tensor", ("fsdp", "context"))
  assert shardings["norm"]["scale"].is_fully_replicated
  assert hash(cut) == hash(mesh(data=2, fsdp=2, tensor=2)) and cut == mesh(data=2, fsdp=2, tensor=2)


@pytest.mark.parametrize("shape", [dict(fsdp=8), dict(fsdp=2, context=4), dict(context=4, tensor=2)], ids=str)
def test_no_device_keeps_more_than_its_share_of_the_matrices(shape):
  """Axes that cut rows, or their length, cut what is kept of the model too."""
  layers = llama.param_shardings(TINY, mesh(**shape))["layers"]
  shapes = llama.abstract_params(TINY)["layers"]
  for part, names in (("attention", "qkvo"), ("mlp", ("gate", "up", "down"))):
    for name in names:
      whole = shapes[part][name]["kernel"].shape
      assert math.prod(layers[part][name]["kernel"].shard_shape(whole)) == math.prod(whole) // 8


@pytest.mark.parametrize(
    "shape", [dict(data=2, fsdp=2, tensor=2), pytest.param(dict(fsdp=8), marks=pytest.mark.slow)], ids=str)
def test_weights_do_not_depend_on_the_mesh_and_nobody_holds_them_all(shape):
  params = llama.init_params(TINY, 5, mesh(**shape))
  jax.tree.map(np.testing.assert_array_equal, params, llama.init_params(TINY, 5))
  ways = mesh(**shape).mesh.shape
  for path, array in jax.tree.leaves_with_path(params):
    held = {shard.data.size for shard in array.addressable_shards}
    share = 1 if path[-1].key == "scale" else ways["fsdp"] * ways["tensor"]
    assert held == {array.size // share}, path


def test_batches_are_rows_of_their_devices():
  batch = {"tokens": np.arange(32).reshape(16, 2)}
  whole = sharding.global_batch(batch, mesh(data=2, fsdp=2, tensor=2))["tokens"]
  np.testing.assert_array_equal(whole, batch["tokens"])
  assert {shard.data.shape for shard in whole.addressable_shards} == {(4, 2)}
  np.testing.assert_array_equal(sharding.global_batch(batch, None)["tokens"], batch["tokens"])


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def optimizer(**changes):
  config = ConfigDict(training().optim)
  config.update(changes)
  return optim.make_optimizer(config, optim.make_schedule(config, 10))


def some_state(run, config=TINY, step=3):
  """A state in the execution's layout on its mesh, its moments not zero."""
  tx = optimizer()
  params = random_params(config)
  if run.sharding is not None:
    params = jax.device_put(params, llama.param_shardings(config, run.sharding))
  now = state.canonical(state.init_state(config, tx, run, 0, params), run)
  count = iter(range(10**6))
  filled = jax.tree.map(lambda a: jax.device_put(np.full(a.shape, next(count), a.dtype), a.sharding), now.opt_state)
  return now._replace(opt_state=filled, step=jax.numpy.int32(step))


RUNS = {
  "one device, unrolled": execution("unroll"),
  "fsdp": execution(sharding=mesh(fsdp=8)),
  "2x2x2": execution(sharding=mesh(data=2, fsdp=2, tensor=2)),
}


@pytest.mark.parametrize("here, there", [
  ("one device, unrolled", "2x2x2"), ("2x2x2", "fsdp"), ("fsdp", "one device, unrolled")])
def test_checkpoints_cross_meshes_and_layouts(here, there, tmp_path):
  saved = some_state(RUNS[here])
  with checkpoint.Checkpoints(tmp_path / "c", 2, None) as checkpoints:
    assert checkpoints.restore(state.abstract_state(TINY, optimizer(), RUNS[there])) is None
    checkpoints.save(saved, {"data": 17, "of": "x"})
  abstract = state.abstract_state(TINY, optimizer(), RUNS[there])
  with checkpoint.Checkpoints(tmp_path / "c", 2, None) as checkpoints:
    loaded, record = checkpoints.restore(abstract)
  assert record == {"data": 17, "of": "x"}
  jax.tree.map(np.testing.assert_array_equal, loaded, saved)
  for a, wanted in zip(jax.tree.leaves(loaded), jax.tree.leaves(abstract), strict=True):
    assert a.sharding.is_equivalent_to(wanted.sharding, a.ndim)
  params, step = checkpoint.load_params(tmp_path / "c", abstract.params)
  assert step == 3
  jax.tree.map(np.testing.assert_array_equal, params, saved.params)


def test_the_optimizer_s_state_is_cut_as_its_parameters():
  run = RUNS["2x2x2"]
  abstract = state.abstract_state(TINY, optimizer(), run)
  made = state.canonical(state.init_state(TINY, optimizer(), run, 0), run)
  assert jax.tree.structure(made) == jax.tree.structure(abstract)
  jax.tree.map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), made, abstract)
  embeddings = [a for path, a in jax.tree.leaves_with_path(made) if getattr(path[-1], "key", "") == "embedding"]
  assert len(embeddings) == 3  # the parameter and two moments
  assert {a.addressable_shards[0].data.size for a in embeddings} == {TINY.vocab_size * TINY.hidden_size // 4}


@pytest.fixture(scope="module")
def plain_state():
  return some_state(execution())


def save(path, saved, steps, keep_last=5, keep_every=None):
  with checkpoint.Checkpoints(path, keep_last, keep_every) as checkpoints:
    for step in steps:
      checkpoints.save(saved._replace(step=jax.numpy.int32(step)), {"data": step}, wait=True)
    return checkpoints.steps()


def restore(path, config=TINY):
  with checkpoint.Checkpoints(path, 5, None) as checkpoints:
    return checkpoints.restore(state.abstract_state(config, optimizer(), execution()))


def test_old_checkpoints_go(plain_state, tmp_path):
  assert save(tmp_path / "c", plain_state, range(1, 8), keep_last=2, keep_every=3) == [3, 6, 7]
  assert save(tmp_path / "c", plain_state, [7], keep_last=2, keep_every=3) == [3, 6, 7]  # a step is saved once


@pytest.mark.parametrize("changes, message", [
  (dict(intermediate_size=40), r"parameter layers\.mlp\.\w+\.kernel has shape .*is it a checkpoint of another model"),
  (dict(qkv_bias=True), r"has no parameter layers\.attention\.\w\.bias, which the model needs"),
  (dict(tie_embeddings=True), r"has a parameter head\.kernel that the model does not")])
def test_a_checkpoint_of_another_model_is_told(changes, message, plain_state, tmp_path):
  save(tmp_path / "c", plain_state, [1])
  other = dataclasses.replace(TINY, **changes)
  with pytest.raises(UserError, match=message):
    restore(tmp_path / "c", other)
  with pytest.raises(UserError, match=message):
    checkpoint.load_params(tmp_path / "c", llama.abstract_params(other))


def damage(path, pattern):
  """Cuts files of a checkpoint's parameters in half."""
  files = [file for file in (path / "params").rglob(pattern) if file.is_file()]
  assert files
  for file in files:
    file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax drops the readers it began
@pytest.mark.parametrize("pattern", ["*", "_METADATA", "ocdbt.process_0/**/*"], ids=["all", "metadata", "arrays"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(pattern, plain_state, tmp_path):
  save(tmp_path / "c", plain_state, [1, 2])
  damage(tmp_path / "c" / "2", pattern)
  loaded, record = restore(tmp_path / "c")
  assert loaded.step == 1 and record == {"data": 1}
  jax.tree.map(np.testing.assert_array_equal, loaded.params, plain_state.params)
  damage(tmp_path / "c" / "1", pattern)
  with pytest.raises(UserError, match="none of the 1 checkpoints can be read"):  # the other is out of the way
    restore(tmp_path / "c")
  assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "damaged-2"]


def test_a_half_deleted_checkpoint_goes_when_the_run_goes_on(plain_state, tmp_path):
  """As a kill leaves it while older ones are deleted. A damaged newest one is not a reason to delete a whole one."""
  save(tmp_path / "c", plain_state, [2, 3, 4, 5])
  (tmp_path / "c" / "3" / "_CHECKPOINT_METADATA").unlink()
  damage(tmp_path / "c" / "3", "_METADATA")
  damage(tmp_path / "c" / "5", "*")
  with checkpoint.Checkpoints(tmp_path / "c", 1, 2) as checkpoints:
    loaded, _ = checkpoints.restore(state.abstract_state(TINY, optimizer(), execution()))
    assert loaded.step == 4
    assert checkpoints.steps() == [2, 4]
  assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "4", "damaged-5"]


def test_missing_checkpoints_are_told(plain_state, tmp_path):
  abstract = state.abstract_state(TINY, optimizer(), execution()).params
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match="no checkpoint"):
    checkpoint.load_params(tmp_path / "empty", abstract)
  save(tmp_path / "c", plain_state, [1, 2])
  with pytest.raises(UserError, match=r"no checkpoint of step 3; there are \[1, 2\]"):
    checkpoint.load_params(tmp_path / "c", abstract, 3)
  assert checkpoint.load_params(tmp_path / "c", abstract, 1)[1] == 1
