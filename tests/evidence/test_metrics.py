"""Metrics of pre-images against closed forms, scipy and scikit-image."""

import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.metrics
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from featvis.errors import InputError
from featvis.evidence import metrics
from featvis.images import ROUNDING, as_images

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RNG = np.random.default_rng
SEEDS = st.integers(0, 2**32 - 1)


def activations(seed=0, n=5, shape=(3, 4, 2)):
    """Rectified, so that half are equal, in float32 as a network gives them."""
    return np.maximum(RNG(seed).normal(size=(n, *shape)), 0).astype(np.float32)


# ---- errors of the activations -------------------------------------------------------------


def test_relative_error_in_closed_form():
    target = activations()
    np.testing.assert_array_equal(metrics.relative_error(target, target), 0)
    np.testing.assert_array_equal(metrics.relative_error(0 * target, target), 1)
    scales = np.array([0.5, 1, 2, 3, -1])[:, None, None, None]
    found = metrics.relative_error(scales * target.astype(np.float64), target)
    np.testing.assert_allclose(found, [0.5, 0, 1, 2, 2], atol=1e-12)
    assert metrics.relative_error([[3.0, 4.0]], [[0.0, 4.0]]) == pytest.approx([0.75])


def test_pairwise_error_is_over_the_mean_of_all_pairs():
    found, target = activations(1), activations(2)
    pairs = itertools.permutations(target.astype(np.float64), 2)
    apart = np.mean([((a - b) ** 2).sum() for a, b in pairs])
    expected = ((found - target) ** 2).sum((1, 2, 3)) / apart
    np.testing.assert_allclose(metrics.pairwise_error(found, target), expected, rtol=1e-6)


def test_pairwise_error_of_another_target_is_one_on_average():
    target = activations(n=6)
    errors = [metrics.pairwise_error(np.roll(target, k, axis=0), target) for k in range(1, 6)]
    assert np.mean(errors) == pytest.approx(1)
    assert np.std(errors) > 0.01


