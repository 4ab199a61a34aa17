"""Loss and gradients: packed as unpacked, however they are cut and computed; the optimizer against closed forms."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax
import pytest
from tiny_models import TINY, conversations, execution, mesh, pack, random_params

from agentbank_jax import losses, optim, sharding, state, step
from agentbank_jax.attention import attend
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama
from agentbank_jax.models.execution import Execution
from configs.base import training

MODEL = dataclasses.replace(TINY, qkv_bias=True, sliding_window=6)
LENGTH = 22  # no multiple of a block or chunk below
CONVERSATIONS = conversations(12, 16)
PLAIN = execution(loss_chunk=LENGTH, query_block=LENGTH)


@functools.partial(jax.jit, static_argnums=(2, 3))
def loss_and_grads(params, batch, micro_batches, run):
  total, count, grads = step.loss_and_grads(params, batch, micro_batches, MODEL, run)
  return total, count, llama.to_canonical(grads, run.layers)


def run_batch(params, batch, run=PLAIN, micro_batches=1):
  """Returns (loss sum, trained tokens, canonical gradients) for canonical parameters, which are placed on the mesh."""
  if run.sharding is not None:
    params = jax.device_put(params, llama.param_shardings(MODEL, run.sharding))
  params = llama.to_layout(params, MODEL.num_layers, run.layers)
  return loss_and_grads(params, sharding.global_batch(batch, run.sharding), micro_batches, run)


def assert_same(result, expected, rtol=2e-5):
  """Compares losses, counts and gradients, each gradient relative to its own largest value."""
  np.testing.assert_allclose(result[0], expected[0], rtol=rtol)
  assert result[1] == expected[1]
  for (path, a), b in zip(jax.tree.leaves_with_path(result[2]), jax.tree.leaves(expected[2]), strict=True):
    b = np.asarray(b)
    np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max(), err_msg=jax.tree_util.keystr(path))


@pytest.fixture(scope="module")
def params():
  return jax.device_put(random_params(MODEL))


def placed(order, rows, length=LENGTH):
  """Returns for each row which conversations it holds: in this order, each in the first row with room."""
  filled, room = [[] for _ in range(rows)], [length] * rows
  for i in order:
    cost = len(CONVERSATIONS[i][0]) - 1
    row = next(r for r in range(rows) if room[r] >= cost)
    filled[row].append(i)
    room[row] -= cost
  return filled


def packed(order, rows=4, length=LENGTH):
  return pack([[CONVERSATIONS[i] for i in row] for row in placed(order, rows, length)], length)


def token_nll(params, batch, run=PLAIN):
  model = llama.bind(MODEL, params, run)
  x_BLD = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"], run)
  return losses.token_nll(x_BLD, model.head_kernel(run), batch["targets"], run.loss_chunk)


@pytest.fixture(scope="module")
def truth(params):
  """What training on one conversation at a time would sum up to, without segments, windows of logits or packing."""
  @jax.jit
  @jax.value_and_grad
  def loss(params, tokens, targets, mask):
    logits = llama.bind(MODEL, params, PLAIN).logits(tokens, jnp.arange(LENGTH)[None], jnp.ones((1, LENGTH)), PLAIN)
    return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * mask)

  total, count, grads = 0.0, 0, None
  for ids, train in CONVERSATIONS:
    # Causal attention cannot see the zeros behind, so no mask is needed for them.
    wide = lambda a: jnp.asarray(np.pad(a, (0, LENGTH - len(a))))[None]
    value, grad = loss(params, wide(ids[:-1]), wide(ids[1:]), wide(train[1:]))
    total, count = total + value, count + train[1:].sum()
    grads = grad if grads is None else jax.tree.map(jnp.add, grads, grad)
  return total, count, jax.tree.map(lambda g: g / count, grads)


ORDERS = {"in order": range(12), "reversed": range(11, -1, -1), "shuffled": [7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 6, 4]}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_packed_is_unpacked(order, params, truth):
  batch = packed(order, rows=8)
  assert (batch["segment_ids"] > 1).any() and (batch["segment_ids"] == 0).any()
  assert_same(run_batch(params, batch), truth)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_every_token_s_log_probability_is_that_of_its_conversation_alone(order, params):
  nll = lambda batch: np.asarray(jax.jit(token_nll)(params, batch))
  alone, together = nll(pack([[c] for c in CONVERSATIONS], LENGTH)), nll(packed(order, rows=8))
  for row, members in zip(together, placed(order, rows=8), strict=True):
    at = 0
    for i in members:
      size = len(CONVERSATIONS[i][0]) - 1
      np.testing.assert_allclose(row[at:at + size], alone[i, :size], rtol=2e-5, atol=2e-5)
      at += size


BLOCKED = execution("unroll", "blocked", "cpu", loss_chunk=5, query_block=8)
WAYS = {
  "unrolled, cpu kernels, in blocks": BLOCKED,
  "scanned, in blocks": execution("scan", "blocked", loss_chunk=7, query_block=9),
  "remat attention": execution("scan", "blocked", remat="attention"),
  "remat dots": execution("scan", "blocked", remat="dots", loss_chunk=100, query_block=100),
  "remat full": execution("unroll", "full", "cpu", remat="full"),
}


@pytest.mark.parametrize("run", WAYS.values(), ids=WAYS)
def test_how_it_is_run_changes_nothing(run, params, truth):
  assert_same(run_batch(params, packed(range(12), rows=8), run), truth)


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_change_nothing(micro_batches, params, truth):
  assert_same(run_batch(params, packed(range(12), rows=8), PLAIN, micro_batches), truth)


MESHES = [dict(fsdp=2), dict(data=2, fsdp=2, tensor=2), pytest.param(dict(fsdp=8), marks=pytest.mark.slow),
          pytest.param(dict(data=4, tensor=2), marks=pytest.mark.slow)]


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_the_mesh_changes_nothing(shape, params, truth):
  cut = sharding.make_sharding(shape, training().rules, jax.devices()[:math.prod(shape.values())])
  run = dataclasses.replace(PLAIN, attention="blocked", query_block=8, loss_chunk=5, sharding=cut)
  assert_same(run_batch(params, packed(range(12), rows=8), run), truth)


def test_micro_batches_on_a_mesh_unrolled(params, truth):
  run = dataclasses.replace(BLOCKED, sharding=mesh(data=2, fsdp=2, tensor=2))
  assert_same(run_batch(params, packed(range(12), rows=8), run, micro_batches=2), truth)


def test_a_mesh_may_cut_more_than_the_key_heads(params, truth):
  """Four devices along `tensor`, two key heads: the kernel's columns divide, the heads do not."""
  run = dataclasses.replace(PLAIN, sharding=mesh(fsdp=2, tensor=4))
  assert_same(run_batch(params, packed(range(12), rows=8), run), truth)


