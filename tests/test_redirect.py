import jax
import jax.numpy as jnp
import numpy as np
import pytest

from featvis.redirect import redirected


@pytest.mark.parametrize(
    ("function", "x", "wanted"),
    [
        # All off: what pushes up gets through.
        (jax.nn.relu, [[-1.0, -2.0]], [[1.0, 1.0]]),
        (lambda x: -jax.nn.relu(x), [[-1.0, -2.0]], [[0.0, 0.0]]),
        # One unit is on: the ordinary gradient, for that image alone.
        (jax.nn.relu, [[-1.0, 2.0], [-1.0, -1.0]], [[0.0, 1.0], [1.0, 1.0]]),
        # All saturated: what pushes down gets through.
        (lambda x: -jax.nn.relu6(x), [[7.0, 8.0]], [[-1.0, -1.0]]),
        (jax.nn.relu6, [[7.0, 8.0]], [[0.0, 0.0]]),
        (jax.nn.relu6, [[-1.0, -2.0]], [[1.0, 1.0]]),
        (jax.nn.relu6, [[3.0, 8.0]], [[1.0, 0.0]]),
        (lambda x: jnp.maximum(x, 0.0), [[-1.0, -2.0]], [[1.0, 1.0]]),
        # Not rectifiers.
        (jax.nn.softplus, [[0.0, 0.0]], [[0.5, 0.5]]),
        (lambda x: jnp.maximum(x, 1.0), [[0.0, 0.0]], [[0.0, 0.0]]),
    ],
)
def test_gradient_where_nothing_else_gets_through(function, x, wanted):
    x = jnp.asarray(x)
    np.testing.assert_array_equal(redirected(function)(x), function(x))
    gradient = jax.jit(jax.grad(lambda x: redirected(function)(x).sum()))(x)
    np.testing.assert_array_equal(gradient, jnp.asarray(wanted))


def test_a_living_network_has_its_own_gradient_and_values(lite0):
    image = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))

    def value_and_grad(apply):
        def total(image):
            acts = apply(lite0.params, image)
            return acts["block3"].mean(), acts["block3/expand"]

        return jax.jit(jax.value_and_grad(total, has_aux=True))(image)

    (plain, _), gradient = value_and_grad(lite0.apply)
    (same, _), redirected_gradient = value_and_grad(redirected(lite0.apply))
    np.testing.assert_allclose(same, plain, rtol=1e-5)
    np.testing.assert_allclose(redirected_gradient, gradient, atol=1e-6)


def test_keeps_names_nesting_and_rules_of_their_own():
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (5 * g,))

    def network(params, x):
        return {"b": jax.nn.relu(doubled(x * params["w"])), "a": [x + 1]}

    params, x = {"w": jnp.float32(3.0)}, -jnp.ones((2, 2))
    out = redirected(network)(params, x)
    assert list(out) == ["a", "b"] or list(out) == ["b", "a"]
    np.testing.assert_array_equal(out["a"][0], 0)
    gradient = jax.grad(lambda x: redirected(network)(params, x)["b"].sum())(x)
    np.testing.assert_array_equal(gradient, 15.0)
