import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_zoo_hog import noise, photograph

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RNG = np.random.default_rng
PHOTOGRAPHS = {
    "camera": (72, 72), "astronaut": (71, 59), "coffee": (71, 59), "chelsea": (72, 72),
}  # fmt: skip
SIDES = {"dsift": 5, "dsift8": 8}


def features(name, image):
    return np.asarray(fv.load(name)(image)["features"])


# ---- the definition, pixel by pixel --------------------------------------------------------


def angular(across, down):
    """The two nearest of 8 directions and their shares of a gradient."""
    turn = math.atan2(down, across) / (math.pi / 4) % 8
    low = math.floor(turn)
    return {low % 8: 1 - (turn - low), (low + 1) % 8: turn - low}


def reference(image, side):
    """The network of Mahendran & Vedaldi 2015 on (h, w), in float64: bins and descriptors."""
    height, width = (size - 2 for size in image.shape)
    image = image.astype(np.float64)
    rows, columns = height // side - 1, width // side - 1
    bins = np.zeros((rows, columns, 8))
    for y in range(height):
        for x in range(width):
            across = (image[y + 1, x + 2] - image[y + 1, x]) / 2
            down = (image[y + 2, x + 1] - image[y, x + 1]) / 2
            if across == down == 0:
                continue
            # Bins overlap by a half: a pixel is in two of them in each direction.
            for i in (y // side - 1, y // side):
                for j in (x // side - 1, x // side):
                    if 0 <= i < rows and 0 <= j < columns:
                        dy = abs(y + 0.5 - (i + 1) * side) / side
                        dx = abs(x + 0.5 - (j + 1) * side) / side
                        weight = math.hypot(across, down) * (1 - dy) * (1 - dx)
                        for k, share in angular(across, down).items():
                            bins[i, j, k] += weight * share
    descriptors = np.zeros(((rows - 4) // 3 + 1, (columns - 4) // 3 + 1, 128))
    for i in range(descriptors.shape[0]):
        for j in range(descriptors.shape[1]):
            one = bins[3 * i : 3 * i + 4, 3 * j : 3 * j + 4].copy()
            for p in range(4):
                for q in range(4):
                    one[p, q] *= math.exp(-((p - 1.5) ** 2 + (q - 1.5) ** 2) / (2 * 1.5**2))
            one /= math.sqrt((one**2).sum() + 1e-6)
            descriptors[i, j] = np.minimum(one, 0.2).ravel()
    return bins, descriptors


@pytest.mark.parametrize("photo", PHOTOGRAPHS)
@pytest.mark.parametrize("name", SIDES)
def test_equals_the_definition_on_photographs(name, photo):
    image = photograph(photo, *PHOTOGRAPHS[photo])
    bins, expected = reference(image[0, ..., 0], SIDES[name])
    acts = fv.load(name)(image)
    np.testing.assert_allclose(acts["cells"][0], bins, atol=1e-4)
    np.testing.assert_allclose(acts["features"][0], expected, atol=1e-4)
    assert expected.std() > 0.04


def vlfeat(image, side, centre):
    """VLFeat's vl_dsift (Gaussian window) of one descriptor around `centre`, in float64.

    Its bins have their centres on pixels and kernels of 2 · side - 1; the window is on the pixels,
    σ = 2 bins; it normalises again after the clamping.
    """
    down, across = np.gradient(image.astype(np.float64))
    result = np.zeros((4, 4, 8))
    for i in range(4):
        for j in range(4):
            top, left = (round(c + side * (k - 1.5)) for c, k in zip(centre, (i, j), strict=True))
            for y in range(top - side + 1, top + side):
                for x in range(left - side + 1, left + side):
                    dy, dx = (y - centre[0]) / (2 * side), (x - centre[1]) / (2 * side)
                    weight = (1 - abs(y - top) / side) * (1 - abs(x - left) / side)
                    weight *= math.exp(-(dy**2 + dx**2) / 2) * math.hypot(across[y, x], down[y, x])
                    for k, share in angular(across[y, x], down[y, x]).items():
                        result[i, j, k] += weight * share
    result /= np.linalg.norm(result)
    result = np.minimum(result, 0.2)
    return result.ravel() / np.linalg.norm(result)


def test_vlfeats_own_is_the_same_up_to_half_a_pixel_and_the_window():
    image = photograph("astronaut", 71, 59)
    found = features("dsift", image)[0]
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            # The middle of ours is at 1 + 5 · (3i + 2.5) - 0.5 pixels: half a pixel from theirs.
            centre = (5 * (3 * i + 2.5) + 0.5, 5 * (3 * j + 2.5) + 0.5)
            theirs = vlfeat(image[0, ..., 0], 5, (centre[0] - 0.5, centre[1] - 0.5))
            cosine = found[i, j] @ theirs / np.linalg.norm(found[i, j])
            assert 0.95 < cosine < 0.999, (i, j)
            assert np.linalg.norm(found[i, j]) <= 1


@functools.partial(jax.jit, static_argnums=0)
def gradient(name, image, weights):
    """Of the weighted sum of the features of 27 x 27 pixels, for which it compiles once."""
    return jax.grad(lambda x: jnp.sum(fv.load(name)(x)["features"] * weights))(image)


WEIGHTS = RNG(0).normal(size=128).astype(np.float32)


@pytest.mark.thorough
def test_the_gradient_is_that_of_the_definition():
    image = photograph("chelsea", 27, 27)
    direction = RNG(1).normal(size=image.shape)

    def score(step):
        return (reference((image + step * direction)[0, ..., 0], 5)[1] * WEIGHTS).sum()

    slope = (score(1e-7) - score(-1e-7)) / 2e-7
    found = float(jnp.sum(gradient("dsift", image, WEIGHTS) * direction))
    assert found == pytest.approx(slope, rel=2e-3)


# ---- known answers -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize(("quarter", "direction"), [(0, 2), (1, 0), (2, 6), (3, 4)])
def test_an_edge_is_in_its_direction_alone(name, quarter, direction):
    # Rises downwards, then by quarter turns (counter-clockwise) to the right, up and left; a
    # direction k is the angle of 45k degrees from the right towards downwards.
    step = np.repeat(np.arange(72) >= 36, 72).reshape(72, 72)
    found = features(name, np.rot90(step, quarter)[None, ..., None].astype(np.float32))
    bins = found.reshape(*found.shape[:3], 4, 4, 8)
    assert set((bins > 1e-5).nonzero()[-1]) == {direction}


@pytest.mark.parametrize(("name", "size"), [("dsift", 87), ("dsift8", 66)])
def test_a_quarter_turn_permutes_directions_bins_and_descriptors(name, size):
    image = noise(size, size)  # a size that bins and descriptors fill
    found = features(name, image)[0]
    turned = features(name, np.rot90(image, axes=(1, 2)))[0]
    found, turned = (one.reshape(*one.shape[:2], 4, 4, 8) for one in (found, turned))
    # What rose to the right rises upwards, from direction 0 to 6.
    expected = np.roll(np.rot90(np.rot90(found), axes=(2, 3)), -2, axis=-1)
    np.testing.assert_allclose(turned, expected, atol=1e-5)


@pytest.mark.parametrize("name", SIDES)
def test_contrast_and_brightness_do_not_matter_above_the_noise(name):
    image = photograph("chelsea", 72, 72)
    found = features(name, image)
    np.testing.assert_allclose(features(name, 0.5 * image + 0.2), found, atol=1e-3)
    assert features(name, 1e-6 * image).max() < 0.1
    # Light and dark exchanged: each direction is its opposite.
    opposite = np.roll(found.reshape(-1, 8), 4, axis=-1).reshape(found.shape)
    np.testing.assert_allclose(features(name, 1 - image), opposite, atol=1e-4)


# ---- as a network --------------------------------------------------------------------------


def test_flat_images_have_finite_gradients():
    half = noise(27, 27)
    half[:, :, 13:] = 0.5
    flat = np.full((1, 27, 27, 1), 0.5, np.float32)
    for image in (flat, 0 * flat, np.float32(1e-25) * noise(27, 27)):
        assert not gradient("dsift", image, WEIGHTS).any()
    for image in (half, 1e-10 * noise(27, 27), (half > 0.5).astype(np.float32)):
        found = gradient("dsift", image, WEIGHTS)
        assert jnp.isfinite(found).all()
        assert jnp.abs(found).max() > 0


@pytest.mark.thorough
def test_runs_under_jit_and_vmap():
    model = fv.load("dsift")
    images = np.concatenate([photograph("camera", 72, 72), photograph("chelsea", 72, 72)])
    mapped = jax.jit(jax.vmap(lambda x: dict(model(x[None]))))(images)
    for i, image in enumerate(images):
        for layer, a in model(image[None]).items():
            np.testing.assert_allclose(mapped[layer][i], a, atol=1e-5, err_msg=layer)


def test_layers_and_sizes():
    assert fv.load("dsift").layers() == {
        "gradients": (94, 94, 2),
        "orientations": (94, 94, 8),
        "cells": (17, 17, 8),
        "blocks": (5, 5, 128),
        "features": (5, 5, 128),
    }
    assert fv.load("dsift8").layers()["features"] == (3, 3, 128)
    for name, least in {"dsift": 27, "dsift8": 42}.items():
        assert fv.load(name).layers((least, 96))["features"][0] == 1
        with pytest.raises(fv.InputError, match=f"at least {least}x{least}"):
            fv.load(name).layers((least - 1, 96))