def _program_operations(layers, how):
  """Returns the operations of the train step's program before the compiler works on it."""
  config = dataclasses.replace(TINY, num_layers=layers)
  run, schedule = execution(how), optim.make_schedule(training().optim, 10)
  tx = optim.make_optimizer(training().optim, schedule)
  now = jax.eval_shape(lambda s: state.place(s, run, layers), state.abstract_state(config, tx, run))
  batch = pack([[pair] for pair in conversations(4, 24)], 32)
  return step.jit_train_step(config, run, tx, schedule, 1).lower(now, batch).as_text().count(" = ")


def test_the_program_does_not_grow_with_depth():
  """What compiling takes is that of its program: flat in the number of layers where they are scanned."""
  assert _program_operations(2, "scan") == _program_operations(16, "scan")
  assert _program_operations(16, "unroll") > 3 * _program_operations(2, "unroll")  # so this count can grow


@pytest.mark.parametrize("run", [PLAIN, BLOCKED], ids=["full", "blocked"])
def test_a_segment_never_changes_another_s_loss(run, params):
  nll = jax.jit(lambda p, batch: token_nll(p, batch, run))
  placed = llama.to_layout(params, MODEL.num_layers, run.layers)
  rows = [[CONVERSATIONS[i] for i in (1, 2, 3)]]
  length = sum(len(ids) - 1 for ids, _ in rows[0]) + 5
  batch = pack(rows, length)
  before = np.asarray(nll(placed, batch))
  for segment in (1, 2, 3, 0):
    mine = batch["segment_ids"] == segment
    other = dict(batch, tokens=np.where(mine, (batch["tokens"] + 11) % TINY.vocab_size, batch["tokens"]))
    after = np.asarray(nll(placed, other))
    np.testing.assert_array_equal(after[~mine], before[~mine])
    assert (after[mine] != before[mine]).any()


