import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.feature
from PIL import Image, ImageOps

import featvis as fv
from featvis import loading
from featvis.weights import download
from featvis.zoo.networks.hog import HOG

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RNG = np.random.default_rng
PHOTOGRAPHS = {
    "camera": (64, 64), "astronaut": (59, 75), "coffee": (59, 75), "chelsea": (64, 64),
}  # fmt: skip
NAMES = ["hog", "hogb"]


def photograph(name, height, width):
    """Grey (1, height, width, 1) float32 in [0, 1], from the middle of a third of its size."""
    image = getattr(skimage.data, name)() / 255
    if image.ndim == 3:
        image = image @ [0.299, 0.587, 0.114]
    rows, columns = (side // 3 for side in image.shape)
    image = image[: rows * 3, : columns * 3].reshape(rows, 3, columns, 3).mean((1, 3))
    top, left = (rows - height) // 2, (columns - width) // 2
    return image[None, top : top + height, left : left + width, None].astype(np.float32)


def noise(height, width, seed=0):
    return RNG(seed).uniform(size=(1, height, width, 1)).astype(np.float32)


def features(name, image):
    return np.asarray(fv.load(name)(image)["features"])


# ---- the definition, pixel by pixel --------------------------------------------------------


def two_nearest(across, down):
    """Nearest and second nearest of 18 directions, and the second's share of HOGb, as VLFeat."""
    scores = [
        across * math.cos(k * math.pi / 9) + down * math.sin(k * math.pi / 9) for k in range(9)
    ]
    # Of a tie, which rounding must not break, the first of the 9 axes is the nearest.
    order = sorted(range(9), key=lambda k: (-round(abs(scores[k]), 12), k))
    nearest, second = (k if scores[k] > 0 else k + 9 for k in order[:2])
    cosine = abs(scores[order[0]]) / math.hypot(across, down)
    return nearest, second, math.acos(min(cosine, 1)) / (math.pi / 9)


def reference(image, *, soft, cell=8):
    """VLFeat's vl_hog (UoCTTI) of (h, w) in float64: the cells (a, b, 18) and 27 channels."""
    height, width = image.shape
    image = image.astype(np.float64)
    rows, columns = (height + cell // 2) // cell, (width + cell // 2) // cell
    cells = np.zeros((rows, columns, 18))
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            across = float(image[y, x + 1] - image[y, x - 1])
            down = float(image[y + 1, x] - image[y - 1, x])
            if across == down == 0:
                continue
            nearest, second, part = two_nearest(across, down)
            cy, cx = (y + 0.5) / cell - 0.5, (x + 0.5) / cell - 0.5
            for i in (math.floor(cy), math.floor(cy) + 1):
                for j in (math.floor(cx), math.floor(cx) + 1):
                    if 0 <= i < rows and 0 <= j < columns:
                        share = math.hypot(across, down) * (1 - abs(cy - i)) * (1 - abs(cx - j))
                        cells[i, j, nearest] += share * (1 - part if soft else 1)
                        cells[i, j, second] += share * (part if soft else 0)
    undirected = cells[..., :9] + cells[..., 9:]
    energy = (undirected**2).sum(-1)
    result = np.zeros((rows, columns, 27))
    for i in range(rows):
        for j in range(columns):
            histogram = np.concatenate([cells[i, j], undirected[i, j]])
            for p in (max(i - 1, 0), min(i + 1, rows - 1)):
                for q in (max(j - 1, 0), min(j + 1, columns - 1)):
                    block = energy[i, j] + energy[i, q] + energy[p, j] + energy[p, q]
                    result[i, j] += 0.5 * np.minimum(histogram / np.sqrt(block + 1e-4), 0.2)
    return cells, result


@pytest.mark.parametrize("photo", PHOTOGRAPHS)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_definition_on_photographs(name, photo):
    image = photograph(photo, *PHOTOGRAPHS[photo])
    cells, expected = reference(image[0, ..., 0], soft=name == "hogb")
    acts = fv.load(name)(image)
    np.testing.assert_allclose(acts["cells"][0], cells, atol=1e-4)
    np.testing.assert_allclose(acts["features"][0], expected, atol=1e-4)
    assert expected.std() > 0.05


def test_equals_the_definition_with_other_cells():
    image = photograph("coffee", 31, 38)
    cells, expected = reference(image[0, ..., 0], soft=True, cell=5)
    out = jax.jit(HOG(cell=5, soft=True))({}, image)
    assert cells.shape == (6, 8, 18)
    np.testing.assert_allclose(out["cells"][0], cells, atol=1e-4)
    np.testing.assert_allclose(out["features"][0], expected, atol=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def gradient(name, image, weights):
    """Of the weighted sum of the features of 24 x 24 pixels, for which it compiles once."""
    return jax.grad(lambda x: jnp.sum(fv.load(name)(x)["features"] * weights))(image)


WEIGHTS = RNG(0).normal(size=(3, 3, 27)).astype(np.float32)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_definition(name):
    image = photograph("chelsea", 24, 24)
    direction = RNG(1).normal(size=image.shape)

    def score(step):
        moved = (image + step * direction)[0, ..., 0]
        return (reference(moved, soft=name == "hogb")[1] * WEIGHTS).sum()

    slope = (score(1e-7) - score(-1e-7)) / 2e-7
    found = float(jnp.sum(gradient(name, image, WEIGHTS) * direction))
    assert found == pytest.approx(slope, rel=2e-3)


# ---- known answers -------------------------------------------------------------------------


def edge(quarter):
    """A step in the middle of 64 x 64 pixels that rises downwards, to the right, up or left."""
    step = np.repeat(np.arange(64) >= 32, 64).reshape(64, 64)
    return np.rot90(step, quarter)[None, ..., None].astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("quarter", "directed"), [(1, 0), (3, 9)])
def test_a_vertical_edge_is_in_its_direction_alone(name, quarter, directed):
    found = features(name, edge(quarter))
    assert set((found > 1e-5).nonzero()[-1]) == {directed, 18}
    # Of one orientation and over the norm of 2 x 2 cells: clamped wherever it is.
    assert found.max() == pytest.approx(0.4)


@pytest.mark.parametrize(("quarter", "directed"), [(0, 4), (2, 13)])
def test_a_horizontal_edge_is_between_two_directions(quarter, directed):
    # 90 degrees are 4.5 of 20: the definition gives a tie to the first, and hogb half to each.
    orientations = fv.load("hog")(edge(quarter))["orientations"]
    assert set(orientations.nonzero()[-1].tolist()) == {directed}
    orientations = np.asarray(fv.load("hogb")(edge(quarter))["orientations"])
    assert set(orientations.nonzero()[-1]) == {directed, directed + 1}
    np.testing.assert_allclose(orientations[..., directed], orientations[..., directed + 1], 1e-5)


def test_shares_of_a_direction_are_in_proportion_to_the_angles():
    degrees = 67.0
    y, x = np.mgrid[:64, :64]
    ramp = 0.01 * (x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees)))
    orientations = fv.load("hogb")(ramp[None, ..., None].astype(np.float32))["orientations"]
    expected = np.zeros(18)
    expected[[3, 4]] = 0.02 * np.array([13, 7]) / 20
    np.testing.assert_allclose(orientations[0, 5, 5], expected, atol=1e-6)
    hard = fv.load("hog")(ramp[None, ..., None].astype(np.float32))["orientations"]
    np.testing.assert_allclose(hard[0, 5, 5], 0.02 * (np.arange(18) == 3), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_mirrors_and_a_half_turn_permute_directions_and_cells(name):
    image, k = noise(64, 64), np.arange(9)
    found = features(name, image)
    turns = {
        "half turn": (np.s_[:, ::-1, ::-1], [*(k + 9), *k, *(k + 18)]),
        # A direction at the angle a is at 180 degrees - a in a mirror.
        "mirror": (np.s_[:, :, ::-1], [*(9 - k), *((18 - k) % 18), *((9 - k) % 9 + 18)]),
        "upside down": (np.s_[:, ::-1], [*((18 - k) % 18), *(9 - k), *((9 - k) % 9 + 18)]),
    }
    for turn, (move, permutation) in turns.items():
        turned = features(name, image[move])
        np.testing.assert_allclose(turned, found[move][..., permutation], atol=1e-5, err_msg=turn)


@pytest.mark.parametrize("name", NAMES)
def test_contrast_and_brightness_do_not_matter_above_the_noise(name):
    image = photograph("chelsea", 64, 64)
    found = features(name, image)
    np.testing.assert_allclose(features(name, 0.5 * image + 0.2), found, atol=5e-3)
    np.testing.assert_allclose(features(name, 1 - image)[..., 18:], found[..., 18:], atol=1e-4)
    # At a contrast of one part in 10⁵ there is nothing left but what is added to the energy.
    assert features(name, 1e-5 * image).max() < 0.1


def test_what_a_cell_sees():
    # Cell 4 starts at 32: half a cell more on each side and the neighbour of each pixel; through
    # the norms a whole cell more.
    image = photograph("camera", 64, 64)
    found = fv.load("hogb")(image)
    for layer, first in {"cells": 27, "features": 19}.items():
        for row, seen in {first - 1: False, first: True}.items():
            other = image.copy()
            other[:, row] = 1 - other[:, row]
            change = np.abs(fv.load("hogb")(other)[layer] - found[layer])[0, 4, 4].max()
            assert (change > 0) == seen, (layer, row)


# ---- where scikit-image's differs ----------------------------------------------------------


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def test_scikit_image_has_other_bins_no_directions_and_hard_cells():
    """skimage.feature.hog is Dalal & Triggs' without interpolation.

    Its bin k holds 20k to 20(k + 1) degrees, ours is around 20k; opposite directions are one bin; a
    pixel belongs to one cell; blocks are whole only, and normalised again after the clamping.
    """
    image = photograph("chelsea", 64, 64)
    energy = np.asarray(fv.load("hogb")(image)["cells"][0])
    energy = energy[..., :9] + energy[..., 9:]
    other = skimage.feature.hog(
        image[0, ..., 0], 9, (8, 8), (1, 1), block_norm="L2", feature_vector=False
    ).reshape(8, 8, 9)

    def histogram(energy):
        return energy / np.linalg.norm(energy, axis=-1, keepdims=True)

    # Half of our bins on either side of a boundary: the same bins as theirs, up to the cells.
    between = histogram(energy + np.roll(energy, -1, -1))
    assert correlation(between, other) > 0.8
    by_shift = [correlation(np.roll(between, k, -1), other) for k in range(9)]
    assert np.argmax(by_shift) == 0
    assert max(by_shift[1:]) < 0.7
    # Without that half bin they agree less.
    assert correlation(histogram(energy), other) < correlation(between, other) - 0.03
    # Light on dark and dark on light are one to them and two to us.
    inverted = skimage.feature.hog(1 - image[0, ..., 0], 9, (8, 8), (2, 2))
    np.testing.assert_allclose(
        inverted, skimage.feature.hog(image[0, ..., 0], 9, (8, 8), (2, 2)), atol=1e-5
    )
    directed = features("hogb", image)[..., :18]
    assert np.abs(features("hogb", 1 - image)[..., :18] - directed).max() > 0.3


# ---- as a network --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_flat_images_have_finite_gradients(name):
    half = noise(24, 24)
    half[:, :, 12:] = 0.5
    tiny = np.float32(1e-25) * noise(24, 24)
    flat = np.full((1, 24, 24, 1), 0.5, np.float32)
    for image in (flat, 0 * flat, tiny):
        assert not gradient(name, image, WEIGHTS).any()
    for image in (half, edge(0)[:, 20:44, 20:44], 1e-10 * noise(24, 24)):
        found = gradient(name, image, WEIGHTS)
        assert jnp.isfinite(found).all()
        assert jnp.abs(found).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_runs_under_jit_and_vmap(name):
    model = fv.load(name)
    images = np.concatenate([photograph("camera", 64, 64), photograph("chelsea", 64, 64)])
    mapped = jax.jit(jax.vmap(lambda x: dict(model(x[None]))))(images)
    for i, image in enumerate(images):
        for layer, a in model(image[None]).items():
            np.testing.assert_allclose(mapped[layer][i], a, atol=1e-5, err_msg=layer)


@pytest.mark.parametrize("name", NAMES)
def test_layers_and_sizes(name):
    model = fv.load(name)
    assert model.layers() == {
        "gradients": (94, 94, 2),
        "orientations": (94, 94, 18),
        "cells": (12, 12, 18),
        "blocks": (12, 12, 108),
        "features": (12, 12, 27),
    }
    # The last cell lies in the image by at least a half.
    assert model.layers((8, 11))["features"] == (1, 1, 27)
    assert model.layers((12, 99))["features"] == (2, 12, 27)
    with pytest.raises(fv.InputError, match="at least 8x8"):
        model(np.zeros((1, 7, 9, 1)))
    with pytest.raises(fv.InputError, match="1 channels"):
        model(np.zeros((1, 96, 96, 3)))


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "reached"), [("hog", 38.9), ("hogb", 10.1)])
def test_inversions_reach_what_the_energy_of_ijcv2016_allows(name, reached):
    # What another implementation of the same energy and steps leaves at C = 100, in %.
    grey = [ImageOps.grayscale(Image.fromarray(getattr(skimage.data, n)())) for n in PHOTOGRAPHS]
    squares = [ImageOps.fit(one, (96, 96), Image.Resampling.BOX) for one in grey]
    images = np.stack([np.asarray(one) for one in squares])[..., None].astype(np.float32) / 255
    # From three starts each: one decides by some hundredths, as a processor's rounding does.
    starts = np.concatenate([images] * 3)
    result = fv.invert(fv.load(name), "features", starts, preset="ijcv2016", progress=False)
    assert 100 * result.evidence["relative_error"].mean() < reached
    # Theirs may leave the range of images; next to nothing wants to.
    assert np.mean((result.images == 0) | (result.images == 1)) < 0.001


def test_a_network_without_weights_is_always_here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = loading.entry("hog")
    assert entry.available
    assert entry.as_dict()["sources"] == ["no weights"]
    model = entry.load()
    assert model.origin == "no weights"
    assert jax.tree.leaves(model.params) == []
    # The digest is the definition's.
    digests = {loading.load(name).digest for name in [*NAMES, "dsift", "dsift8"]}
    assert len(digests) == 4
    assert all(len(digest) == 64 for digest in digests)
    assert entry.load().digest == model.digest
    with pytest.raises(fv.CheckpointError, match="hog has no weights and takes none; got w"):
        entry.load("w.npz")
    with pytest.raises(download.FetchError, match="not to be downloaded: it has none"):
        download.fetch(entry.name, entry.sources)
