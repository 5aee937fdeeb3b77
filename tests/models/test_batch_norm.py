"""DeepInversion's prior, against batch norms whose inputs are computed by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE, COUNT = (6, 8), 4
INPUT = fv.Input(size=SIZE)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(COUNT, *SIZE, 3)).astype(np.float32)
WIDTH = 5
#: Kernels of 1 x 1 and what the two batch norms keep; a scale of 0 hides a channel of the output.
KERNELS = [RNG.normal(size=shape).astype(np.float32) for shape in ((3, WIDTH), (WIDTH, WIDTH))]
MEANS, VARIANCES, SCALES, BIASES = (
    RNG.uniform(*interval, (2, WIDTH)).astype(np.float32)
    for interval in ((-1, 1), (0.2, 2), (-1, 1), (-1, 1))
)
SCALES[0, 1] = 0
EPSILON = 0.05


class Net(nnx.Module):
    def __init__(self, twice=False, axis=-1):
        rngs = nnx.Rngs(0)
        self.convs = nnx.List(
            [nnx.Conv(k.shape[0], WIDTH, (1, 1), use_bias=False, rngs=rngs) for k in KERNELS]
        )
        self.norms = nnx.List(
            [nnx.BatchNorm(WIDTH, epsilon=EPSILON, axis=axis, rngs=rngs) for _ in KERNELS]
        )
        for i, norm in enumerate(self.norms):
            self.convs[i].kernel[...] = jnp.asarray(KERNELS[i])[None, None]
            norm.mean[...], norm.var[...] = jnp.asarray(MEANS[i]), jnp.asarray(VARIANCES[i])
            norm.scale[...], norm.bias[...] = jnp.asarray(SCALES[i]), jnp.asarray(BIASES[i])
        self.unused = nnx.BatchNorm(7, rngs=rngs)
        self.twice = twice

    def __call__(self, x):
        first, second = self.norms
        # The second batch norm's input is no submodule's output.
        x = nnx.relu(self.convs[1](first(self.convs[0](x))))
        x = second(x=x)
        return (second(x) if self.twice else x).mean((1, 2))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        for i in range(2):
            x = nn.Conv(WIDTH, (1, 1), use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(x) if i else x
            x = nn.BatchNorm(use_running_average=not train, epsilon=EPSILON, name=f"norm{i}")(x)
        return x.mean((1, 2))


def linen():
    return fv.from_linen(
        LinenNet(),
        {
            "params": {
                **{f"conv{i}": {"kernel": KERNELS[i][None, None]} for i in range(2)},
                **{f"norm{i}": {"scale": SCALES[i], "bias": BIASES[i]} for i in range(2)},
            },
            "batch_stats": {f"norm{i}": {"mean": MEANS[i], "var": VARIANCES[i]} for i in range(2)},
        },
        input=INPUT,
        call={"train": False},
    )


def normalised(x, i):
    return (x - MEANS[i]) / np.sqrt(VARIANCES[i] + EPSILON) * SCALES[i] + BIASES[i]


def batch_norm_inputs(images):
    first = images @ KERNELS[0]
    return first, np.maximum(normalised(first, 0) @ KERNELS[1], 0)


def distance(x, i):
    x = x.reshape(-1, WIDTH).astype(np.float64)
    return np.linalg.norm(x.mean(0) - MEANS[i]) + np.linalg.norm(x.var(0) - VARIANCES[i])


def batch_norms_see(model, images):
    acts = model(images)
    return [np.asarray(acts[f"norms_{i}/input"]).reshape(-1, WIDTH) for i in range(2)]


def score(model, images, prior):
    return np.asarray(prior(model(images), images))


@pytest.mark.thorough
@pytest.mark.parametrize("make", [lambda: fv.from_nnx(Net(), input=INPUT), linen])
@pytest.mark.parametrize("first", [10.0, 1, 0.25])
def test_the_prior_is_of_the_inputs_of_the_batch_norms(make, first):
    model = make()
    prior = fv.batch_norm_prior(model, first=first)
    inputs = batch_norm_inputs(IMAGES)
    expected = -first * distance(inputs[0], 0) - distance(inputs[1], 1)
    np.testing.assert_allclose(score(model, IMAGES, prior), [expected] * COUNT, rtol=1e-5)
    assert fv.parse(str(prior)) == prior
    assert fv.batch_norm_prior(model) == fv.batch_norm_prior(model, first=10.0)


def test_a_batch_norm_called_twice_counts_twice():
    model = fv.from_nnx(Net(twice=True), input=INPUT)
    inputs = batch_norm_inputs(IMAGES)
    expected = -10 * distance(inputs[0], 0) - distance(inputs[1], 1)
    expected -= distance(normalised(inputs[1], 1), 1)
    prior = fv.batch_norm_prior(model)
    assert len(prior.terms) == 3
    np.testing.assert_allclose(score(model, IMAGES, prior), [expected] * COUNT, rtol=1e-5)


def test_channels_first():
    class Turned(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(3, axis=1, rngs=nnx.Rngs(0))
            self.norm.mean[...] = jnp.asarray([0.1, 0.5, 0.9])

        def __call__(self, x):
            return self.norm(x).mean((2, 3))

    model = fv.from_nnx(Turned(), input=fv.Input(size=SIZE, layout="NCHW"))
    x = IMAGES.reshape(-1, 3)
    expected = np.linalg.norm(x.mean(0) - [0.1, 0.5, 0.9]) + np.linalg.norm(x.var(0) - 1)
    found = score(model, IMAGES, fv.batch_norm_prior(model, first=1.0))
    np.testing.assert_allclose(found, [-expected] * COUNT, rtol=1e-5)


def remembering(images):
    """A network whose running statistics are those of the images."""
    module = Net()
    x = jnp.asarray(images)
    for i, (conv, norm) in enumerate(zip(module.convs, module.norms, strict=True)):
        x = nnx.relu(conv(x)) if i else conv(x)
        norm.mean[...], norm.var[...] = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = norm(x, use_running_average=True)
    return fv.from_nnx(module, input=INPUT)


def test_the_best_score_is_that_of_the_data_remembered():
    model = remembering(IMAGES)
    prior = fv.batch_norm_prior(model)
    np.testing.assert_allclose(score(model, IMAGES, prior), np.zeros(COUNT), atol=1e-4)
    # Whatever the order and the places: statistics are all that is kept.
    np.testing.assert_allclose(score(model, IMAGES[::-1, ::-1], prior), np.zeros(COUNT), atol=1e-4)
    assert (score(model, IMAGES**2, prior) < -0.5).all()


@pytest.mark.thorough
def test_ascent_on_the_prior_alone_brings_the_statistics_back():
    model = remembering(IMAGES)
    prior = fv.batch_norm_prior(model)
    result = fv.synthesize(
        model, prior, "Pixels(sd=1.0)", batch=COUNT, steps=60, optimizer="adam(0.1)",
        transform="none", progress=False,
    )  # fmt: skip
    assert (result.clean_scores < 0).all()
    assert (result.clean_scores > 0.1 * result.scores[0]).all()
    for made, data in zip(
        batch_norms_see(model, result.images), batch_norms_see(model, IMAGES), strict=True
    ):
        np.testing.assert_allclose(made.mean(0), data.mean(0), atol=0.02)
        np.testing.assert_allclose(made.var(0), data.var(0), atol=0.02)


class RunningScale(nnx.Module):
    def __init__(self):
        self.mean, self.var = nnx.BatchStat(jnp.zeros(3)), nnx.BatchStat(jnp.ones(3))

    def __call__(self, x):
        return (x - self.mean[...]) / self.var[...]


class Holder(nnx.Module):
    def __init__(self, part):
        self.part = part

    def __call__(self, x):
        return self.part(x).mean((1, 2))


def scanned():
    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            norms = nn.scan(
                lambda norm, x, _: (norm(x), None),
                variable_axes={"batch_stats": 0, "params": 0},
                split_rngs={"params": False},
                length=2,
            )
            return norms(nn.BatchNorm(use_running_average=True, name="norm"), x, None)[0]

    variables = Stack().init(jax.random.key(0), IMAGES)
    return fv.from_linen(Stack(), variables, input=INPUT)


@pytest.mark.parametrize(
    ("make", "first", "message"),
    [
        (lambda: fv.from_nnx(Net(), input=INPUT), 0.0, "first must be a number above 0; got 0.0"),
        (lambda: fv.from_nnx(Net(), input=INPUT), "10", "first must be a number above 0"),
        (
            lambda: fv.from_nnx(Holder(nnx.Conv(3, 4, (1, 1), rngs=nnx.Rngs(0))), input=INPUT),
            1.0,
            "Holder calls no batch norm that keeps running statistics: .* folded",
        ),
        (
            lambda: fv.from_function(lambda w, x: x.mean((1, 2)) * w, np.ones(3), input=INPUT),
            1.0,
            "calls no batch norm",
        ),
        (lambda: fv.load("dsift"), 1.0, "dsift calls no batch norm"),
        (
            lambda: fv.from_nnx(Holder(RunningScale()), input=INPUT),
            1.0,
            "part keeps running statistics and is no BatchNorm of Flax",
        ),
        (scanned, 1.0, r"\(c,\) both, for the whole batch; got shapes \(2, 3\)"),
    ],
)
def test_a_network_without_batch_norms_says_so(make, first, message):
    model = make()
    with pytest.raises((fv.InputError, fv.ObjectiveError), match=message):
        fv.batch_norm_prior(model, first=first)
