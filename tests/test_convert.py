"""HF safetensors <-> bundle, against models that transformers and PyTorch wrote and read."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

from flax import traverse_util
from hf_models import save_random_model, torch_logits
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from agentbank_jax.bundle import Bundle, write_bundle
from agentbank_jax.convert import run
from agentbank_jax.convert.check import check_parity
from agentbank_jax.convert.from_hf import import_hf
from agentbank_jax.convert.mapping import TABLE
from agentbank_jax.convert.tensor_files import open_tensors
from agentbank_jax.convert.to_hf import export_hf, parse_size
from agentbank_jax.errors import UserError
from agentbank_jax.models.config import RopeScaling, param_shapes
from agentbank_jax.models.presets import preset
from configs.convert import get_config

TINY = preset("tiny_test")
FAMILIES = {
  "llama": TINY,
  "llama biases": dataclasses.replace(TINY, qkv_bias=True, out_bias=True, mlp_bias=True, num_kv_heads=4),
  "llama3 tied": dataclasses.replace(
    TINY, tie_embeddings=True, rope_scaling=RopeScaling("llama3", 4.0, 1.0, 4.0, 32)),
  "mistral": dataclasses.replace(TINY, model_type="mistral", sliding_window=5, head_dim=24),
  "qwen2": dataclasses.replace(TINY, model_type="qwen2", qkv_bias=True, tie_embeddings=True),
}
TOKENS = np.random.default_rng(0).integers(512, size=(2, 24))


def tensors_of(folder):
  return {name: tensor.read() for name, tensor in open_tensors(folder).items()}


def same_bytes(a, b):
  content = lambda tensors: {name: (t.dtype, t.shape, t.tobytes()) for name, t in tensors.items()}
  return content(a) == content(b)


@pytest.fixture
def hf(tmp_path):
  """An HF folder in one file, with a tokenizer (of which only the names matter here)."""
  save_random_model(TINY, tmp_path / "hf")
  for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
    (tmp_path / "hf" / name).write_text(f"content of {name}")
  (tmp_path / "hf" / "additional_chat_templates").mkdir()
  (tmp_path / "hf" / "additional_chat_templates" / "tools.jinja").write_text("tools")
  return tmp_path / "hf"


@pytest.fixture
def sharded(tmp_path):
  """An HF folder in many files."""
  save_random_model(TINY, tmp_path / "sharded", max_shard_size="100KB")
  assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
  return tmp_path / "sharded"


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_round_trip(config, tmp_path):
  """transformers -> bundle -> HF -> transformers: the same bytes, the same logits."""
  import transformers

  model = save_random_model(config, tmp_path / "hf", max_shard_size="150KB")
  import_hf(tmp_path / "hf", tmp_path / "bundle")
  bundle = Bundle.open(tmp_path / "bundle")
  assert bundle.config == config
  params = bundle.load_params()
  flat = traverse_util.flatten_dict(params, sep=".")
  assert {name: array.shape for name, array in flat.items()} == param_shapes(config)
  state = model.state_dict()
  for layer in range(config.num_layers):  # the layout, by hand: stacked over layers, kernels transposed
    weight = state[f"model.layers.{layer}.self_attn.k_proj.weight"].numpy()
    np.testing.assert_array_equal(params["layers"]["attention"]["k"]["kernel"][layer], weight.T)
    norm = state[f"model.layers.{layer}.post_attention_layernorm.weight"].numpy()
    np.testing.assert_array_equal(params["layers"]["mlp_norm"]["scale"][layer], norm)
  np.testing.assert_array_equal(params["embed"]["embedding"], state["model.embed_tokens.weight"].numpy())

  export_hf(tmp_path / "bundle", tmp_path / "out", max_shard_size="150KB")
  assert same_bytes(tensors_of(tmp_path / "hf"), tensors_of(tmp_path / "out"))
  loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "out", output_loading_info=True, attn_implementation="eager")
  assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  assert type(loaded) is type(model)
  np.testing.assert_array_equal(torch_logits(loaded, TOKENS), torch_logits(model, TOKENS))


def test_each_row_of_the_table_is_used():
  used = {name for config in FAMILIES.values() for name in param_shapes(config)}
  assert used == {entry.name for entry in TABLE}
  assert len({entry.hf for entry in TABLE}) == len(TABLE)


@pytest.mark.parametrize("stored, dtype", [
  ("float16", "keep"), ("bfloat16", "keep"), ("float32", "bfloat16"), ("float16", "bfloat16"), ("bfloat16", "float32")])
def test_dtypes(stored, dtype, tmp_path):
  save_random_model(TINY, tmp_path / "hf", dtype=stored)
  import_hf(tmp_path / "hf", tmp_path / "bundle", dtype)
  wanted = stored if dtype == "keep" else dtype
  assert {str(d) for d in Bundle.open(tmp_path / "bundle").dtypes.values()} == {wanted}
  export_hf(tmp_path / "bundle", tmp_path / "out")
  assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == wanted
  expected = {name: array.astype(wanted) for name, array in tensors_of(tmp_path / "hf").items()}
  assert same_bytes(expected, tensors_of(tmp_path / "out"))
  export_hf(tmp_path / "bundle", tmp_path / "wide", "float32")
  expected = {name: array.astype(np.float32) for name, array in expected.items()}
  assert same_bytes(expected, tensors_of(tmp_path / "wide"))


def test_mixed_dtypes_are_kept(hf, tmp_path):
  tensors = load_file(hf / "model.safetensors")
  tensors = {n: a if "norm" in n else a.astype(ml_dtypes.bfloat16) for n, a in tensors.items()}
  save_file(tensors, hf / "model.safetensors", {"format": "pt"})
  import_hf(hf, tmp_path / "bundle")
  export_hf(tmp_path / "bundle", tmp_path / "out")
  assert same_bytes(tensors, tensors_of(tmp_path / "out"))
  assert check_parity(Bundle.open(tmp_path / "bundle"), hf, rows=1, length=8, greedy_tokens=2, seed=0,
                      reference="numpy").max_abs_difference < 1e-4


def test_shards_and_index(hf, tmp_path):
  import_hf(hf, tmp_path / "bundle")
  export_hf(tmp_path / "bundle", tmp_path / "out", max_shard_size="200KB")
  index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
  shards = sorted((tmp_path / "out").glob("*.safetensors"))
  count = len(shards)
  assert [s.name for s in shards] == [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
  total = 0
  for shard in shards:
    with safe_open(shard, "numpy") as f:
      assert f.metadata() == {"format": "pt"}
      sizes = [f.get_tensor(name).nbytes for name in f.keys()]
      assert all(index["weight_map"][name] == shard.name for name in f.keys())
    assert sum(sizes) <= 200_000 or len(sizes) == 1
    total += sum(sizes)
  assert index["metadata"]["total_size"] == total
  assert len(index["weight_map"]) == len(tensors_of(hf))


def test_tokenizer_chat_and_generation_config_travel(hf, tmp_path):
  (hf / "chat.json").write_text('{"format": "llama3"}\n')
  config = json.loads((hf / "config.json").read_text())
  (hf / "config.json").write_text(json.dumps(config | {"bos_token_id": 3, "eos_token_id": [4, 5]}))
  import_hf(hf, tmp_path / "bundle")
  bundle = Bundle.open(tmp_path / "bundle")
  assert bundle.tokenizer == tmp_path / "bundle" / "tokenizer"
  assert bundle.chat_format == "llama3"
  export_hf(tmp_path / "bundle", tmp_path / "out")
  for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
               "additional_chat_templates/tools.jinja", "chat.json"):
    assert (tmp_path / "out" / name).read_text() == (hf / name).read_text()
  generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
  assert generation == {"bos_token_id": 3, "eos_token_id": [4, 5]}


def test_sentencepiece_tokenizer_is_a_file(hf, tmp_path):
  (hf / "tokenizer.json").unlink()
  with pytest.raises(UserError, match="no tokenizer here"):
    _ = Bundle.open(hf).tokenizer
  (hf / "tokenizer.model").write_bytes(b"model")
  import_hf(hf, tmp_path / "bundle")
  assert Bundle.open(tmp_path / "bundle").tokenizer == tmp_path / "bundle" / "tokenizer" / "tokenizer.model"


# ---- what is wrong with a checkpoint is said, with its name -------------------------------------------


def edit(folder, change):
  """Rewrites the folder's one file with `change(tensors)`."""
  tensors = load_file(folder / "model.safetensors")
  change(tensors)
  save_file(tensors, folder / "model.safetensors")


