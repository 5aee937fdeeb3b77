import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import featvis as fv
from featvis.jaxprs.redirection import redirected
from featvis.models import leaky, unrectified
from featvis.models.leaky import Leaky, leak_of, with_leak

pytestmark = pytest.mark.usefixtures("quick_to_compile")


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
        (lambda x: jnp.maximum(x, 1e-6), [[0.0, 0.0]], [[0.0, 0.0]]),
        # Other bounds.
        (lambda x: jnp.maximum(x, 1.0), [[0.0, 0.0]], [[1.0, 1.0]]),
        (jax.nn.hard_tanh, [[-2.0, -3.0]], [[1.0, 1.0]]),
        (jax.nn.hard_tanh, [[2.0, 3.0]], [[0.0, 0.0]]),
        (lambda x: -jax.nn.hard_tanh(x), [[2.0, 3.0]], [[-1.0, -1.0]]),
        (lambda x: 6 * jax.nn.hard_sigmoid(x), [[-4.0, -5.0]], [[1.0, 1.0]]),
        # Not recognised: the bound is no number, and the first axis is not the images'.
        (lambda x: jnp.maximum(x, jnp.abs(x[:, :1]) * 0), [[-1.0, -2.0]], [[0.0, 0.0]]),
        (lambda x: jax.nn.relu(x[0]), [[-1.0, -2.0, -3.0]], [[0.0, 0.0, 0.0]]),
    ],
)
def test_gradient_where_nothing_else_gets_through(function, x, wanted):
    x, dead = jnp.asarray(x), jnp.ones(len(x), bool)
    np.testing.assert_array_equal(redirected(function, dead)(x), function(x))
    gradient = jax.jit(jax.grad(lambda x: redirected(function, dead)(x).sum()))(x)
    np.testing.assert_array_equal(gradient, jnp.asarray(wanted))


@pytest.mark.thorough
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


@pytest.mark.thorough
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


# ---- spellings -----------------------------------------------------------------------------


@jax.custom_jvp
def by_jvp(x):
    return jnp.where(x > 0, x, 0)


by_jvp.defjvps(lambda g, out, x: jnp.where(x > 0, g, 0))


@jax.custom_vjp
def by_vjp(x):
    return x * (x > 0)


by_vjp.defvjp(lambda x: (by_vjp(x), x > 0), lambda open_, g: (g * open_,))


def scanned(x):
    """Three steps of which the last alone rectifies, as a stack of blocks."""
    signs = jnp.array([1.0, 1.0, 1.0])
    return jax.lax.scan(lambda c, s: (jnp.where(c > 0, c, 0) * s, None), x, signs)[0]


ZEROS = np.zeros(5, np.float32)
SPELLINGS = {
    "where": lambda x: jnp.where(x > 0, x, 0),
    "where zeros": lambda x: jnp.where(x > 0, x, jnp.zeros_like(x)),
    "where ge": lambda x: jnp.where(x >= 0, x, 0.0),
    "where mirrored": lambda x: jnp.where(jnp.zeros(()) < x, x, 0.0),
    "where closed": lambda x: jnp.where(x <= 0, 0.0, x),
    "where not": lambda x: jnp.where(~(x > 0), 0.0, x),
    "select": lambda x: jax.lax.select(x > 0, x, jnp.zeros(x.shape)),
    "maximum zeros": lambda x: jnp.maximum(x, jnp.zeros_like(x)),
    "maximum of a constant": lambda x: jnp.maximum(x, ZEROS),
    "minus minimum": lambda x: -jnp.minimum(-x, 0),
    "clamp": lambda x: jax.lax.clamp(0.0, x, 1e9),
    "clip": lambda x: jnp.clip(x, 0),
    "clip both": lambda x: jnp.clip(x, 0, 1e9),
    "masked": lambda x: x * (x > 0),
    "mask first": lambda x: (x > 0).astype(x.dtype) * x,
    "mask by where": lambda x: jnp.where(x > 0, 1.0, 0.0) * x,
    "custom_jvp": by_jvp,
    "custom_vjp": by_vjp,
    "jit": jax.jit(lambda x: jnp.where(x > 0, x, 0)),
    "remat": jax.checkpoint(lambda x: jnp.where(x > 0, x, 0)),
    "remat of relu": jax.checkpoint(jax.nn.relu),
    "scan": scanned,
    "cond": lambda x: jax.lax.cond(x.sum() < 1e9, jax.nn.relu, jnp.sin, x),
    "switch": lambda x: jax.lax.switch(1, [jnp.sin, lambda x: x * (x > 0)], x),
    "relu6": lambda x: jax.nn.relu6(x),
    "lane by lane": jax.vmap(lambda x: jnp.where(x > 0, x, 0)),
}


