"""Decorrelated colours: a linear map between an uncorrelated colour space and RGB.

The matrix is the square root of the colour covariance of natural images as used by lucid
(Olah et al., "Feature Visualization", Distill 2017), divided by its largest column norm.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

_COVARIANCE_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])

MATRIX: np.ndarray = _COVARIANCE_ROOT / np.linalg.norm(_COVARIANCE_ROOT, axis=0).max()
"""(3, 3) float64: `rgb = t @ MATRIX.T` for decorrelated `t`; its largest column has norm 1."""

INVERSE: np.ndarray = np.linalg.inv(MATRIX)
"""(3, 3) float64: `t = rgb @ INVERSE.T`."""


def correlate(decorrelated: jax.Array) -> jax.Array:
    """Map decorrelated colours to RGB; any other channel count is returned as it is.

    Args:
        decorrelated: (c, h, w), channels first, any real values.

    Returns:
        (c, h, w), the same scale-free units, before any squashing.
    """
    return _mix(MATRIX, decorrelated)


def decorrelate(rgb: jax.Array) -> jax.Array:
    """Invert `correlate`: (c, h, w) RGB to decorrelated colours, other channel counts unchanged."""
    return _mix(INVERSE, rgb)


def _mix(matrix: np.ndarray, planes: jax.Array) -> jax.Array:
    """Apply a 3x3 colour matrix to (3, h, w) planes."""
    if planes.shape[0] != 3:
        return planes
    # Nine products of whole planes: a matmul with an inner size of three is no faster on a CPU,
    # and is rounded to TF32 on some GPUs.
    rows = [sum(float(m) * plane for m, plane in zip(row, planes, strict=True)) for row in matrix]
    return jnp.stack(rows)