def set_value(name, value):
  def change(tensors):
    tensors[name].flat[3] = value
  return change


Q1 = "model.layers.1.self_attn.q_proj.weight"
BROKEN = {
  "missing": (lambda t: t.pop(Q1), f"tensor {Q1} is missing"),
  "no head": (lambda t: t.pop("lm_head.weight"), "tensor lm_head.weight is missing"),
  "unexpected": (lambda t: t.update({"score.weight": np.zeros(2, np.float32)}), "unexpected tensor score.weight"),
  "bias": (lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)}),
           "unexpected tensor model.layers.0.self_attn.q_proj.bias"),
  "third layer": (lambda t: t.update({Q1.replace("1", "2"): t[Q1]}), "unexpected tensor model.layers.2."),
  "shape": (lambda t: t.update({Q1: np.zeros((64, 32), np.float32)}),
            rf"{Q1} has shape \(64, 32\), by config.json \(64, 64\)"),
  "dtype": (lambda t: t.update({Q1: t[Q1].astype(np.int32)}), f"{Q1} is I32; supported: F32, F16, BF16"),
  "layers' dtypes": (lambda t: t.update({Q1: t[Q1].astype(np.float16)}), f"{Q1} is float16, but model."),
  "nan": (set_value(Q1, np.nan), f"tensor {Q1} has 1 values that are NaN or infinite"),
  "infinity": (set_value("model.norm.weight", np.inf), "tensor model.norm.weight has 1 values"),
}