@pytest.mark.thorough
@pytest.mark.usefixtures("usual_promotions")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_has_the_redirected_gradient_of_relu(spelling):
    rectify = SPELLINGS[spelling]
    weights = jax.random.normal(jax.random.key(0), (4, 5))
    x = jnp.stack([jnp.ones(4), -jnp.ones(4), jnp.linspace(-1, 1, 4)])
    shift = jnp.array([0.0, 9.0, 9.0])[:, None]
    dead = jnp.array([True, True, False])

    def total(rectify):
        def function(x):
            # The second image is off everywhere, the third too but is not to be redirected.
            y = rectify(x @ weights - shift)
            return (y @ jnp.linspace(-0.5, 1, 5)).sum(), y

        changed = redirected(function, dead)
        return jax.jit(jax.value_and_grad(lambda x: changed(x), has_aux=True))(x), function(x)[1]

    ((_, values), gradient), plain = total(rectify)
    (_, wanted), _ = total(jax.nn.relu)
    np.testing.assert_array_equal(rectify(x @ weights - shift), plain)
    np.testing.assert_array_equal(values, total(lambda x: rectify(x))[0][0][1])
    np.testing.assert_allclose(values, plain, rtol=1e-6)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6)
    assert (gradient[1] != 0).any()
    assert (gradient[2] == 0).all()
    x = jnp.array([[-1.0, -2.0, 3.0, 4.0, 5.0]])
    slope = jax.grad(lambda x: Leaky(lambda _, x: {"y": rectify(x)}, 0.25)(None, x)["y"].sum())(x)
    closed = 0.25**3 if spelling == "scan" else 0.25
    np.testing.assert_array_equal(slope, [[closed, closed, 1, 1, 1]])


def test_a_scan_counts_for_each_of_its_steps():
    def apply(params, x):
        steps = jax.lax.scan(lambda c, _: (jax.nn.relu(c - 1), None), x, None, length=3)[0]
        return {"y": jax.checkpoint(lambda x: jnp.where(x > 0, x, 0))(steps)}

    model = fv.from_function(apply, None, input=fv.Input(size=(2, 2), channels=1, min_size=1))
    assert leak_of(leaky(model, "y")) == 1 / 4


# ---- leaky gradients -----------------------------------------------------------------------


def gradient_of(model, image, layer):
    return jax.jit(jax.grad(lambda image: model.apply(model.params, image)[layer].sum()))(image)


def two_layers(x):
    hidden = jax.nn.relu(x @ jnp.array([[1.0, -1.0], [1.0, -1.0]]))
    return jax.nn.relu(hidden @ jnp.array([[-1.0], [1.0]]))


@pytest.mark.thorough
def test_the_leak_of_two_layers_is_that_by_hand():
    # Before the first: 1.5 and -1.5; before the second: -1.5. Off, and so without a gradient.
    image = jnp.array([[[[0.5, 1.0]]]])
    model = fv.from_function(
        lambda _, x: {"y": two_layers(x)}, None, input=fv.Input(size=(1, 1), channels=2, min_size=1)
    )
    np.testing.assert_array_equal(gradient_of(model, image, "y"), 0)
    for slope in (0.0, 0.25, 0.5, 1.0):
        found = leaky(model, "y", slope)
        by_hand = np.full(image.shape, -slope - slope**2)
        np.testing.assert_array_equal(gradient_of(found, image, "y"), by_hand)
        np.testing.assert_array_equal(found(image)["y"], 0)
    assert leak_of(leaky(model, "y")) == 0.5


