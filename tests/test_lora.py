"""LoRA: adapters train, the base stays, and what is exported is what was trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import TINY, conversations, execution, mesh, pack
from training_samples import make_training, save_packed

from agentbank_jax import sharding, state, step
from agentbank_jax import train as training
from agentbank_jax.bundle import Bundle
from agentbank_jax.convert.to_hf import export_hf
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama, lora
from agentbank_jax.models.config import LINEARS, LoraConfig, num_params, param_shapes
from configs.base import architecture

LORA = LoraConfig(rank=3, alpha=6.0, targets=LINEARS, base="float32")
MODEL = dataclasses.replace(TINY, qkv_bias=True, lora=LORA)
RUN = execution()


def batch():
  made = conversations(12, 16)
  return pack([made[i:i + 2] for i in range(0, 12, 2)] + [[], []], 32)


def adapted(config=MODEL, seed=0):
  """Returns canonical parameters whose adapters are no longer zero."""
  rng = np.random.default_rng(seed)
  noise = lambda path, a: a + 0.1 * rng.normal(size=a.shape).astype(np.float32) if path[-1].key == "lora_b" else a
  return jax.tree.map_with_path(noise, llama.init_params(config, seed))


def logits(config, params, run=RUN):
  rows = batch()
  model = llama.bind(config, llama.to_layout(params, config.num_layers, run.layers), run)
  return np.asarray(model.logits(rows["tokens"], rows["positions"], rows["segment_ids"], run))


@pytest.mark.parametrize("base", ["float32", "bfloat16", "int8"])
def test_the_parameters_are_those_of_the_table(base):
  config = dataclasses.replace(MODEL, lora=dataclasses.replace(LORA, base=base))
  names = lambda tree: {".".join(k.key for k in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
  params = names(llama.init_params(config, 0))
  assert {k: v.shape for k, v in params.items()} == param_shapes(config)
  assert num_params(config) == sum(v.size for v in params.values())
  kinds = {v.dtype.name for k, v in params.items() if "lora" not in k}
  assert kinds == ({"int8", "float32", "bfloat16"} if base == "int8" else {base})
  assert all(v.dtype == jnp.float32 for k, v in params.items() if "lora" in k)


def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does():
  plain = dataclasses.replace(MODEL, lora=None)
  base = llama.init_params(plain, 0)
  fresh = lora.attach(base, MODEL, llama.init_params(MODEL, 1))
  np.testing.assert_allclose(logits(MODEL, fresh), logits(plain, base), atol=3e-5)
  assert np.abs(logits(MODEL, adapted()) - logits(plain, lora.split(adapted(), MODEL)[1])).max() > 0.05


@pytest.mark.parametrize("run", [RUN, execution("unroll", "blocked", "cpu")], ids=["scan", "unroll"])
@pytest.mark.parametrize("targets", [LINEARS, ("q", "down")], ids=["all", "two"])
def test_merged_is_adapted(targets, run):
  config = dataclasses.replace(MODEL, lora=dataclasses.replace(LORA, targets=targets))
  params = adapted(config)
  merged, plain = lora.merge(params, config)
  np.testing.assert_allclose(logits(config, params, run), logits(plain, merged, run), atol=2e-5)


def test_an_int8_base_is_close_and_merges_to_what_it_computes():
  config = dataclasses.replace(MODEL, lora=dataclasses.replace(LORA, base="int8"))
  plain = dataclasses.replace(MODEL, lora=None)
  base = llama.init_params(plain, 0)
  fresh = lora.attach(base, config, llama.init_params(config, 1))
  exact, rounded = logits(plain, base), logits(config, fresh)
  assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()
  merged, _ = lora.merge(fresh, config)
  np.testing.assert_allclose(logits(plain, merged), rounded, atol=2e-3)
  kernel = np.asarray(base["layers"]["mlp"]["up"]["kernel"])
  error = np.abs(np.asarray(merged["layers"]["mlp"]["up"]["kernel"]) - kernel)
  assert (error <= np.abs(kernel).max(1, keepdims=True) / 127 / 2 * 1.01).all()


def train(config, run, steps=3, micro_batches=1, tx=optax.sgd(0.3, momentum=0.9)):  # noqa: B008
  train_step = jax.jit(step.make_train_step(config, run, tx, lambda _: 1e-2, micro_batches))
  now = state.init_state(config, tx, run, seed=0)
  losses = []
  for _ in range(steps):
    now, metrics = train_step(now, sharding.global_batch(batch(), run.sharding))
    losses.append(float(metrics["loss"]))
  return state.canonical(now, run), losses


def test_only_adapters_train_and_only_they_have_moments():
  begin = llama.init_params(MODEL, 0)
  end, losses = train(MODEL, RUN, tx=optax.adamw(1e-2))
  assert losses[-1] < losses[0]
  for (path, a), b in zip(jax.tree.leaves_with_path(begin), jax.tree.leaves(end.params), strict=True):
    assert (path[-1].key in lora.ADAPTERS) == bool(np.any(np.asarray(a) != np.asarray(b))), path
  adapters = sum(x.size for x in jax.tree.leaves(lora.split(end.params, MODEL)[0]))
  assert sum(x.size for x in jax.tree.leaves(end.opt_state)) == 2 * adapters + 1


@pytest.mark.parametrize("run, micro_batches", [
    (execution("unroll", "blocked", "cpu", loss_chunk=5), 1), (RUN, 2),
    (execution(sharding=mesh(data=2, fsdp=2, tensor=2)), 1), (execution(remat="full"), 4)],
    ids=["unrolled", "micro-batches", "mesh", "remat"])
def test_how_it_is_run_changes_nothing(run, micro_batches):
  expected, expected_losses = train(MODEL, RUN)
  result, losses = train(MODEL, run, micro_batches=micro_batches)
  np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(result.params), jax.tree.leaves(expected.params), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


def test_gradients_are_those_of_the_merged_model():
  """dL/dB = scale * A^T dL/dW, and dL/dA = scale * dL/dW B^T, with dL/dW of the merged weights."""
  params = adapted()
  _, _, grads = step.loss_and_grads(params, batch(), 1, MODEL, RUN)
  merged, plain = lora.merge(params, MODEL)
  _, _, full = step.loss_and_grads(merged, batch(), 1, plain, RUN)
  for room, name in [("attention", "q"), ("attention", "o"), ("mlp", "down")]:
    g, ours, p = (tree["layers"][room][name] for tree in (full, grads, params))
    to_b = LORA.scale * jnp.einsum("lir,lio->lro", p["lora_a"], g["kernel"])
    to_a = LORA.scale * jnp.einsum("lio,lro->lir", g["kernel"], p["lora_b"])
    np.testing.assert_allclose(ours["lora_b"], to_b, atol=1e-5)
    np.testing.assert_allclose(ours["lora_a"], to_a, atol=1e-5)


@pytest.mark.parametrize("changes, message", [
    (dict(rank=0), "lora.rank is 0"), (dict(targets=()), "lora.targets is empty"),
    (dict(targets=("gates",)), "'gates'.*did you mean 'gate'"), (dict(base="int4"), "lora.base is 'int4'")])
def test_wrong_settings_are_told(changes, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(LORA, **changes)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
  """A base model, and a run of `agentbank train` that adapts it: (base folder, workdir, what the run returned)."""
  folder = tmp_path_factory.mktemp("lora")
  packed = save_packed(folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "device_count", lambda: 1)
    full = training.run(make_training(packed, {"train.steps": 2}), folder / "full")
    assert full["trained_parameters"] == full["parameters"]
    config = make_training(packed, {
        "model.preset": None, "model.init_from": str(folder / "full" / "model"), "model.lora.rank": 4,
        "model.lora.base": "float32", "model.lora.targets": ("q", "v", "down"), "train.steps": 6,
        "optim.learning_rate": 3e-2})
    config.model.overrides = architecture()
    result = training.run(config, folder / "lora")
  return folder / "full" / "model", folder / "lora", result


def test_training_writes_the_merged_model_and_the_adapter(tuned):
  base, workdir, result = tuned
  assert 0 < result["trained_parameters"] < result["parameters"] / 3
  before, after = (Bundle.open(path).load_params() for path in (base, workdir / "model"))
  changed = {".".join(k.key for k in path) for (path, a), b in
             zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True) if np.any(a != b)}
  assert changed == {"layers.attention.q.kernel", "layers.attention.v.kernel", "layers.mlp.down.kernel"}


def test_peft_loads_the_adapter_and_gives_the_merged_model_s_logits(tuned, tmp_path):
  peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
  from transformers import AutoModelForCausalLM
  base, workdir, _ = tuned
  export_hf(base, tmp_path / "base")
  export_hf(workdir / "model", tmp_path / "merged")
  adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), workdir / "adapter")
  merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
  ids = torch.arange(3, 40)[None]
  with torch.no_grad():
    ours, theirs = merged(ids).logits, adapted(ids).logits
    with adapted.disable_adapter():
      plain = adapted(ids).logits
  torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
  assert (theirs - plain).abs().max() > 1e-2
