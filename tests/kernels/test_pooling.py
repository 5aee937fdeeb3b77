"""A max pool and its gradient in a compiled program are XLA's, to the bit, where some are equal."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from featvis import kernels

# Image (h, w), window, stride, padding.
CASES = [
    ((8, 7), (3, 3), (2, 2), "SAME"),
    ((9, 8), (2, 3), (2, 3), "VALID"),
    ((6, 5), (3, 3), (1, 1), ((1, 1), (2, 0))),
    ((9, 11), (2, 2), (3, 4), ((0, 1), (1, 0))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_xla(case):
    size, window, stride, padding = case
    rng = np.random.default_rng(0)
    # Few numbers, so that several of a window are the largest: the first has the gradient.
    x = rng.integers(0, 4, (2, *size, 5)).astype(np.float32)

    def both(x, weight):
        value, pullback = jax.vjp(lambda x: nn.max_pool(x, window, stride, padding), x)
        return value, pullback(weight)[0]

    windows = jax.eval_shape(lambda x: nn.max_pool(x, window, stride, padding), x).shape
    weight = rng.integers(1, 9, windows).astype(np.float32)
    ours, plain = kernels.compiled(both), jax.jit(both)
    jax.tree.map(np.testing.assert_array_equal, ours(x, weight), plain(x, weight))
    texts = [program.lower(x, weight).as_text() for program in (ours, plain)]
    for operation in ("select_and_scatter", "reduce_window"):
        assert [operation in text for text in texts] == [not kernels.on_cpu(), True]


def test_other_numbers_are_left_to_xla():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    slope = kernels.compiled(jax.grad(lambda x: nn.max_pool(x, (2, 2)).astype(jnp.float32).sum()))
    assert "select_and_scatter" in slope.lower(x).as_text()