def test_eval_step_sums_by_segment(params):
  batch = packed(range(12), rows=8)
  sums, counts = jax.jit(step.make_eval_step(MODEL, PLAIN, 4))(params, batch)
  nll = np.asarray(jax.jit(token_nll)(params, batch))
  for row in range(8):
    for segment in range(1, 5):
      mask = (batch["segment_ids"][row] == segment) & batch["loss_mask"][row]
      assert counts[row, segment - 1] == mask.sum()
      np.testing.assert_allclose(sums[row, segment - 1], nll[row][mask].sum(), rtol=1e-5)


def test_bfloat16_is_close(params, truth):
  run = dataclasses.replace(BLOCKED, compute_dtype="bfloat16")
  total, count, grads = run_batch(params, packed(range(12), rows=8), run)
  assert count == truth[1] and total == pytest.approx(float(truth[0]), rel=0.02) and total != truth[0]
  for (path, a), b in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(truth[2]), strict=True):
    assert a.dtype == jnp.float32
    a, b = np.asarray(a).ravel(), np.asarray(b).ravel()
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine > 0.98 and np.linalg.norm(a) == pytest.approx(np.linalg.norm(b), rel=0.1), path


@pytest.mark.parametrize("run", [PLAIN, BLOCKED], ids=["full", "blocked"])
def test_rows_of_padding_are_nothing(run, params):
  total, count, grads = run_batch(params, pack([[]] * 8, LENGTH), run)
  assert total == 0 and count == 0
  assert all((g == 0).all() for g in jax.tree.leaves(grads))
  rows = [[c] for c in CONVERSATIONS[:4]]
  few = run_batch(params, pack(rows + [[]] * 4, LENGTH), run)
  assert_same(few, run_batch(params, pack([[r[0]] for r in rows[::-1]] + [[]] * 4, LENGTH), run))
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(few[2]))


# ---- the pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk, dtype", [(1, "float32"), (4, "float32"), (50, "float32"), (4, "bfloat16")])
def test_cross_entropy_is_optax_s(chunk, dtype):
  rng = np.random.default_rng(0)
  x, head = (jnp.asarray(rng.normal(size=s), dtype) for s in ((3, 11, 8), (8, 29)))
  targets, mask = rng.integers(0, 29, (3, 11)), rng.random((3, 11)) < 0.6

  def reference(x, head):
    logits = jnp.matmul(x, head, preferred_element_type=jnp.float32)
    return 0.3 * jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, targets) * mask)

  ours = jax.value_and_grad(lambda x, h: 0.3 * losses.cross_entropy_sum(x, h, targets, mask, chunk), (0, 1))(x, head)
  expected = jax.value_and_grad(reference, (0, 1))(x, head)
  tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == "float32" else dict(rtol=0.02, atol=0.02)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(np.float32(a), np.float32(b), **tolerance), ours, expected)
  assert ours[1][0].dtype == x.dtype and ours[1][1].dtype == head.dtype
  undifferentiated = losses.cross_entropy_sum(x, head, targets, mask, chunk)
  np.testing.assert_allclose(0.3 * undifferentiated, expected[0], rtol=1e-5)
  logits = jnp.matmul(x, head, preferred_element_type=jnp.float32)
  expected = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  np.testing.assert_allclose(losses.token_nll(x, head, targets, chunk), expected, rtol=1e-5, atol=1e-5)


