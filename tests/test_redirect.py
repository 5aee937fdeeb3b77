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
        # The constant on the other side, or by way of a conversion.
        (lambda x: jnp.maximum(0, x), [[-1.0, -2.0]], [[1.0, 1.0]]),
        (lambda x: -jnp.minimum(6.0, x), [[7.0, 8.0]], [[-1.0, -1.0]]),
        (lambda x: jnp.clip(x, 0, 6), [[-1.0, -2.0]], [[1.0, 1.0]]),
        (lambda x: -jnp.clip(x, 0, 6), [[7.0, 8.0]], [[-1.0, -1.0]]),
        # Bound by bound: each is open for one unit, and so neither is redirected.
        (lambda x: -jax.nn.relu6(x), [[-1.0, 8.0]], [[0.0, 0.0]]),
        # Not rectifiers.
        (jax.nn.softplus, [[0.0, 0.0]], [[0.5, 0.5]]),
        (lambda x: jnp.maximum(x, 1.0), [[0.0, 0.0]], [[0.0, 0.0]]),
        # Not recognised.
        (lambda x: jnp.where(x > 0, x, 0), [[-1.0, -2.0]], [[0.0, 0.0]]),
        (lambda x: jax.nn.relu(x[0]), [[-1.0, -2.0, -3.0]], [[0.0, 0.0, 0.0]]),
    ],
)
def test_gradient_where_nothing_else_gets_through(function, x, wanted):
    x, dead = jnp.asarray(x), jnp.ones(len(x), bool)
    np.testing.assert_array_equal(redirected(function, dead)(x), function(x))
    gradient = jax.jit(jax.grad(lambda x: redirected(function, dead)(x).sum()))(x)
    np.testing.assert_array_equal(gradient, jnp.asarray(wanted))


@pytest.mark.parametrize("jit", [jax.jit, lambda function: function], ids=["jit", "eager"])
@pytest.mark.parametrize(
    "rectify", [jax.nn.relu, jax.nn.relu6, lambda x: jnp.maximum(0, x), lambda x: x.clip(0, 6)]
)
def test_a_living_image_next_to_a_dead_one_keeps_its_own_gradient(rectify, jit):
    weights = jax.random.normal(jax.random.key(0), (2, 5, 7))

    def network(x):
        # The first branch is off for both images, the second for the second image alone.
        off = rectify(-jnp.abs(x @ weights[0]) - 1)
        on = rectify(x @ jnp.abs(weights[1]))
        return (off + on).sum()

    # A zero in it too: there `maximum` passes half of the gradient, and a ReLU nothing.
    x = jnp.stack([jnp.arange(5.0), -jnp.ones(5), jnp.zeros(5)])
    plain = jit(jax.grad(network))(x)
    dead = jnp.array([False, True, False])
    gradient = jit(jax.grad(lambda x, dead: redirected(network, dead)(x)))(x, dead)
    np.testing.assert_array_equal(gradient[::2], plain[::2])
    assert (plain[0] != 0).all()
    assert (plain[1] == 0).all()
    assert (gradient[1] != 0).all()


def test_a_living_image_keeps_the_rule_of_a_rectifier_of_its_own():
    @jax.custom_jvp
    def straight(x):
        return jnp.maximum(x, 0)

    straight.defjvps(lambda g, out, x: 3 * g)
    gradient = jax.grad(lambda x: redirected(straight, jnp.array([False, True]))(x).sum())
    np.testing.assert_array_equal(gradient(-jnp.ones((2, 2))), [[3, 3], [1, 1]])


def test_a_living_network_has_its_own_gradient_and_values(lite0):
    image = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))

    def value_and_grad(apply):
        def total(image):
            acts = apply(lite0.params, image)
            return acts["block3"].mean(), acts["block3/expand"]

        return jax.jit(jax.value_and_grad(total, has_aux=True))(image)

    (plain, _), gradient = value_and_grad(lite0.apply)
    (same, _), redirected_gradient = value_and_grad(redirected(lite0.apply, jnp.ones(1, bool)))
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
    dead = jnp.ones(2, bool)
    out = redirected(network, dead)(params, x)
    assert list(out) == ["a", "b"] or list(out) == ["b", "a"]
    np.testing.assert_array_equal(out["a"][0], 0)
    gradient = jax.grad(lambda x: redirected(network, dead)(params, x)["b"].sum())(x)
    np.testing.assert_array_equal(gradient, 15.0)
