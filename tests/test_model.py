"""The model against transformers and PyTorch, each way it can be run; every knob of its config shows."""

import dataclasses
import functools

from hf_models import save_random_model, torch_logits
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import TINY, execution, random_params

from agentbank_jax.bundle import Bundle
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama
from agentbank_jax.models.config import LlamaConfig, RopeScaling, num_params, override, param_shapes
from agentbank_jax.models.execution import resolve
from configs.base import architecture, training

LENGTH = 40
LLAMA3 = RopeScaling("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=32)
BASE = dataclasses.replace(TINY, hidden_size=48, initializer_range=0.02)  # heads * head_dim is not hidden_size
FAMILIES = {
  "llama": BASE,
  "all heads have keys": dataclasses.replace(BASE, num_kv_heads=4),
  "one head has keys, tied": dataclasses.replace(BASE, num_kv_heads=1, tie_embeddings=True),
  "biases": dataclasses.replace(BASE, qkv_bias=True, out_bias=True, mlp_bias=True),
  "llama 3.1": dataclasses.replace(BASE, rope_scaling=LLAMA3, head_dim=16, rope_theta=5e4),
  "linear scaling": dataclasses.replace(BASE, rope_scaling=RopeScaling("linear", 3.0)),
  "mistral": dataclasses.replace(BASE, model_type="mistral", sliding_window=7),
  "qwen2": dataclasses.replace(BASE, model_type="qwen2", qkv_bias=True, tie_embeddings=True, norm_eps=1e-3),
}
EXECUTIONS = {
  "scan full native": execution(),
  "scan blocked cpu": execution(attention="blocked", matmul="cpu"),
  "unroll full cpu": execution("unroll", matmul="cpu"),
  "unroll blocked native": execution("unroll", "blocked"),
  "unroll blocked cpu": execution("unroll", "blocked", "cpu"),
}
TOKENS = np.random.default_rng(1).integers(0, TINY.vocab_size, (2, LENGTH), np.int32)


@functools.partial(jax.jit, static_argnums=(0, 2))
def forward(config, params, run):
  positions = jnp.broadcast_to(jnp.arange(LENGTH), TOKENS.shape)
  return llama.bind(config, params, run).logits(TOKENS, positions, jnp.ones_like(TOKENS), run)


def logits_of(config, params, run):
  """Runs canonical parameters on `TOKENS`, rows of one segment each; returns a NumPy array."""
  return np.asarray(forward(config, llama.to_layout(params, config.num_layers, run.layers), run))


@pytest.fixture(scope="module")
def hf_folders(tmp_path_factory):
  """Returns {family: (folder, PyTorch's logits)}."""
  root = tmp_path_factory.mktemp("hf")
  return {name: (root / name, torch_logits(save_random_model(config, root / name), TOKENS))
          for name, config in FAMILIES.items()}


# Each family with each choice once; all pairs of choices with the first.
@pytest.mark.parametrize("family, run", [
  *((family, run) for family in FAMILIES for run in ("scan full native", "unroll blocked cpu")),
  *((next(iter(FAMILIES)), run) for run in ("scan blocked cpu", "unroll full cpu", "unroll blocked native"))])
def test_logits_are_those_of_transformers(family, run, hf_folders):
  folder, expected = hf_folders[family]
  bundle = Bundle.open(folder)
  assert np.abs(expected).max() > 1  # a difference of 1e-4 means something
  ours = logits_of(bundle.config, bundle.load_params(), EXECUTIONS[run])
  assert ours.dtype == np.float32
  np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


# With this theta, one frequency of each of Llama 3.1's three kinds turns visibly within a row.
FULL = dataclasses.replace(TINY, qkv_bias=True, out_bias=True, mlp_bias=True, rope_theta=50.0, rope_scaling=LLAMA3,
                           sliding_window=30)
# What the function must depend on although no parameter's shape does.
CONSTANTS = {
  "rope_theta": 60.0,
  "norm_eps": 1e-2,
  "sliding_window": 29,
  "rope_scaling.kind": "linear",
  "rope_scaling.factor": 5.0,
  "rope_scaling.low_freq_factor": 2.0,
  "rope_scaling.high_freq_factor": 8.0,
  "rope_scaling.original_max_position": 64,
  "rope_scaling": None,
  "num_kv_heads and head_dim": None,
}


def changed(config, name, value):
  if name == "num_kv_heads and head_dim":  # the same shapes, read otherwise
    return dataclasses.replace(config, num_heads=8, num_kv_heads=4, head_dim=4)
  if name.startswith("rope_scaling."):
    scaling = dataclasses.replace(config.rope_scaling, **{name.removeprefix("rope_scaling."): value})
    return dataclasses.replace(config, rope_scaling=scaling)
  return dataclasses.replace(config, **{name: value})


@pytest.fixture(scope="module")
def full_params():
  return random_params(FULL)


@pytest.fixture(scope="module")
def base_logits(full_params):
  return logits_of(FULL, full_params, execution())


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_constant_changes_the_logits(name, full_params, base_logits):
  other = changed(FULL, name, CONSTANTS[name])
  assert param_shapes(other) == param_shapes(FULL)
  assert np.abs(logits_of(other, full_params, execution()) - base_logits).max() > 1e-3


@pytest.mark.parametrize("name", param_shapes(FULL))
def test_every_parameter_changes_the_logits(name, full_params, base_logits):
  """Each layer's own part, too."""
  for layer in range(FULL.num_layers) if name.startswith("layers.") else [...]:
    other = jax.tree.map(np.copy, full_params)
    *parents, leaf = name.split(".")
    functools.reduce(dict.__getitem__, parents, other)[leaf][layer] *= 1.5
    difference = np.abs(logits_of(FULL, other, execution()) - base_logits).max()
    if name == "layers.attention.k.bias":  # softmax ignores it but for rotation and the window's edge
      assert difference > 1e-4, layer
    else:
      assert difference > 1e-3, layer


def test_what_is_a_shape_is_a_shape():
  """The fields that are not constants change what the parameters are."""
  shapes = param_shapes(TINY)
  for name, value in dict(vocab_size=97, hidden_size=40, intermediate_size=50, num_layers=3, num_heads=6,
                          num_kv_heads=1, head_dim=10, tie_embeddings=True, qkv_bias=True, out_bias=True,
                          mlp_bias=True).items():
    assert param_shapes(dataclasses.replace(TINY, **{name: value})) != shapes, name


def test_no_field_of_the_config_is_untested():
  in_constants = {name.split(".")[0] for name in CONSTANTS}
  in_shapes = {"vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads",
               "head_dim", "tie_embeddings", "qkv_bias", "out_bias", "mlp_bias"}
  # The family's name, the tokenizer's ids and the limit of positions go elsewhere, adapters to test_lora.py; the last
  # has a test below.
  elsewhere = {"model_type", "max_positions", "bos_id", "eos_ids", "pad_id", "lora", "initializer_range"}
  fields = {f.name for f in dataclasses.fields(LlamaConfig)}
  assert fields <= in_constants | in_shapes | elsewhere


def test_overrides_change_what_they_name_and_nothing_else():
  keep = architecture().to_dict()
  change = lambda config, **fields: override(config, keep | fields)
  scaled = lambda config, **fields: change(config, rope_scaling=keep["rope_scaling"] | fields)
  assert change(FULL) == FULL
  assert change(FULL, num_layers=5, qkv_bias=False) == dataclasses.replace(FULL, num_layers=5, qkv_bias=False)
  assert change(FULL, sliding_window=0).sliding_window is None
  assert scaled(FULL, factor=9.0).rope_scaling == dataclasses.replace(LLAMA3, factor=9.0)
  assert scaled(FULL, kind="none").rope_scaling is None
  assert scaled(TINY, kind="linear", factor=2.0).rope_scaling == RopeScaling("linear", 2.0)
  for config, fields, message in [
      (TINY, dict(factor=2.0), "has no rope_scaling; give its kind and its factor"),
      (TINY, dict(kind="linear"), "has no rope_scaling"),
      (TINY, dict(kind="lama3", factor=2.0), "rope_scaling.kind is 'lama3'.*did you mean 'llama3'"),
      (FULL, dict(kind="none", factor=2.0), "its other fields have no meaning"),
      (TINY, dict(kind="linear", factor=2.0, low_freq_factor=1.0), "low_freq_factor has no meaning"),
      (FULL, dict(factor=0.0), "rope_scaling.factor is 0.0; it must be positive"),
      (FULL, dict(low_freq_factor=4.0), "high_freq_factor = 4.0 is not above low_freq_factor = 4.0")]:
    with pytest.raises(UserError, match=message):
      scaled(config, **fields)
  for fields, message in [
      (dict(model_type="lama"), "did you mean 'llama'"), (dict(rope_theta=-1.0), "rope_theta is -1.0"),
      (dict(num_layers=0), "num_layers is 0"), (dict(sliding_window=-1), "sliding_window is -1")]:
    with pytest.raises(UserError, match=message):
      change(FULL, **fields)


def test_initializer_range_is_the_spread_of_new_weights():
  narrow, wide = (dataclasses.replace(TINY, initializer_range=std, qkv_bias=True) for std in (0.02, 0.5))
  params = llama.init_params(narrow, 0)
  for path, leaf in jax.tree.leaves_with_path(params):
    kind = path[-1].key
    if kind == "scale":
      assert (leaf == 1).all()
    elif kind == "bias":
      assert (leaf == 0).all()
    else:
      assert leaf.std() == pytest.approx(0.02, rel=0.1) and abs(leaf.mean()) < 0.002
  kernel = params["layers"]["mlp"]["gate"]["kernel"]
  assert abs(kernel[0] - kernel[1]).max() > 0  # no two layers start alike
  again, other = (llama.init_params(wide, seed)["layers"]["mlp"]["gate"]["kernel"] for seed in (0, 1))
  np.testing.assert_allclose(again, 25 * kernel, rtol=1e-5)
  assert abs(other - again).max() > 0


@pytest.mark.parametrize("tie", [True, False])
def test_parameters_are_what_the_table_says(tie):
  config = dataclasses.replace(FULL, tie_embeddings=tie)
  params = jax.eval_shape(lambda: llama.init_params(config, 0))
  shapes = {".".join(k.key for k in path): a.shape for path, a in jax.tree.leaves_with_path(params)}
  assert shapes == param_shapes(config)
  assert sum(a.size for a in jax.tree.leaves(params)) == num_params(config)
  assert jax.tree.map(lambda a: a.shape, llama.abstract_params(config)) == jax.tree.map(lambda a: a.shape, params)
  axes = llama.param_axes(config)
  is_axes = lambda a: isinstance(a, tuple)
  assert jax.tree.map(len, axes, is_leaf=is_axes) == jax.tree.map(lambda a: a.ndim, params)


def test_many_layers_keep_their_order():
  """Beyond ten layers, names sorted as text would put layer 10 before layer 2."""
  config = dataclasses.replace(TINY, num_layers=12)
  params = random_params(config)
  split = llama.to_layout(params, 12, "unroll")
  for i in range(12):
    np.testing.assert_array_equal(split["layers"][i]["mlp"]["up"]["kernel"], params["layers"]["mlp"]["up"]["kernel"][i])
  scanned = logits_of(config, params, execution())
  np.testing.assert_allclose(logits_of(config, params, execution("unroll")), scanned, rtol=0, atol=1e-4)
  order = jnp.array([0, 1, 10, 11, *range(2, 10)])
  wrong = dict(params, layers=jax.tree.map(lambda a: a[order], params["layers"]))
  assert np.abs(logits_of(config, wrong, execution()) - scanned).max() > 0.1


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_layouts_round_trip(layers):
  config = dataclasses.replace(FULL, num_layers=11)
  params = random_params(config)
  state = {"params": params, "moments": [params, (np.zeros(()), params)]}  # an optimizer state looks so
  back = llama.to_canonical(llama.to_layout(state, 11, layers), layers)
  assert jax.tree.structure(back) == jax.tree.structure(state)
  jax.tree.map(np.testing.assert_array_equal, back, state)
  abstract = llama.abstract_params(config)
  shapes = lambda tree: jax.tree.map(lambda a: a.shape, llama.to_layout(tree, 11, layers))
  assert shapes(abstract) == shapes(params)


def test_the_last_hidden_states_are_in_the_compute_dtype():
  run = execution(compute_dtype="bfloat16")
  hidden = lambda params: llama.bind(TINY, params, run).hidden(TOKENS, TOKENS, TOKENS, run)
  assert jax.eval_shape(hidden, llama.abstract_params(TINY)).dtype == jnp.bfloat16


def test_resolve_knows_the_platforms_and_refuses_the_rest():
  config = training().execution
  assert resolve(config, "cpu").layers == "unroll" and resolve(config, "tpu").layers == "scan"
  for platform in ("cpu", "gpu", "tpu"):
    assert "auto" not in dataclasses.astuple(resolve(config, platform, capability=(9, 0)))
  for name, value, message in [
      ("layers", "loop", "execution.layers is 'loop'; choose one of scan, unroll or auto"),
      ("attention", "flash", "choose one of full, blocked, splash, splash_interpret, cudnn, triton, triton_interpret "
       "or auto"),
      ("matmul", "gpu", "choose one of native, cpu or auto"),
      ("remat", "auto", "choose one of none, dots, attention, full$"),
      ("compute_dtype", "float16", "choose one of float32, bfloat16$"),
      ("loss_chunk", 0, "execution.loss_chunk is 0; it must be at least 1"),
      ("query_block", -1, "execution.query_block is -1"), ("splash_block", 0, "execution.splash_block is 0")]:
    with pytest.raises(UserError, match=message):
      resolve(dict(config, **{name: value}), "cpu")
