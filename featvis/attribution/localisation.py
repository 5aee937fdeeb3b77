"""Weakly supervised localisation: from a saliency map to a box around the object.

Simonyan et al. 2013, "Deep Inside Convolutional Networks", section 3.2. The most and the least
salient pixels say what the colours of the object and of its surroundings are, a graph cut divides
the picture by these colours, and the largest connected part is the object. Boxes need NumPy alone,
the cut OpenCV (the package opencv-python-headless, or the extra `localisation`).
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from featvis import checks
from featvis.errors import FeatvisError, InputError
from featvis.images import Images, image_array

#: Gaussians in each of GrabCut's two mixtures of colours.
_COMPONENTS = 5


class Box(NamedTuple):
    """A rectangle in pixels: columns left to right - 1, rows top to bottom - 1.

    Right and bottom are the first column and row outside, as in slices and in Pillow: the area is
    (right - left) · (bottom - top), and the whole picture is (0, 0, width, height).

    Attributes:
        left: first column.
        top: first row.
        right: column after the last.
        bottom: row after the last.
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Area in pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Area of the intersection of two boxes by that of their union, 0 to 1.

    Args:
        a: (left, top, right, bottom), as in `Box`.
        b: another.

    Raises:
        InputError: not four finite numbers, or no area.
    """
    first, second = _box("a", a), _box("b", b)
    width = min(first.right, second.right) - max(first.left, second.left)
    height = min(first.bottom, second.bottom) - max(first.top, second.top)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (first.area + second.area - shared)


def centre_box(size: tuple[int, int], fraction: float) -> Box:
    """The box in the middle of a picture and of its proportions: what knows nothing of it.

    Args:
        size: (height, width) of the picture.
        fraction: of the picture's height and width, above 0 and at most 1; the area is its square.

    Raises:
        InputError: a fraction or a size out of range.
    """
    if not isinstance(fraction, numbers.Real) or not 0 < fraction <= 1:
        raise InputError(f"fraction must be above 0 and at most 1; got {fraction!r}")
    height, width = checks.image_size("centre_box", "size", size)
    left, top = width * (1 - fraction) / 2, height * (1 - fraction) / 2
    return Box(left, top, width - left, height - top)


def localise(
    image: Images,
    saliency: ArrayLike,
    *,
    foreground: float = 0.95,
    background: float = 0.30,
    fixed: bool = False,
    iterations: int = 0,
    seed: int = 0,
) -> Box:
    """The box around the object: that of `segment`'s mask, with the same arguments and errors.

    Simonyan et al. 2013, section 3.2.
    """
    mask = segment(
        image,
        saliency,
        foreground=foreground,
        background=background,
        fixed=fixed,
        iterations=iterations,
        seed=seed,
    )
    return bounding_box(mask)


def bounding_box(mask: ArrayLike) -> Box:
    """The smallest box that holds all of a mask.

    Args:
        mask: (h, w), bool.

    Raises:
        InputError: another shape or kind, or nothing in it.
    """
    inside = np.asarray(mask)
    if inside.ndim != 2 or inside.dtype != bool or not inside.any():
        raise InputError(
            "mask must be (h, w) of bool with something in it; got an array "
            f"{inside.shape} of {inside.dtype} with {np.count_nonzero(inside)} pixels"
        )
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def segment(
    image: Images,
    saliency: ArrayLike,
    *,
    foreground: float = 0.95,
    background: float = 0.30,
    fixed: bool = False,
    iterations: int = 0,
    seed: int = 0,
) -> np.ndarray:
    """The largest connected part of what the saliency and the colours say is foreground.

    Simonyan et al. 2013, section 3.2: a mixture of five Gaussians is fitted to the colours of the
    most salient pixels and another to those of the least salient ones, and a graph cut (Boykov &
    Jolly 2001) divides the picture by these colours and by the edges between neighbours.

    Args:
        image: (h, w, 3), or (h, w, 1) for grey, in [0, 1].
        saliency: (h, w), 0 or more.
        foreground: quantile of the saliency from which a pixel is foreground.
        background: quantile of the saliency up to which a pixel is background.
        fixed: whether these pixels stay what they are in the cut, as seeds; else they only say
            what the colours are, and the map has no other part in the cut.
        iterations: times that the mixtures are then fitted to the two sides and the picture is cut
            again, as GrabCut does (Rother et al. 2004); 0: one cut, as in the paper.
        seed: of the first fit; the state that OpenCV's random numbers start from.

    Returns:
        (h, w), bool: connected by edges, not by corners.

    Raises:
        InputError: shapes, ranges or quantiles that do not fit, a map so flat or so small that
            either side has fewer than five pixels, or a cut that leaves no foreground.
        FeatvisError: OpenCV is not installed.
    """
    cv2 = _opencv()
    colours, relevance = _checked(image, saliency)
    iterations = checks.integer("segment", "iterations", iterations, 0)
    seed = checks.integer("segment", "seed", seed, 0)
    fixed = checks.switch("segment", "fixed", fixed)
    foreground = checks.number("segment", "foreground", foreground)
    background = checks.number("segment", "background", background)
    if not 0 <= background < foreground <= 1:
        raise InputError(
            "quantiles must be 0 <= background < foreground <= 1; "
            f"got background {background!r}, foreground {foreground!r}"
        )
    low, high = np.quantile(relevance, [background, foreground])
    outside = relevance <= low
    # Of a map with many equal values: what is at the upper quantile belongs to it.
    inside = (relevance >= high) & ~outside
    if min(inside.sum(), outside.sum()) < _COMPONENTS:
        raise InputError(
            f"the saliency gives {inside.sum()} pixels of foreground and {outside.sum()} of "
            f"background, and {_COMPONENTS} of each are needed: it is flat, or too small"
        )

    # The mixtures are fitted to these pixels alone, as to a picture of one row.
    chosen = inside | outside
    mixtures = np.zeros((1, 65)), np.zeros((1, 65))
    row = np.where(inside[chosen], cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)[None]
    cv2.setRNGSeed(seed)
    cv2.grabCut(colours[chosen][None], row, None, *mixtures, 0, cv2.GC_INIT_WITH_MASK)
    labels = np.full(relevance.shape, cv2.GC_PR_BGD, np.uint8)
    if fixed:
        labels[inside], labels[outside] = cv2.GC_FGD, cv2.GC_BGD
    cv2.grabCut(colours, labels, None, *mixtures, 1, cv2.GC_EVAL_FREEZE_MODEL)
    if iterations:
        cv2.grabCut(colours, labels, None, *mixtures, iterations, cv2.GC_EVAL)

    found = np.isin(labels, [cv2.GC_FGD, cv2.GC_PR_FGD]).astype(np.uint8)
    if not found.any():
        raise InputError(
            "the cut leaves no foreground: the salient pixels are scattered or have the "
            "background's colours; fixed=True keeps them"
        )
    _, parts, figures, _ = cv2.connectedComponentsWithStats(found, connectivity=4)
    largest = 1 + int(np.argmax(figures[1:, cv2.CC_STAT_AREA]))
    return np.asarray(parts == largest)


def _box(name: str, values: Sequence[float]) -> Box:
    sides = checks.real_array(name, values, np.float64)
    if sides.shape != (4,) or not np.isfinite(sides).all():
        raise InputError(f"{name} must be (left, top, right, bottom); got {values!r}")
    given = tuple(sides.tolist())
    box = Box(*given)
    if box.left >= box.right or box.top >= box.bottom:
        raise InputError(f"{name} has no area: (left, top, right, bottom) = {given}")
    return box


def _checked(image: Images, saliency: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The image as 8 bits (h, w, 3), and the map."""
    relevance = checks.real_array("saliency", saliency, np.float64)
    channels = 1 if tuple(getattr(image, "shape", ()))[-1:] == (1,) else 3
    size = relevance.shape if relevance.ndim == 2 else None
    picture = image_array(image, channels, size, what="image", dtype=np.float64)
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        raise InputError(f"image must be (h, w, 3) or (h, w, 1); got an array {picture.shape}")
    if relevance.shape != picture.shape[:2]:
        raise InputError(
            f"saliency must be {picture.shape[:2]} as the image; got an array {relevance.shape}"
        )
    if not (np.all(relevance >= 0) and np.all(np.isfinite(relevance))):
        raise InputError("saliency must be finite and 0 or more")
    levels = np.round(picture * 255).astype(np.uint8)
    return np.repeat(levels, 3 // picture.shape[-1], axis=-1), relevance


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise FeatvisError(
            "localisation needs OpenCV: pip install opencv-python-headless"
        ) from error
    return cv2