@given(SEEDS, st.floats(0.01, 100), st.permutations(range(5)))
def test_errors_have_no_units_and_no_order(seed, scale, order):
    found, target = activations(seed), activations(seed + 1)
    for metric in (metrics.relative_error, metrics.pairwise_error, metrics.signal_to_noise):
        expected = metric(found, target)
        scaled = metric(scale * found.astype(float), scale * target.astype(float))
        np.testing.assert_allclose(scaled, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(metric(found[order], target[order]), expected[order], rtol=1e-12)


def test_only_the_pairwise_error_is_unmoved_by_a_shift():
    found, target = activations(1), activations(2)
    moved = metrics.pairwise_error(found + 1, target + 1)
    np.testing.assert_allclose(moved, metrics.pairwise_error(found, target), rtol=1e-5)
    assert not np.allclose(
        metrics.relative_error(found + 1, target + 1), metrics.relative_error(found, target)
    )


def test_signal_to_noise_is_the_relative_error_in_decibels():
    found, target = activations(1), activations(2)
    expected = -20 * np.log10(metrics.relative_error(found, target))
    np.testing.assert_allclose(metrics.signal_to_noise(found, target), expected)
    tenth = 1.1 * target.astype(np.float64)
    np.testing.assert_allclose(metrics.signal_to_noise(tenth, target), 20)
    assert np.all(metrics.signal_to_noise(target, target) == math.inf)
    np.testing.assert_array_equal(metrics.signal_to_noise(0 * target, target), 0)


def test_arrays_of_jax_are_taken():
    found, target = activations(1), activations(2)
    expected = metrics.relative_error(found, target)
    np.testing.assert_array_equal(
        metrics.relative_error(jnp.asarray(found), jnp.asarray(target)), expected
    )


def test_mean_interval_in_closed_form():
    mean, half = metrics.mean_interval([1.0, 2.0, 3.0, 6.0])
    assert mean == 3
    assert half == pytest.approx(1.96 * math.sqrt(14 / 3) / 2)


def test_the_mean_interval_holds_the_mean_as_often_as_it_says():
    samples = RNG(0).normal(2, 3, (2000, 50))
    inside = [abs(mean - 2) < half for mean, half in map(metrics.mean_interval, samples)]
    # Student's t with 49 degrees of freedom is within 1.96 at 94.4 %, here ± 0.5 %.
    assert np.mean(inside) == pytest.approx(0.944, abs=0.02)


# ---- pixels --------------------------------------------------------------------------------


def test_psnr_against_scikit_image_and_in_closed_form():
    x, x0 = RNG(0).uniform(size=(2, 4, 7, 9, 3))
    expected = [
        skimage.metrics.peak_signal_noise_ratio(b, a, data_range=1)
        for a, b in zip(x, x0, strict=True)
    ]
    np.testing.assert_allclose(metrics.psnr(x, x0), expected)
    np.testing.assert_allclose(metrics.psnr(x0 * 0.9, x0 * 0.9 + 0.1), 20)
    assert np.all(metrics.psnr(x, x) == math.inf)


@functools.cache
def smooth(size=(58, 70)):
    """A colour image (1, h, w, 3) without detail, of 50 to 200 levels."""
    y, x = (axis / 25 for axis in np.mgrid[: size[0], : size[1]])
    return (0.5 + 0.1 * np.stack([np.sin(x) + np.sin(y), np.sin(x + y), x - y], -1))[None]


PATTERNS = {"checkerboard": lambda y, x: y + x, "columns": lambda y, x: x, "rows": lambda y, x: y}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("amplitude", [0.5, 4, 30])
def test_the_checkerboard_of_a_known_amplitude(pattern, amplitude):
    signs = (-1.0) ** pattern(*np.mgrid[:58, :70])[..., None]
    found = metrics.checkerboard(smooth() + amplitude / 255 * signs, smooth())
    assert found == pytest.approx([amplitude], abs=0.01)
    # Another phase in every window of a side of it is as much; in levels it is a little off.
    phase = np.kron(RNG(1).choice([-1, 1], (8, 9)), np.ones((8, 8)))[:58, :70, None]
    moved = np.rint(255 * smooth() + amplitude * signs * phase) / 255
    assert metrics.checkerboard(moved, smooth()) == pytest.approx([amplitude], rel=0.3)
    # In one colour of three, of the squares' mean.
    one = smooth() + amplitude / 255 * signs * np.array([0, 1, 0])
    assert metrics.checkerboard(one, smooth()) == pytest.approx([amplitude / 3**0.5], abs=0.01)


def test_the_three_patterns_add_in_squares():
    signs = [(-1.0) ** pattern(*np.mgrid[:58, :70])[..., None] for pattern in PATTERNS.values()]
    image = smooth() + (3 * signs[0] + 4 * signs[1] + 12 * signs[2]) / 255
    assert metrics.checkerboard(image, smooth()) == pytest.approx([13], abs=0.01)


def test_ramps_noise_and_photographs_have_no_checkerboard():
    ramps = np.concatenate([ramp(degrees) for degrees in range(0, 360, 15)])
    assert np.all(metrics.checkerboard(ramps, ramps) < 1e-6)
    assert metrics.checkerboard(smooth(), smooth())[0] < 0.01
    noise = RNG(0).normal(0, 2 / 255, (40, *smooth().shape[1:]))
    originals = np.broadcast_to(smooth(), noise.shape)
    # The halves of a window are alike in their rows that meet.
    assert metrics.checkerboard(originals + noise, originals).mean() < 0.2
    for name in ("camera", "coins", "moon"):
        photograph = getattr(skimage.data, name)()[None, ..., None] / 255
        assert metrics.checkerboard(photograph, photograph)[0] < 0.1


def test_a_checkerboard_counts_where_the_original_is_smooth():
    signs = (-1.0) ** PATTERNS["checkerboard"](*np.mgrid[:58, :70])[..., None]
    # A quarter is smooth, and the detail of the rest has its own.
    detail = np.where(np.mgrid[:58, :70][1][..., None] < 30, 0, 0.2 * signs)
    original = 0.5 + np.broadcast_to(detail, smooth().shape)
    assert metrics.checkerboard(original, original) == pytest.approx([0], abs=0.01)
    image = original + 7 / 255 * signs
    assert metrics.checkerboard(image, original) == pytest.approx([7], abs=0.01)


def photographs():
    """Three grey squares (3, 60, 60, 1) in [0, 1]."""
    names = ("camera", "coins", "moon")
    images = [getattr(skimage.data, name)()[100:280:3, 100:280:3] for name in names]
    return np.stack(images)[..., None].astype(np.float32) / 255


def ramp(degrees):
    """A grey image (1, 20, 20, 1) that is brightest towards the angle, counterclockwise."""
    y, x = np.mgrid[10:-10:-1, -10:10]
    angle = math.radians(degrees)
    return ((128 + 8 * (x * math.cos(angle) + y * math.sin(angle))) / 255)[None, ..., None]


@pytest.mark.parametrize("k", range(18))
def test_a_ramp_lies_in_the_bin_of_its_direction(k):
    middle = 20 * (k - 9) + 10
    share = metrics.gradient_histogram(ramp(middle))[0]
    assert share.argmax() == k
    assert share[k] > 0.8


@pytest.mark.parametrize(("degrees", "k"), [(0, 8), (90, 13), (180, 17), (270, 4)])
def test_a_ramp_along_an_axis_lies_in_one_bin(degrees, k):
    np.testing.assert_array_equal(metrics.gradient_histogram(ramp(degrees))[0], np.eye(18)[k])


def test_the_gradient_histogram_is_that_of_its_definition():
    images = photographs()
    histograms = metrics.gradient_histogram(images)
    levels = np.rint(255 * images[..., 0].astype(np.float64))
    for image, histogram in zip(levels, histograms, strict=True):
        right = ndimage.sobel(image, axis=1, mode="nearest")
        up = -ndimage.sobel(image, axis=0, mode="nearest") + 0.0
        angle = np.degrees(np.arctan2(up, right))
        size = np.hypot(right, up)
        edges = np.arange(-180, 181, 20)
        expected = [
            size[(angle > low) & (angle <= high)].sum() for low, high in itertools.pairwise(edges)
        ]
        np.testing.assert_allclose(histogram, np.array(expected) / size.sum(), atol=1e-12)
        assert 0.03 < np.ptp(histogram) < 0.5


def test_colours_count_by_their_luma():
    grey = photographs()
    same = metrics.gradient_histogram(np.repeat(grey, 3, axis=3))
    np.testing.assert_array_equal(same, metrics.gradient_histogram(grey))
    red_right, blue_down = ramp(0), ramp(270)
    image = np.concatenate([red_right, np.full_like(red_right, 0.5), blue_down], axis=3)
    angle = math.degrees(math.atan2(-0.114, 0.299))  # -21
    assert -40 < angle < -20
    assert metrics.gradient_histogram(image)[0].argmax() in (7, 8)
    assert metrics.gradient_histogram(image)[0, 4:9].sum() > 0.99


def test_a_turn_of_the_picture_turns_its_histogram():
    image = photographs()[:1]
    turned = np.rot90(image, 2, axes=(1, 2))
    found = np.roll(metrics.gradient_histogram(turned), 9, axis=1)
    np.testing.assert_allclose(found, metrics.gradient_histogram(image), atol=1e-12)


@given(SEEDS)
def test_histograms_are_shares_and_their_intersection_is_symmetric(seed):
    x, x0 = RNG(seed).uniform(size=(2, 3, 6, 5, 3))
    h, g = metrics.gradient_histogram(x), metrics.gradient_histogram(x0)
    np.testing.assert_allclose(h.sum(axis=1), 1)
    found = metrics.naturalness(x, x0)
    np.testing.assert_allclose(found, 1 - np.abs(h - g).sum(axis=1) / 2, atol=1e-12)
    np.testing.assert_array_equal(found, metrics.naturalness(x0, x))
    np.testing.assert_array_equal(found, metrics.naturalness(x, g))


def test_naturalness_of_known_images():
    images = photographs()
    np.testing.assert_allclose(metrics.naturalness(images, images), 1)
    mean = metrics.gradient_histogram(images).mean(axis=0)
    assert np.all(metrics.naturalness(images, mean) > 0.8)
    np.testing.assert_allclose(metrics.naturalness(ramp(0), mean), mean[8])
    assert metrics.naturalness(ramp(0), ramp(90)) == 0
    flat = np.full((1, 8, 8, 3), 0.5)
    assert metrics.naturalness(flat, mean) == 0
    assert np.all(metrics.gradient_histogram(flat) == 0)
    both = metrics.gradient_histogram(np.concatenate([ramp(0)[:, :8, :8], flat[..., :1]])).mean(0)
    assert metrics.naturalness(ramp(0), both) == pytest.approx(0.5)


# ---- metamers ------------------------------------------------------------------------------


def test_same_class_is_agreement_of_the_first():
    found = [[0.0, 2.0, 1.0], [5.0, 2.0, 1.0], [0.0, -1.0, -2.0]]
    target = [[1.0, 9.0, 8.0], [0.0, 2.0, 1.0], [0.5, 0.4, 0.3]]
    agree = metrics.same_class(found, target)
    assert agree.dtype == bool
    assert agree.tolist() == [True, False, True]


def test_spearman_in_closed_form():
    target = [[1.0, 2.0, 3.0, 4.0]]
    assert metrics.spearman([[1.0, 8.0, 27.0, 64.0]], target) == pytest.approx([1])
    assert metrics.spearman([[4.0, 3.0, 2.0, 1.0]], target) == pytest.approx([-1])
    assert metrics.spearman([[1.0, 3.0, 2.0, 4.0]], target) == pytest.approx([0.8])
    # Ranks 1.5, 1.5, 3, 4: the covariance 4.5 over the root of 4.5 times 5.
    assert metrics.spearman([[0.0, 0.0, 2.0, 3.0]], target) == pytest.approx([math.sqrt(0.9)])
    assert metrics.spearman([[7.0, 7.0, 7.0, 7.0]], target) == 0
    assert metrics.spearman([[1.0, 2.0]], [[5.0, 5.5]]) == pytest.approx([1])


@given(SEEDS, st.integers(1, 4))
def test_spearman_equals_scipy_with_many_ties(seed, levels):
    rng = RNG(seed)
    found, target = rng.integers(0, levels + 1, (2, 6, 30)).astype(np.float32)
    found[:, 0], found[:, 1], target[:, 0], target[:, 1] = 0, 1, 0, 1
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(found, target, strict=True)]
    np.testing.assert_allclose(metrics.spearman(found, target), expected, atol=1e-12)