def test_cross_entropy_holds_at_large_logits():
  x, head = jnp.eye(3)[None] * 1e4, jnp.eye(3)
  value, (dx, dhead) = jax.value_and_grad(losses.cross_entropy_sum, (0, 1))(
    x, head, jnp.array([[0, 1, 0]]), jnp.array([[True, True, True]]), 2)
  assert value == 1e4 and np.isfinite(dx).all() and np.isfinite(dhead).all()


def reference_attention(q, k, v, segments, window):
  """One query at a time, in NumPy and float64."""
  q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
  out = np.zeros(q.shape)
  B, L, N, H = q.shape
  for b, i, n in np.ndindex(B, L, N):
    keys = [j for j in range(i + 1) if segments[b, j] == segments[b, i] and (window is None or i - j < window)]
    scores = k[b, keys, n * k.shape[2] // N] @ q[b, i, n] / np.sqrt(H)
    p = np.exp(scores - scores.max())
    out[b, i, n] = p @ v[b, keys, n * k.shape[2] // N] / p.sum()
  return out


@pytest.mark.parametrize("heads, window, block", [
  ((4, 4), None, 16), ((4, 1), 5, 10), ((6, 2), 1, 26), ((4, 2), 100, 12), ((4, 2), 9, 32)])
def test_blocked_attention_is_full_attention(heads, window, block):
  N, K, L = *heads, 27
  rng = np.random.default_rng(N * K)
  q, k, v = (jnp.asarray(rng.normal(size=(3, L, h, 8)), jnp.float32) for h in (N, K, K))
  segments = np.array([[1] * L, [1] * 3 + [2] + [3] * 14 + [4] * 6 + [0] * 3, [0] * L], np.int32)
  weight = rng.normal(size=q.shape).astype(np.float32)
  expected = reference_attention(q, k, v, segments, window)

  def both(attention):
    out, gradients = jax.vjp(lambda *qkv: attend(*qkv, segments, window, execution(attention=attention,
                                                                                   query_block=block)), q, k, v)
    return out, gradients(jnp.asarray(weight))

  (full, full_grads), (blocked, blocked_grads) = (jax.jit(both, static_argnums=0)(a) for a in ("full", "blocked"))
  for out in (full, blocked):
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), blocked_grads, full_grads)


def test_blocked_attention_in_bfloat16_is_close():
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.normal(size=(2, 27, h, 8)), jnp.bfloat16) for h in (4, 2, 2))
  segments = np.array([[1] * 27, [1] * 9 + [2] * 12 + [0] * 6])

  def grads(attention, dtype):
    run = execution(attention=attention, query_block=8)
    loss = lambda *qkv: jnp.sum(jnp.sin(attend(*qkv, segments, 10, run).astype(jnp.float32)))
    return jax.jit(jax.grad(loss, (0, 1, 2)))(*(a.astype(dtype) for a in (q, k, v)))

  for ours, expected in zip(grads("blocked", jnp.bfloat16), grads("full", jnp.float32), strict=True):
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(ours), expected, rtol=0, atol=0.03 * np.abs(expected).max())


# ---- the optimizer ---------------------------------------------------------------------------------------------------


def optim_config(**changes):
  """The default optimizer with every part of it at work."""
  config = ConfigDict(training().optim)
  config.update(dict(learning_rate=1e-2, warmup_share=0.2, final_share=0.1, weight_decay=0.1, eps=1e-4,
                     clip_norm=0.3) | changes)
  return config


