"""Maps laid over their pictures: colours of even lightness, and transparency by size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from featvis.pictures import grid, to_picture

#: The map cividis of Nuñez, Anderton & Renslow 2018 at 17 even places, in levels of 8 bits: even
#: in lightness, and the same to eyes that see two colours. Between them at most 11 levels are off.
_CIVIDIS = np.array([
    (0, 34, 78), (0, 46, 106), (26, 56, 111), (50, 67, 109), (67, 78, 108), (83, 90, 109),
    (97, 101, 111), (111, 112, 115), (125, 124, 120), (139, 135, 120), (154, 147, 118),
    (170, 160, 115), (187, 173, 109), (204, 186, 100), (221, 200, 88), (239, 215, 72),
    (254, 232, 56),
], np.float32)  # fmt: skip

#: The share of a map's pixels whose size is below that of full colour.
_FULL = 99.0


def colours(values: np.ndarray) -> np.ndarray:
    """The colours (..., 3) in [0, 1] of values (...) in [0, 1], from blue to yellow."""
    places = np.linspace(0, 1, len(_CIVIDIS))
    return np.stack([np.interp(values, places, part) for part in _CIVIDIS.T], axis=-1) / 255


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map over its picture in grey: yellow for the unit, blue against it, clear where neither.

    Colour and opacity are by the size of the value over the 99th percentile of sizes, at most 1.

    Args:
        image: (h, w, c) in [0, 1].
        values: the map (h, w).

    Returns:
        (h, w, 3) in [0, 1].
    """
    size = np.abs(values)
    full = np.percentile(size, _FULL)
    # Of a map that is zero but for a few pixels: the largest.
    full = full if full > 0 else max(float(size.max()), np.finfo(np.float32).tiny)
    share = np.clip(values / full, -1, 1)
    grey = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    opacity = np.abs(share)[..., None]
    return np.asarray(grey * (1 - opacity) + colours((share + 1) / 2) * opacity)


def sheet(images: np.ndarray, maps: np.ndarray, labels: list[str]) -> Image.Image:
    """Each picture and, beside it, its map over it; a row each, with a text under the map.

    Args:
        images: (n, h, w, c) in [0, 1].
        maps: (n, h, w).
        labels: one an image.
    """
    shown, said = [], []
    for image, values, label in zip(images, maps, labels, strict=True):
        picture = to_picture(image) if image.shape[-1] in (1, 3) else to_picture(image[..., :1])
        shown += [picture.convert("RGB"), to_picture(overlay(image, values))]
        said += ["", label]
    return grid(shown, said if any(labels) else (), columns=2)