@given(SEEDS)
def test_spearman_sees_ranks_alone(seed):
    found, target = activations(seed), activations(seed + 1)
    expected = metrics.spearman(found, target)
    np.testing.assert_allclose(metrics.spearman(target, found), expected, atol=1e-12)
    np.testing.assert_allclose(metrics.spearman(3 * found, 7 * target), expected, atol=1e-12)
    np.testing.assert_allclose(metrics.spearman(-found, target), -expected, atol=1e-12)
    cubes = found.astype(np.float64) ** 3
    np.testing.assert_allclose(metrics.spearman(cubes, target), expected, atol=1e-12)
    order = RNG(seed).permutation(24)
    a, b = (x.reshape(5, 24)[:, order] for x in (found, target))
    np.testing.assert_allclose(metrics.spearman(a, b), expected, atol=1e-12)


def test_all_null_pairs_are_those_of_different_images():
    images = activations(n=4)
    null = metrics.null_pairs(images)
    assert [len(values) for values in null] == [6, 6]
    forward = {
        (i, j): (
            metrics.spearman(images[[i]], images[[j]])[0],
            metrics.signal_to_noise(images[[i]], images[[j]])[0],
        )
        for i, j in itertools.permutations(range(4), 2)
    }
    seen = set()
    for rho, decibels in zip(null.spearman, null.signal_to_noise, strict=True):
        near = [pair for pair, (a, b) in forward.items() if np.allclose([a, b], [rho, decibels])]
        assert len(near) == 1
        seen.add(frozenset(near[0]))
    assert len(seen) == 6


