"""How many images go through a network together."""

import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis import kernels, memory
from objectives import Channel, Constant, Diversity, Objective, images_of, separable


def test_the_footprint_is_that_of_the_layers_used(toy):
    shape = (32, 32, 3)
    acts = toy.apply(toy.params, jnp.zeros((1, *shape)))
    first, *_ = acts
    activations, weights = memory.footprint(toy, Channel(first, 0), shape, shape)
    assert activations == 4 * acts[first].size
    whole = memory.footprint(toy, Channel(list(acts)[-1], 0), shape, shape)
    assert whole[0] > activations
    assert whole[1] > weights > 0


def test_as_many_as_fill_the_caches(toy, monkeypatch):
    shape = (12, 32, 32, 3)
    first, *_ = toy.apply(toy.params, jnp.zeros((1, *shape[1:])))
    objective = Channel(first, 0)
    activations, weights = memory.footprint(toy, objective, shape[1:], shape[1:])
    monkeypatch.setattr(kernels, "on_cpu", lambda: True)
    monkeypatch.setattr(memory, "_ACTIVATIONS_PER_WEIGHT", 0)
    for wanted, expected in ((1, 1), (2.5, 3), (4, 4), (4.5, 6), (6.5, None)):
        monkeypatch.setattr(memory, "_LEAST", wanted * activations)
        assert memory.images_at_a_time(toy, objective, shape, shape) == expected
    monkeypatch.setattr(memory, "_LEAST", 0)
    monkeypatch.setattr(memory, "_ACTIVATIONS_PER_WEIGHT", 2 * activations / weights)
    assert memory.images_at_a_time(toy, objective, shape, shape) == 2
    coupled = objective + Diversity(first)
    assert memory.images_at_a_time(toy, coupled, shape, shape) is None
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
    activations, _ = memory.footprint(toy, objective, shape[1:], shape[1:])
    monkeypatch.setattr(kernels, "on_cpu", lambda: False)
    for images, expected in ((13, None), (11, 6), (4.5, 4), (0.5, 1)):
        device = _Device(images * activations / memory._SHARE)
        monkeypatch.setattr(memory.jax, "local_devices", lambda device=device: [device])
        assert memory.images_at_a_time(toy, objective, shape, shape) == expected


def test_an_objective_of_some_images():
    objective = 2.0 * Channel("a", [3, 4, 5, 6]) + np.arange(4.0) * Channel("b", 1) + Constant(1.0)
    part = images_of(objective, 1, 2)
    expected = 2.0 * Channel("a", [4, 5]) + np.arange(1.0, 3) * Channel("b", 1) + Constant(1.0)
    assert str(part) == str(expected)


@pytest.mark.parametrize("draws", [1, 2])
def test_a_few_at_a_time_are_the_same_pictures(toy, monkeypatch, draws):
    first, *_ = toy.apply(toy.params, jnp.zeros((1, 16, 16, 3)))
    objective = Channel(first, [0, 1, 2, 3]) * np.array([1.0, 2.0, 0.5, 1.0])
    results = []
    for size in (None, 2):
        monkeypatch.setattr(memory, "images_at_a_time", lambda *_, size=size: size)
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
        memory.footprint(toy, Channel(first, 0), (16, 16, 3), (side, side, 3)) for side in (16, 32)
    )
    assert framed[0] > plain[0]
