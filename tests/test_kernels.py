import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from featvis import kernels


def reference(x, kernel, stride, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def reference_depthwise(x, kernel, stride):
    return reference(x, kernel[:, :, None], stride, x.shape[-1])


def reference_conv(x, kernel, stride):
    return reference(x, kernel, stride, 1)


def value_and_gradients(function, stride):
    @jax.jit
    def run(x, kernel, cotangent):
        value, pullback = jax.vjp(lambda x, kernel: function(x, kernel, stride), x, kernel)
        return value, pullback(cotangent)

    return run


CASES = [
    (kind, size, stride, (height, width))
    for kind in ("depthwise", "conv")
    for size in (3, 5)
    for stride in (1, 2)
    for height, width in ((7, 12), (8, 5))
]


@pytest.mark.parametrize(("kind", "size", "stride", "shape"), [*CASES, ("depthwise", 5, 2, (1, 2))])
def test_equal_to_plain_convolution(kind, size, stride, shape):
    ours = value_and_gradients(getattr(kernels, kind), stride)
    plain = value_and_gradients(
        {"depthwise": reference_depthwise, "conv": reference_conv}[kind], stride
    )
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(size, size, 4) if kind == "depthwise" else (size, size, 3, 4))
    height, width = shape
    x = rng.normal(size=(2, height, width, kernel.shape[2]))
    cotangent = rng.normal(size=(2, -(-height // stride), -(-width // stride), 4))
    arrays = [a.astype(np.float32) for a in (x, kernel, cotangent)]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        ours(*arrays),
        plain(*arrays),
    )


def test_second_derivatives_and_vmap():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, 6, 7, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3)), jnp.float32)

    def curvature(function, x):
        def slope(x):
            return jnp.sum(jax.grad(lambda x: jnp.sum(function(x, kernel, 2) ** 3))(x) ** 2)

        return jax.grad(slope)(x)

    ours = jax.jit(lambda x: curvature(kernels.depthwise, x))(x)
    plain = jax.jit(lambda x: curvature(reference_depthwise, x))(x)
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-3)
    together = jax.jit(lambda x: kernels.depthwise(x, kernel, 2))(x)
    one_by_one = jax.jit(jax.vmap(lambda image: kernels.depthwise(image[None], kernel, 2)[0]))(x)
    np.testing.assert_allclose(one_by_one, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 8, 224, 225])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_that_of_xla(size, kernel, stride):
    expected = lax.padtype_to_pads((size,), (kernel,), (stride,), "SAME")[0]
    assert kernels.same_padding(size, kernel, stride) == tuple(expected)


def test_unused_kernel_gradient_costs_nothing():
    x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4))
    program = jax.jit(jax.grad(lambda x, kernel: kernels.depthwise(x, kernel).sum()))
    assert "convolution" not in program.lower(x, kernel).compile().as_text()
