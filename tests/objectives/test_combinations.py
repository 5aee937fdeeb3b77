"""Bounds, targets, smooth extremes, products, groups and patterns: closed forms and refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import objectives as ob

pytestmark = pytest.mark.usefixtures("quick_to_compile")
RNG = np.random.default_rng(1)
MAPS = RNG.normal(size=(4, 5, 6, 3)).astype(np.float32)
LOGITS = RNG.normal(size=(4, 7)).astype(np.float32)
PIXELS = RNG.uniform(size=(4, 8, 6, 3)).astype(np.float32)
ACTS = ob.Activations(maps=jnp.asarray(MAPS), logits=jnp.asarray(LOGITS))
A, B = ob.Logit(2), ob.Logit(5)
FITS = ACTS, PIXELS.shape


def agree(objective: ob.Objective, expected, rtol: float = 1e-5) -> None:
    found = np.asarray(objective(ACTS, jnp.asarray(PIXELS)))
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol, atol=1e-6)


def slopes(objective: ob.Objective) -> np.ndarray:
    """Of the scores by the logits, (n, 7)."""

    def total(logits):
        return objective(ob.Activations(maps=ACTS["maps"], logits=logits), PIXELS).sum()

    return np.asarray(jax.grad(total)(ACTS["logits"]))


@pytest.mark.thorough
def test_a_bound_costs_what_is_missing_and_nothing_beyond() -> None:
    level = float(np.median(LOGITS[:, 2]))
    agree(ob.AtLeast(A, level), np.minimum(LOGITS[:, 2] - level, 0))
    below = LOGITS[:, 2] < level
    assert 0 < below.sum() < 4
    np.testing.assert_array_equal(slopes(ob.AtLeast(A, level))[:, 2], below)
    agree(ob.AtLeast(A, LOGITS[:, 2]), 0)
    assert not slopes(ob.AtLeast(A, LOGITS[:, 2])).any()


def test_a_target_is_best_at_its_level() -> None:
    agree(ob.Level(A, 0.3), -((LOGITS[:, 2] - 0.3) ** 2))
    np.testing.assert_allclose(slopes(ob.Level(A, 0.3))[:, 2], 2 * (0.3 - LOGITS[:, 2]), rtol=1e-5)
    at = ob.Level(A, LOGITS[:, 2])
    agree(at, 0)
    assert not slopes(at).any()


def test_smooth_extremes_lie_between_the_mean_and_the_extreme() -> None:
    both = np.stack([LOGITS[:, 2], LOGITS[:, 5]])
    agree(ob.Softmax([A, B], 3.0), np.log(np.exp(3 * both).mean(0)) / 3)
    agree(ob.Softmin([A, B], 3.0), -np.log(np.exp(-3 * both).mean(0)) / 3)
    agree(ob.Softmax([A, B], 1e-3), both.mean(0), rtol=1e-2)
    agree(ob.Softmax([A, B], 1e4), both.max(0), rtol=1e-3)
    agree(ob.Softmin([A, B], 1e4), both.min(0), rtol=1e-3)
    agree(ob.Softmax([A, A], 2.0), LOGITS[:, 2])
    agree(ob.Softmin([A, B], [1.0, 2.0, 3.0, 4.0]), [
        -np.log(np.exp(-k * both[:, i]).mean()) / k for i, k in enumerate([1, 2, 3, 4])
    ])  # fmt: skip


def test_a_product_is_of_scores_and_flat() -> None:
    a, b = LOGITS[:, 2], LOGITS[:, 5]
    agree(A * B, a * b)
    agree(2 * (A * B) * (A - 1), 2 * a * b * (a - 1))
    np.testing.assert_allclose(slopes(A * B)[:, 2], b, rtol=1e-6)
    assert (A * B) * A == A * (B * A) == ob.Product((A, B, A))
    for one in (-A * B, -(A * B), (A * B).on([1]), (0.5 * A) * B - A * (B + 2)):
        assert ob.parse(str(one)) == one


@pytest.mark.thorough
def test_groups_are_batches_of_their_own() -> None:
    distance = [
        ob.MinDistance("maps")({"maps": MAPS[s]}, PIXELS[s]) for s in np.split(np.arange(4), 2)
    ]
    agree(ob.InGroups(ob.MinDistance("maps"), 2), np.concatenate(distance))
    agree(ob.InGroups(ob.Diversity("maps"), 4), ob.Diversity("maps")(ACTS, PIXELS))
    agree(ob.InGroups(np.array([1.0, 3.0]) * A, 2), LOGITS[:, 2] * [1, 3, 1, 3])
    assert not ob.separable(ob.InGroups(A, 2))


@pytest.mark.thorough
def test_whitening_is_a_change_of_the_basis() -> None:
    v = np.array([1.0, -2.0, 0.5])
    s = np.asarray(ob.precision(MAPS, ridge=0.0))
    np.testing.assert_allclose(
        s @ np.einsum("nhwc,nhwd->cd", MAPS, MAPS) / 120, np.eye(3), atol=1e-4
    )
    root = np.linalg.cholesky(s).T
    whitened = {"maps": jnp.asarray(MAPS @ root.T)}
    for power in (0.0, 2.0):
        plain = ob.Direction("maps", root @ v, power=power)(whitened, PIXELS)
        agree(ob.WhitenedDirection("maps", v, s, power=power), plain, rtol=1e-4)
        same = ob.Direction("maps", v, power=power)(ACTS, PIXELS)
        agree(ob.WhitenedDirection("maps", v, np.eye(3), power=power), same, rtol=1e-4)


@pytest.mark.thorough
def test_a_pattern_of_one_position_is_a_direction_there() -> None:
    v = np.array([1.0, -2.0, 0.5])
    for power in (0.0, 2.0):
        one = ob.DirectionNeuron("maps", v, (3, 4), power=power)(ACTS, PIXELS)
        agree(ob.SpatialDirection("maps", v[None, None], (3, 4), power=power), one)
    pattern = RNG.normal(size=(3, 2, 3)).astype(np.float32)
    agree(ob.SpatialDirection("maps", pattern), (MAPS[:, 1:4, 2:4] * pattern).sum((1, 2, 3)))
    corners = np.array([[0, 0], [2, 4], [1, 1], [0, 3]])
    expected = [
        (a[y : y + 3, x : x + 2] * pattern).sum()
        for a, (y, x) in zip(MAPS, corners, strict=True)
    ]  # fmt: skip
    agree(ob.SpatialDirection("maps", pattern, corners), expected, rtol=1e-4)


def test_a_window_is_between_a_neuron_and_a_channel() -> None:
    spot = np.zeros((5, 6))
    spot[3, 4] = 2.0
    agree(ob.Window("maps", 1, spot), MAPS[:, 3, 4, 1])
    agree(ob.Window("maps", 1, np.full((5, 6), 7.0)), MAPS[..., 1].mean((1, 2)))


def test_the_boundary_is_flat_and_grey_or_costs() -> None:
    image = np.full((1, 20, 24, 1), 0.5, np.float32)
    image[:, 8:12, 8:12] = 1.0
    inside = ob.Boundary(width=3, sigma=0.5)({}, jnp.asarray(image))
    assert float(inside[0]) == pytest.approx(0, abs=1e-9)
    bright = np.full((1, 20, 24, 1), 0.75, np.float32)
    # Flat: the blur takes nothing off.
    assert float(ob.Boundary(width=3)({}, jnp.asarray(bright))[0]) == pytest.approx(0.05, rel=1e-4)
    assert float(ob.Boundary(width=99)({}, jnp.asarray(bright))[0]) == pytest.approx(0.05, rel=1e-4)


def test_what_reads_no_activation_has_no_unit() -> None:
    assert ob.units_of(ob.AtLeast(ob.L2(), 1.0)) is None
    assert ob.units_of(ob.InGroups(ob.MinDistance("maps"), 2)) is None
    assert ob.units_of(A * ob.L2()) == A
    assert ob.units_of(ob.AtLeast(A, 1.0) + ob.InGroups(ob.MinDistance(), 2)) == ob.AtLeast(A, 1.0)
    both = ob.stack([ob.AtLeast(A, 1.0), ob.AtLeast(B, 2.0)])
    assert both == ob.AtLeast(ob.Logit([2, 5]), [1.0, 2.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ob.AtLeast(3, 1.0), "AtLeast is of an objective; got 3"),
        (lambda: ob.Level("late:0", 1.0), "Level is of an objective; got 'late:0'"),
        (lambda: ob.AtLeast(A, None), "AtLeast.level must be a number or an array .*; got None"),
        (lambda: ob.AtLeast(A, [1.0, np.nan]), "AtLeast.level must be finite"),
        (lambda: ob.Window("maps", 0, None), "Window.weights must be a number or .*; got None"),
        (lambda: ob.precision("a"), "activations must be a number or an array .*; got 'a'"),
        (lambda: ob.precision(np.ones(3)), r"activations are \(n, ..., c\); got \[1.0, 1.0, 1.0\]"),
        (lambda: ob.precision(np.full((4, 2), np.nan)), "activations must be finite"),
        (lambda: ob.precision(np.zeros((4, 2))), "4 positions of 2 channels has no inverse"),
        (lambda: ob.precision(MAPS, -1.0), "ridge must be at least 0; got -1"),
        (lambda: ob.Softmax([A]), "two or more objectives"),
        (lambda: ob.Softmin([A, 2]), "two or more objectives"),
        (lambda: ob.Softmin([A, B], 0.0), "sharpness is above 0; got 0"),
        (lambda: ob.Product((A,)), "two or more objectives"),
        (lambda: ob.InGroups(A, 0), "size is a whole number of images above 0; got 0"),
        (lambda: ob.InGroups([1.0, 2.0] * A, 3), "made for 2 images; the groups are of 3"),
        (lambda: ob.InGroups(A.on([0]), 2), "names images of the whole batch"),
        (lambda: ob.InGroups(A, 3).check(*FITS), "do not make a batch of 4; .* is 6"),
        (lambda: ob.Window("maps", 0, -np.ones((5, 6))), "at least 0, and not all"),
        (lambda: ob.Window("maps", 0, np.ones((5, 5))).check(*FITS), r"\(5, 5\)"),
        (lambda: ob.Boundary(width=0), "whole number of pixels above 0; got 0"),
        (lambda: ob.WhitenedDirection("maps", np.ones(3), np.eye(4)), r"3 channels is \(3, 3\)"),
        (lambda: ob.SpatialDirection("maps", np.ones((2, 2, 3)), (0.5, 1)), "a corner is .y, x."),
        (
            lambda: ob.SpatialDirection("maps", np.ones((9, 2, 3))).check(*FITS),
            "does not fit into layer 'maps'",
        ),
        (
            lambda: ob.SpatialDirection("maps", np.ones((2, 2, 3)), (4, 0)).check(*FITS),
            r"at most at \[3, 4\]",
        ),
    ],
)  # fmt: skip
def test_refusals(make, message: str) -> None:
    with pytest.raises(ob.ObjectiveError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
