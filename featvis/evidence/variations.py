"""Known transformations of a stimulus, and how a unit's response follows them: tuning curves.

A stimulus is an image in [0, 1] that is grey (0.5) outside a window, and its offsets from grey are
what is moved, turned or scaled. A response is relative: 1 for the stimulus itself, 0 for grey.

The index of a family of transformations is the mean of the relative responses over the family's
amounts, cut off at 0 and at 1: 1 where the unit ignores them all, 0 where its response averages
out. The same for a linear unit whose weights are the stimulus is `chance`: what a unit ignores
because of the picture and not because of what it computes. The width is how far the response stays
at a half at least, from the stimulus on, in the family's own units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from featvis.evidence.responses import responses
from featvis.models import Model
from objectives import Objective

#: Of random fields at each strength of deformation.
_DEFORMATIONS = 4
#: The highest frequency of a deformation along a side, in half waves.
_CUTOFF = 4


class Family(NamedTuple):
    """Images of a transformation of growing amount.

    Attributes:
        name: of the transformation.
        unit: of the amounts.
        amounts: (k,), growing.
        images: (k, draws, h, w, c) in [0, 1].
        cyclic: whether the last amount is next to the first.
    """

    name: str
    unit: str
    amounts: np.ndarray
    images: np.ndarray
    cyclic: bool


class Tuning(NamedTuple):
    """How a unit responds along a family, relative to the stimulus.

    Attributes:
        name: of the transformation.
        unit: of the amounts.
        amounts: (k,).
        responses: (k,), 1 for the stimulus itself and 0 for grey.
        linear: (k,), those of a linear unit whose weights are the stimulus.
        value: the index of invariance, in [0, 1].
        chance: the index of that linear unit.
        width: the range of amounts around the stimulus over which the response is a half at least.
    """

    name: str
    unit: str
    amounts: np.ndarray
    responses: np.ndarray
    linear: np.ndarray
    value: float
    chance: float
    width: float


def tuning_curves(
    model: Model,
    unit: Objective,
    image: np.ndarray,
    window: Sequence[int],
    *,
    blank: float,
    rectified: bool = False,
    seed: int = 0,
) -> list[Tuning]:
    """The curves of all families, for one stimulus.

    Args:
        model: the network.
        unit: one unit at one place.
        image: the stimulus (h, w, c).
        window: (top, left, height, width) in which it is not grey.
        blank: the unit's activation for plain grey.
        rectified: whether the unit is never below that; the linear unit is not, then, either.
        seed: of the deformations.
    """
    found = list(families(image, window, seed))
    stacked = np.concatenate([one.images.reshape(-1, *image.shape) for one in found])
    # All at once: one program, and its batches are filled.
    scores = responses(model, unit, np.concatenate([image[None], stacked]))
    gain = float(scores[0]) - blank
    relative = (scores[1:] - blank) / gain
    z = _inside(image, window)
    projected = (stacked - 0.5).reshape(len(stacked), -1) @ (image - 0.5).ravel() / np.sum(z * z)
    if rectified:
        projected = np.maximum(projected, 0)
    curves, start = [], 0
    for one in found:
        count = one.images.shape[0] * one.images.shape[1]
        rows = slice(start, start + count)
        start += count
        shape = one.images.shape[:2]
        curve, linear = (a[rows].reshape(shape).mean(axis=1) for a in (relative, projected))
        curves.append(
            Tuning(one.name, one.unit, one.amounts, curve, linear, index_of(curve),
                   index_of(linear), width_of(one, curve))
        )  # fmt: skip
    return curves


def index_of(curve: np.ndarray) -> float:
    """The mean of relative responses, cut off at 0 and 1."""
    return float(np.clip(np.mean(curve), 0, 1))


def width_of(family: Family, curve: np.ndarray) -> float:
    """The range of amounts about the stimulus itself where the response is a half at least.

    Each amount counts with the step between two of them; the whole range at most.
    """
    high = curve >= 0.5
    start = int(np.argmin(np.abs(family.amounts - _identity(family))))
    if not high[start]:
        return 0.0
    step = float(np.mean(np.diff(family.amounts)))
    count = len(high)
    if family.cyclic:
        if high.all():
            return count * step
        turned = np.roll(high, -start)
        return float((np.argmin(turned) + np.argmin(turned[::-1])) * step)
    after = np.argmin(np.append(high[start:], False))
    before = np.argmin(np.append(high[start::-1], False))
    return float((after + before - 1) * step)


def _identity(family: Family) -> float:
    return 1.0 if family.name == "contrast" else 0.0


# ---- families


def families(image: np.ndarray, window: Sequence[int], seed: int = 0) -> Iterator[Family]:
    """Transformations of a stimulus: see `FAMILIES`.

    Args:
        image: (h, w, c) in [0, 1].
        window: (top, left, height, width) in which it is not grey.
        seed: of the deformations.
    """
    top, left, height, width = window
    z = _inside(image, window)
    side = min(height, width)

    def shown(offsets: np.ndarray) -> np.ndarray:
        out = np.full((len(offsets), *image.shape), 0.5, np.float32)
        inner = out[:, top : top + height, left : left + width]
        inner += offsets
        return np.clip(out, 0, 1)

    def family(
        name: str, unit: str, amounts: Sequence[float] | np.ndarray, make: _Change, cyclic: bool
    ) -> Family:
        images = shown(np.stack([make(z, float(amount)) for amount in amounts]))
        return Family(name, unit, np.asarray(amounts, float), images[:, None], cyclic)

    most = max(1, min(16, side // 4))
    shifts = np.arange(-most, most + 1)
    yield family("shift x", "px", shifts, lambda z, s: shifted(z, 0, int(s)), False)
    yield family("shift y", "px", shifts, lambda z, s: shifted(z, int(s), 0), False)
    yield family("rotation", "°", np.arange(0, 360, 15), rotated, True)
    yield family("scale", "octaves", np.linspace(-1, 1, 13), scaled, False)
    yield family("phase", "°", np.arange(0, 360, 22.5), phase_shifted, True)
    yield family("contrast", "×", np.linspace(0.1, 1, 10), lambda z, s: s * z, False)
    yield family("brightness", "", np.linspace(-0.25, 0.25, 11), lambda z, s: z + s, False)
    if image.shape[2] == 3:
        yield family("hue", "°", np.arange(0, 360, 30), hue_turned, True)
    yield family("blur", "px", np.linspace(0, side / 16, 9), blurred, False)
    yield family("occlusion", "of the radius", np.linspace(0, 0.9, 10), occluded, False)
    rng = np.random.default_rng(seed)
    fields = [displacement(rng, height, width) for _ in range(_DEFORMATIONS)]
    strengths = np.linspace(0, side / 16, 7)
    bent = [[_same_norm(bend(z, s * field), z) for field in fields] for s in strengths]
    images = shown(np.concatenate([np.stack(some) for some in bent]))
    shape = (len(strengths), _DEFORMATIONS, *image.shape)
    yield Family("deformation", "px", strengths, images.reshape(shape), False)


#: Their names, in order; the hue is of images of three channels.
FAMILIES = (
    *("shift x", "shift y", "rotation", "scale", "phase", "contrast", "brightness", "hue", "blur"),
    *("occlusion", "deformation"),
)

_Change = Callable[[np.ndarray, float], np.ndarray]


def shifted(z: np.ndarray, down: int, right: int) -> np.ndarray:
    """Offsets (h, w, c) moved by whole pixels; grey comes in, and what leaves is lost."""
    out = np.zeros_like(z)
    height, width = z.shape[:2]
    rows, columns = (
        (slice(max(0, s), side + min(0, s)), slice(max(0, -s), side + min(0, -s)))
        for s, side in ((down, height), (right, width))
    )
    out[rows[0], columns[0]] = z[rows[1], columns[1]]
    return out


def rotated(z: np.ndarray, degrees: float) -> np.ndarray:
    """Offsets turned about the middle, of the norm that they had."""
    if degrees == 0:
        return z
    turn = np.radians(degrees)
    y, x = _centred(z)
    places = np.cos(turn) * y + np.sin(turn) * x, -np.sin(turn) * y + np.cos(turn) * x
    return _same_norm(_sampled(z, *places), z)


def scaled(z: np.ndarray, octaves: float) -> np.ndarray:
    """Offsets magnified by 2^octaves about the middle, of the norm that they had."""
    if octaves == 0:
        return z
    y, x = _centred(z)
    return _same_norm(_sampled(z, y / 2.0**octaves, x / 2.0**octaves), z)


def phase_shifted(z: np.ndarray, degrees: float) -> np.ndarray:
    """Offsets whose waves have another phase: cos φ · z − sin φ · H z, of the norm that they had.

    H is the Hilbert transform along the direction in which the stimulus varies most: the main axis
    of its power spectrum. A Gabor patch and its transform are a quadrature pair.
    """
    if degrees == 0:
        return z
    angle = np.radians(degrees)
    return _same_norm(np.cos(angle) * z - np.sin(angle) * hilbert(z), z)


def hilbert(z: np.ndarray) -> np.ndarray:
    """The Hilbert transform of offsets (h, w, c) along the main axis of their power spectrum."""
    spectrum = np.fft.fft2(z, axes=(0, 1))
    power = np.sum(np.abs(spectrum) ** 2, axis=2)
    fy, fx = np.fft.fftfreq(z.shape[0])[:, None], np.fft.fftfreq(z.shape[1])[None]
    moments = [[np.sum(power * a * b) for a in (fy, fx)] for b in (fy, fx)]
    _, axes = np.linalg.eigh(np.array(moments))
    along = axes[0, -1] * fy + axes[1, -1] * fx
    turned = np.fft.ifft2(-1j * np.sign(along)[..., None] * spectrum, axes=(0, 1))
    return np.asarray(turned.real, z.dtype)


def hue_turned(z: np.ndarray, degrees: float) -> np.ndarray:
    """Offsets (h, w, 3) whose colours are turned about the grey axis."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return np.asarray(z @ turn.T, z.dtype)


