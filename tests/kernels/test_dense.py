"""Convolutions of compiled programs equal XLA's, value and gradients, whatever their shape."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import featvis as fv
from featvis import kernels
from featvis.errors import NonFiniteError
from featvis.kernels.winograd import winograd

NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")

# Image (h, w), channels in and out, kernel, stride, padding, layout, dilation.
CASES = [
    ((8, 8), 32, 32, (3, 3), (1, 1), "SAME", NHWC, (1, 1)),
    ((9, 14), 18, 60, (3, 3), (1, 1), "SAME", NCHW, (1, 1)),
    ((5, 1), 65, 16, (3, 3), (1, 1), ((2, 3), (1, 2)), NHWC, (1, 1)),
    ((4, 4), 512, 512, (3, 3), (1, 1), "SAME", NHWC, (1, 1)),
    ((9, 8), 16, 24, (3, 3), (1, 1), "SAME", NHWC, (2, 2)),
    ((9, 8), 16, 24, (3, 3), (2, 2), "SAME", NHWC, (1, 1)),
    ((8, 11), 24, 16, (3, 3), (2, 2), ((1, 1), (1, 1)), NCHW, (1, 1)),
    ((12, 11), 40, 16, (3, 2), (3, 2), ((2, 0), (0, 1)), NHWC, (1, 1)),
    ((12, 11), 16, 16, (7, 7), (2, 2), "VALID", NHWC, (1, 1)),
    ((7, 6), 16, 20, (1, 1), (1, 1), "VALID", NCHW, (1, 1)),
    ((7, 6), 16, 20, (1, 1), (2, 2), "VALID", NCHW, (1, 1)),
    ((7, 6), 3, 20, (3, 3), (2, 2), "SAME", NCHW, (1, 1)),
    ((7, 6), 20, 3, (3, 3), (1, 1), "SAME", NHWC, (1, 1)),
    ((7, 6), 16, 16, (1, 3), (1, 1), "SAME", NHWC, (1, 1)),
    ((9, 8), 16, 24, (5, 5), (1, 1), "SAME", NHWC, (1, 1)),
    ((7, 6), 20, 16, (1, 7), (1, 1), "SAME", NCHW, (1, 1)),
    ((9, 7), 16, 17, (7, 1), (1, 1), "VALID", NHWC, (1, 1)),
    ((8, 9), 16, 16, (4, 2), (1, 1), ((2, 1), (0, 3)), NHWC, (1, 1)),
]


def arrays(case, seed=0):
    size, inputs, outputs, taps, _, _, layout, _ = case
    rng = np.random.default_rng(seed)
    image, kernel = (2, *size, inputs), (*taps, inputs, outputs)
    x = rng.normal(size=image).astype(np.float32)
    k = (rng.normal(size=kernel) / np.sqrt(inputs * np.prod(taps))).astype(np.float32)
    return (x, k) if layout == NHWC else (x.transpose(0, 3, 1, 2), k.transpose(3, 2, 0, 1))


def convolve(case, x, kernel):
    *_, stride, padding, layout, dilation = case
    return lax.conv_general_dilated(
        x, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=layout
    )


def in_a_loop(function):
    """Twice: only then are weights the same in each round."""
    return lambda *args: lax.map(lambda step: function(*args, step), jnp.zeros(2))


def value_and_gradients(case, x, kernel, step):
    value, pullback = jax.vjp(lambda x, kernel: convolve(case, x + step, kernel), x, kernel)
    return value, pullback(jnp.sin(jnp.arange(value.size)).reshape(value.shape) * 1.4)


#: One of each way, forward and gradient: tiles of 4 and of 2, windows, products, taps, and XLA's.
QUICK = (1, 3, 6, 10, 14)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if place in QUICK else [pytest.mark.thorough], id=str(case))
        for place, case in enumerate(CASES)
    ],
)
def test_equal_to_xla(case):
    def all_of(x, kernel):
        return in_a_loop(lambda *args: value_and_gradients(case, *args))(x, kernel)

    args = arrays(case)
    ours, plain = kernels.compiled(all_of), jax.jit(all_of)
    found = ours(*args)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, plain(*args)
    )
    jax.tree.map(np.testing.assert_array_equal, found, ours(*args))


@pytest.mark.thorough
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("seed", range(12))
def test_tiles_of_any_shape(m, seed):
    rng = np.random.default_rng(seed)
    n, h, w, c, d = rng.integers(1, (4, 20, 20, 40, 40))
    pads = tuple(tuple(int(p) for p in pair) for pair in rng.integers(2, 4, (2, 2)))
    x = rng.normal(size=(n, h, w, c)).astype(np.float32)
    kernel = (rng.normal(size=(3, 3, c, d)) / np.sqrt(9 * c)).astype(np.float32)
    plain = lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=NHWC)
    found = jax.jit(winograd, static_argnums=(2, 3))(x, kernel, pads, m)
    np.testing.assert_allclose(found, plain, atol=1e-4)
    # What is cropped is as if it had not been there.
    less = jax.jit(winograd, static_argnums=(2, 3))(x, kernel, ((2, 1), (-1, 3)), m) if w > 1 else 0
    if w > 1:
        plain = lax.conv_general_dilated(
            x[:, :, 1:], kernel, (1, 1), ((2, 1), (0, 3)), dimension_numbers=NHWC
        )
        np.testing.assert_allclose(less, plain, atol=1e-4)


def left_to_xla(function, *args):
    text = kernels.compiled(in_a_loop(function)).lower(*args).as_text()
    return "stablehlo.convolution" in text


@pytest.mark.skipif(not kernels.on_cpu(), reason="XLA decides elsewhere")
def test_only_what_is_faster_is_replaced():
    def conv(x, kernel, step=0.0):
        return convolve(CASES[0], x + step.astype(x.dtype), kernel)

    x, kernel = map(jnp.asarray, arrays(CASES[0]))
    assert not left_to_xla(conv, x, kernel)
    assert left_to_xla(conv, x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert left_to_xla(conv, x[..., :8], kernel[:, :, :8])
    # What is run once is the program that its author runs.
    once = kernels.compiled(lambda x, kernel: convolve(CASES[0], x, kernel))
    assert "stablehlo.convolution" in once.lower(x, kernel).as_text()
    # Outside of our programs nothing changes.
    plain = jax.jit(lambda x, kernel: convolve(CASES[0], x, kernel))
    assert "stablehlo.convolution" in plain.lower(x, kernel).as_text()


@pytest.mark.skipif(not kernels.on_cpu(), reason="XLA decides elsewhere")
def test_transformed_kernels_are_counted_as_they_are_compiled():
    case = ((8, 8), 128, 128, (3, 3), (1, 1), "SAME", NHWC, (1, 1))

    def slope(x, kernel, step):
        value, pullback = jax.vjp(lambda x: convolve(case, x + step, kernel), x)
        return pullback(value)

    x, kernel = arrays(case)
    (eqn,) = jax.make_jaxpr(lambda *args: convolve(case, *args))(x, kernel).eqns
    counted = kernels.transformed_bytes(eqn, len(x))
    assert counted == 2 * 36 * 128 * 128 * 4
    whole = kernels.compiled(in_a_loop(slope)).lower(x, kernel).compile().memory_analysis()
    assert counted <= whole.temp_size_in_bytes < 1.5 * counted


@pytest.mark.thorough
def test_nans_are_found_in_them():
    _, kernel = arrays(CASES[0])
    x = np.full((16, 8, 8, 32), np.nan, np.float32)
    with jax.debug_nans(True), pytest.raises(NonFiniteError):
        kernels.compiled(in_a_loop(lambda x, kernel, step: convolve(CASES[0], x + step, kernel)))(
            x, kernel
        )


class OfLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(32, (3, 3), name="first")(x))
        return nn.Conv(32, (3, 3), name="second")(x)


class OfNNX(nnx.Module):
    def __init__(self):
        self.first = nnx.Conv(3, 32, (3, 3), rngs=nnx.Rngs(0))
        self.second = nnx.Conv(32, 32, (3, 3), rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))


def of_functions(params, x):
    x = x.transpose(0, 3, 1, 2)
    for kernel in params:
        x = jax.nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))
    return x.transpose(0, 2, 3, 1)


def networks():
    x = jnp.zeros((1, 8, 8, 3))
    module, rng = OfLinen(), np.random.default_rng(0)
    yield fv.from_linen(module, module.init(jax.random.key(0), x), input=fv.Input(size=(8, 8)))
    yield fv.from_nnx(OfNNX(), input=fv.Input(size=(8, 8)))
    params = [rng.normal(size=(32, c, 3, 3)).astype(np.float32) for c in (3, 32)]
    yield fv.from_function(of_functions, params, input=fv.Input(size=(8, 8)))


@pytest.mark.thorough
@pytest.mark.skipif(not kernels.on_cpu(), reason="XLA decides elsewhere")
@pytest.mark.parametrize("number", range(3), ids=["Linen", "NNX", "a function, NCHW"])
def test_own_networks_have_them_without_asking(number):
    model = list(networks())[number]
    last = list(model.layers())[-1]

    def slope(params, x, step):
        return jax.grad(lambda x: jnp.sum(model.apply(params, x + step)[last] ** 2))(x)

    assert not left_to_xla(slope, model.params, jnp.zeros((2, 8, 8, 3)))
