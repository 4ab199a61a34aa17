"""Topologies, the reading of compiled programs, and `agentbank compile` with the real TPU compiler."""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from tiny_models import TINY, execution, mesh

from agentbank_jax import compile as compile_lib
from agentbank_jax import optim, savers, state, step
from agentbank_jax.errors import UserError
from agentbank_jax.gpus import KINDS, Gpus
from agentbank_jax.hlo import SLICES, Traffic, collectives
from agentbank_jax.models.config import num_params
from agentbank_jax.sharding import make_sharding
from agentbank_jax.starting_model import architecture
from agentbank_jax.topologies import parse_topology
from configs import train_tiny
from configs.base import training


@pytest.mark.parametrize("text, grid, chips, ordered", [
    ("v5e:4x4", (4, 4), 16, "v5litepod-16"), ("v5e-16", (4, 4), 16, "v5litepod-16"),
    ("v5e-8", (2, 4), 8, "v5litepod-8"),
    ("v5e-4", (2, 2), 4, "v5litepod-4"), ("v5p-16", (2, 2, 2), 8, "v5p-16"), ("v5p-8", (2, 2, 1), 4, "v5p-8"),
    ("v5p-128", (4, 4, 4), 64, "v5p-128"), ("v6e-64", (8, 8), 64, "v6e-64"), ("v4:2x2x4", (2, 2, 4), 16, "v4-32"),
    ("2xv5e:8x8", (8, 8), 128, "v5litepod-64")])
def test_topologies_are_read(text, grid, chips, ordered):
  topology = parse_topology(text)
  assert (topology.shape, topology.chips, topology.accelerator_type) == (grid, chips, ordered)


@pytest.mark.parametrize("text, message", [
    ("v5e", "not of the form"), ("v5:4x4", "unknown kind of TPU 'v5'.*did you mean 'v5"), ("v5e:2x2x2", "2 dimensions"),
    ("v5e-12", "power of two"), ("v5p-4", "2 times")])
def test_wrong_topologies_are_told(text, message):
  with pytest.raises(UserError, match=message):
    parse_topology(text)


def test_collectives_are_counted_as_often_as_loops_turn():
  """A program whose traffic is known: seven turns with a sum over the devices in each, and one gather at the end."""
  sharding = mesh(fsdp=8)
  cut, whole = sharding.named("embed"), sharding.replicated

  def program(x_64):
    x_64, _ = jax.lax.scan(lambda x, factor: (x * jnp.sum(factor * x), None), x_64, jnp.arange(7.0))
    return jax.lax.with_sharding_constraint(x_64, whole)

  abstract = jax.ShapeDtypeStruct((64,), jnp.float32, sharding=cut)
  traffic = collectives(jax.jit(program).lower(abstract).compile().as_text())
  assert traffic == {"all-reduce": Traffic(7, 7 * 4), "all-gather": Traffic(1, 64 * 4)}


# As XLA:TPU writes it: a loop unrolled twice, and one gather spread over two fusions.
TPU_PROGRAM = """
%fused.1 (p.1: bf16[8]) -> bf16[64] {
  %all-gather.1 = bf16[64]{0} all-gather(%p.1), channel_id=7, dimensions={0}
}
%fused.2 (p.2: bf16[8]) -> bf16[64] {
  %all-gather.2 = bf16[64]{0} all-gather(%p.2), channel_id=7, dimensions={0}
}
%body.1 (p.3: (f32[4], u32[])) -> (f32[4], u32[]) {
  %constant.1 = u32[]{:T(128)} constant(2)
  %get-tuple-element.1 = u32[]{:T(128)} get-tuple-element(%p.3), index=1
  %start.1 = (f32[4]{0}, f32[4]{0}, u32[]) collective-permute-start(%x.1), channel_id=1
  %start.2 = (f32[4]{0}, f32[4]{0}, u32[]) collective-permute-start(%x.2), channel_id=2
  %add.1 = u32[]{:T(128)} add(%get-tuple-element.1, %constant.1)
  ROOT %tuple.1 = (f32[4]{0}, u32[]{:T(128)}) tuple(%x.3, %add.1)
}
%condition.1 (p.4: (f32[4], u32[])) -> pred[] {
  %constant.2 = u32[]{:T(128)} constant(8)
  %get-tuple-element.2 = u32[]{:T(128)} get-tuple-element(%p.4), index=1
  ROOT %compare.1 = pred[]{:T(512)} compare(%get-tuple-element.2, %constant.2), direction=LT
}
ENTRY %main (p.5: bf16[8]) -> bf16[64] {
  %fusion.1 = bf16[64]{0} fusion(%p.5), kind=kCustom, calls=%fused.1
  %while.1 = (f32[4]{0}, u32[]) while(%tuple.2), condition=%condition.1, body=%body.1
  ROOT %fusion.2 = bf16[64]{0} fusion(%fusion.1), kind=kCustom, calls=%fused.2
}
"""


