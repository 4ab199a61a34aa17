"""HF config.json both ways, against transformers' own classes; presets against published parameter counts."""

import dataclasses
import json

import pytest

from agentbank_jax.errors import UserError
from agentbank_jax.models.config import LlamaConfig, RopeScaling, num_params
from agentbank_jax.models.hf_config import from_hf, read_hf_config, to_hf
from agentbank_jax.models.presets import PRESETS, preset

PUBLISHED = {
  "llama2_7b": 6_738_415_616, "llama2_13b": 13_015_864_320, "llama2_70b": 68_976_648_192,
  "codellama_7b": 6_738_546_688, "codellama_13b": 13_016_028_160,
  "llama3_8b": 8_030_261_248, "llama3_70b": 70_553_706_496,
  "llama3.1_8b": 8_030_261_248, "llama3.1_70b": 70_553_706_496,
  "llama3.2_1b": 1_235_814_400, "llama3.2_3b": 3_212_749_824,
  "mistral_7b": 7_241_732_096, "mistral_7b_v0.3": 7_248_023_552,
  "qwen2.5_0.5b": 494_032_768, "qwen2.5_7b": 7_615_616_512,
}

LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}

# As the hub's older files spell it: nothing of transformers 5 in them.
LLAMA2_OLD = {
  "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
  "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
  "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": True, "vocab_size": 32000,
}
LLAMA32_OLD = LLAMA2_OLD | {
  "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
  "head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
  "mlp_bias": False,
  "num_hidden_layers": 16, "num_key_value_heads": 8, "rope_theta": 500000.0, "tie_word_embeddings": True,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "torch_dtype": "bfloat16", "vocab_size": 128256,
}
MISTRAL_OLD = {
  "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
  "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
  "num_hidden_layers": 32, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False,
  "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 32000,
}
QWEN_OLD = {
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
  "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
  "intermediate_size": 4864,
  "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
  "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
  "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936,
}


def hf_class_config(config: LlamaConfig):
  """Returns transformers' own configuration of what we would write."""
  import transformers

  hf = to_hf(config)
  return transformers.AutoConfig.for_model(hf.pop("model_type"), **hf)


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name):
  assert num_params(preset(name)) == PUBLISHED[name]


@pytest.mark.parametrize("name", PRESETS)
def test_transformers_counts_as_many_parameters(name):
  import torch
  import transformers

  with torch.device("meta"):
    model = transformers.AutoModelForCausalLM.from_config(hf_class_config(preset(name)))
  assert num_params(preset(name)) == sum(p.numel() for p in model.parameters())  # a tied head counts once


@pytest.mark.parametrize("old, name", [
  (LLAMA2_OLD, "llama2_7b"), (LLAMA32_OLD, "llama3.2_1b"),
  (MISTRAL_OLD, "mistral_7b"), (QWEN_OLD, "qwen2.5_0.5b")])
def test_the_hubs_older_files_give_the_presets(old, name):
  assert from_hf(old) == preset(name)


def test_unknown_preset_suggests_one():
  with pytest.raises(UserError, match=r"unknown preset 'llama2_7'; did you mean 'llama2_7b'\?"):
    preset("llama2_7")


VARIANTS = {
  "linear": dict(rope_scaling=RopeScaling("linear", 4.0)),
  "llama3": dict(rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 64)),
  "theta": dict(rope_theta=12345.0), "eps": dict(norm_eps=3e-4), "tied": dict(tie_embeddings=True),
  "head_dim": dict(head_dim=32), "mlp_bias": dict(mlp_bias=True),
  "attention biases": dict(qkv_bias=True, out_bias=True),
  "init": dict(initializer_range=0.1), "ids": dict(bos_id=7, eos_ids=(8, 9), pad_id=0),
  "one eos": dict(eos_ids=(5,)), "positions": dict(max_positions=99),
  "mistral": dict(model_type="mistral"), "window": dict(model_type="mistral", sliding_window=7),
  "qwen2": dict(model_type="qwen2", qkv_bias=True),
  "qwen2 head_dim": dict(model_type="qwen2", qkv_bias=True, head_dim=8),
  "qwen2 window": dict(model_type="qwen2", qkv_bias=True, sliding_window=9),
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_round_trip_through_our_form_and_through_transformers(change, tmp_path):
  config = dataclasses.replace(preset("tiny_test"), **change)
  assert from_hf(to_hf(config)) == config
  assert from_hf(json.loads(json.dumps(to_hf(config, "bfloat16")))) == config
  hf = hf_class_config(config)
  assert from_hf(hf.to_dict()) == config
  hf.save_pretrained(tmp_path)
  assert read_hf_config(tmp_path / "config.json") == config


def test_transformers_reads_the_meaning_of_our_file(tmp_path):
  import torch
  import transformers

  scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 64)
  config = dataclasses.replace(preset("tiny_test"), rope_theta=5e5, rope_scaling=scaling)
  (tmp_path / "config.json").write_text(json.dumps(to_hf(config, "bfloat16")))
  hf = transformers.AutoConfig.from_pretrained(tmp_path)
  assert hf.rope_parameters == LLAMA3_ROPE | {"rope_theta": 5e5}
  assert hf.dtype == torch.bfloat16
  assert (hf.num_key_value_heads, hf.head_dim, hf.rms_norm_eps) == (2, 16, 1e-5)


