"""Directions in which a unit's activation is flat at its best image, and walks along them.

At the best image of a norm the activation falls in every direction along the sphere, faster or
slower: the eigenvalues of its Hessian on the sphere say how fast. It is never formed: Lanczos'
method asks for its products with some vectors alone.

Networks of rectifiers are linear in pieces, and their Hessian is 0 almost everywhere. A product is
therefore the change of the gradient over a step that is not small, (∇f(x + s v) − ∇f(x − s v))/2s,
of a mean over the same few noisy copies of x: exact for quadratic units, and for others what the
Hessian of the unit, blurred over its neighbourhood, is about. Which directions are the flattest is
then measured, by a turn along each of those found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from featvis.evidence.responses import gradients, responses
from featvis.models import Model
from objectives import Objective

#: Angles of a walk on the sphere in degrees.
ANGLES = np.arange(0, 91, 5.0)
#: Pairs of noisy copies of an image over which gradients are averaged.
_COPIES = 4
#: Degrees of the turn by which directions are told apart.
_TURN = 15.0
#: What a linear unit has when a walk ends at 90 % of the best: arccos 0.9.
LINEAR_ANGLE = float(np.degrees(np.arccos(0.9)))


class Walk(NamedTuple):
    """A way on the sphere from the best image, along one eigenvector.

    Attributes:
        curvature: eigenvalue of the Hessian on the sphere, the second derivative of the share of
            the activation by the angle in radians; that of a linear unit is −1.
        angle: degrees to where the activation has fallen by a tenth, to the nearer side of two; 90
            where it does not until then.
        images: (k, h, w, c), at angles from −angle to angle.
        shares: of the best activation there, (k,).
    """

    curvature: float
    angle: float
    images: np.ndarray
    shares: np.ndarray

    @property
    def smooth_angle(self) -> float:
        """Degrees to where a tenth is lost by the curvature alone, as 1 + curvature (1 − cos).

        Where `angle` is far less, the unit has kinks: its rectifiers turn on or off beside the best
        image, and the curvature, which is blurred, says little of it.
        """
        if self.curvature >= 0:
            return 90.0
        return float(np.degrees(np.arccos(max(0.0, 1 + 0.1 / self.curvature))))


def flattest(
    model: Model,
    unit: Objective,
    image: np.ndarray,
    window: Sequence[int],
    *,
    blank: float,
    directions: int = 3,
    iterations: int = 24,
    step: float = 0.1,
    band: float = 0.95,
    seed: int = 0,
) -> list[Walk]:
    """Walks along the flattest directions, the flattest first.

    A unit is flat in most directions of pixels, such as all that is finer than it sees. Those
    looked at are therefore of the stimulus's own frequencies: the fewest that hold `band` of its
    power.

    Args:
        model: the network.
        unit: one unit at one place.
        image: the best image (h, w, c).
        window: (top, left, height, width) in which it is not grey.
        blank: the unit's activation for plain grey.
        directions: how many.
        iterations: of Lanczos' method, at least `directions`.
        step: of the differences and of the noise, over the norm of the image's offsets.
        band: of the stimulus's power that its frequencies hold; 1 for all directions.
        seed: of the first vector.
    """
    top, left, height, width = window
    z = np.asarray(image, np.float64)[top : top + height, left : left + width] - 0.5
    size = float(np.linalg.norm(z))
    gain = float(responses(model, unit, image[None])[0]) - blank
    keep = _band(z, band)
    here = z.ravel() / size

    def shown(offsets: np.ndarray) -> np.ndarray:
        out = np.full((len(offsets), *image.shape), 0.5, np.float32)
        out[:, top : top + height, left : left + width] += offsets.reshape(-1, *z.shape)
        return out  # a step may leave [0, 1], which the network does not mind

    def slopes(offsets: np.ndarray) -> np.ndarray:
        found = gradients(model, unit, shown(offsets))
        inside = found[:, top : top + height, left : left + width]
        return inside.reshape(len(offsets), -1).astype(np.float64)

    # In units of the best activation and of the radius: a sphere of radius 1.
    radial = float(slopes(z.reshape(1, -1))[0] @ here) * size / gain

    def tangent(v: np.ndarray) -> np.ndarray:
        v = keep(v)
        return v - here * (here @ v)

    rng = np.random.default_rng(seed)
    noise = np.stack([tangent(rng.normal(size=z.size)) for _ in range(_COPIES)])
    noise *= step / np.linalg.norm(noise, axis=1, keepdims=True)
    copies = size * (here + np.concatenate([noise, -noise]))

    def product(v: np.ndarray) -> np.ndarray:
        after, before = (slopes(copies + side * step * size * v).mean(axis=0) for side in (1, -1))
        return tangent((after - before) / (2 * step) * size / gain) - radial * v

    start = tangent(rng.normal(size=z.size))
    values, vectors = lanczos(product, start, max(iterations, directions), tangent)
    turn = np.radians(_TURN)
    ends = [
        size * (np.cos(turn) * here + side * np.sin(turn) * v)
        for v in vectors.T
        for side in (1, -1)
    ]
    shares = (responses(model, unit, np.clip(shown(np.stack(ends)), 0, 1)) - blank) / gain
    order = np.argsort(-shares.reshape(-1, 2).min(axis=1), kind="stable")[:directions]
    return [
        _walk(model, unit, image, shown, here, vectors[:, k], size, blank, gain, float(values[k]))
        for k in order
    ]


def lanczos(
    product: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    iterations: int,
    project: Callable[[np.ndarray], np.ndarray] = lambda v: v,
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of a symmetric operator, the outermost ones best.

    Lanczos 1950, with every vector made orthogonal to all before it.

    Args:
        product: of the operator and a vector (d,).
        start: (d,), not 0.
        iterations: at most; fewer where the space that the vectors span is whole.
        project: onto the subspace that the operator acts in.

    Returns:
        Values (k,), growing, and unit vectors (d, k).
    """
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(iterations):
        w = product(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        for _ in range(2):  # once is not enough in floating point
            known = np.stack(basis, axis=1)
            w = project(w - known @ (known.T @ w))
        size = float(np.linalg.norm(w))
        if len(diagonal) == iterations or size < 1e-6 * max(1.0, max(map(abs, diagonal))):
            break
        beside.append(size)
        basis.append(w / size)
    count = len(diagonal)
    matrix = np.diag(diagonal) + np.diag(beside[: count - 1], 1) + np.diag(beside[: count - 1], -1)
    values, within = np.linalg.eigh(matrix)
    return values, np.stack(basis[:count], axis=1) @ within


def _band(z: np.ndarray, share: float) -> Callable[[np.ndarray], np.ndarray]:
    """A projection onto the fewest frequencies that hold a share of the power of offsets."""
    if share >= 1:
        return lambda v: v
    power = np.sum(np.abs(np.fft.fft2(z, axes=(0, 1))) ** 2, axis=2)
    # A wave and its mirror have equal power: both are in, or neither.
    rounded = np.round(power / power.max(), 9)
    ranks = np.sort(rounded.ravel())[::-1]
    least = ranks[np.searchsorted(np.cumsum(ranks), share * ranks.sum())]
    mask = (rounded >= least)[..., None]

    def project(v: np.ndarray) -> np.ndarray:
        spectrum = np.fft.fft2(v.reshape(z.shape), axes=(0, 1)) * mask
        return np.asarray(np.fft.ifft2(spectrum, axes=(0, 1)).real).ravel()

    return project


def _walk(
    model: Model,
    unit: Objective,
    image: np.ndarray,
    shown: Callable[[np.ndarray], np.ndarray],
    here: np.ndarray,
    there: np.ndarray,
    size: float,
    blank: float,
    gain: float,
    curvature: float,
) -> Walk:
    def at(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turn = np.radians(degrees)[:, None]
        images = np.clip(shown(size * (np.cos(turn) * here + np.sin(turn) * there)), 0, 1)
        return images, (responses(model, unit, images) - blank) / gain

    _, shares = at(np.concatenate([ANGLES, -ANGLES]))
    ends = [_fallen(side) for side in np.split(shares, 2)]
    angle = min(ends)
    images, shares = at(np.linspace(-angle, angle, 7))
    return Walk(curvature, angle, images, shares)


def _fallen(shares: np.ndarray) -> float:
    """The angle at which shares along `ANGLES` fall below 0.9, between two of them by a line."""
    below = np.flatnonzero(shares < 0.9)
    if not len(below):
        return float(ANGLES[-1])
    place = int(below[0])
    if place == 0:
        return 0.0
    before, after = shares[place - 1], shares[place]
    part = (before - 0.9) / (before - after)
    return float(ANGLES[place - 1] + part * (ANGLES[place] - ANGLES[place - 1]))