def test_schedules_are_their_closed_forms():
  peak, final, warmup, total = 1e-2, 0.1, 4, 20
  shares = (np.arange(total + 1) - warmup) / (total - warmup)
  closed = {
    "cosine": peak * (final + (1 - final) * (1 + np.cos(np.pi * shares)) / 2),
    "linear": peak * (1 - (1 - final) * shares),
    "constant": np.full(total + 1, peak),
  }
  for name in optim.SCHEDULES:
    expected = closed[name].copy()
    expected[:warmup] = peak * np.arange(1, warmup + 1) / warmup
    schedule = optim.make_schedule(optim_config(schedule=name), total)
    np.testing.assert_allclose([schedule(i) for i in range(total + 1)], expected, rtol=1e-5, err_msg=name)
    flat = optim.make_schedule(optim_config(schedule=name, warmup_share=0.0), total)
    assert flat(0) == pytest.approx(peak)


def test_weight_decay_reaches_matrices_alone():
  tree = random_params(MODEL)
  mask = optim.decay_mask(tree, "kernels")
  for path, decays in jax.tree.leaves_with_path(mask):
    assert decays == (path[-1].key not in ("scale", "bias")), path
  assert all(jax.tree.leaves(optim.decay_mask(tree, "all")))
  # And so it is in a step: with gradients of zero, what decays shrinks and nothing else moves.
  for which in optim.DECAYS:
    tx = optim.make_optimizer(optim_config(decay=which, weight_decay=0.5), optax.constant_schedule(0.1))
    update = jax.jit(lambda params, tx=tx: tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)[0])
    for layers in ("scan", "unroll"):
      params = llama.to_layout(tree, MODEL.num_layers, layers)
      updates = update(params)
      mask = optim.decay_mask(params, which)
      jax.tree.map(lambda u, p, m: np.testing.assert_allclose(u, -0.05 * p if m else 0 * p, rtol=1e-5, atol=1e-9),
                   updates, params, mask)


@functools.cache
def batch_of_training():
  return packed(range(12), rows=8)


def three_steps(start, tx, schedule, run=PLAIN, micro_batches=1):
  train = jax.jit(step.make_train_step(MODEL, run, tx, schedule, micro_batches))
  now = state.init_state(MODEL, tx, run, 0, start)
  for _ in range(3):
    now, metrics = train(now, sharding.global_batch(batch_of_training(), run.sharding))
  return state.canonical(now, run), metrics


@pytest.fixture(scope="module")
def gradients(params):
  """Three different gradients to play to an optimizer: made from the real one."""
  grads = jax.tree.map(np.asarray, run_batch(params, batch_of_training())[2])
  return [jax.tree.map(change, grads) for change in (lambda g: 3 * g, np.cbrt, lambda g: g[::-1])]


KNOBS = dict(learning_rate=2e-2, schedule="linear", warmup_share=0.5, final_share=0.5, b1=0.5, b2=0.9, eps=1e-2,
             weight_decay=0.2, decay="all", clip_norm=None, mu_dtype="bfloat16")


STEPS = 5  # of the schedule: one of warm-up, so that the second and third are of its decay


def updated(params, gradients, config):
  """Returns the parameters after three steps with these gradients."""
  tx = optim.make_optimizer(config, optim.make_schedule(config, STEPS))

  @jax.jit
  def step(params, opt_state, grads):
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  opt_state = jax.jit(tx.init)(params)
  for grads in gradients:
    params, opt_state = step(params, opt_state, grads)
  return jax.tree.map(np.asarray, params)


@pytest.fixture(scope="module")
def base_update(params, gradients):
  return updated(params, gradients, optim_config())


@pytest.fixture(scope="module")
def knob_update(params, gradients):
  """Returns config -> the updated embedding and last norm: one that decays, one that does not."""
  part = lambda tree: {name: tree[name] for name in ("embed", "norm")}
  return lambda config: jax.tree.leaves(updated(part(params), map(part, gradients), config))


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_of_the_optimizer_works(knob, knob_update):
  base, other = knob_update(optim_config()), knob_update(optim_config(**{knob: KNOBS[knob]}))
  assert max(np.abs(a - b).max() for a, b in zip(base, other, strict=True)) > 1e-6


def test_no_knob_of_the_optimizer_is_untested():
  assert set(KNOBS) == set(training().optim)