def blurred(z: np.ndarray, sigma: float) -> np.ndarray:
    """Offsets blurred by a Gaussian of a deviation in pixels, with grey around."""
    if sigma == 0:
        return z
    out = z
    for axis in (0, 1):
        places = np.arange(z.shape[axis])
        kernel = np.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
        # As of an endless line: near the rim a part of it is grey.
        kernel /= np.exp(-0.5 * (np.arange(-len(places), len(places) + 1) / sigma) ** 2).sum()
        out = np.moveaxis(np.tensordot(kernel, out, (1, axis)), 0, axis)
    return np.asarray(out, z.dtype)


def occluded(z: np.ndarray, share: float) -> np.ndarray:
    """Offsets of which the rim is grey: all beyond 1 − share of the radius to the corners."""
    y, x = _centred(z)
    radius = np.hypot(y, x)
    return np.asarray(z * (radius <= (1 - share) * radius.max() + 1e-9)[..., None], z.dtype)


def displacement(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth random field of displacements (2, h, w), root mean square 1, 0 at the border.

    Petrini et al. 2021, "Relative stability toward diffeomorphisms indicates performance in deep
    nets": sums of sines with normal amplitudes of the variance 1/(i² + j²).
    """
    i = np.arange(1, _CUTOFF + 1)
    rows, columns = (
        np.sin(np.pi * (np.arange(side)[:, None] + 0.5) / side * i) for side in (height, width)
    )
    amplitude = rng.normal(size=(2, _CUTOFF, _CUTOFF)) / np.hypot(i[:, None], i)
    field = np.einsum("yi,dij,xj->dyx", rows, amplitude, columns)
    return field / np.sqrt(np.mean(np.sum(field**2, axis=0)))


def bend(z: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Offsets (h, w, c) taken at places that are displaced by a field (2, h, w) in pixels."""
    y, x = _centred(z)
    return _sampled(z, y + field[0], x + field[1])


def _inside(image: np.ndarray, window: Sequence[int]) -> np.ndarray:
    top, left, height, width = window
    return np.asarray(image, np.float64)[top : top + height, left : left + width] - 0.5


def _centred(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the pixels from the middle, (h, w) each."""
    y, x = np.mgrid[: z.shape[0], : z.shape[1]].astype(float)
    return y - (z.shape[0] - 1) / 2, x - (z.shape[1] - 1) / 2


def _sampled(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Offsets at places from the middle, bilinearly, grey beyond the border."""
    y, x = y + (z.shape[0] + 1) / 2, x + (z.shape[1] + 1) / 2
    padded = np.pad(z, ((1, 1), (1, 1), (0, 0)))
    y, x = np.clip(y, 0, padded.shape[0] - 1), np.clip(x, 0, padded.shape[1] - 1)
    top = np.minimum(y.astype(int), padded.shape[0] - 2)
    left = np.minimum(x.astype(int), padded.shape[1] - 2)
    down, right = (y - top)[..., None], (x - left)[..., None]
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return np.asarray(upper * (1 - down) + lower * down, z.dtype)


def _same_norm(z: np.ndarray, like: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(z)
    return z * (np.linalg.norm(like) / size) if size > 0 else z