def test_collectives_of_the_tpu_compiler_are_counted():
  assert collectives(TPU_PROGRAM) == {"all-gather": Traffic(1, 128), "collective-permute": Traffic(8, 8 * 16)}


def compiled_step(run, micro_batches=1, config=TINY, rows=16):
  section = train_tiny.get_config().optim
  schedule = optim.make_schedule(section, 10)
  tx = optim.make_optimizer(section, schedule)
  cut = run.sharding.named("batch", "length")
  batch = {name: jax.ShapeDtypeStruct((rows, 64), jnp.int32, sharding=cut) for name in step.MODEL_ARRAYS}
  jitted = step.jit_train_step(config, run, tx, schedule, micro_batches)
  return jitted.lower(state.abstract_state(config, tx, run), batch).compile()


def test_chunks_of_the_loss_cost_no_traffic():
  """The head is gathered once, and its gradient summed once, however many chunks the loss is cut into."""
  traffic = lambda chunk: collectives(compiled_step(execution(loss_chunk=chunk, sharding=mesh(fsdp=8))).as_text())
  assert traffic(64) == traffic(4)


def test_micro_batches_hold_one_copy_of_the_gradients():
  """In pieces of one row per device each, more rows need no more memory: not a second copy of all gradients."""
  config = dataclasses.replace(TINY, hidden_size=128, intermediate_size=512, num_layers=8)
  run = execution(remat="full", loss_chunk=8, sharding=mesh(fsdp=8))
  one, three = (compiled_step(run, m, config, rows=8 * m).memory_analysis().temp_size_in_bytes for m in (1, 3))
  gradients = 4 * 8 * 3 * 128 * 512 // 8  # of the MLPs alone, per device
  assert three - one < gradients / 2


# ---- what makes a config fit -----------------------------------------------------------------------------------------


def search(fits, **start):
  """Runs the search with a compiler that says `fits(config)`. Returns (changes, what was tried)."""
  tried = []

  def attempt(config):
    tried.append(config)
    if config.data.micro_batches > 8:
      raise UserError("data.batch_size = 8 is not a multiple")
    if not fits(config):
      raise savers.OutOfMemory("needs more")
    return "program"

  config = savers.changed(train_tiny.get_config(), start)
  changes, program = savers.nearest_that_fits(config, attempt)
  assert (program == "program") == bool(changes)
  return changes, tried


def test_the_cheapest_change_that_fits_is_found():
  assert search(lambda c: c.execution.remat == "full") == ({"execution.remat": "full"}, search(lambda c: True)[1])
  changes, tried = search(lambda c: c.execution.remat == "full", **{"execution.remat": "dots"})
  assert changes == {"execution.remat": "full"} and len(tried) == 1


def test_changes_that_a_later_one_makes_needless_are_left_out():
  assert search(lambda c: c.data.micro_batches == 4)[0] == {"data.micro_batches": 4}
  changes, _ = search(lambda c: c.optim.mu_dtype == "bfloat16" and c.execution.remat == "full")
  assert changes == {"execution.remat": "full", "optim.mu_dtype": "bfloat16"}


def test_what_cannot_be_is_passed_over_and_adapters_come_last():
  changes, _ = search(lambda c: c.model.lora.rank == 16, **{"data.micro_batches": 8})
  assert changes == {"model.lora.rank": 16}
  changes, tried = search(lambda c: c.model.lora.base == "int8", **{"model.lora.rank": 4})
  assert changes == {"model.lora.base": "int8"} and tried[-1].model.lora.rank == 4