def test_null_pairs_are_drawn_from_the_seed():
    images = activations(n=12)
    first, again, other = (metrics.null_pairs(images, 20, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.spearman, again.spearman)
    np.testing.assert_array_equal(first.signal_to_noise, again.signal_to_noise)
    assert not np.array_equal(first.spearman, other.spearman)
    assert len(set(first.spearman)) == 20
    everything = set(metrics.null_pairs(images, 66).spearman)
    assert set(first.spearman) <= everything


def test_the_target_of_a_null_pair_is_drawn_too():
    """Of the 40 pairs of a loud image with quiet ones, a quiet one is the target of about half."""
    images = activations(n=41)
    images[0] *= 1000
    decibels = metrics.null_pairs(images).signal_to_noise
    assert 10 < np.sum(decibels < -40) < 30


def test_the_p_value_counts_the_null_and_itself():
    null = [0.1, 0.2, 0.2, 0.4]
    found = metrics.null_p_value([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, math.inf], null)
    np.testing.assert_allclose(found, np.array([1, 2, 2, 4, 5, 5, 1]) / 5)


def test_p_values_of_the_null_itself_are_uniform():
    rng = RNG(0)
    found = np.concatenate(
        [metrics.null_p_value(rng.normal(size=1), rng.normal(size=99)) for _ in range(2000)]
    )
    for level in (0.05, 0.25, 0.5):
        assert np.mean(found <= level + 1e-9) == pytest.approx(level, abs=0.035)


def test_a_match_is_outside_the_null_and_another_image_is_not():
    images = activations(n=30, shape=(200,))
    null = metrics.null_pairs(images[:15])
    near = images[15:] + 0.05 * RNG(5).normal(size=(15, 200))
    for name, metric in (
        ("spearman", metrics.spearman), ("signal_to_noise", metrics.signal_to_noise),
    ):  # fmt: skip
        values = getattr(null, name)
        assert np.all(metrics.null_p_value(metric(near, images[15:]), values) == 1 / 106)
        others = metrics.null_p_value(metric(images[:15], images[15:]), values)
        assert 0.2 < others.mean() < 0.8


def test_dead_activations_pass_by_their_size_but_not_by_their_ranks():
    images = activations(n=20, shape=(2000,))
    null = metrics.null_pairs(images)
    decibels = metrics.signal_to_noise(0 * images, images)
    assert np.all(metrics.null_p_value(decibels, null.signal_to_noise) == 1 / 191)
    ranks = metrics.spearman(0 * images, images)
    assert np.all(metrics.null_p_value(ranks, null.spearman) > 0.2)


# ---- errors --------------------------------------------------------------------------------

BAD = np.array([[1.0, math.nan]])
MATCHING = [
    metrics.relative_error, metrics.pairwise_error, metrics.spearman, metrics.signal_to_noise,
]  # fmt: skip
IMAGES = np.zeros((2, 4, 4, 3))
part = functools.partial


@pytest.mark.parametrize("metric", MATCHING)
def test_activations_of_other_shapes_are_refused(metric):
    with pytest.raises(InputError, match=r"one shape; got \(2, 3\) and \(1, 3\)"):
        metric(np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(InputError, match=r"\(n, ...\) of n images is expected; got shape \(3,\)"):
        metric(np.ones(3), np.ones(3))
    with pytest.raises(InputError, match=r"got shape \(0, 3\)"):
        metric(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(InputError, match="found must be finite"):
        metric(np.concatenate([BAD, BAD]), np.ones((2, 2)))
    with pytest.raises(InputError, match="target must be finite"):
        metric(np.ones((2, 2)), np.concatenate([BAD, BAD]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (part(metrics.relative_error, np.ones((3, 2)), [[1, 0], [0, 0], [1, 1]]), "target 1 is"),
        (part(metrics.signal_to_noise, np.ones((1, 2)), np.zeros((1, 2))), "target 0 is all zero"),
        (part(metrics.pairwise_error, np.ones((1, 2)), np.ones((1, 2))), "at least 2 are needed"),
        (part(metrics.pairwise_error, np.ones((2, 2)), np.ones((2, 2))), "are all the same"),
        (part(metrics.mean_interval, [1.0]), r"at least 2 images are expected; got shape \(1,\)"),
        (part(metrics.mean_interval, [[1.0, 2.0]]), r"got shape \(1, 2\)"),
        (part(metrics.mean_interval, [1.0, math.inf]), "values must be finite"),
        (part(metrics.psnr, IMAGES[0], IMAGES[0]), r"\(n, h, w, c\) are expected; got shape \(4, "),
        (part(metrics.psnr, IMAGES, IMAGES[:1]), "images and originals must have one shape"),
        (part(metrics.checkerboard, IMAGES, IMAGES), r"10 x 10 are expected; got shape \(2, 4"),
        (part(metrics.checkerboard, IMAGES[0], IMAGES[0]), r"got shape \(4, 4, 3\)"),
        (part(metrics.checkerboard, np.ones((1, 12, 12, 1)), IMAGES), "must have one shape"),
        (part(metrics.gradient_histogram, IMAGES[..., :2]), r"\(n, h, w, 1 or 3\) are expected"),
        (part(metrics.gradient_histogram, IMAGES[0]), r"got shape \(4, 4, 3\)"),
        (part(metrics.gradient_histogram, IMAGES * math.nan), "are not finite"),
        (part(metrics.naturalness, IMAGES, IMAGES[:1]), r"2 originals .* got shape \(1, 4, 4, 3\)"),
        (part(metrics.naturalness, IMAGES, np.ones(9) / 9), r"\(18,\) or \(2, 18\); got shape"),
        (part(metrics.naturalness, IMAGES, np.ones(18)), "must be shares"),
        (part(metrics.naturalness, IMAGES, np.r_[-1, np.ones(17) / 9]), "must be shares"),
        (part(metrics.same_class, [1.0], [1.0]), r"logits \(n, classes\) are expected"),
        (part(metrics.same_class, np.ones((2, 3)), np.ones((2, 4))), "found_logits and target_log"),
        (part(metrics.null_pairs, np.ones((1, 3))), "1 images have 0 pairs; at least 1 is needed$"),
        (part(metrics.null_pairs, np.ones((3, 3)), 4), "3 images have 3 pairs.* 4 are asked for"),
        (part(metrics.null_pairs, np.ones((3, 3)), 0), "0 are asked for"),
        (part(metrics.null_pairs, [[1.0], [0.0]]), "activations 1 is all zero"),
        (part(metrics.null_p_value, 1.0, [1.0]), r"got shapes \(\) and \(1,\)"),
        (part(metrics.null_p_value, [1.0], []), r"got shapes \(1,\) and \(0,\)"),
        (part(metrics.null_p_value, [math.nan], [1.0]), "some are NaN"),
    ],
)  # fmt: skip
def test_bad_input_is_an_input_error(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("low", [0.0, -0.01])
@pytest.mark.parametrize("high", [1.01, 1.4, 255.0])
@pytest.mark.parametrize("metric", [metrics.psnr, metrics.checkerboard, metrics.naturalness])
def test_what_is_out_of_range_is_no_image(metric, low, high):
    good = np.random.default_rng(0).uniform(size=(2, 32, 32, 3))
    wrong = low + (high - low) * good
    for images, others in ((wrong, good), (good, wrong)):
        with pytest.raises(InputError, match=r"must be in \[0, 1\]; got values from"):
            metric(images, others)


def test_rounding_is_in_range():
    white = np.full((1, 32, 32, 3), 1 + ROUNDING / 2)
    assert metrics.psnr(white, white * 0 + 1) > 120
    np.testing.assert_array_equal(as_images(white, 3), white.astype(np.float32))
    for beyond in (white + 2 * ROUNDING, white - 1 - 2 * ROUNDING):
        with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
            as_images(beyond, 3)
