"""Tuning curves, flat directions and textures against units whose invariances are known."""

from __future__ import annotations

import numpy as np
import pytest
import stimuli
from stimuli import ENERGY, LINEAR, NORM, PIXEL, POOLED, POOLED_UNIT, SIDE, TURNED_UNIT

import featvis as fv
from featvis.evidence import variations
from featvis.evidence.curvature import LINEAR_ANGLE, flattest, lanczos
from featvis.evidence.responses import responses
from featvis.evidence.textures import _factor, _mask, shift_texture
from featvis.natural.receptive import receptive_field

pytestmark = pytest.mark.usefixtures("quick_to_compile")
WHOLE = (0, 0, SIDE, SIDE)


@pytest.fixture(scope="module")
def units():
    return stimuli.units()


def unit(index):
    return fv.Channel("units", index)


def shown(pattern, norm=NORM):
    return (0.5 + norm * pattern[..., None]).astype(np.float32)


def curves(model, index, pattern, norm=NORM):
    found = variations.tuning_curves(model, unit(index), shown(pattern, norm), WHOLE, blank=0.0)
    return {one.name: one for one in found}


def test_a_quadrature_pair_ignores_the_phase_and_a_linear_unit_does_not(units):
    gabor = stimuli.gabor(0.0)
    energy, linear = curves(units, ENERGY, gabor), curves(units, LINEAR, gabor)
    assert energy["phase"].value > 0.95
    assert energy["phase"].width == 360
    assert linear["phase"].value < 0.1
    # 1 − cos² of the amounts: as far as the patch and its Hilbert transform are of one envelope.
    expected = np.cos(np.radians(linear["phase"].amounts))
    np.testing.assert_allclose(linear["phase"].responses, expected, atol=0.02)
    for one in linear.values():
        # A linear unit is its own chance.
        np.testing.assert_allclose(one.responses, one.linear, atol=1e-4)
        assert one.value == pytest.approx(one.chance, abs=1e-4)
    np.testing.assert_allclose(linear["contrast"].responses, np.linspace(0.1, 1, 10), rtol=1e-4)
    np.testing.assert_allclose(
        energy["contrast"].responses, np.linspace(0.1, 1, 10) ** 2, rtol=1e-4
    )
    assert "hue" not in linear
    assert [*linear] == [name for name in variations.FAMILIES if name != "hue"]


def test_a_pooled_unit_ignores_as_many_shifts_as_it_pools(units):
    found = curves(units, POOLED_UNIT, stimuli.spot(0), norm=0.4)
    amounts = found["shift x"].amounts
    assert found["shift x"].width == POOLED
    assert found["shift x"].value == pytest.approx(POOLED / len(amounts), abs=1e-6)
    assert found["shift x"].chance == pytest.approx(1 / len(amounts), abs=1e-6)
    assert found["shift y"].width == 1
    assert found["shift y"].value == pytest.approx(1 / len(amounts), abs=1e-6)
    # Its pool ends on one side where the spot is at the other's end.
    aside = curves(units, POOLED_UNIT, stimuli.spot(2), norm=0.4)
    assert aside["shift x"].width == POOLED


def test_a_turned_unit_ignores_rotations(units):
    found = curves(units, TURNED_UNIT, stimuli.gabor(0.3))
    assert found["rotation"].value > 0.95
    assert found["rotation"].chance < 0.4
    assert curves(units, ENERGY, stimuli.gabor(0.3))["rotation"].value < 0.4


def test_transformations_are_what_they_are_called():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(9, 9, 3))
    np.testing.assert_allclose(variations.rotated(z, 90), np.rot90(z), atol=1e-9)
    np.testing.assert_allclose(variations.hue_turned(z, 120), z[..., [2, 0, 1]], atol=1e-9)
    moved = variations.shifted(z, 2, -1)
    np.testing.assert_array_equal(moved[2:, :-1], z[:-2, 1:])
    assert not moved[:2].any()
    assert not moved[:, -1].any()
    wave = np.cos(2 * np.pi * np.arange(16) / 4)[None, :, None] * np.ones((16, 1, 1))
    quarter = np.cos(2 * np.pi * np.arange(16) / 4 + np.pi / 2)[None, :, None]
    np.testing.assert_allclose(
        np.abs(variations.phase_shifted(wave, 90)), np.abs(quarter * np.ones((16, 1, 1))), atol=1e-9
    )
    for name, change in [("rotated", 37.0), ("scaled", -0.7), ("phase_shifted", 50.0)]:
        one = getattr(variations, name)(z, change)
        assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(z))
    field = variations.displacement(rng, 12, 20)
    assert np.sqrt(np.mean(np.sum(field**2, axis=0))) == pytest.approx(1)
    np.testing.assert_allclose(variations.bend(z, np.ones((2, 9, 9)))[:-1, :-1], z[1:, 1:])
    assert not variations.occluded(z, 0.9)[0, 0].any()
    assert variations.blurred(z, 3.0).std() < 0.3


