"""Measures of maps, against closed forms of linear scores and known pictures."""

import jax
import numpy as np
import pytest

import featvis as fv
from featvis.attribution import Probed
from featvis.attribution.faithfulness import (
    agreement,
    area,
    centre_map,
    completeness,
    deletion,
    edge_map,
    insertion,
    inside_boxes,
    mass_inside,
    max_sensitivity,
    pointing,
    random_map,
    rank_iou,
)
from featvis.attribution.localisation import Box
from featvis.attribution.masking import places_in_order
from featvis.attribution.sanity import (
    compare,
    randomised,
    sanity,
    structural_similarity,
    weights_in_order,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture(scope="module")
def linear():
    """An image, its terms w·x (h, w), and a linear score without offset."""
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(10, 12, 3)).astype(np.float32)
    weights = rng.normal(size=image.shape)

    def score(images):
        return np.tensordot(np.asarray(images), weights, 3)

    return Probed(image, score, 16, jax.random.key(0)), (image * weights).sum(-1)


# ---- deletion and insertion ----------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 7, 120])
def test_deletion_and_insertion_of_a_linear_score_in_closed_form(linear, steps):
    given, terms = linear
    ordered = np.sort(terms.ravel())[::-1]
    counts = [-(-k * 120 // steps) for k in range(steps + 1)]
    lost = np.array([ordered[:count].sum() for count in counts])
    found = deletion(given, terms, steps=steps, baseline="black")
    np.testing.assert_allclose(found, terms.sum() - lost, atol=1e-4)
    gained = insertion(given, terms, steps=steps, baseline="black")
    np.testing.assert_allclose(gained, lost, atol=1e-4)
    assert area(found) == pytest.approx(np.trapezoid(terms.sum() - lost, dx=1 / steps), abs=1e-4)


def test_no_order_is_better_than_that_of_what_pixels_add(linear):
    given, terms = linear
    best = area(deletion(given, terms, steps=30, baseline="black"))
    for other in (-terms, random_map(terms.shape), centre_map(terms.shape)):
        assert area(deletion(given, other, steps=30, baseline="black")) > best
        assert area(insertion(given, other, steps=30, baseline="black")) < area(
            insertion(given, terms, steps=30, baseline="black")
        )


def test_the_ends_are_the_image_and_what_replaces_it(linear):
    given, terms = linear
    image, grey = (given.score(x[None])[0] for x in (given.image, np.full_like(given.image, 0.5)))
    np.testing.assert_allclose(deletion(given, terms, steps=3)[[0, -1]], [image, grey], rtol=1e-5)
    ends = insertion(given, terms, steps=3)[[0, -1]]
    cv2 = pytest.importorskip("cv2")
    blur = cv2.GaussianBlur(given.image, (11, 11), 5)
    np.testing.assert_allclose(ends, [given.score(blur[None])[0], image], rtol=1e-4)


def test_equal_pixels_go_in_no_direction():
    order = places_in_order(np.zeros((40, 40)))
    assert sorted(order.ravel()) == list(range(1600))
    for axis in (0, 1):
        place = (
            np.broadcast_to(np.arange(40), (40, 40)) if axis else np.arange(40)[:, None] + 0 * order
        )
        assert abs(np.corrcoef(place.ravel(), order.ravel())[0, 1]) < 0.1


def test_bad_curves_are_said(linear):
    given, terms = linear
    with pytest.raises(fv.InputError, match="deletion: steps is an integer of at least 1, not 0"):
        deletion(given, terms, steps=0)
    with pytest.raises(fv.InputError, match=r"the map must be \(10, 12\); got \(12, 10\)"):
        insertion(given, terms.T)


# ---- boxes ---------------------------------------------------------------------------------


def test_boxes_pointing_and_mass():
    inside = inside_boxes([Box(2, 1, 5, 3), Box(4, 2, 6, 9)], (8, 10))
    assert inside.sum() == 6 + 12 - 1
    ranked = np.zeros((8, 10))
    ranked[2, 5] = 4
    ranked[0, 0] = 1
    ranked[7, 9] = -3
    assert pointing(ranked, inside) == 1
    assert pointing(-ranked, inside, tolerance=4) == 1  # off by 4 pixels
    assert pointing(-ranked, inside, tolerance=3) == 0
    assert pointing(0 * ranked, inside, tolerance=0) == pytest.approx(17 / 80)
    assert mass_inside(ranked, inside) == pytest.approx(0.8)
    assert mass_inside(-np.abs(ranked), inside) == 0
    assert rank_iou(inside, inside) == 1
    half = inside.copy()
    half[np.unravel_index(np.flatnonzero(inside)[:8], inside.shape)] = False
    outside = half.astype(float)
    outside[:, 9] = 0.5  # eight pixels
    assert rank_iou(outside, inside) == pytest.approx(9 / 25)
    with pytest.raises(fv.InputError, match="none of 1 boxes has a pixel"):
        inside_boxes([Box(20, 20, 30, 30)], (8, 10))
    for boxes in ([(1, 2, 3)], [3], 3, [(0, 0, np.nan, 4)]):
        with pytest.raises(fv.InputError, match=r"\(left, top, right, bottom\) each"):
            inside_boxes(boxes, (8, 10))
    with pytest.raises(fv.InputError, match="boxes must be an array of real numbers; got 'cat'"):
        inside_boxes("cat", (8, 10))


# ---- sums, stability, agreement ------------------------------------------------------------


def test_completeness_of_a_linear_score(linear):
    given, terms = linear
    scores = given.score(given.image[None])
    assert completeness(terms[None], scores, [0.0]) < 1e-5
    assert completeness(0.9 * terms[None], scores, [0.0]) == pytest.approx(0.1, abs=1e-5)
    assert completeness([[[1.0]]], [2.0], [2.0]) == np.inf


def test_sensitivity_in_closed_form():
    images = np.full((2, 4, 4, 1), 0.5, np.float32)

    def explained(x):
        return x[..., 0] * [[[1.0]], [[0.0]]]

    found = max_sensitivity(explained, images, radius=0.1, samples=3, seed=4)
    rng = np.random.default_rng(4)
    noise = [rng.uniform(-0.1, 0.1, images.shape)[0] for _ in range(3)]
    wanted = max(np.linalg.norm(one) for one in noise) / np.linalg.norm(images[0])
    np.testing.assert_allclose(found, [wanted, 0], rtol=1e-5)
    with pytest.raises(fv.InputError, match="samples is an integer of at least 1, not 0"):
        max_sensitivity(explained, images, samples=0)
    with pytest.raises(fv.InputError, match=r"maps of these images are \(2, 4, 4\); got \(2, 4\)"):
        max_sensitivity(lambda x: x[:, 0, :, 0], images)


def test_agreement_is_that_of_ranks():
    maps = np.random.default_rng(0).normal(size=(2, 5, 6))
    found = agreement([maps, np.exp(maps), -maps, np.zeros_like(maps)])
    wanted = [[1, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_edges_are_an_images_own():
    image = np.zeros((6, 6, 3), np.float32)
    image[:, 3:] = 1
    np.testing.assert_allclose(edge_map(image)[:, [0, 2, 3, 5]], [[0, 0.5, 0.5, 0]] * 6)


# ---- sanity checks -------------------------------------------------------------------------


def test_weights_come_in_the_networks_order(toy):
    groups = weights_in_order(toy, fv.Logit(1), (12, 16))
    # The leaves of the tree are conv, linear, logits; the linear layer is not read.
    leaves = [leaf for _, group in groups for leaf in group]
    assert leaves == [0, 2]


def test_shuffled_weights_are_the_same_numbers(toy):
    other = randomised(toy, [0], seed=1)
    assert np.array_equal(other.params["logits"], toy.params["logits"])
    assert not np.array_equal(other.params["conv"], toy.params["conv"])
    assert np.array_equal(*(np.sort(m.params["conv"], axis=None) for m in (toy, other)))


def test_a_map_of_edges_fails_and_a_gradient_passes(toy):
    images = np.random.default_rng(2).uniform(size=(6, 12, 16, 3)).astype(np.float32)
    objective = fv.Channel("linear", 1)

    def gradient(model):
        return fv.explain(model, objective, images, "saliency").maps

    found = sanity(gradient, toy, objective, (12, 16), steps=1)
    assert found.passes
    assert found.rank.shape == (1, 6)
    assert np.abs(found.rank.mean()) < 0.2
    # What ignores the network fails, though it is as alike to another image's map.
    assert not sanity(lambda model: np.ones((6, 1, 1)) * centre_map((12, 16)), toy, objective,
                      (12, 16), steps=1).passes  # fmt: skip

    def edges(model):
        return np.stack([edge_map(one) for one in images])

    for way in ("cascading", "independent"):
        found = sanity(edges, toy, fv.Logit(1), (12, 16), steps=9, way=way)
        assert not found.passes
        np.testing.assert_allclose(found.absolute, 1)
        np.testing.assert_allclose(found.ssim, 1, atol=1e-4)
        assert len(found.layers) == 1 or len(found.layers) == len(found.rank)
    with pytest.raises(fv.InputError, match="way is one of 'cascading', 'independent', not 'up'"):
        sanity(edges, toy, objective, (12, 16), way="up")


def test_structural_similarity_is_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(3, 30, 34)).astype(np.float32)
    b = np.clip(a + 0.2 * rng.normal(size=a.shape), 0, 1).astype(np.float32)
    found = structural_similarity(a, b)
    for one, x, y in zip(found, a, b, strict=True):
        wanted = metrics.structural_similarity(
            x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            full=True,
        )[1].mean()  # fmt: skip
        assert one == pytest.approx(wanted, abs=0.01)  # Borders are mirrored in another way.


def test_controls_have_the_size_asked_for():
    assert random_map((7, 9)).shape == centre_map((7, 9)).shape == (7, 9)
    assert np.unravel_index(centre_map((7, 9)).argmax(), (7, 9)) == (3, 4)
    assert not np.array_equal(random_map((7, 9), 0), random_map((7, 9), 1))


# ---- what is given --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda given, m: deletion(given, m * np.nan), "NaN or infinity in the map"),
        (lambda given, m: insertion(given, m + 1j), "the map must be an array of real numbers"),
        (lambda given, m: deletion(given, m, steps=1.5), "steps is an integer .*, not 1.5"),
        (lambda given, m: deletion(given, m, steps=2**40), "steps is an integer from 1 to"),
        (lambda given, m: deletion(given, m, baseline="red"), "baseline is of black, .*'red'"),
        (lambda given, m: insertion(given, m, baseline=given.image[:4]), r"got \(1, 4, 12, 3\)"),
        (lambda given, m: deletion(given, m, baseline=given.image + 1), r"must be in \[0, 1\]"),
        (lambda _, m: pointing(m[:4], m > 0), r"the map must be \(10, 12\); got \(4, 12\)"),
        (lambda _, m: pointing(m, m > 0, tolerance="a"), "tolerance is a finite number"),
        (lambda _, m: rank_iou(m, m > np.inf), "some of them True; got .* with 0"),
        (lambda _, m: mass_inside(m, np.ones((10, 12), int)), "of bool, .* of int64"),
        (lambda _, m: mass_inside(m * np.nan, m > 0), "NaN or infinity in the map"),
        (lambda _, m: inside_boxes([(0, 0, 1, 1)], (0, 3)), r"size is \(height, width\)"),
        (lambda _, m: completeness(m, [1.0], [0.0]), r"maps are \(n, h, w\); got \(10, 12\)"),
        (lambda _, m: completeness(m[None], [1.0, 2.0], [0.0]), r"\(1,\) each; got \(2,\)"),
        (lambda _, m: agreement([m, m]), r"maps are \(n, h, w\); got \(10, 12\)"),
        (lambda _, m: agreement([m[None], m[None] * np.nan]), "NaN or infinity in maps"),
        (lambda _, m: max_sensitivity(np.sum, m[None], radius=np.inf), "radius is a finite number"),
        (lambda _, m: max_sensitivity(np.sum, m[None], seed=-1), "seed is an integer of at least"),
        (lambda _, m: area([1.0]), r"of at least 1 step; got \(1,\)"),
        (lambda _, m: random_map((0, 3)), r"size is \(height, width\)"),
        (lambda _, m: random_map((3, 3), -1), "seed is an integer of at least 0"),
        (lambda _, m: centre_map((-1, 2)), r"size is \(height, width\)"),
        (lambda _, m: edge_map(np.ones((1, 1, 3))), "of 2x2 pixels at least"),
        (lambda _, m: compare(m[None], m[None, :4]), r"are \(1, 10, 12\); got \(1, 4, 12\)"),
    ],
)
def test_what_no_measure_is_of_is_said(linear, measure, message):
    given, terms = linear
    with pytest.raises((fv.InputError, fv.NonFiniteError), match=message):
        measure(given, terms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "a"}, "steps is an integer of at least 1, not 'a'"),
        ({"seed": 1.5}, "seed is an integer of at least 0, not 1.5"),
        ({}, r"maps of these images are \(n, 12, 16\); got \(1, 3, 3\)"),
    ],
)
def test_what_no_sanity_check_is_of_is_said(toy, options, message):
    with pytest.raises(fv.InputError, match=message):
        sanity(lambda model: np.ones((1, 3, 3)), toy, fv.Logit(1), (12, 16), **options)
