"""Convolutions equal XLA's, value and gradients, whatever their shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from featvis import kernels


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
