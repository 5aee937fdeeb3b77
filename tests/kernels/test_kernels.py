"""Convolutions equal XLA's, value and gradients, whatever their shape."""

import functools
import gc

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from compiles import Compiled
from jax import lax

from featvis import kernels
from featvis.kernels import compiling
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


@pytest.mark.parametrize(
    "case",
    [
        # Each is a program of its own: of the grid one size is enough for a look.
        pytest.param(case, id=str(case), marks=pytest.mark.thorough if case[3] == (8, 5) else ())
        for case in CASES
    ],
)
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


@pytest.mark.thorough
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
    assert " convolution(" not in program.lower(x, kernel).compile().as_text()


@pytest.mark.skipif(not kernels.on_cpu(), reason="XLA decides elsewhere")
@pytest.mark.parametrize("options", [{}, kernels.compiler_options()], ids=["anybody's", "ours"])
def test_what_is_kept_is_not_made_again(options):
    (mix,) = arrays(3, (4, 4))

    def score(x, kernel, keep=True):
        y = relu6(kernels.conv(x, kernel, groups=4), keep=keep)
        return jnp.sum(jnp.sin(y @ mix))

    def products(score):
        x, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4))
        program = jax.jit(jax.grad(score), compiler_options=options)
        return program.lower(x, kernel).compile().as_text().count(" multiply(")

    # Nine of the convolution and nine of its gradient; and nine more for the mask of the ReLU6.
    assert products(score) == 18
    assert products(lambda x, kernel: score(x, kernel, keep=False)) >= 27


def special(dtype):
    dtype = jnp.dtype(dtype)
    if dtype.kind == "b":
        return jnp.array([True, False, True])
    if jnp.issubdtype(dtype, np.integer):
        limits = jnp.iinfo(dtype)
        return jnp.array([limits.max, 0, limits.min, 1, limits.max], dtype)
    most = float(jnp.finfo(dtype).max)
    values = jnp.array([most, np.nan, -0.0, np.inf, -np.inf, most, 1e-40, 1.5], jnp.float32)
    return values.astype(dtype)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint32", "int32", "float16", "bfloat16", "float32", "complex64"]
)
def test_what_is_kept_is_the_same_whatever_its_numbers(dtype):
    values = special(dtype)

    def bits(array):
        return np.asarray(array).tobytes()

    # Each number once where it is looked at: the one whose loop has a round too.
    for shift in range(len(values)):
        given = jnp.roll(values, shift)
        kept = jax.jit(kernels.kept)({"a": given, "none": jnp.zeros((0, 2)), "b": given[None]})
        assert bits(kept["a"]) == bits(kept["b"]) == bits(given)
        assert kept["a"].dtype == given.dtype
        assert kept["none"].shape == (0, 2)
    rows = jnp.stack([jnp.roll(values, shift) for shift in range(len(values))])
    assert bits(jax.jit(jax.vmap(kernels.kept))(rows)) == bits(rows)
    assert bits(jax.jit(kernels.kept)(values[0])) == bits(values[0])
    assert kernels.kept(()) == ()


def test_derivatives_go_through_what_is_kept():
    x = jnp.linspace(-1, 1, 6)

    def kept(x):
        return jnp.sum(jnp.sin(kernels.kept(x * x)) ** 2)

    def plain(x):
        return jnp.sum(jnp.sin(x * x) ** 2)

    for transformed in (
        jax.grad,
        jax.hessian,
        lambda f: jax.vmap(jax.grad(lambda x: f(x[None]))),
        lambda f: lambda x: jax.jvp(f, (x,), (x,))[1],
        lambda f: jax.grad(jax.checkpoint(f)),
    ):
        found, wanted = jax.jit(transformed(kept))(x), jax.jit(transformed(plain))(x)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_options_of_the_compiler_are_used_where_they_were_swept_only(monkeypatch):
    here = (jaxlib.__version__, kernels.processor())
    assert bool(kernels.compiler_options()) == (here in kernels.SWEPT)
    monkeypatch.setattr(jaxlib, "__version__", "99.0")
    assert kernels.compiler_options() == {}


def test_what_is_compiled_ahead_is_not_compiled_again():
    def squares(x):
        return jnp.sum(x * x + 0.123)

    function = kernels.compiled(squares)
    with Compiled() as compiled:
        for _ in range(2):
            function.ahead(jnp.arange(7.0))
        assert function(jnp.arange(7.0)) == np.float32(91 + 7 * 0.123)
    assert compiled.count("squares") == 1
    with Compiled() as other:
        function(jnp.arange(8.0))
    assert other.count("squares") == 1


def test_what_cannot_be_compiled_ahead_fails_where_it_is_called(monkeypatch):
    function = kernels.compiled(lambda x: x + 1)

    def refused():
        raise RuntimeError("no memory")

    class Now:
        def __init__(self, target, args):
            self.start = functools.partial(target, refused)

    monkeypatch.setattr(compiling.threading, "Thread", Now)
    function.ahead(jnp.float32(1))
    assert function(jnp.float32(1)) == 2


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_a_call_as_before_it(collects):
    seen = []

    def fails(x):
        seen.append(gc.isenabled())
        raise ValueError("a network's own")

    function = kernels.compiled(fails)
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ValueError, match="own"):
            function(jnp.float32(1))
        assert gc.isenabled() is collects
        assert seen == [False]
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.thorough
@pytest.mark.parametrize("offset", [0, 2])
def test_take_alone_and_under_vmap(offset):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3, 20)).astype(np.float32)
    index = rng.integers(0, 18, (2, 3, 4, 5)).astype(np.int32)
    weight = rng.normal(size=index.shape).astype(np.float32)

    def one(values, index, weight):
        value, pullback = jax.vjp(lambda v: kernels.take(v, index + offset), values)
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
    shared = jax.vmap(lambda i: kernels.take(values[0, 0], i + offset))(index[0])
    np.testing.assert_array_equal(shared, values[0, 0][index[0] + offset])
