"""The NumPy forward pass against transformers' PyTorch models."""

import dataclasses

from hf_models import save_random_model, torch_logits
import numpy as np
import pytest

from agentbank_jax.convert.numpy_reference import reference_logits
from agentbank_jax.models.config import RopeScaling
from agentbank_jax.models.presets import preset

LLAMA3 = RopeScaling("llama3", 4.0, 1.0, 4.0, 32)
VARIANTS = {
  "llama": {},
  "no groups": dict(num_kv_heads=4),
  "one kv head": dict(num_kv_heads=1),
  "theta and llama3 scaling": dict(rope_theta=5e5, rope_scaling=LLAMA3),
  "linear scaling": dict(rope_scaling=RopeScaling("linear", 3.0)),
  "eps": dict(norm_eps=0.1),
  "head_dim": dict(head_dim=24),
  "biases": dict(qkv_bias=True, out_bias=True, mlp_bias=True),
  "tied": dict(tie_embeddings=True),
  "mistral": dict(model_type="mistral"),
  "mistral window": dict(model_type="mistral", sliding_window=5),
  "qwen2": dict(model_type="qwen2", qkv_bias=True, tie_embeddings=True),
  "qwen2 window": dict(model_type="qwen2", qkv_bias=True, sliding_window=7),
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_equals_transformers(change, tmp_path):
  model = save_random_model(dataclasses.replace(preset("tiny_test"), **change), tmp_path)
  tokens = np.random.default_rng(0).integers(512, size=(2, 40))
  for dtype in ("float32", "float64"):
    ours = reference_logits(tmp_path, tokens, np.dtype(dtype).type)
    theirs = torch_logits(model, tokens, dtype)
    assert ours.dtype == dtype
    assert np.abs(theirs).max() > 1  # else a small difference says little
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_every_knob_shows(tmp_path):
  """A test of the tests: each variant that shares its weights with another differs from it."""
  tokens = np.random.default_rng(0).integers(512, size=(1, 40))
  base = preset("tiny_test")
  logits = {}
  for name in ("llama", "theta and llama3 scaling", "linear scaling", "eps", "mistral", "mistral window"):
    save_random_model(dataclasses.replace(base, **VARIANTS[name]), tmp_path / name)
    logits[name] = reference_logits(tmp_path / name, tokens)
  for a, b in (("llama", "theta and llama3 scaling"), ("llama", "linear scaling"), ("llama", "eps"),
               ("mistral", "mistral window")):
    assert np.abs(logits[a] - logits[b]).max() > 0.05, (a, b)


def test_rounds_weights_first(tmp_path):
  config = preset("tiny_test")
  save_random_model(config, tmp_path / "wide")
  save_random_model(config, tmp_path / "narrow", dtype="bfloat16")  # the same weights, rounded by PyTorch
  tokens = np.random.default_rng(0).integers(512, size=(1, 20))
  np.testing.assert_array_equal(reference_logits(tmp_path / "wide", tokens, round_to="bfloat16"),
                                reference_logits(tmp_path / "narrow", tokens))
