"""Changed back-propagation through whole networks, by `explain`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import featvis as fv
from featvis.attribution.method import methods

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE = (24, 24)
METHODS = [
    name for name, one in methods().items() if one.function.__module__.endswith(".propagation")
]
RELEVANCE = [name for name in METHODS if name.startswith("lrp")]
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.2, 0.8, size=(2, *SIZE, 3)).astype(np.float32)
#: Three layers whose outermost unit sees 8 x 8 pixels: kernels of 3, 3 and 2 with strides 1, 2, 1.
WEIGHTS = {
    "first": RNG.normal(0, 0.3, (3, 3, 3, 5)).astype(np.float32),
    "second": RNG.normal(0, 0.3, (4, 4, 5, 6)).astype(np.float32),
    "third": np.abs(RNG.normal(0, 0.3, (2, 2, 6, 3))).astype(np.float32),
}
WEIGHTS["third"][0, 0] *= -0.3
STRIDES = {"first": 1, "second": 2, "third": 1}


def plain(params, x, layout="NHWC"):
    kernels = "HWIO" if layout == "NHWC" else "OIHW"
    for name, stride in STRIDES.items():
        kernel = params[name] if layout == "NHWC" else params[name].transpose(3, 2, 0, 1)
        x = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=(layout, kernels, layout)
        )
        x = fv.tap(jax.nn.relu(x), name)
    return x


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        for name, stride in STRIDES.items():
            size, features = WEIGHTS[name].shape[0], WEIGHTS[name].shape[-1]
            conv = nn.Conv(
                features, (size, size), (stride, stride), "VALID", use_bias=False, name=name
            )
            x = jax.nn.relu(conv(x))
        return x


class NNX(nnx.Module):
    def __init__(self):
        for name, stride in STRIDES.items():
            *size, inputs, outputs = WEIGHTS[name].shape
            conv = nnx.Conv(
                inputs, outputs, size, stride, padding="VALID", use_bias=False, rngs=nnx.Rngs(0)
            )
            conv.kernel = nnx.Param(jnp.asarray(WEIGHTS[name]))
            setattr(self, name, conv)

    def __call__(self, x):
        for name in STRIDES:
            x = jax.nn.relu(getattr(self, name)(x))
        return x


def network(kind):
    input = fv.Input(size=SIZE, mean=0.1, std=0.5, layout="NCHW" if kind == "NCHW" else "NHWC")
    if kind == "linen":
        variables = {"params": {name: {"kernel": one} for name, one in WEIGHTS.items()}}
        return fv.from_linen(Linen(), variables, input=input)
    if kind == "nnx":
        return fv.from_nnx(NNX(), input=input)
    return fv.from_function(
        lambda params, x: plain(params, x, input.layout), WEIGHTS, input=input, name=kind
    )


@pytest.fixture(scope="module")
def maps():
    """Of one unit of the same network, however it is written."""

    def of(kind, names):
        model = network(kind)
        layer = list(model.layers())[-1]
        unit = fv.Neuron(layer, 1, (4, 5))
        return {name: fv.explain(model, unit, IMAGES, name) for name in names}

    return of


@pytest.fixture(scope="module")
def of_a_function(maps):
    return maps("NHWC", METHODS)


@pytest.mark.thorough
def test_the_unit_sees_one_patch_and_so_does_every_map(of_a_function):
    # Rows 8 to 15 and columns 10 to 17.
    for name, found in of_a_function.items():
        for one in np.abs(found.maps):
            top = np.argsort(one.ravel())[-64:]
            rows, columns = np.unravel_index(top[one.ravel()[top] > 0], SIZE)
            inside = (rows >= 8) & (rows < 16) & (columns >= 10) & (columns < 18)
            assert inside.mean() >= 0.9, name
            assert len(rows) >= 32, name


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["NCHW", "linen", "nnx"])
def test_a_network_has_its_maps_however_it_is_written(kind, maps, of_a_function):
    for name, found in maps(kind, ["guided_backpropagation", "lrp_epsilon"]).items():
        wanted = of_a_function[name].maps
        np.testing.assert_allclose(found.maps, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_relevance_says_how_much_it_conserved(of_a_function):
    for name in RELEVANCE:
        found = of_a_function[name]
        assert set(found.metrics) == {"conserved", "conserved_with_biases"}
        wanted = 1 if name not in ("lrp_epsilon", "lrp_composite") else found.metrics["conserved"]
        np.testing.assert_allclose(found.metrics["conserved"], wanted, rtol=1e-4)
        np.testing.assert_allclose(found.metrics["conserved_with_biases"], wanted, rtol=1e-4)


def test_what_no_rule_or_no_relu_is_for_is_said():
    def function(params, x):
        fv.tap(jnp.sin(x), "sine")
        return jnp.fft.fft(x).real.mean((1, 2))

    model = fv.from_function(function, {}, input=fv.Input(size=SIZE), name="fourier")
    with pytest.raises(fv.InputError, match="no rule for 'real'"):
        fv.explain(model, "channel('logits', 1)", IMAGES, "lrp_epsilon")
    with pytest.raises(fv.InputError, match="there is none between the image and the score"):
        fv.explain(model, "channel('sine', 1)", IMAGES, "deconvnet")