@pytest.mark.parametrize("make", ["LlamaConfig", "MistralConfig", "Qwen2Config"])
def test_transformers_defaults_where_a_file_is_silent(make):
  """A file with shapes alone means what transformers takes it to mean."""
  import transformers

  hf = getattr(transformers, make)(num_hidden_layers=4)
  shapes = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads")
  assert from_hf({key: hf.to_dict()[key] for key in shapes}) == from_hf(hf.to_dict())


def test_qwen2_window_layers():
  windowed = QWEN_OLD | {"use_sliding_window": True}
  assert from_hf(windowed).sliding_window is None  # max_window_layers = 24 of 24 keep full attention
  assert from_hf(windowed | {"max_window_layers": 0}).sliding_window == 32768
  assert from_hf(windowed | {"layer_types": ["sliding_attention"] * 24}).sliding_window == 32768
  assert from_hf(QWEN_OLD | {"layer_types": ["full_attention"] * 24}).sliding_window is None


TINY = to_hf(preset("tiny_test"))
ROPE, NO_ROPE = "rope_scaling", TINY | {"rope_scaling": None}
SLIDING = QWEN_OLD | {"use_sliding_window": True}
REFUSED = {
  "model type": (TINY | {"model_type": "gemma"}, "model_type is 'gemma'"),
  "near model type": (TINY | {"model_type": "lama"}, "did you mean 'llama'"),
  "no model type": ({}, "model_type is None"),
  "activation": (TINY | {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
  "yarn": (TINY | {ROPE: {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling.rope_type is 'yarn'"),
  "dynamic": (TINY | {ROPE: {"type": "dynamic", "factor": 4.0}}, "rope_scaling.rope_type is 'dynamic'"),
  "longrope": (NO_ROPE | {"rope_parameters": {"rope_type": "longrope"}}, "rope_parameters.rope_type is"),
  "rope key": (TINY | {ROPE: {"rope_type": "linear", "factor": 2.0, "beta": 1}}, "rope_scaling.beta is 1"),
  "rope factor": (TINY | {ROPE: {"rope_type": "linear"}}, "rope_scaling.factor is missing"),
  "two ropes": (TINY | {ROPE: LLAMA3_ROPE, "rope_parameters": {"type": "default"}}, "but rope_scaling is"),
  "two thetas": (TINY | {"rope_parameters": {"rope_theta": 5e5}}, "rope_theta is 10000.0 but"),
  "partial rotary": (TINY | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
  "quantized": (TINY | {"quantization_config": {"bits": 4}}, r"quantization_config is \{'bits': 4\}"),
  "dropout": (TINY | {"attention_dropout": 0.1}, "attention_dropout is 0.1"),
  "own code": (TINY | {"auto_map": {"AutoModelForCausalLM": "m.M"}}, "AutoModelForCausalLM is 'm.M'"),
  "classifier": (TINY | {"architectures": ["LlamaForSequenceClassification"]}, "architectures is"),
  "no heads": ({k: v for k, v in TINY.items() if k != "num_attention_heads"}, "num_attention_heads is miss"),
  "text shape": (TINY | {"hidden_size": "64"}, "hidden_size is '64'; expected a whole number"),
  "text eps": (TINY | {"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'; expected a number"),
  "text flag": (TINY | {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
  "uneven groups": (TINY | {"num_key_value_heads": 3}, "= 4 is not a multiple of num_kv_heads = 3"),
  "partial windows": (SLIDING | {"max_window_layers": 10}, "on 14 of 24 layers"),
  "mixed layers": (SLIDING | {"layer_types": ["full_attention", "sliding_attention"] * 12}, "on 12 of 24"),
  "windowless layers": (QWEN_OLD | {"layer_types": ["sliding_attention"] * 24}, "with sliding_window = None"),
  "linear layers": (QWEN_OLD | {"layer_types": ["linear_attention"] * 24}, "layer_types is"),
}


@pytest.mark.parametrize("hf, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_expressed_is_an_error(hf, message):
  with pytest.raises(UserError, match=message):
    from_hf(hf)


def test_harmless_extras_are_fine():
  extras = {"_name_or_path": "x", "use_cache": False, "pretraining_tp": 2, "torch_dtype": "float16"}
  assert from_hf(TINY | extras) == preset("tiny_test")


@pytest.mark.parametrize("change, message", [
  (dict(sliding_window=8), "llama has no field for sliding_window = 8"),
  (dict(qkv_bias=True), "llama has no field for qkv_bias = True"),
  (dict(model_type="mistral", mlp_bias=True), "mistral has no field for mlp_bias = True"),
  (dict(model_type="qwen2"), "qwen2 has no field for qkv_bias = False")])
def test_what_hf_cannot_hold_is_an_error(change, message):
  with pytest.raises(UserError, match=message):
    to_hf(dataclasses.replace(preset("tiny_test"), **change))


def test_messages_name_the_file(tmp_path):
  path = tmp_path / "config.json"
  with pytest.raises(UserError, match="config.json: no such file"):
    read_hf_config(path)
  for text, message in (("{", "not JSON"), ("[]", "expected a JSON object"), ("{}", "model_type is None")):
    path.write_text(text)
    with pytest.raises(UserError, match=f"config.json: {message}"):
      read_hf_config(path)
  for change in (dict(rope_scaling="linear"), dict(rope_theta=[1]), dict(auto_map="x"), dict(layer_types=5),
                 dict(rope_scaling={"rope_type": ["linear"]}), dict(num_attention_heads=0, head_dim=None)):
    path.write_text(json.dumps(TINY | change))
    with pytest.raises(UserError, match="config.json: a field has a value that no model has"):
      read_hf_config(path)