def test_the_optimizer_is_adamw_by_hand(params, gradients, base_update):
  """The update written out in NumPy, for all parameters."""
  config = optim_config()
  schedule = optim.make_schedule(config, STEPS)
  flat = [[np.asarray(g, np.float64) for g in jax.tree.leaves(grads)] for grads in gradients]
  values = [np.asarray(p, np.float64) for p in jax.tree.leaves(params)]
  decays = jax.tree.leaves(optim.decay_mask(params, "kernels"))
  m, v = [0.0] * len(values), [0.0] * len(values)
  for t, grads in enumerate(flat, start=1):
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    assert norm > config.clip_norm
    for i, g in enumerate(grads):
      g = g * min(1, config.clip_norm / norm)
      m[i] = config.b1 * m[i] + (1 - config.b1) * g
      v[i] = config.b2 * v[i] + (1 - config.b2) * g**2
      direction = m[i] / (1 - config.b1**t) / (np.sqrt(v[i] / (1 - config.b2**t)) + config.eps)
      values[i] = values[i] - float(schedule(t - 1)) * (direction + decays[i] * config.weight_decay * values[i])
  for a, b in zip(jax.tree.leaves(base_update), values, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_three_steps_are_those_of_the_optimizer(params):
  config = optim_config()
  schedule = optim.make_schedule(config, STEPS)
  tx = optim.make_optimizer(config, schedule)
  now, metrics = three_steps(params, tx, schedule)
  assert now.step == 3
  assert metrics["learning_rate"] == pytest.approx(float(schedule(2)))
  assert metrics["tokens"] == (batch_of_training()["segment_ids"] > 0).sum()
  assert metrics["trained_tokens"] == batch_of_training()["loss_mask"].sum()
  by_hand, opt_state = params, jax.jit(tx.init)(params)
  for _ in range(3):  # the optimizer outside the step, on gradients that are tested above
    total, count, grads = run_batch(by_hand, batch_of_training())
    updates, opt_state = jax.jit(tx.update)(grads, opt_state, by_hand)
    by_hand = optax.apply_updates(by_hand, updates)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), now.params, by_hand)
  assert metrics["loss"] == pytest.approx(float(total / count), rel=1e-5)
  assert metrics["grad_norm"] == pytest.approx(float(optax.tree_utils.tree_norm(grads)), rel=1e-4)


@pytest.mark.slow  # tests/test_train.py has a whole run on a mesh
def test_three_steps_are_the_same_on_a_mesh(params):
  config = optim_config()
  schedule = optim.make_schedule(config, STEPS)
  tx = optim.make_optimizer(config, schedule)
  now, metrics = three_steps(params, tx, schedule)
  run = dataclasses.replace(BLOCKED, sharding=mesh(data=2, fsdp=2, tensor=2))
  cut, cut_metrics = three_steps(params, tx, schedule, run, micro_batches=2)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), cut.params, now.params)
  for name, value in metrics.items():
    assert cut_metrics[name] == pytest.approx(float(value), rel=1e-4), name


@pytest.mark.parametrize("changes, message", [
  (dict(schedule="cosin"), "optim.schedule is 'cosin'; choose one of cosine, linear, constant"),
  (dict(warmup_share=1.0), r"optim.warmup_share is 1.0; it must be in \[0, 1\)"),
  (dict(decay="some"), "optim.decay is 'some'; choose one of kernels, all"),
  (dict(mu_dtype="float16"), "optim.mu_dtype is 'float16'; choose float32 or bfloat16")])
def test_wrong_settings_are_told(changes, message):
  config = optim_config(**changes)
  with pytest.raises(UserError, match=message):
    optim.make_optimizer(config, optim.make_schedule(config, 10))


def test_executions_are_static_arguments():
  run = dataclasses.replace(PLAIN, sharding=mesh(data=8))
  assert isinstance(run, Execution) and hash(run) == hash(dataclasses.replace(PLAIN, sharding=mesh(data=8)))