@pytest.mark.parametrize("change, message", BROKEN.values(), ids=BROKEN)
def test_broken_checkpoints(change, message, hf, tmp_path):
  edit(hf, change)
  with pytest.raises(UserError, match=message) as e:
    import_hf(hf, tmp_path / "bundle")
  assert str(hf) in str(e.value)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]  # nothing appeared, nothing was left behind


def test_broken_shards(sharded, tmp_path):
  index_file = sharded / "model.safetensors.index.json"
  index = json.loads(index_file.read_text())
  files = sorted(set(index["weight_map"].values()))
  names = {file: [n for n, f in index["weight_map"].items() if f == file] for file in files}

  def refused(message):
    with pytest.raises(UserError, match=message):
      Bundle.open(sharded)

  def write_index(weight_map):
    index_file.write_text(json.dumps({"weight_map": weight_map}))

  twice = load_file(sharded / files[1]) | {names[files[0]][0]: np.zeros(1, np.float32)}
  shutil.copy(sharded / files[1], tmp_path / "kept")
  save_file(twice, sharded / files[1])
  refused(f"{files[1]}: tensor {names[files[0]][0]} is also in {files[0]}")
  shutil.move(tmp_path / "kept", sharded / files[1])

  write_index(index["weight_map"] | {"ghost": files[0]})
  refused(f"{files[0]}: tensor ghost is not here, where model.safetensors.index.json has it")
  write_index({n: f for n, f in index["weight_map"].items() if n != names[files[2]][0]})
  refused(f"{files[2]}: tensor {names[files[2]][0]} is here, but model.safetensors.index.json has no such")
  write_index(index["weight_map"] | {names[files[2]][0]: files[0]})
  refused(f"{files[2]}: tensor {names[files[2]][0]} is here, but .* has it in {files[0]}")
  write_index(index["weight_map"])

  content = (sharded / files[2]).read_bytes()
  (sharded / files[2]).write_bytes(content[:-10])
  refused(f"{files[2]}: damaged or cut short")
  (sharded / files[2]).unlink()
  refused(f"{files[2]}: no such file")
  for text in ("[]", '{"weight_map": []}'):
    index_file.write_text(text)
    refused("not an index of safetensors")
  index_file.unlink()
  refused("neither model.safetensors nor model.safetensors.index.json is here")
  (sharded / "pytorch_model.bin").touch()
  refused("save them as safetensors")


