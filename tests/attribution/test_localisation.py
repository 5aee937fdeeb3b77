import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import featvis as fv
from featvis.attribution.localisation import (
    Box,
    bounding_box,
    box_iou,
    centre_box,
    localise,
    segment,
)

SQUARE = Box(25, 15, 55, 45)


def square_in_noise(size=(64, 80), seed=0):
    """A bright square pasted into noise (the ground truth of the method)."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.0, 0.5, (*size, 3)).astype(np.float32)
    shape = image[15:45, 25:55].shape
    image[15:45, 25:55] = rng.uniform(0.8, 1.0, shape)
    return image


def noisy_saliency(image, seed=1, contrast=2.5):
    """A map of noise that is larger on the square."""
    relevance = np.abs(np.random.default_rng(seed).normal(size=image.shape[:2]))
    relevance[15:45, 25:55] *= contrast
    return relevance


# ---- boxes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (2, 3, 6, 8), 20 / 100),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),  # they touch: right is outside
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),  # apart both ways: no product of negatives
        ((0, 0, 1, 1), (0.5, 0.5, 1.5, 1.5), 0.25 / 1.75),
    ],
)
def test_iou_in_closed_form(a, b, wanted):
    assert box_iou(a, b) == pytest.approx(wanted, abs=1e-12)


sides = st.tuples(st.integers(-50, 50), st.integers(1, 60))
boxes = st.tuples(sides, sides).map(
    lambda s: Box(s[0][0], s[1][0], s[0][0] + s[0][1], s[1][0] + s[1][1])
)


@settings(deadline=None)
@given(boxes, boxes, st.integers(-20, 20), st.integers(1, 5))
def test_laws_of_the_iou(a, b, shift, factor):
    iou = box_iou(a, b)
    assert 0 <= iou <= 1
    assert box_iou(b, a) == iou
    assert box_iou(a, a) == 1
    assert (iou == 1) == (a == b)
    moved = [tuple(factor * (side + shift) for side in box) for box in (a, b)]
    assert box_iou(*moved) == pytest.approx(iou)


@settings(deadline=None)
@given(boxes, boxes)
def test_iou_is_that_of_the_pixels(a, b):
    def pixels(box):
        mask = np.zeros((170, 170), bool)
        left, top, right, bottom = (side + 50 for side in box)
        mask[top:bottom, left:right] = True
        return mask

    one, other = pixels(a), pixels(b)
    assert box_iou(a, b) == pytest.approx((one & other).sum() / (one | other).sum())
    assert tuple(bounding_box(one)) == tuple(side + 50 for side in a)


def test_centre_box_has_the_proportions_and_the_centre_of_the_picture():
    assert centre_box((240, 320), 0.5) == (80, 60, 240, 180)
    assert centre_box((240, 320), 1) == (0, 0, 320, 240)
    box = centre_box((99, 50), 0.6)
    assert box.area == pytest.approx(0.36 * 99 * 50)
    assert (box.left + box.right, box.top + box.bottom) == pytest.approx((50, 99))


def test_bad_boxes_are_said():
    with pytest.raises(fv.InputError, match=r"a must be \(left, top, right, bottom\)"):
        box_iou((1, 2, 3), SQUARE)
    with pytest.raises(fv.InputError, match="b must be"):
        box_iou(SQUARE, (0, 0, np.nan, 1))
    with pytest.raises(fv.InputError, match="b has no area"):
        box_iou(SQUARE, (5, 5, 5, 9))
    with pytest.raises(fv.InputError, match="a has no area"):
        box_iou((9, 5, 3, 8), SQUARE)
    for fraction in (0, 1.1, -0.5, np.nan):
        with pytest.raises(fv.InputError, match="above 0 and at most 1"):
            centre_box((10, 10), fraction)
    with pytest.raises(fv.InputError, match=r"size is \(height, width\)"):
        centre_box((0, 10), 0.5)
    for mask in (np.zeros((4, 4), bool), np.ones((4, 4)), np.ones((4, 4, 1), bool)):
        with pytest.raises(fv.InputError, match="mask must be"):
            bounding_box(mask)


def test_without_opencv_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(fv.FeatvisError, match="pip install opencv-python-headless"):
        localise(square_in_noise(), noisy_saliency(square_in_noise()))


# ---- the cut -------------------------------------------------------------------------------


@pytest.fixture
def opencv():
    return pytest.importorskip("cv2")


@pytest.mark.usefixtures("opencv")
@pytest.mark.parametrize("iterations", [0, 5])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_bright_square_in_noise_is_found(fixed, iterations):
    for seed in range(4):
        image = square_in_noise(seed=seed)
        relevance = noisy_saliency(image, seed + 100)
        # The map alone does not have the box: its upper 5 % are all over the picture.
        assert box_iou(bounding_box(relevance >= np.quantile(relevance, 0.95)), SQUARE) < 0.3
        found = localise(image, relevance, fixed=fixed, iterations=iterations)
        assert box_iou(found, SQUARE) > 0.8


@pytest.mark.usefixtures("opencv")
def test_free_pixels_may_be_wrong_and_fixed_ones_may_not():
    # Half of the most salient pixels are not of the square. They do not spoil its colours, but as
    # seeds they tie the square to the noise around it.
    image = square_in_noise()
    relevance = noisy_saliency(image, 100, contrast=1.5)
    top = relevance >= np.quantile(relevance, 0.95)
    assert 0.4 < top[15:45, 25:55].sum() / top.sum() < 0.6
    assert box_iou(localise(image, relevance), SQUARE) > 0.9
    mask = segment(image, relevance, fixed=True)
    assert box_iou(bounding_box(mask), SQUARE) < 0.6
    assert not mask[relevance <= np.quantile(relevance, 0.3)].any()


@pytest.mark.usefixtures("opencv")
def test_iterations_reach_colours_that_no_salient_pixel_has():
    # A square that gets darker to the left, salient at its bright end alone.
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 0.3, (64, 80, 3))
    image[15:45, 25:55] = np.linspace(0.4, 0.95, 30)[:, None] + rng.uniform(0, 0.05, (30, 30, 3))
    relevance = rng.uniform(0, 0.5, (64, 80))
    relevance[15:45, 25:55], relevance[15:45, 45:55] = 0.5, 1
    assert box_iou(localise(image, relevance), SQUARE) < 0.8
    assert box_iou(localise(image, relevance, iterations=5), SQUARE) > 0.95


@pytest.mark.usefixtures("opencv")
def test_the_saliency_of_the_unit_that_reads_a_square_finds_that_square():
    # A bright and a green square, and a linear unit for each.
    image = square_in_noise((64, 100))
    green = Box(65, 20, 95, 50)
    image[20:50, 65:95] = np.random.default_rng(9).uniform(0.5, 0.8, (30, 30, 3)) * (0, 1, 0)
    weights = np.zeros((*image.shape, 2), np.float32)
    for unit, box in enumerate((SQUARE, green)):
        values = np.random.default_rng(unit).normal(size=(30, 30, 3))
        weights[box.top : box.bottom, box.left : box.right, :, unit] = values

    def apply(params, images):
        return fv.tap((images[..., None] * params).sum((1, 2, 3)), "score")

    model = fv.from_function(apply, weights, input=fv.Input(size=image.shape[:2]))
    for unit, box in enumerate((SQUARE, green)):
        relevance = fv.explain(model, fv.Logit(unit, layer="score"), image, "saliency").maps[0]
        assert box_iou(localise(image, relevance), box) > 0.8


@pytest.mark.usefixtures("opencv")
def test_grey_pictures_and_replicated_ones_are_the_same():
    image = square_in_noise()
    grey, relevance = image.mean(-1, keepdims=True), noisy_saliency(image)
    mask = segment(grey, relevance)
    np.testing.assert_array_equal(mask, segment(np.repeat(grey, 3, -1), relevance))
    assert box_iou(bounding_box(mask), SQUARE) > 0.8


@pytest.mark.usefixtures("opencv")
def test_of_several_parts_the_largest_is_taken():
    image, relevance = square_in_noise(), noisy_saliency(square_in_noise())
    # Two more squares of the colours of the object, one that touches it by a corner.
    image[50:60, 2:12] = image[20:30, 30:40]
    image[45:51, 55:61] = image[20:26, 30:36]
    mask = segment(image, relevance)
    assert mask.dtype == bool
    assert not mask[50:60, 2:12].any()
    assert not mask[46:51, 56:61].any()
    assert box_iou(bounding_box(mask), SQUARE) > 0.9
    assert localise(image, relevance) == bounding_box(mask)


@pytest.mark.usefixtures("opencv")
def test_a_map_that_is_zero_but_for_the_object_is_fine():
    # Both quantiles are among equal values: 0 below, and 1 above where it is more than 5 %.
    image = square_in_noise()
    relevance = np.zeros(image.shape[:2])
    relevance[15:45, 25:55] = 1
    assert box_iou(localise(image, relevance), SQUARE) > 0.8
    # Fewer than 5 %: all pixels are seeds, so that the answer is the map's.
    few = np.zeros_like(relevance)
    few[28:32, 38:45] = 1
    assert localise(image, few, fixed=True) == (38, 28, 45, 32)


@pytest.mark.usefixtures("opencv")
def test_the_same_seed_gives_the_same_mask_whatever_came_before(opencv):
    # Tiles of many colours, more than five Gaussians have a good place for.
    rng = np.random.default_rng(3)
    image = 0.9 * np.kron(rng.uniform(size=(12, 12, 3)), np.ones((4, 4, 1)))
    image += 0.1 * rng.uniform(size=image.shape)
    relevance = image[..., 0] ** 2
    masks = [segment(image, relevance, seed=seed) for seed in range(3)]
    assert any(np.any(mask != masks[0]) for mask in masks)
    opencv.setRNGSeed(123)
    for seed in (2, 0, 1):
        np.testing.assert_array_equal(segment(image, relevance, seed=seed), masks[seed])


@pytest.mark.usefixtures("opencv")
def test_arguments_are_left_as_they_are():
    image, relevance = square_in_noise(), noisy_saliency(square_in_noise())
    before = image.copy(), relevance.copy()
    localise(image, relevance)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(relevance, before[1])


@pytest.mark.usefixtures("opencv")
def test_bad_input_is_said():
    image, relevance = square_in_noise(), noisy_saliency(square_in_noise())
    with pytest.raises(fv.InputError, match=r"0 pixels of foreground .* flat"):
        localise(image, np.ones_like(relevance))
    with pytest.raises(fv.InputError, match="too small"):
        localise(image[:8, :8], relevance[:8, :8])
    with pytest.raises(fv.InputError, match=r"saliency must be \(64, 80\) as the image"):
        localise(image, relevance.T)
    with pytest.raises(fv.InputError, match=r"saliency must be .* got an array \(1, 64, 80\)"):
        localise(image, relevance[None])
    with pytest.raises(fv.InputError, match="image must be"):
        localise(image[..., :2], relevance)
    with pytest.raises(fv.InputError, match=r"image must be in \[0, 1\]; got values"):
        localise(image * 255, relevance)
    for bad in (-relevance, np.where(relevance > 1, np.inf, relevance), relevance * np.nan):
        with pytest.raises(fv.InputError, match="finite and 0 or more"):
            localise(image, bad)
    for low, high in ((0.95, 0.3), (0.5, 0.5), (-0.1, 0.9), (0.3, 1.5)):
        with pytest.raises(fv.InputError, match="0 <= background < foreground <= 1"):
            localise(image, relevance, background=low, foreground=high)
    with pytest.raises(fv.InputError, match="iterations is an integer of at least 0, not -1"):
        localise(image, relevance, iterations=-1)


@pytest.mark.usefixtures("opencv")
def test_a_cut_without_foreground_is_said():
    # One colour everywhere: nothing tells the few salient pixels from the others.
    flat, relevance = np.full((40, 40, 3), 0.5), np.random.default_rng(0).uniform(size=(40, 40))
    with pytest.raises(fv.InputError, match="the cut leaves no foreground"):
        localise(flat, relevance)
    assert localise(flat, relevance, fixed=True).area >= 1
