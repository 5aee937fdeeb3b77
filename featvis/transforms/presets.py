"""Named transforms."""

from __future__ import annotations

from collections.abc import Callable

from featvis.transforms.appearance import Noise
from featvis.transforms.geometry import NormalCrop, RandomAffine, RandomResizedCrop, Rotate
from featvis.transforms.schedules import LinearSchedule
from featvis.transforms.transform import Compose, Transform


def _in_proportion(pixels: float, size: tuple[int, int]) -> float:
    """What is `pixels` at a side of 160 or more, and as large a part of a smaller one."""
    return pixels * min(1.0, min(size) / _PRESET_SIDE)


def _standard(size: tuple[int, int]) -> Transform:
    moved = _in_proportion(6, size)
    frame = round(moved)
    return RandomAffine((0.9, 1.1), (-10.0, 10.0), moved, "constant", frame=frame)


def _affine_preset(size: tuple[int, int]) -> Transform:
    return RandomAffine((0.9, 1.1), (-10.0, 10.0), _in_proportion(8, size), "reflect")


def views(size: tuple[int, int], largest: float = 3.3) -> Transform:
    """Parts of a picture, anywhere in it, turned by up to 20 degrees.

    Args:
        size: (height, width) of the pictures in pixels.
        largest: magnification of a part at a side of 160 or more.
    """
    return RandomAffine(
        (1.0, 1 + _in_proportion(largest - 1, size)),
        (-20.0, 20.0),
        _in_proportion(8, size),
        spread=1.0,
    )


def small_views(
    size: tuple[int, int], seen: tuple[int, int] | None, largest: float = 4.0
) -> Transform:
    """Parts of a picture as in `views`, in fewer pixels: several cost what a whole one does.

    Sides of parts are uniform where those of `views` are in their logarithm, so more of them show
    much; in fewer pixels, what they show is smaller, too.

    Args:
        size: (height, width) of the pictures in pixels.
        seen: of the parts, as the network sees them; None for that of the pictures.
        largest: the sides of the picture over those of the smallest part, at a side of 160 or more.
    """
    smallest = 1 / (1 + _in_proportion(largest - 1, size))
    return Compose((Rotate(-20.0, 20.0), RandomResizedCrop(smallest, 1.0, sd=None, size=seen)))


def _maco(size: tuple[int, int]) -> Transform:
    return Compose((NormalCrop(LinearSchedule(0.5, 0.05)), Noise(0.04)))


def _none(size: tuple[int, int]) -> Transform:
    return Compose(())


#: The side in pixels from which on the presets' shifts and frames no longer grow.
_PRESET_SIDE = 160

PRESETS: dict[str, Callable[[tuple[int, int]], Transform]] = {
    "standard": _standard,
    "affine": _affine_preset,
    "views": views,
    "maco": _maco,
    "none": _none,
}
"""Named transforms, for images of a size (height, width) in pixels.

- `standard`: lucid's, a frame of 12 grey pixels, jitter 8, scale 0.9 to 1.1, rotation within 10
  degrees, jitter 4; (h, w) becomes (h + 12, w + 12), as there, for the jitters cut off 12 of the
  frame's 24 pixels. Here they are one shift of up to 6 pixels, in the one resampling that also
  scales and turns. Lucid draws the scale and angle from lists (an angle of 0 more often) and
  resizes the canvas with the picture; here both are uniform, the canvas is fixed and the grey goes
  on outside it.
- `affine`: scale, rotation and a shift of up to 8 pixels, with the picture mirrored at its border
  and its size kept.
- `views`: parts of the picture, from all of it to 1/3.3 of its sides, anywhere in it, turned by up
  to 20 degrees and shifted as in `affine`. As networks are trained on such parts, what has to be
  seen in each is less an accident of one of them (`experiments/recognition.py`).
- `maco`: a crop of 50 % of the sides at first and 5 % at last, and normal noise of 0.04, as the
  code of Fel et al. 2023 has it: 0.08 in images of -1 to 1. Its uniform noise of half as much is
  left out. For crops that show the whole picture see `featvis.methods.maco`.
- `none`: the identity.

Frames, shifts in pixels and the magnification of `views` are for sides of 160 and more; for smaller
images they are in proportion (a shift of 8 would take a quarter of 32 pixels out of sight).
"""