def test_decoding_is_helped_by_fewer_conversations():
  decoding = {"compile.step": "decode", "execution.compute_dtype": "bfloat16", "compile.slots": 64}
  assert search(lambda c: c.compile.slots <= 16, **decoding)[0] == {"compile.slots": 16}


def test_where_nothing_fits_there_is_no_suggestion():
  assert search(lambda c: False)[0] == {}


# ---- the verb --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu_compiler(monkeypatch):
  monkeypatch.setattr(Gpus, "compilable", False)


@pytest.mark.parametrize("kind, attention", [("train", "cudnn"), ("train", "triton"), ("decode", "auto")])
def test_without_their_compiler_gpus_are_lowered_for(kind, attention, no_gpu_compiler, tmp_path, capsys):
  config = savers.changed(train_tiny.get_config(), {
      "compile.topology": "h100-8", "data.seq_len": 256, "compile.step": kind, "compile.slots": 8,
      "execution.attention": attention, "execution.compute_dtype": "bfloat16"})
  summary = compile_lib.run(config, tmp_path)
  assert summary["fits"] is None and "temporaries" in summary["not_checked"]
  assert "not compiled" in capsys.readouterr().out
  with pytest.raises(UserError, match="8 simulated devices"):
    compile_lib.run(savers.changed(config, {"compile.topology": "h100-16"}), tmp_path)


@pytest.mark.parametrize("name, kernel", [("h100-8", True), ("a100-8", False)])
def test_the_kernel_that_is_lowered_is_the_gpus_own(name, kernel, no_gpu_compiler):
  """cuDNN's, forward and backward, on a GPU that can; and the segments come to it, so it is no plain causal one."""
  config = savers.changed(train_tiny.get_config(), {"data.seq_len": 256, "execution.compute_dtype": "bfloat16"})
  text = compile_lib.lowered_step(config, parse_topology(name))[0].as_text()
  assert ("__cudnn$fmhaSoftmaxBackward" in text) == ("__cudnn$fmhaSoftmax(" in text) == kernel
  assert text.count("max_seg_per_batch\\22: 64") == (2 if kernel else 0)


def test_a_kernel_that_gpus_lack_is_told(no_gpu_compiler, tmp_path):
  config = savers.changed(train_tiny.get_config(), {
      "compile.topology": "h100-8", "data.seq_len": 256, "execution.attention": "splash"})
  with pytest.raises(UserError, match="splash runs on TPUs alone, and this is for a GPU; choose auto"):
    compile_lib.run(config, tmp_path)


def compile_cli(tmp_path, *args):
  return subprocess.run([sys.executable, "-m", "agentbank_jax.cli", "compile", f"--workdir={tmp_path}", *args],
                        capture_output=True, text=True)


def test_what_is_missing_is_told(tmp_path):
  result = compile_cli(tmp_path, "--config=configs/train_tiny.py")
  assert result.returncode == 2 and "name a topology" in result.stderr
  result = compile_cli(tmp_path, "--config=configs/train_tiny.py", "--topology=v5e:4x4", "--config.data.seq_len=None")
  assert result.returncode == 2 and "data.seq_len is None" in result.stderr


@pytest.fixture
def tpu_compiler():
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("no TPU compiler: pip install 'agentbank-jax[tpu]'")


@pytest.fixture
def compile_for(tmp_path):
  """Returns a function that compiles a small model for a topology; its summary comes back."""
  def run(topology, *flags):
    result = compile_cli(tmp_path, "--config=configs/train_tiny.py", f"--topology={topology}",
                         "--config.model.overrides.head_dim=128", "--config.data.seq_len=512",
                         "--config.data.batch_size=16", *flags)
    assert result.returncode == 0, result.stderr
    return json.loads((tmp_path / "summary.json").read_text())

  return run


@pytest.fixture
def compiled(compile_for, tpu_compiler):
  return compile_for


@pytest.fixture
def gpu_compiler():
  if not parse_topology("h100-8").compilable:
    pytest.skip("no GPU compiler: pip install 'agentbank-jax[gpu]'")


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["cudnn", "triton", "blocked"])
def test_gpus_are_compiled_for(compile_for, gpu_compiler, attention):
  summary = compile_for("h100-16", f"--config.execution.attention={attention}",
                        "--config.execution.compute_dtype=bfloat16")
  assert summary["fits"] and 0 < summary["peak_hbm_gib"] < 1 and summary["collectives"]["all-gather"]["count"] > 4
  assert "only a GPU at hand" in summary["not_checked"]


