"""Control tokens that a model has never learned: found, and given a start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import TINY, mesh, random_params

from agentbank_jax.control_tokens import find_untrained, start_from_mean
from agentbank_jax.errors import UserError
from agentbank_jax.models import llama

IDS = {"<a>": 0, "<b>": 1, "<c>": 2, "<d>": 3, "<e>": 4}


@pytest.fixture
def embedding():
  return np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)


def test_learned_rows_are_sound(embedding):
  assert find_untrained(embedding, IDS) == {}
  assert find_untrained(embedding, {}) == {}
  assert find_untrained(embedding.astype(jnp.bfloat16), IDS) == {}


def test_rows_of_zeros_and_rows_that_are_alike_are_named(embedding):
  embedding[0] = 1e-6
  embedding[3] = embedding[4] = embedding[1]
  found = find_untrained(embedding, IDS)
  assert found.keys() == {"<a>", "<b>", "<d>", "<e>"}
  assert found["<a>"].startswith("near zero (norm 4e-06, typical ")
  assert (found["<b>"], found["<d>"], found["<e>"]) == ("equal to that of '<d>'", *["equal to that of '<b>'"] * 2)
  embedding[:5] = 0  # as Llama 3's base models have them
  assert find_untrained(embedding, IDS).keys() == IDS.keys()


def test_rows_that_only_resemble_each_other_are_not_flagged(embedding):
  embedding[1] = embedding[0] * 1.05
  embedding[2] *= 0.05
  assert find_untrained(embedding, IDS) == {}


def test_a_token_without_a_row_is_an_error(embedding):
  with pytest.raises(UserError, match=r"'<f>' \(id 20\) lies outside the 20 embedding rows"):
    find_untrained(embedding, IDS | {"<f>": 20})


@pytest.mark.parametrize("sharding", [None, "2x2x2"])
def test_they_start_from_the_mean_of_the_others(sharding):
  params = jax.tree.map(jnp.asarray, random_params(TINY))
  for array in (params["embed"]["embedding"], params["head"]["kernel"].T):
    assert array.shape == (TINY.vocab_size, TINY.hidden_size)
  params["embed"]["embedding"] = params["embed"]["embedding"].at[jnp.array([0, 2, 3])].set(0)
  if sharding:
    params = jax.device_put(params, llama.param_shardings(TINY, mesh(data=2, fsdp=2, tensor=2)))
  filled = start_from_mean(params, [0, 2, 3], 0)
  others = np.setdiff1d(np.arange(TINY.vocab_size), [0, 2, 3])
  tables = [(p["embed"]["embedding"], p["head"]["kernel"].T) for p in (params, filled)]
  for before, after in zip(*(map(np.asarray, t) for t in tables), strict=True):
    np.testing.assert_array_equal(after[others], before[others])
    mean, spread = before[others].mean(0), before[others].std(0)
    deviation = (after[[0, 2, 3]] - mean) / spread
    assert 0.05 < np.abs(deviation).mean() < 0.15 and np.abs(deviation).max() < 0.5  # of a normal one of 0.1
    assert find_untrained(after, {"<a>": 0, "<c>": 2, "<d>": 3}) == {}
  jax.tree.map(lambda a, b: a.sharding == b.sharding or pytest.fail("cut otherwise"), filled, params)
  np.testing.assert_array_equal(filled["layers"]["mlp"]["up"]["kernel"], params["layers"]["mlp"]["up"]["kernel"])


def test_a_tied_model_has_one_table():
  params = {"embed": {"embedding": jnp.asarray(random_params(TINY)["embed"]["embedding"])}}
  one, again, other = (start_from_mean(params, [1], seed) for seed in (0, 0, 1))
  assert one.keys() == {"embed"}
  np.testing.assert_array_equal(one["embed"]["embedding"], again["embed"]["embedding"])
  assert (other["embed"]["embedding"] != one["embed"]["embedding"]).any()
