"""Convolutions equal XLA's, value and gradients, whatever their shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from featvis import kernels
from featvis.zoo.layers import relu6


def reference(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


# Kernel, stride, padding, image, input channels, output channels, groups.
CASES = [
    (kernel, stride, "SAME", shape, *kind)
    for kind in ((4, 4, 4), (3, 4, 1))  # depthwise, few channels
    for kernel in (3, 5)
    for stride in (1, 2)
    for shape in ((7, 12), (8, 5))
] + [
    (5, 2, "SAME", (1, 2), 4, 4, 4),
    (3, 1, 1, (7, 9), 4, 4, 4),
    (3, 2, 1, (8, 9), 4, 4, 4),
    (3, 2, 0, (8, 9), 4, 4, 4),
    (3, 2, 3, (6, 7), 4, 4, 4),
    (3, 2, ((0, 1), (2, 0)), (8, 9), 4, 4, 4),
    (7, 2, 3, (15, 12), 3, 5, 1),
    (11, 4, 2, (27, 30), 3, 5, 1),
    (4, 4, "VALID", (13, 12), 3, 5, 1),
    (3, 2, "VALID", (9, 8), 1, 5, 1),
    (3, 1, ((2, 0), (0, 1)), (9, 8), 3, 5, 1),
    (1, 1, 0, (5, 6), 6, 4, 1),
    (1, 2, 0, (5, 6), 6, 4, 1),
    (1, 1, 1, (5, 6), 3, 4, 1),
    (1, 2, "SAME", (5, 6), 4, 4, 4),
    (2, 3, 0, (8, 9), 3, 4, 1),
    (3, 1, 1, (6, 7), 6, 4, 2),
    (3, 1, 1, (6, 7), 4, 8, 4),
    (3, 2, 1, (6, 7), 8, 4, 1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_plain_convolution(case):
    size, stride, padding, shape, inputs, outputs, groups = case
    x, kernel = arrays(0, (2, *shape, inputs), (size, size, inputs // groups, outputs))
    pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding

    def ours(x, kernel):
        return kernels.conv(x, kernel, stride, padding, groups)

    def plain(x, kernel):
        return reference(x, kernel, stride, pads, groups)

    (cotangent,) = arrays(1, jax.eval_shape(plain, x, kernel).shape)

    def value_and_gradients(function):
        @jax.jit
        def run(x, kernel):
            value, pullback = jax.vjp(function, x, kernel)
            return value, pullback(cotangent)

        return run(x, kernel)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5),
        value_and_gradients(ours),
        value_and_gradients(plain),
    )


def test_second_derivatives_and_vmap():
    x, kernel = arrays(1, (2, 6, 7, 3), (3, 3, 1, 3))

    def curvature(function, x):
        def slope(x):
            return jnp.sum(jax.grad(lambda x: jnp.sum(function(x) ** 3))(x) ** 2)

        return jax.grad(slope)(x)

    def depthwise(x):
        return kernels.conv(x, kernel, 2, groups=3)

    ours = jax.jit(lambda x: curvature(depthwise, x))(x)
    plain = jax.jit(lambda x: curvature(lambda x: reference(x, kernel, 2, "SAME", 3), x))(x)
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-3)
    together = jax.jit(depthwise)(x)
    one_by_one = jax.jit(jax.vmap(lambda image: depthwise(image[None])[0]))(x)
    np.testing.assert_allclose(one_by_one, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 8, 224, 225])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_that_of_xla(size, kernel, stride):
    expected = lax.padtype_to_pads((size,), (kernel,), (stride,), "SAME")[0]
    assert kernels.same_padding(size, kernel, stride) == tuple(expected)


def test_unused_kernel_gradient_costs_nothing():
    x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4))
    program = jax.jit(jax.grad(lambda x, kernel: kernels.conv(x, kernel, groups=4).sum()))
    assert "convolution" not in program.lower(x, kernel).compile().as_text()


@pytest.mark.parametrize(
    ("size", "stride", "padding", "shape"),
    [
        (5, 1, "SAME", (7, 6)),
        (5, 2, "SAME", (7, 6)),
        (5, 2, ((0, 1), (2, 0)), (9, 8)),
        (3, 1, "SAME", (4, 5)),
        (3, 2, 1, (5, 4)),
        (3, 3, 0, (9, 8)),
    ],
    ids=str,
)
def test_by_blocks_of_channels_is_the_same_convolution(monkeypatch, size, stride, padding, shape):
    channels = 2 * kernels._BLOCK
    x, kernel = arrays(2, (2, *shape, channels), (size, size, 1, channels))
    pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding

    def value_and_gradient(function):
        def run(x, kernel):
            value, pullback = jax.vjp(lambda x: function(x, kernel), x)
            return value, pullback(jnp.cos(value))

        return kernels.compiled(run)(x, kernel)

    blocked = []
    monkeypatch.setattr(kernels, "_LARGE_KERNEL", 0)
    monkeypatch.setattr(jnp, "moveaxis", lambda *a, f=jnp.moveaxis: blocked.append(a) or f(*a))
    ours = value_and_gradient(lambda x, k: kernels.conv(x, k, stride, padding, channels))
    assert blocked
    plain = value_and_gradient(lambda x, k: reference(x, k, stride, pads, channels))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), ours, plain)


@pytest.mark.skipif(not kernels.on_cpu(), reason="XLA decides elsewhere")
def test_what_is_kept_is_not_made_again():
    (mix,) = arrays(3, (4, 4))

    def score(x, kernel):
        y = relu6(kernels.conv(x, kernel, groups=4), keep=True)
        return jnp.sum(jnp.sin(y @ mix))

    def products(program):
        x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4))
        return program.lower(x, kernel).compile().as_text().count(" multiply(")

    # Nine of the convolution and nine of its gradient; and nine more for the mask of the ReLU6.
    assert products(jax.jit(jax.grad(score), compiler_options=kernels.compiler_options())) == 18
    # What the options are for.
    assert products(jax.jit(jax.grad(score))) == 27


@pytest.mark.parametrize("offset", [0, 2])
def test_take_alone_and_under_vmap(offset):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3, 20)).astype(np.float32)
    index = rng.integers(0, 18, (2, 3, 4, 5)).astype(np.int32)
    weight = rng.normal(size=index.shape).astype(np.float32)

    def one(values, index, weight):
        value, pullback = jax.vjp(lambda v: kernels.take(v, index, offset), values)
        return value, *pullback(weight)

    found = jax.vmap(jax.vmap(one))(values, index, weight)
    several = np.take_along_axis(values, index.reshape(2, 3, -1) + offset, 2).reshape(index.shape)
    gradient = np.zeros_like(values)
    for place in np.ndindex(index.shape):
        gradient[place[:2]][index[place] + offset] += weight[place]
    np.testing.assert_array_equal(found[0], several)
    np.testing.assert_allclose(found[1], gradient, atol=1e-6)
    alone = one(values[0, 0], index[0, 0], weight[0, 0])
    np.testing.assert_allclose(alone[1], gradient[0, 0], atol=1e-6)
    # One row of values for several sets of places.
    shared = jax.vmap(lambda i: kernels.take(values[0, 0], i, offset))(index[0])
    np.testing.assert_array_equal(shared, values[0, 0][index[0] + offset])