def test_lanczos_finds_the_outer_eigenvectors_of_a_quadratic():
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(60, 60)))
    values = np.concatenate([[-9.0, -7.0, -6.0], rng.uniform(-1, 1, 54), [4.0, 6.0, 8.0]])
    matrix = basis * values @ basis.T
    found, vectors = lanczos(lambda v: matrix @ v, rng.normal(size=60), 30)
    for place in (0, 1, -2, -1):
        assert found[place] == pytest.approx(values[place], abs=1e-3)
        assert abs(vectors[:, place] @ basis[:, place]) > 0.999


def test_the_flat_direction_of_a_quadrature_pair_is_its_other_half(units):
    # Nearly orthogonal halves: the best of the unit is the larger eigenvector of the two.
    pair = np.stack([stimuli.gabor(p).ravel() for p in (0.0, np.pi / 2)])
    _, _, axes = np.linalg.svd(pair)
    best, other = axes[0].reshape(SIDE, SIDE), axes[1]
    walks = flattest(units, unit(ENERGY), shown(best), WHOLE, blank=0.0, band=1.0, directions=2)
    ends = walks[0].images[-1].ravel() - 0.5
    assert abs(ends @ other) / np.linalg.norm(ends) > 0.999
    assert walks[0].angle == 90
    assert walks[0].shares.min() > 0.97
    assert walks[0].curvature == pytest.approx(0, abs=0.05)
    assert walks[1].curvature == pytest.approx(-2, abs=0.05)
    # 0.9 = cos² there.
    assert walks[1].angle == pytest.approx(np.degrees(np.arccos(np.sqrt(0.9))), abs=0.3)
    assert walks[0].smooth_angle == 90
    assert walks[1].smooth_angle == pytest.approx(walks[1].angle, abs=0.5)


def test_a_linear_unit_is_nowhere_flat(units):
    for walk in flattest(units, unit(LINEAR), shown(stimuli.gabor(0.0)), WHOLE, blank=0.0):
        assert walk.curvature == pytest.approx(-1, abs=0.01)
        assert walk.angle == pytest.approx(LINEAR_ANGLE, abs=0.3)
        assert walk.smooth_angle == pytest.approx(LINEAR_ANGLE, abs=0.3)


@pytest.mark.thorough
def test_a_texture_has_crops_of_the_norm_and_drives_a_linear_unit_only_in_places(units):
    mask, raw = _mask(6, 5), np.random.default_rng(0).normal(size=(11, 9, 2))
    scaled = raw * float(_factor(raw, mask, 3.0))
    norms = [
        np.sum((scaled[y : y + 6, x : x + 5] * mask[..., None]) ** 2)
        for y in range(6)
        for x in range(5)
    ]
    assert np.sqrt(np.mean(norms)) == pytest.approx(3, rel=1e-5)
    found = shift_texture(
        units, unit(LINEAR), (SIDE, SIDE, 1), WHOLE, norm=NORM, blank=0.0, gain=NORM, steps=40
    )
    assert found.image.shape == (2 * SIDE - 1, 2 * SIDE - 1, 1)
    assert found.lowest < 0
    assert found.lowest < found.mean < 0.5


def test_where_a_unit_looks(units):
    assert receptive_field(units, unit(PIXEL), (SIDE, SIDE)) == ((8, 8, 1, 1), False)
    found = receptive_field(units, unit(POOLED_UNIT), (SIDE, SIDE))
    # Noise has its largest pixel anywhere in the pool.
    assert found.window[0] == 8
    assert found.window[2] == 1
    assert found.window[1] >= 6
    assert found.window[1] + found.window[3] <= 11
    assert receptive_field(units, unit(LINEAR), (SIDE, SIDE)).cut
    many = np.concatenate([[shown(stimuli.spot(s), 0.3)] for s in range(-8, 8)] * 2)
    np.testing.assert_allclose(
        responses(units, unit(PIXEL), many), [0.3 * (s == 0) for s in range(-8, 8)] * 2, atol=1e-6
    )