@pytest.mark.slow
def test_decoding_is_compiled_for_gpus(compile_for, gpu_compiler):
  summary = compile_for("a100-8", "--config.compile.step=decode", "--config.compile.slots=8",
                        "--config.compile.context=512")
  assert summary["fits"] and 0 < summary["peak_hbm_gib"] < 1


@pytest.mark.slow
def test_a_model_that_does_not_fit_gpus_is_helped(compile_for, gpu_compiler, monkeypatch):
  """Of a GPU jax takes what XLA_PYTHON_CLIENT_MEM_FRACTION says."""
  monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.005")  # 0.4 GiB
  summary = compile_for("h100-8", "--config.data.seq_len=4096", "--config.execution.remat=none")
  assert not summary["fits"] and "exceeds the 0.4 GiB that jax takes" in summary["reason"]
  assert summary["peak_hbm_gib"] > 0.4 > summary["peak_hbm_gib_as_suggested"] and summary["suggestion"]


def test_what_jax_takes_of_a_gpu_is_known(monkeypatch):
  monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
  gpus = parse_topology("h200-16")
  assert gpus.hbm_gib == pytest.approx(0.75 * KINDS["h200"].memory_bytes / 2**30, abs=0.01) and gpus.chips == 16
  monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "much")
  with pytest.raises(UserError, match="MEM_FRACTION is 'much'"):
    gpus.hbm_gib  # noqa: B018


@pytest.mark.slow
def test_a_small_model_fits(compiled):
  summary = compiled("v5e:2x2")
  assert summary["fits"] and 0 < summary["peak_hbm_gib"] < 1 and summary["collectives"]["all-gather"]["count"] > 4


@pytest.mark.slow
def test_decoding_fits(compiled):
  summary = compiled("v5e:2x2", "--config.compile.step=decode", "--config.compile.slots=8",
                     "--config.compile.context=512")
  assert summary["fits"] and 0 < summary["peak_hbm_gib"] < 1 and "estimate" not in summary


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_helped(compiled):
  wide = {"hidden_size": 4096, "intermediate_size": 11_008, "num_heads": 32, "num_kv_heads": 32, "num_layers": 8}
  summary = compiled("v5e:2x2", "--config.data.seq_len=4096", "--config.data.batch_size=4",
                     *(f"--config.model.overrides.{key}={value}" for key, value in wide.items()))
  assert not summary["fits"] and "exceeds" in summary["reason"]
  assert summary["peak_hbm_gib"] > summary["hbm_gib"] > summary["peak_hbm_gib_as_suggested"]
  assert summary["suggestion"] == {"execution.remat": "full"}


@pytest.mark.slow
def test_a_mesh_may_cut_an_axis_of_the_pod(tpu_compiler):
  """No axis of 4 x 4 x 8 chips is two long."""
  cut = make_sharding({"fsdp": -1, "context": 2}, training().rules, parse_topology("v4-256").devices())
  assert dict(cut.mesh.shape) == {"data": 1, "fsdp": 64, "context": 2, "tensor": 1}


@pytest.mark.slow
def test_between_slices_there_is_nothing_but_sums(tpu_compiler):
  """Two slices of four chips: parameters are gathered within a slice; between slices gradients are summed."""
  config = savers.changed(train_tiny.get_config(), {
      "model.overrides.head_dim": 128, "data.seq_len": 512, "mesh.data": 2})
  text = compile_lib.compiled_step(config, parse_topology("2xv5e:2x2")).as_text()
  assert set(re.findall(r"replica_groups=(\S+?),? ", text)) == {"{{0,1,2,3}}"}  # the chips of one slice
  traffic = collectives(text)
  assert [kind for kind in traffic if kind.endswith(SLICES)] == ["all-reduce" + SLICES]
  gradients = 4 * num_params(architecture(config.model)) / 4  # float32, a quarter on each chip
  assert gradients < traffic["all-reduce" + SLICES].bytes < 2 * gradients  # some padded, the tied table twice
