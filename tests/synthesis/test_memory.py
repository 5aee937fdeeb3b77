"""How many images go through a network together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import TOY_SIZE

import featvis as fv
from featvis import kernels, limits, text
from featvis.synthesis import batching, memory
from objectives import Channel, Constant, Diversity, Objective, separable, slice_images


def test_the_footprint_is_that_of_the_layers_used(toy):
    shape = (32, 32, 3)
    acts = toy.apply(toy.params, jnp.zeros((1, *shape)))
    first, *_ = acts
    activations, weights = batching.footprint(toy, Channel(first, 0), shape, shape)
    assert activations == 4 * acts[first].size
    whole = batching.footprint(toy, Channel(list(acts)[-1], 0), shape, shape)
    assert whole[0] > activations
    assert whole[1] > weights > 0


def test_as_many_as_fill_the_caches(toy, monkeypatch):
    shape = (12, 32, 32, 3)
    first, *_ = toy.apply(toy.params, jnp.zeros((1, *shape[1:])))
    objective = Channel(first, 0)
    activations, weights = batching.footprint(toy, objective, shape[1:], shape[1:])
    monkeypatch.setattr(kernels, "on_cpu", lambda: True)
    monkeypatch.setattr(batching, "_ACTIVATIONS_PER_WEIGHT", 0)
    for wanted, expected in ((1, 1), (2.5, 3), (4, 4), (4.5, 6), (6.5, None)):
        monkeypatch.setattr(batching, "_LEAST", wanted * activations)
        assert batching.images_at_a_time(toy, objective, shape, shape) == expected
    monkeypatch.setattr(batching, "_LEAST", 0)
    monkeypatch.setattr(batching, "_ACTIVATIONS_PER_WEIGHT", 2 * activations / weights)
    assert batching.images_at_a_time(toy, objective, shape, shape) == 2
    monkeypatch.setattr(batching, "_OF_ONE_PASS", 3 * activations / weights)
    assert batching.images_at_a_time(toy, objective, shape, shape, once=True) == 3
    coupled = objective + Diversity(first)
    assert batching.images_at_a_time(toy, coupled, shape, shape) is None
    assert not separable(coupled)


class _Device:
    def __init__(self, limit):
        self.limit = limit

    def memory_stats(self):
        return {"bytes_limit": self.limit}


def test_on_an_accelerator_as_many_as_its_memory_takes(toy, monkeypatch):
    shape = (12, 32, 32, 3)
    first, *_ = toy.apply(toy.params, jnp.zeros((1, *shape[1:])))
    objective = Channel(first, 0)
    activations, _ = batching.footprint(toy, objective, shape[1:], shape[1:])
    monkeypatch.setattr(kernels, "on_cpu", lambda: False)
    for images, expected in ((13, None), (11, 6), (4.5, 4), (0.5, 1)):
        device = _Device(images * activations / batching._SHARE)
        monkeypatch.setattr(batching.jax, "local_devices", lambda device=device: [device])
        assert batching.images_at_a_time(toy, objective, shape, shape) == expected


def test_an_objective_of_some_images():
    objective = 2.0 * Channel("a", [3, 4, 5, 6]) + np.arange(4.0) * Channel("b", 1) + Constant(1.0)
    part = slice_images(objective, 1, 2)
    expected = 2.0 * Channel("a", [4, 5]) + np.arange(1.0, 3) * Channel("b", 1) + Constant(1.0)
    assert str(part) == str(expected)


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [1, 2])
def test_a_few_at_a_time_are_the_same_pictures(toy, monkeypatch, draws):
    first, *_ = toy.apply(toy.params, jnp.zeros((1, 16, 16, 3)))
    objective = Channel(first, [0, 1, 2, 3]) * np.array([1.0, 2.0, 0.5, 1.0])
    results = []
    for size in (None, 2):
        monkeypatch.setattr(batching, "images_at_a_time", lambda *_, size=size: size)
        options = {"steps": 6, "draws": draws, "progress": False}
        results.append(fv.synthesize(toy, objective, fv.Pixels((16, 16)), **options))
    for field in ("images", "scores", "clean_scores", "transformed_scores", "sensitivity"):
        whole, parts = (getattr(result, field) for result in results)
        np.testing.assert_allclose(parts, whole, rtol=2e-4, atol=2e-4)


class Likeness(Objective):
    """To pixels of its own, whatever the network sees."""

    pixels: np.ndarray

    def __call__(self, acts, image):
        return -jnp.mean((image - self.pixels[None]) ** 2, axis=(1, 2, 3))


# The objective reads no activation: its unit, so to speak, has no gradient.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::featvis.SilenceWarning")
def test_an_objective_sees_images_and_the_network_what_is_transformed(toy):
    pixels = np.full((16, 16, 3), 0.25, np.float32)
    objective = Likeness(pixels)
    # Data that is not declared as one an image might be so nevertheless.
    assert not separable(objective)
    result = fv.synthesize(
        toy, objective, fv.Pixels((16, 16)), batch=2, steps=2, transform="standard", progress=False
    )
    assert result.scores[-1].mean() > result.scores[0].mean()
    first, *_ = toy.apply(toy.params, jnp.zeros((1, 16, 16, 3)))
    plain, framed = (
        batching.footprint(toy, Channel(first, 0), (16, 16, 3), (side, side, 3))
        for side in (16, 32)
    )
    assert framed[0] > plain[0]


# ---- what does not fit ---------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """A machine of 100 MB."""
    monkeypatch.setattr(limits, "available", lambda: 1e8)


LARGE = {
    "size": ({"parameterization": fv.Pixels((4000, 3000))}, r"one picture of about \d+x\d+ would"),
    "batch": ({"batch": 50_000}, r"of the 50000 images would fit"),
    "units": ({"objective": Channel("conv", np.ones(50_000, int))}, r"of the 50000 images would"),
    "snapshots": ({"steps": 10**5, "snapshots": 10**5}, "of the snapshots would fit"),
    "hidden": ({"parameterization": fv.CPPN(TOY_SIZE, hidden=9000)}, "of the parameters and"),
    "more hidden": ({"parameterization": fv.CPPN(TOY_SIZE, hidden=2**31 - 1)}, "parameters"),
    "levels": ({"parameterization": fv.Pyramid((16, 60_000), levels=2)}, "60000"),
    "pads": ({"transform": "Pad(2000)"}, "the network"),
    "rolls": ({"transform": "Roll(2000)"}, "the network"),
    "blurs": (
        {"transform": "Blur(900)", "parameterization": fv.Pixels((12, 9000))},
        "Blur of 9000",
    ),
    "optimizer": ({"optimizer": "scale_by_lbfgs(memory_size=100000)"}, "the optimizer"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_what_cannot_fit_is_refused_before_it_starts(toy, small, monkeypatch, kind):
    options, message = LARGE[kind]
    options = {"objective": "conv:1", "transform": "none", "steps": 2, "progress": False, **options}
    options = {"parameterization": fv.Pixels(TOY_SIZE), **options}

    def started(*_):
        raise AssertionError("it started")

    monkeypatch.setattr("featvis.synthesis.run.start_state", started)
    with pytest.raises(fv.TooLargeError, match=message) as caught:
        fv.synthesize(toy, **options)
    assert "MB" in str(caught.value) or "GB" in str(caught.value) or kind == "more hidden"
    assert "\n" not in str(caught.value)


def test_what_is_said_to_fit_does(toy, small):
    pixels, none = fv.Pixels(TOY_SIZE), fv.transforms.PRESETS["none"](TOY_SIZE)
    need = memory.estimate(toy, Channel("conv", 1), pixels, none, 50_000, 2304, steps=2)
    fitting = need.fitting(50_000)
    assert 0 < fitting < 50_000
    need.check(fitting)
    with pytest.raises(fv.TooLargeError, match="would fit"):
        need.check(2 * fitting)


@pytest.mark.parametrize("transform", ["Pad(8)", "Pad(3)", "none"])
@pytest.mark.parametrize("count", [1, 4])
def test_images_of_an_objective_s_own_leave_the_network_in(toy, transform, count):
    pixels = fv.Pixels(TOY_SIZE)
    seen = text.transform(transform, TOY_SIZE)
    images = np.random.default_rng(0).uniform(size=(count, *TOY_SIZE, 3))
    own = fv.target(toy, "conv", images)
    own = fv.FeatureMatch("conv", own, images=images)
    needs = [
        memory.estimate(toy, one, pixels, seen, count, 2304, steps=2)
        for one in (own, Channel("conv", [1] * count))
    ]
    assert needs[0].passing == needs[1].passing > 0
    assert needs[0].of(count) == needs[1].of(count)


def test_the_kernels_that_convolutions_multiply_by_are_counted_once():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 64, 64)).astype(np.float32)

    def network(params, x):
        x = jnp.concatenate([x] * 22, -1)[..., :64]
        return jax.lax.conv_general_dilated(
            x, params, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    model = fv.from_function(network, kernel, input=fv.Input(size=(8, 8)))
    (layer,) = model.layers()
    pixels, none = fv.Pixels((8, 8)), fv.transforms.PRESETS["none"]((8, 8))
    need = memory.estimate(model, Channel(layer, [1] * 6), pixels, none, 6, 2304, steps=2)
    # Forward and backward; F(4,3) takes 36 numbers of a kernel's 9.
    kernels_of = 2 * 4 * kernel.nbytes if kernels.on_cpu() else 0
    assert need.transformed(1) == kernels_of
    growth = [need.of(count) - count * (need.of(2) - need.of(1)) for count in (1, 2)]
    assert growth == [kernels_of] * 2


@pytest.mark.thorough
def test_a_manifest_is_refused_too(toy, small):
    made = fv.synthesize(toy, "conv:1", fv.Pixels(TOY_SIZE), steps=1, progress=False)
    (run,) = made.manifest["runs"]
    large = {**made.manifest, "runs": [{**run, "batch": 2**16}]}
    with pytest.raises(fv.TooLargeError, match="would fit"):
        fv.replay(large, model=toy)


@pytest.mark.thorough
def test_of_several_objectives_as_many_together_as_fit(toy, monkeypatch):
    options = {"steps": 1, "transform": "none", "progress": False}
    units = [f"conv:{i}" for i in range(6)]
    pixels, none = fv.Pixels(TOY_SIZE), fv.transforms.PRESETS["none"](TOY_SIZE)
    need = memory.estimate(toy, Channel("conv", [0] * 6), pixels, none, 6, 4 * 2304, steps=1)
    monkeypatch.setattr(limits, "available", lambda: need.of(4))
    made = list(fv.synthesize_many(toy, units, pixels, **options))
    places = [place for some, _ in made for place in some]
    assert places == list(range(6))
    assert 1 < len(made) < 6


class Runs(Objective):
    """Runs out of memory where it is traced."""

    error: Exception = fv.static()

    def __call__(self, acts, image):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9")],
)
def test_memory_that_runs_out_after_all_is_one_line(toy, error):
    with pytest.raises(fv.TooLargeError, match="the memory ran out") as caught:
        fv.synthesize(toy, Runs(error), fv.Pixels(TOY_SIZE), progress=False)
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError), limits.explained("a test"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_there_is_some_memory():
    assert 0 < limits.available() <= 2**50
