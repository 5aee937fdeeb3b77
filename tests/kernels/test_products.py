"""Matrix products of few rows by the rows of a matrix, and which of them are ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from featvis import kernels


def arrays(rows, columns=40, length=24):
    rng = np.random.default_rng(0)
    shapes = (rows, length), (columns, length)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def in_a_loop(function):
    return lambda *args: lax.map(lambda step: function(*args, step), jnp.arange(2.0))


def gradient(x, matrix, step):
    """Of a dense layer, by what goes into it."""
    _, pullback = jax.vjp(lambda y: y @ matrix, jnp.zeros((len(x), matrix.shape[0])))
    return pullback(x + step)[0]


@pytest.mark.parametrize("rows", [1, 4])
def test_equal_to_the_product(rows):
    x, matrix = arrays(rows)
    ours = kernels.compiled(in_a_loop(gradient))
    found = ours(x, matrix)
    wanted = np.stack([(x.astype(float) + step) @ matrix.T.astype(float) for step in range(2)])
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_array_equal(found, ours(x, matrix))


@pytest.mark.skipif(not kernels.on_cpu(), reason="XLA decides elsewhere")
def test_only_few_rows_are_replaced():
    def products(function, rows):
        text = kernels.compiled(function).lower(*arrays(rows)).as_text()
        return text.count("stablehlo.dot_general")

    assert products(in_a_loop(gradient), 4) == 4
    assert products(in_a_loop(gradient), 64) == 1
    # What is run once is the program that its author runs.
    assert products(lambda x, matrix: gradient(x, matrix, 0.0), 4) == 1