def test_head_of_a_tied_model(tmp_path):
  save_random_model(FAMILIES["llama3 tied"], tmp_path / "hf")
  clean = tensors_of(tmp_path / "hf")
  edit(tmp_path / "hf", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
  import_hf(tmp_path / "hf", tmp_path / "bundle")
  export_hf(tmp_path / "bundle", tmp_path / "out")
  assert same_bytes(clean, tensors_of(tmp_path / "out"))
  edit(tmp_path / "hf", set_value("lm_head.weight", 9.0))
  with pytest.raises(UserError, match="lm_head.weight differs from model.embed_tokens.weight"):
    Bundle.open(tmp_path / "hf")


def test_constants_of_old_checkpoints_are_harmless(hf, tmp_path):
  clean = tensors_of(hf)
  edit(hf, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
                               "model.rotary_emb.inv_freq": np.ones(8, np.float32)}))
  import_hf(hf, tmp_path / "bundle")
  export_hf(tmp_path / "bundle", tmp_path / "out")
  assert same_bytes(clean, tensors_of(tmp_path / "out"))


def test_targets_are_not_overwritten_unasked(hf, tmp_path):
  (tmp_path / "bundle").mkdir()
  (tmp_path / "bundle" / "mine").touch()
  with pytest.raises(UserError, match="bundle is already there; choose another target or set overwrite"):
    import_hf(hf, tmp_path / "bundle")
  assert (tmp_path / "bundle" / "mine").exists()
  import_hf(hf, tmp_path / "bundle", overwrite=True)
  assert not (tmp_path / "bundle" / "mine").exists()
  Bundle.open(tmp_path / "bundle")


def test_an_old_target_survives_a_failing_conversion(hf, tmp_path):
  import_hf(hf, tmp_path / "bundle")
  edit(hf, set_value("lm_head.weight", np.nan))
  with pytest.raises(UserError, match="NaN"):
    import_hf(hf, tmp_path / "bundle", overwrite=True)
  Bundle.open(tmp_path / "bundle").load_params(check_finite=True)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "hf"]


@pytest.mark.parametrize("text, size", [("5GB", 5e9), ("500MB", 5e8), ("1.5KB", 1500), ("2 GiB", 2**31)])
def test_sizes(text, size):
  assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "5gb", "-1GB", "0GB", "five GB"])
def test_wrong_sizes(text):
  with pytest.raises(UserError, match="max_shard_size"):
    parse_size(text)


# ---- parity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["transformers", "numpy"])
@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_our_model_equals_the_reference(config, reference, tmp_path):
  save_random_model(config, tmp_path / "hf")
  parity = check_parity(Bundle.open(tmp_path / "hf"), tmp_path / "hf", rows=2, length=16, greedy_tokens=6,
                        seed=0, reference=reference)
  assert parity.reference.startswith(reference)
  assert parity.max_abs_difference < 1e-4
  assert (parity.positions, parity.argmax_agreement, parity.greedy_equal) == (32, 1.0, 1.0)


def test_parity_sees_a_difference(hf, tmp_path):
  def wrong(params, config, tokens):
    logits = np.zeros((*tokens.shape, config.vocab_size), np.float32)
    logits[..., 7] = 1
    return logits

  parity = check_parity(Bundle.open(hf), hf, rows=2, length=8, greedy_tokens=4, seed=0, logits_fn=wrong)
  assert parity.max_abs_difference > 1
  assert parity.argmax_agreement < 0.2 and parity.greedy_equal == 0