@pytest.mark.parametrize(
    ("function", "slopes"),
    [
        # At -1, 0, 3, 6 and 7; on the bounds, what the function itself says.
        (jax.nn.relu, (0.25, 0.25, 1, 1, 1)),
        (jax.nn.relu6, (0.25, 0.25, 1, 0.25, 0.25)),
        (lambda x: jnp.maximum(x, 0), (0.25, 0.5, 1, 1, 1)),
        (lambda x: jnp.maximum(0.0, x), (0.25, 0.5, 1, 1, 1)),
        (lambda x: jnp.minimum(x, 6), (1, 1, 1, 0.5, 0.25)),
        (lambda x: jnp.clip(x, 0, 6), (0.25, 0.5, 1, 0.5, 0.25)),
        (jax.jit(jax.jit(jax.nn.relu6)), (0.25, 0.25, 1, 0.25, 0.25)),
        # Other spellings and bounds.
        (lambda x: jnp.where(x > 0, x, 0), (0.25, 0.25, 1, 1, 1)),
        (jax.nn.hard_tanh, (1, 1, 0.25, 0.25, 0.25)),
        (lambda x: jnp.maximum(x, 1.0), (0.25, 0.25, 1, 1, 1)),
        (
            lambda x: jax.lax.scan(lambda c, row: (c, jax.nn.relu(row)), 0, x)[1],
            (0.25, 0.25, 1, 1, 1),
        ),
        # Not rectifiers.
        (jnp.abs, None),
        (lambda x: jnp.maximum(x, 1e-6), None),
    ],
)
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["up", "down"])
def test_every_closed_rectifier_passes_the_slope(function, slopes, sign):
    x = jnp.array([[-1.0, 0.0, 3.0, 6.0, 7.0]])
    apply = Leaky(lambda params, x: {"y": sign * function(x)}, 0.25)
    expected = jax.grad(lambda x: sign * function(x).sum())(x)
    if slopes is not None:
        expected = sign * jnp.array([slopes])
    value, gradient = jax.value_and_grad(lambda x: apply(None, x)["y"].sum())(x)
    assert value == sign * function(x).sum()
    np.testing.assert_array_equal(gradient, expected)
    # In forward mode too, and with an axis in front.
    _, forward = jax.jvp(lambda x: apply(None, x)["y"], (x,), (jnp.ones_like(x),))
    np.testing.assert_array_equal(forward, expected)
    batch = jax.vmap(jax.grad(lambda x: apply(None, x)["y"].sum()))(jnp.stack([x, -x]))
    np.testing.assert_array_equal(batch[0], expected)


class Net(nnx.Module):
    """Four rectifiers, one of them a ReLU6 in two equations; and one of the weights."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.conv3 = nnx.Conv(4, 4, (1, 1), rngs=rngs)
        # Off for every image.
        self.conv4 = nnx.Conv(4, 4, (1, 1), bias_init=nnx.initializers.constant(-99.0), rngs=rngs)
        self.gain = nnx.Param(jnp.full(4, 2.0))

    def __call__(self, x):
        one = nnx.relu(self.conv1(x)) * jnp.maximum(self.gain[...], 0)
        two = jnp.clip(self.conv2(one), 0, 6)
        side = jax.jit(nnx.relu)(self.conv3(one))
        return {
            "one": one,
            "two": two,
            "side": side,
            "sum": two + side,
            "dead": nnx.relu(self.conv4(two)),
        }


@pytest.fixture(scope="module")
def net():
    return fv.from_nnx(Net(nnx.Rngs(0)), input=fv.Input(size=(8, 10)))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (2, 8, 10, 3))


@pytest.mark.parametrize(
    ("layer", "count"),
    [("one", 1), ("conv2", 1), ("two", 2), ("side", 2), ("conv3", 1), ("sum", 3), ("dead", 3)],
)
def test_counts_the_rectifiers_between_image_and_layer(net, layer, count):
    assert leak_of(leaky(net, layer)) == 1 / count


def test_counts_those_of_a_network_of_the_zoo(lite0):
    # One in the stem and in block 0, which does not expand; two in a block; one in the head.
    assert leak_of(leaky(lite0, "block2")) == 1 / 6
    assert leak_of(leaky(lite0, "block2/expand")) == 1 / 5
    assert leak_of(leaky(lite0, "head")) == 1 / (1 + 1 + 15 * 2 + 1)


def test_without_rectifiers_before_the_layer_it_is_the_model_itself(net):
    assert leaky(net, "conv1") is net
    assert leaky(net, "conv1", 0.5) is net
    assert leak_of(net) is None
    assert with_leak(net, None) is net


@pytest.mark.thorough
def test_the_same_model_with_the_same_activations(net, images):
    found = leaky(net, "dead", 0.05)
    assert (found.name, found.digest, found.params) == (net.name, net.digest, net.params)
    assert list(found.layers().items()) == list(net.layers().items())
    ours, expected = found(images), net(images)
    assert list(ours) == list(expected)
    for layer, values in expected.items():
        np.testing.assert_array_equal(ours[layer], values)


@pytest.mark.thorough
def test_a_zoo_network_keeps_its_activations_to_the_bit(lite0):
    image = jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    ours, expected = leaky(lite0, "head")(image), lite0(image)
    for layer, values in expected.items():
        np.testing.assert_array_equal(ours[layer], values)


@pytest.mark.thorough
def test_a_slope_of_zero_is_the_true_gradient_and_another_reaches_a_dead_unit(net, images):
    for layer in ("sum", "dead"):
        plain = gradient_of(net, images, layer)
        np.testing.assert_allclose(
            gradient_of(leaky(net, layer, 0), images, layer), plain, rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(plain, 0)
    assert (gradient_of(leaky(net, "dead"), images, "dead") != 0).any((1, 2, 3)).all()


def test_equal_slopes_are_equal_programs(net):
    other = fv.from_nnx(Net(nnx.Rngs(1)), input=fv.Input(size=(8, 10)))
    one, two = leaky(net, "two").apply, leaky(other, "side", np.float32(0.5)).apply
    assert (one, hash(one)) == (two, hash(two))
    assert one != net.apply
    assert one != leaky(net, "two", 0.25).apply
    # A second leak takes the place of the first.
    assert leaky(leaky(net, "two", 0.25), "two").apply == one


@pytest.mark.thorough
def test_an_axis_in_front_is_mapped(net, images):
    apply = leaky(net, "sum").apply

    gradient = jax.grad(lambda images: apply(net.params, images)["sum"].sum())
    stacks = jnp.stack([images, images[::-1], images**2])
    mapped, gradient = jax.jit(jax.vmap(gradient))(stacks), jax.jit(gradient)
    for one, stack in zip(mapped, stacks, strict=True):
        np.testing.assert_allclose(one, gradient(stack), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "rectify", [jax.nn.relu, jax.nn.relu6, lambda x: jnp.maximum(0, x), lambda x: x.clip(0, 6)]
)
def test_redirected_for_the_dead_and_leaky_for_the_others(rectify):
    leaking = Leaky(lambda params, x: {"y": rectify(x)}, 0.25)
    dead = jnp.array([False, True, True])

    def total(x):
        return redirected(leaking, dead)(None, x)["y"].sum()

    x = jnp.array([[-1.0, -2.0], [-1.0, -2.0], [-1.0, 2.0]])
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(x), [[0.25, 0.25], [1, 1], [0, 1]])


@pytest.mark.parametrize("slope", [-0.1, 1.5, float("nan"), "1", True])
def test_slopes_that_are_none(net, slope):
    for layer in ("two", "conv1"):
        with pytest.raises(fv.InputError, match="Leaky: slope is a number from 0 to 1, not"):
            leaky(net, layer, slope)


def test_an_unknown_layer_says_the_nearest(net):
    with pytest.raises(fv.UnknownLayer, match="unknown layer 'conv9'; nearest: conv"):
        leaky(net, "conv9", 0.5)


# ---- the layer's own rectifier -------------------------------------------------------------


class _Metamer(nnx.Module):
    """Four layers, of which `matched` has the gradient that its caller gives it."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.conv3 = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x, matched="", through=None):
        def rectified(name, x, rectify=nnx.relu):
            return through(x, rectify) if name == matched else rectify(x)

        first = rectified("first", self.conv1(x))
        second = rectified("second", first + self.conv2(first), jax.jit(jax.nn.relu6))
        halves = [rectified("both", half) for half in jnp.split(self.conv3(second), 2, -1)]
        both = jnp.concatenate(halves, -1)
        return {
            "first": first,
            "second": second,
            "both": both,
            "turned": jnp.moveaxis(both, -1, 1).astype(jnp.float32),
            "pooled": both.mean((1, 2)),
            "summed": first + second,
        }


