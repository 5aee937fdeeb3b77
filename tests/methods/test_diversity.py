"""Diverse optima against the closed forms of units whose invariances are known."""

from __future__ import annotations

import numpy as np
import pytest
import stimuli
from stimuli import DEAD, ENERGY, LINEAR

import featvis as fv
from featvis.methods.diversity import distances
from featvis.methods.trade_off import knee_of

pytestmark = pytest.mark.usefixtures("quick_to_compile")
N = 6
#: The smallest distance of N points of a simplex over their distance from its middle.
SPREAD = np.sqrt(2 * N / (N - 1))


@pytest.fixture(scope="module")
def units():
    return stimuli.units()


def diverse(model, unit, **options):
    return fv.diverse(model, unit, N, contrast=stimuli.CONTRAST, progress=False, **options)


@pytest.mark.thorough
def test_a_quadrature_pair_ignores_the_phase(units):
    result = diverse(units, f"units:{ENERGY}", preset="cadena2018", weight=0.1)
    activation, nearest = (result.evidence[k] for k in ("activation", "nearest"))
    assert activation.min() > 0.99
    assert nearest.min() > 0.97
    # Six phases, 60 degrees apart: a regular hexagon has its radius for a side.
    assert nearest.max() < 1.03
    phases = result.images.reshape(N, -1) - 0.5
    pair = np.stack([stimuli.gabor(p).ravel() for p in (0, np.pi / 2)])
    angles = np.sort(np.degrees(np.arctan2(*(pair @ phases.T))))
    np.testing.assert_allclose(np.diff(angles), 60, atol=3)


@pytest.mark.thorough
@pytest.mark.parametrize("keep", [0.85, 1.0])
def test_what_is_kept_of_a_linear_unit_decides_the_distance(units, keep):
    result = diverse(units, f"units:{LINEAR}", keep=keep)
    assert result.evidence["activation"].min() > keep - 1e-3
    expected = SPREAD * np.sqrt(1 - keep**2)
    assert result.evidence["nearest"].min() == pytest.approx(expected, rel=0.02, abs=0.01)
    norms = np.linalg.norm((result.images - 0.5).reshape(N, -1), axis=1)
    np.testing.assert_allclose(norms, stimuli.NORM, rtol=1e-4)


@pytest.mark.thorough
def test_a_rectifier_that_is_closed_at_the_start_does_not_bite(units):
    result = diverse(units, "rectified:0", keep=0.85)
    best = stimuli.NORM - stimuli.THRESHOLD
    assert result.evidence["best"][0] == pytest.approx(best, rel=0.01)
    assert result.evidence["activation"].min() > 0.85 - 1e-3
    # 85 % above the threshold is an activation of the linear part that is nearer to its best.
    kept = (0.85 * best + stimuli.THRESHOLD) / stimuli.NORM
    expected = SPREAD * np.sqrt(1 - kept**2)
    assert result.evidence["nearest"].min() == pytest.approx(expected, rel=0.05)


@pytest.mark.thorough
def test_distances_of_a_layer_and_of_style(units):
    result = diverse(units, f"units:{ENERGY}", preset="cadena2018", layer="early", steps=60)
    assert "min_distance(layer='early')" in str(result.run.objective)
    again = fv.parse(str(result.run.objective))
    assert again == result.run.objective


@pytest.mark.thorough
def test_a_difference_of_style_is_lucids(toy):
    result = fv.diverse(toy, "conv:0", 2, preset="gram", weight=2.0, steps=2, progress=False)
    assert "2.0*diversity('conv')" in str(result.run.objective)
    assert "conv:0@center" in str(result.run.objective)
    assert isinstance(result.run.parameterization, fv.Fourier)