def convert_config(**changes):
  config = get_config()
  config.lock()
  with config.unlocked():
    config.update(changes)
  return config


def test_verb_converts_both_ways(hf, tmp_path):
  found = run.run(convert_config(source=str(hf), target=str(tmp_path / "bundle"), dtype="bfloat16"), tmp_path)
  assert found["parameters"] == 158_016 and found["dtypes"] == ["bfloat16"]
  assert found["parity"]["reference"].startswith("transformers")
  assert found["parity"]["max_abs_difference"] < 1e-4  # rounding to bfloat16 is no error
  out = convert_config(direction="to_hf", source=str(tmp_path / "bundle"), target=str(tmp_path / "out"))
  found = run.run(out, tmp_path)
  assert found["parity"]["max_abs_difference"] < 1e-4 and found["parity"]["greedy_equal"] == 1.0
  json.dumps(found)


def test_verb_narrows_on_the_way_out(hf, tmp_path):
  config = convert_config(direction="to_hf", source=str(hf), target=str(tmp_path / "out"), dtype="bfloat16")
  assert run.run(config, tmp_path)["parity"]["max_abs_difference"] < 1e-4


def test_numpy_judges_where_pytorch_is_absent(hf, monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  parity = check_parity(Bundle.open(hf), hf, rows=1, length=8, greedy_tokens=2, seed=0)
  assert parity.reference == "numpy" and parity.max_abs_difference < 1e-4


def test_verb_without_check(hf, tmp_path):
  config = convert_config(source=str(hf), target=str(tmp_path / "bundle"))
  config.check.enabled = False
  assert run.run(config, tmp_path)["parity"] is None


def test_failing_parity_leaves_nothing(hf, tmp_path):
  config = convert_config(source=str(hf), target=str(tmp_path / "bundle"))
  config.check.tolerance = 1e-12
  with pytest.raises(UserError, match="logits differ from transformers"):
    run.run(config, tmp_path)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize("change, message", [
  (dict(source="", target="x"), "config.source is not set"),
  (dict(source="x"), "config.target is not set"),
  (dict(source="x", target="y", direction="to_pt"), "config.direction is 'to_pt'; choose one of from_hf"),
  (dict(source="x", target="y", dtype="int8"), "config.dtype is 'int8'"),
  (dict(source="/nothing", target="y"), "/nothing: no such folder")])
def test_verb_refuses(change, message, tmp_path):
  with pytest.raises(UserError, match=message):
    run.run(convert_config(**change), tmp_path)


# ---- memory -------------------------------------------------------------------------------------------

PEAK = """
import pathlib, re, sys
from agentbank_jax.convert.from_hf import import_hf
from agentbank_jax.convert.to_hf import export_hf
source, target = map(pathlib.Path, sys.argv[2:])
# Not getrusage's ru_maxrss: a child's starts at its parent's.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
import_hf(source, target) if sys.argv[1] == "import" else export_hf(source, target, max_shard_size="100MB")
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_memory_stays_far_below_the_model(tmp_path):
  """1.1 GB of weights; the largest canonical parameter is a fifth of them."""
  config = dataclasses.replace(preset("small"), num_layers=36)
  rng = np.random.default_rng(0)
  params = ((name, rng.random(shape, np.float32)) for name, shape in param_shapes(config).items())
  write_bundle(tmp_path / "seed", config, params, None)
  size = sum(np.prod(s) * 4 for s in param_shapes(config).values())

  def peak(direction, source, target):
    env = os.environ | {"XLA_FLAGS": ""}
    command = [sys.executable, "-c", PEAK, direction, source, target]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)

  exporting = peak("export", tmp_path / "seed", tmp_path / "out")
  importing = peak("import", tmp_path / "out", tmp_path / "bundle")
  print(f"model {size / 1e9:.2f} GB, peak of export {exporting / 1e9:.2f}, of import {importing / 1e9:.2f}")
  assert size > 1e9
  assert exporting < 0.8 * size and importing < 0.8 * size
