"""Relevance through traced programs, against formulas written down in NumPy and against gradients.

On a network of rectifiers LRP-0 is the gradient times the input (Shrikumar et al. 2016), on any
other the same with f(z) / z in place of each derivative f'(z), biases keeping the rest (Ancona et
al. 2018, "Towards better understanding of gradient-based attribution methods", proposition 1).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from featvis.errors import InputError
from featvis.jaxprs.affine import AlphaBeta, Depths, Epsilon, Gamma
from featvis.jaxprs.relevance import relevance

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


IMAGES = RNG.uniform(size=(2, 8, 8, 3)).astype(np.float32)
KERNEL, KERNEL2, DEEP = normal(3, 3, 3, 6), normal(3, 3, 6, 6), normal(3, 3, 1, 6)
HEAD, BIAS, SCALE = normal(6, 4), normal(6), normal(6)


def conv(x, kernel, stride=1, groups=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def rules(rule):
    return Depths(((1.0, rule),))


def found(function, images=IMAGES, depths=None):
    depths = depths or Depths()
    return jax.tree.map(np.asarray, jax.jit(lambda x: relevance(function, x, depths))(images))


def gradient_times_input(function, images=IMAGES):
    return np.asarray(jax.jit(jax.grad(lambda x: function(x).sum()))(images)) * images


def assert_near(a, b, tolerance=1e-4):
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def without_biases(x):
    """Strides, groups, a residual sum, pools, ReLUs in several forms, and no bias."""
    x = jax.nn.relu(conv(x, KERNEL))
    x = x + jnp.where((y := conv(x, KERNEL2)) > 0, y, 0)
    x = -jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jnp.concatenate([jnp.abs(x), jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, 1:-1]], -1)
    x = jax.checkpoint(lambda x: jnp.maximum(conv(x, DEEP, groups=6), 0))(x[..., :6])
    y, _ = jax.lax.scan(lambda x, w: (jax.nn.relu(x @ w), None), x, np.stack([KERNEL2[0, 0]] * 2))
    return (y.mean((1, 2)) @ HEAD)[:, 1]


def with_everything(x, swish=jax.nn.swish, gelu=jax.nn.gelu, relu6=jax.nn.relu6):
    """Biases, a batch normalisation, functions that are no rectifiers."""
    x = (x - 0.4) / 0.2
    x = swish(conv(x, KERNEL) * SCALE + BIAS)
    x = x + relu6(conv(x, KERNEL2, 2).repeat(2, 1).repeat(2, 2) + BIAS)
    x = gelu((x @ KERNEL2[1, 1] - BIAS) / (1 + SCALE**2))
    return (x.mean((1, 2)) @ HEAD + 0.3)[:, 1]


@jax.custom_vjp
def _by_its_ratio(z, y):
    return y


_by_its_ratio.defvjp(lambda z, y: (y, (z, y)), lambda kept, g: (g * kept[1] / kept[0], None))


def by_its_ratio(function):
    return lambda z: _by_its_ratio(z, jax.lax.stop_gradient(function(z)))


@pytest.mark.thorough
def test_lrp_0_is_gradient_times_input_without_biases():
    relevant = found(without_biases)
    assert_near(relevant.pixels, gradient_times_input(without_biases))
    np.testing.assert_allclose(relevant.pixels.sum((1, 2, 3)), relevant.score, rtol=1e-4)
    np.testing.assert_array_equal(relevant.biases, 0)


@pytest.mark.thorough
def test_lrp_0_is_the_gradient_of_ratios():
    relevant = found(with_everything)
    ratios = map(by_its_ratio, (jax.nn.swish, jax.nn.gelu, jax.nn.relu6))

    # Of what the network takes, of which each pixel has its own.
    def network(z):
        return with_everything(z * 0.2 + 0.4, *ratios)

    assert_near(relevant.pixels, gradient_times_input(network, (IMAGES - 0.4) / 0.2), 1e-3)
    total = relevant.pixels.sum((1, 2, 3)) + relevant.biases
    np.testing.assert_allclose(total, relevant.score, rtol=1e-3, atol=1e-4)
    assert np.abs(relevant.biases).min() > 0.1


def one_layer(x, z, w, b, r, rule):
    """Relevance of one layer by the textbook, one contribution after the other."""
    contributed = x[:, None] * w
    out = np.zeros_like(x)
    for j in range(len(z)):
        z_ij, b_j = contributed[:, j], b[j]
        up, down = np.maximum(z_ij, 0), np.minimum(z_ij, 0)
        if rule == "epsilon":
            out += z_ij / (z[j] + np.copysign(0.3, z[j])) * r[j]
        elif rule == "gamma":
            more = up if z[j] > 0 else down
            b_more = max(b_j, 0) if z[j] > 0 else min(b_j, 0)
            out += (z_ij + 0.7 * more) / (z[j] + 0.7 * (more.sum() + b_more)) * r[j]
        else:
            out += 2 * up / (up.sum() + max(b_j, 0)) * r[j]
            out -= down / (down.sum() + min(b_j, 0)) * r[j]
    return out


@pytest.mark.parametrize(
    ("name", "rule"),
    [("epsilon", Epsilon(0.3)), ("gamma", Gamma(0.7)), ("alphabeta", AlphaBeta(2.0))],
)
def test_rules_are_the_textbooks(name, rule):
    weights, bias, scale = normal(12, 5), normal(5), normal(5)
    weights2, shift = normal(5, 3), normal(5)
    images = normal(1, 2, 2, 3) + 0.2

    def network(x):
        # A normalisation after the layer, which is a part of it, its signs included.
        hidden = jax.nn.relu((x.reshape(1, 12) @ weights + bias) * scale + shift)
        return (hidden @ weights2)[:, 2]

    x = images.reshape(12).astype(np.float64)
    w, b = (weights * scale).astype(np.float64), bias * scale + shift
    z = x @ w + b
    hidden = np.maximum(z, 0)
    score = hidden @ weights2
    last = np.array([score[2]])
    middle = one_layer(hidden, score[2:], weights2[:, 2:], np.zeros(1), last, name)
    expected = one_layer(x, z, w, b, middle, name)
    relevant = found(network, images, rules(rule))
    assert_near(relevant.pixels.reshape(12), expected)
    np.testing.assert_allclose(relevant.score, last, rtol=1e-5)


def test_depths_choose_rules_and_bounds_are_those_of_black_and_white():
    weights, weights2 = normal(12, 5), normal(5, 3)
    images = RNG.uniform(size=(1, 2, 2, 3)).astype(np.float32)

    def network(x):
        return (jax.nn.relu(((x - 0.5) / 0.25).reshape(1, 12) @ weights + 1) @ weights2)[:, 0]

    x = (images.reshape(12) - 0.5) / 0.25
    z = x @ weights + 1
    hidden = np.maximum(z, 0)
    last = hidden @ weights2[:, :1]
    middle = one_layer(hidden, last, weights2[:, :1], np.zeros(1), last, "gamma")
    above, below = np.maximum(weights, 0), np.minimum(weights, 0)
    contributed = x[:, None] * weights + 2 * above - 2 * below
    expected = (contributed / contributed.sum(0) * middle).sum(1)
    depths = Depths(((0.5, Epsilon()), (1.0, Gamma(0.7))), bounded=True)
    relevant = found(network, images, depths)
    assert_near(relevant.pixels.reshape(12), expected)
    np.testing.assert_allclose(relevant.pixels.sum(), last, rtol=1e-4)
    with pytest.raises(InputError, match="rising order"):
        Depths(((0.5, Epsilon()), (0.2, Epsilon())))


def transformer(x, cut=lambda x: x):
    """A layer normalisation, attention and a gated sum; `cut` is put around its gates."""
    tokens = x.reshape(2, 16, 12) @ TOKENS
    centred = tokens - tokens.mean(-1, keepdims=True)
    y = centred * cut(jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5))
    q, k, v = (y @ w for w in QKV)
    attention = cut(jax.nn.softmax(jnp.einsum("nqc,nkc->nqk", q, k)))
    tokens = tokens + jnp.einsum("nqk,nkc->nqc", attention, v)
    gate = cut(jax.nn.sigmoid(tokens.mean(1) @ TOKENS[:6]))
    return (jax.nn.relu(tokens).mean(1) * gate @ HEAD)[:, 2]


TOKENS, QKV = normal(12, 6), [normal(6, 6) for _ in range(3)]


@pytest.mark.thorough
def test_gates_get_nothing():
    relevant = found(transformer)
    expected = gradient_times_input(lambda x: transformer(x, jax.lax.stop_gradient))
    assert_near(relevant.pixels, expected, 1e-3)
    np.testing.assert_allclose(relevant.pixels.sum((1, 2, 3)), relevant.score, rtol=1e-3)


def test_a_product_of_two_values_is_halved():
    relevant = found(lambda x: jnp.einsum("nhwc,nhwc->n", x, 1.5 * x))
    np.testing.assert_allclose(relevant.pixels, 1.5 * IMAGES**2, rtol=1e-4)


def test_the_relevance_of_a_probability_is_that_of_its_logit():
    def logits(x):
        return x.mean((1, 2)) @ HEAD[:3]

    relevant = found(lambda x: jax.nn.softmax(logits(x))[:, 1])
    expected = gradient_times_input(lambda x: logits(x)[:, 1])
    shares = [one / one.sum((1, 2, 3), keepdims=True) for one in (relevant.pixels, expected)]
    assert_near(*shares)
    np.testing.assert_allclose(relevant.pixels.sum((1, 2, 3)), relevant.score, rtol=1e-4)


def controlled(x, steps=None, apart=False):
    """Loops, branches and scattered sums without a bias; `apart` has them written down in Python.

    Args:
        x: images.
        steps: of the loop, where the program does not know them; None: 3.
        apart: whether without any of them.
    """
    x = jax.nn.relu(conv(x, KERNEL))
    weights = KERNEL2[0, 0]
    if apart:
        for _ in range(3):
            x = jax.nn.relu(x @ weights)
        # Both branches, one by a number of the program and one by the image itself.
        x = 2 * x
        x = jnp.where(x.sum() > 1e9, x, jax.nn.relu(conv(x, KERNEL2)))
        rows = jnp.stack([x[:, 0] + x[:, 3], *(x[:, i] for i in range(1, 8))], 1)
        sums = jnp.stack([rows[:, :, :4].sum((1, 2)), rows[:, :, 4:].sum((1, 2))], 1)
        return (sums.reshape(len(x), 12)[:, :6] @ HEAD)[:, 1]

    def going(state):
        return state[0] < (3 if steps is None else steps.astype(jnp.int32))

    def step(state):
        return state[0] + 1, jax.nn.relu(state[1] @ weights)

    _, x = jax.lax.while_loop(going, step, (jnp.int32(0), x))
    x = jax.lax.switch(2, [jnp.negative, jnp.exp, lambda x: 2 * x], x)
    x = jax.lax.cond(x.sum() > 1e9, lambda x: x, lambda x: jax.nn.relu(conv(x, KERNEL2)), x)
    x = x.at[:, 0].add(x[:, 3])
    columns = jnp.moveaxis(x.sum(1), 1, 0)
    sums = jnp.moveaxis(jax.ops.segment_sum(columns, jnp.arange(8) // 4, 2), 0, 1)
    return (sums.reshape(len(x), 12)[:, :6] @ HEAD)[:, 1]


@pytest.mark.thorough
def test_loops_branches_and_scattered_sums_are_what_they_are_made_of():
    relevant = found(controlled)
    expected = gradient_times_input(lambda x: controlled(x, apart=True))
    assert_near(relevant.pixels, expected)
    np.testing.assert_allclose(relevant.pixels.sum((1, 2, 3)), relevant.score, rtol=1e-4)
    # A number of steps that the image decides on has no rule.
    with pytest.raises(InputError, match="'while' of a number of steps that is not known"):
        found(lambda x: controlled(x, steps=x.sum()))


@pytest.mark.parametrize("way", ["added to", "added", "both"])
def test_what_is_scattered_to_gets_what_it_contributes(way):
    # By the ε-rule each of two summands gets its part of the sum.
    constant = jnp.asarray(normal(2, 8))
    rows = jnp.array([0, 0, 5])

    def score(x):
        # After a layer: before one all is the pixel's own.
        values = x[:, :, 0, 0] @ jnp.eye(8)
        added = values[:, :3]
        if way == "added to":
            summed = values.at[:, rows].add(constant[:, :3])
        else:
            summed = (values if way == "both" else constant).at[:, rows].add(added)
        return summed @ HEAD[:, 1].repeat(2)[:8]

    x = IMAGES[:, :, 0, 0].astype(np.float64)
    weights = HEAD[:, 1].repeat(2)[:8]
    expected = np.zeros_like(x) if way == "added" else x * weights
    if way != "added to":
        for place, row in enumerate((0, 0, 5)):
            expected[:, place] += x[:, place] * weights[row]
    relevant = found(score)
    np.testing.assert_allclose(relevant.pixels[:, :, 0, 0], expected, rtol=1e-4, atol=1e-5)
    kept = 0 if way == "both" else relevant.score - expected.sum(1)
    np.testing.assert_allclose(relevant.biases, kept, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("reduce_prod", lambda x: (1 + x).prod((1, 2, 3))),
        ("while", lambda x: jax.lax.while_loop(lambda x: x[0] < 9, jnp.exp, x.sum((1, 2, 3)))),
        ("gt", lambda x: (x > 0.5).sum((1, 2, 3)).astype(float)),
        ("atan2", lambda x: jnp.arctan2(x, 1 + x).sum((1, 2, 3))),
    ],
)  # fmt: skip
def test_what_has_no_rule_is_named_where_relevance_gets_there(name, score):
    with pytest.raises(InputError, match=f"no rule for '{name}'.*integrated_gradients"):
        found(score)
    # Beside its way it is in nobody's way.
    beside = found(lambda x: x.sum((1, 2, 3)) * jax.lax.stop_gradient(1 + 0 * score(x)))
    np.testing.assert_allclose(beside.pixels, IMAGES, rtol=1e-4)


def test_a_score_that_no_pixel_has_a_part_in_has_no_relevance():
    relevant = found(lambda x: jnp.ones(len(x)))
    np.testing.assert_array_equal(relevant.pixels, 0)
    np.testing.assert_array_equal(relevant.score, 1)
