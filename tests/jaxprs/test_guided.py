"""DeconvNet's and guided gradients against back-propagation written down in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from featvis.errors import InputError
from featvis.jaxprs.redirection import deconvolved, guided, guided_everywhere

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6)).astype(np.float32)
WEIGHTS = [RNG.normal(size=shape).astype(np.float32) for shape in ((6, 8), (8, 7), (7, 2))]

# What a ReLU passes of a gradient at its input.
LAWS = {
    deconvolved: lambda x, g: np.maximum(g, 0),
    guided: lambda x, g: np.maximum(g, 0) * (x > 0),
    guided_everywhere: lambda x, g: np.maximum(g, 0) * (x > 0),
}


def network(x, relu):
    for weights in WEIGHTS[:-1]:
        x = relu(x @ weights)
    return (x @ WEIGHTS[-1])[:, 1]


def expected(law, top=np.inf):
    values, before = X, []
    for weights in WEIGHTS[:-1]:
        before.append(values @ weights)
        values = np.clip(before[-1], 0, top)
    g = np.broadcast_to(WEIGHTS[-1][:, 1], values.shape)
    for weights, x in zip(reversed(WEIGHTS[:-1]), reversed(before), strict=True):
        g = law(x, g * (x < top)) @ weights.T
    return g


def gradient(function, change):
    return jax.jit(jax.grad(lambda x: change(function)(x).sum()))(X)


@pytest.mark.parametrize("change", LAWS)
@pytest.mark.parametrize(
    ("relu", "top"),
    [
        (jax.nn.relu, np.inf),
        (jax.checkpoint(lambda x: jnp.where(x > 0, x, 0)), np.inf),
        # A bound above keeps its gradient: it is no ReLU.
        (lambda x: jnp.clip(x, 0, 2), 2),
    ],
)
def test_relus_pass_what_the_method_says(change, relu, top):
    def function(x):
        return network(x, relu)

    np.testing.assert_allclose(
        gradient(function, change), expected(LAWS[change], top), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(change(function)(X), function(X), rtol=1e-5)


@pytest.mark.parametrize("change", LAWS)
def test_max_pools_pass_all_or_what_is_positive(change):
    def function(x):
        x = jax.nn.relu(x)
        pooled = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2), (1, 2), "VALID")
        return pooled @ jnp.asarray([1.0, -1, 2]) + 0.5 * x[:, 2]

    at = X.reshape(3, 3, 2)
    first = at == np.maximum(at.max(-1, keepdims=True), 0)
    g = np.where(first, np.array([1.0, -1, 2])[:, None], 0)
    # A pool of nothing but zeros takes the first.
    g[..., 0] += np.where((at <= 0).all(-1), [1.0, -1, 2], 0)
    if change is guided_everywhere:
        g = np.maximum(g, 0)
    g = g.reshape(3, 6)
    g[:, 2] += 0.5
    np.testing.assert_allclose(gradient(function, change), LAWS[change](X, g), atol=1e-6)


@pytest.mark.parametrize("change", LAWS)
def test_without_a_relu_before_the_score_there_is_nothing_to_change(change):
    def function(x):
        later = jax.nn.relu(x)
        return [jnp.tanh(x), later][0]

    with pytest.raises(InputError, match="there is none between the image and the score"):
        gradient(function, change)