@pytest.mark.thorough
def test_a_linear_unit_pays_for_every_distance_along_a_curve_with_a_knee(units):
    weights, steps = [0.0, 0.1, 0.3, 1.0, 10.0], 600
    # The paper's constant rate leaves some 5 % of what a rate that falls to 0 reaches.
    rule = f"chain(whiten_gradient(), adam(cosine_decay_schedule(0.3, {steps})))"
    options = {"contrast": stimuli.CONTRAST, "optimizer": rule, "patience": steps}
    curve = fv.trade_off(
        units, f"units:{LINEAR}", N, weights=weights, steps=steps, progress=False, **options
    )
    angles = np.arctan(curve.weights * SPREAD)
    np.testing.assert_allclose(curve.activation[1:4], np.cos(angles[1:4]), rtol=0.02)
    np.testing.assert_allclose(curve.distance[1:4], SPREAD * np.sin(angles[1:4]), rtol=0.02)
    assert curve.activation[0] == pytest.approx(1, abs=1e-3)
    assert curve.knee == knee_of(np.cos(angles), SPREAD * np.sin(angles))
    assert curve.images_of(2).shape == (N, 16, 16, 1)
    assert len(curve.result.evidence["weight"]) == 5 * N


def test_the_knee_is_the_corner_of_a_curve():
    assert knee_of(np.array([1.0, 0.99, 0.98, 0.2, 0.1]), np.array([0, 0.5, 1.0, 1.05, 1.1])) == 2


def test_distances_are_over_the_norm():
    images = np.full((3, 4, 4, 1), 0.5)
    images[0, 0, 0], images[1, 1, 1], images[2, 0, 0] = 0.7, 0.7, 0.3
    expected = [[0, np.sqrt(2), 2], [np.sqrt(2), 0, np.sqrt(2)], [2, np.sqrt(2), 0]]
    np.testing.assert_allclose(distances(images), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("unit", "options", "message"),
    [
        (f"units:{LINEAR}", {"n": 1}, "2 or more, which have a distance; got n=1"),
        (f"units:{DEAD}", {}, "dead, or reads nothing of the image"),
        ("units:[0, 1]", {}, "are 2 units; one at a time"),
        ("tv", {}, "is no unit: name what is read"),
        (f"units:{LINEAR}", {"layer": "late"}, "late comes after units; nearest: early, units"),
        (f"units:{LINEAR}", {"layer": "erly"}, "unknown layer 'erly'; nearest: early"),
        (f"units:{LINEAR}", {"preset": "cadena"}, "unknown preset 'cadena'; nearest: cadena2018"),
        (f"units:{LINEAR}", {"keep": 1.5}, "keep must be above 0 and at most 1"),
        (f"units:{LINEAR}", {"weight": 1.5}, "no option 'weight'"),
        ("units:7", {}, "out of range"),
        ("units", {}, "units is a whole layer: name one of its units, as units:0"),
        (f"units:{LINEAR}", {"layer": ["early"]}, r"unknown layer \['early'\]; nearest: early"),
        (f"units:{LINEAR}", {"size": 16}, r"\(height, width\), two positive integers, not 16"),
        (f"units:{LINEAR}", {"size": 0}, r"\(height, width\), two positive integers, not 0"),
        (f"units:{LINEAR}", {"seed": None}, "seed must be an integer .*; got None"),
        (f"units:{LINEAR}", {"contrast": 0.6}, "a number below 0.5"),
    ],
)
def test_what_there_is_no_diversity_of(units, unit, options, message):
    with pytest.raises((fv.InputError, fv.ObjectiveError), match=message):
        fv.diverse(units, unit, **{"n": 2, "steps": 2, "progress": False, **options})


def test_curves_that_there_are_not(units):
    for options, message in [
        ({"weights": [1.0, 1.0, 2.0]}, "at least 3"),
        ({"weights": [1.0, -1.0, 2.0]}, "at least 0"),
        ({"weights": [1.0, np.nan, 2.0]}, "at least 0, not nan"),
        ({"weights": "123"}, "weights are at least 3 numbers; got '123'"),
        ({"weights": 3}, "weights are at least 3 numbers; got 3"),
        ({"weight": 1.0}, "`weight` is an option of diverse"),
    ]:
        with pytest.raises((fv.InputError, fv.ObjectiveError), match=message):
            fv.trade_off(units, f"units:{LINEAR}", steps=2, **options)