def through(x, rectify):
    """The code of Feather et al.: rectified, with the gradient of the identity."""
    return x + jax.lax.stop_gradient(rectify(x) - x)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("layer", "matched"),
    [
        *(("first", "first"), ("second", "second"), ("both", "both"), ("turned", "both")),
        *(("pooled", ""), ("summed", "")),
    ],
)
def test_only_the_layers_own_rectifier_passes_the_gradient_whole(images, layer, matched):
    network = _Metamer(nnx.Rngs(0))
    model = fv.from_nnx(network, input=fv.Input(size=(8, 10)))
    found = unrectified(model, layer)
    assert (found is model) == (not matched)
    weight = jax.random.normal(jax.random.key(3), network(images)[layer].shape)

    def gradient(function):
        return jax.jit(jax.grad(lambda image: (function(image)[layer] * weight).sum()))(4 * images)

    ours = gradient(lambda image: found.apply(found.params, image))
    np.testing.assert_allclose(
        ours, gradient(lambda image: network(image, matched, through)), rtol=1e-4, atol=1e-5
    )
    if matched:
        assert np.abs(ours - gradient(network)).max() > 0.1
    np.testing.assert_array_equal(found(images)[layer], model(images)[layer])


def test_leaks_are_told_by_slope_and_layer(net):
    found = unrectified(net, "dead")
    assert leak_of(found) == [1.0, "dead"]
    assert with_leak(net, [1.0, "dead"]).apply == found.apply
    assert with_leak(found, None).apply == net.apply
    assert unrectified(leaky(net, "two"), "dead").apply == found.apply
    assert leak_of(unrectified(leaky(net, "two"), "sum")) is None
    for leak in ([0.5], [0.5, "dead", 1], [0.5, 3]):
        with pytest.raises(fv.InputError, match="layer"):
            with_leak(net, leak)
    with pytest.raises(fv.UnknownLayer, match="nearest: dead"):
        unrectified(net, "daed")
