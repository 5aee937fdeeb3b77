"""Cosines and sines of angles, against NumPy's in 64 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from featvis.kernels.trigonometry import cosine_and_sine


@pytest.mark.parametrize("largest", [0.8, 4.0, 100.0, 12_000.0])
def test_equal_to_numpy(largest):
    angles = np.linspace(-largest, largest, 100_001).astype(np.float32)
    turns = np.arange(-64, 65) * np.pi / 4
    angles = np.concatenate([angles, turns[np.abs(turns) <= largest].astype(np.float32)])
    cosine, sine = jax.jit(cosine_and_sine)(angles)
    np.testing.assert_allclose(cosine, np.cos(angles.astype(float)), atol=1.2e-7)
    np.testing.assert_allclose(sine, np.sin(angles.astype(float)), atol=1.2e-7)


def test_what_is_no_angle_has_none():
    cosine, sine = cosine_and_sine(jnp.array([jnp.inf, -jnp.inf, jnp.nan]))
    assert np.isnan(cosine).all()
    assert np.isnan(sine).all()
    cosine, sine = cosine_and_sine(jnp.array([0.0, 3e6]))
    np.testing.assert_array_equal((cosine[0], sine[0]), (1.0, 0.0))
    # As of an angle that is a rounding away.
    around = 3e6 + np.linspace(-0.25, 0.25, 99)
    assert np.abs(np.cos(around) - float(cosine[1])).min() < 1e-2
    np.testing.assert_allclose(cosine**2 + sine**2, 1, atol=1e-6)


def test_their_derivatives_are_each_other():
    angles = jnp.linspace(-9, 9, 50)
    direction = jnp.linspace(1, 2, 50)
    (cosine, sine), moved = jax.jvp(cosine_and_sine, (angles,), (direction,))
    np.testing.assert_allclose(moved[0], -sine * direction, atol=1e-6)
    np.testing.assert_allclose(moved[1], cosine * direction, atol=1e-6)
    by_angle = jax.grad(lambda x: sum(part.sum() for part in cosine_and_sine(x)))(angles)
    np.testing.assert_allclose(by_angle, np.cos(angles) - np.sin(angles), atol=1e-6)
