"""An image as the phase of its spectrum, the magnitude being that of natural images."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from featvis import checks
from featvis.errors import InputError
from featvis.parameterizations import color
from featvis.parameterizations.fourier import frequencies
from featvis.parameterizations.parameterization import CLIP
from featvis.parameterizations.phases import OfPhase

Template = tuple[tuple[float, float, float, float], ...]
"""(mean, c0, c1, c2) of each channel; see `MaCo`."""

NATURAL: Template = (
    (-0.3702, -1.7861, -1.1980, 0.0029),
    (1.2164, -1.2354, -0.7778, 0.0647),
    (-0.2866, -0.8554, -0.7743, 0.0465),
)
"""The spectrum of natural photographs in decorrelated colours, of the form that `MaCo` explains.

`MaCo.from_images` on 471 photographs of ImageNet, of as many classes: those of a sample of 800,
one a class with the longer side 320 pixels, whose shorter side has 224 pixels at least; each cut
to its central square, brought to 224x224 (Lanczos) and rounded to 4 decimals.
"""


class MaCo(OfPhase):
    """Only the phases are optimised; the magnitudes are fixed to a template.

    `logit(image) = colours(irfft2(magnitude * exp(i * phase)))`. The parameters are `phase`, in
    radians, (c, h, w // 2 + 1) float32. For an image to be real, the phases of the first column
    (and of the last, for an even width) must be odd in the vertical frequency: their odd part is
    what counts, and the magnitude of the spectrum equals the template in every bin.

    The template is a few numbers a channel: with f in cycles per pixel and L = ln f,
    `magnitude = sqrt(h * w) * exp(c0 + c1 * L + c2 * L**2)`, and at f = 0 the signed `mean` of the
    channel times `h * w`; it is that of the decorrelated logit for three channels, and of the logit
    for any other number. So it holds for every size.

    A given photograph is out of reach, as its magnitudes are its own. The method's transparency
    map, the accumulated absolute gradient with respect to the image, comes from the loop that
    optimises.

    Source: Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude
    Constrained Optimization", NeurIPS 2023.

    Args:
        size: (height, width) in pixels, two positive ints.
        channels: number of channels, at least 1.
        template: (mean, c0, c1, c2) for each channel; natural photographs by default, for three.

    Raises:
        InputError: at construction, for a field that is out of its range, or a template of
            another number of channels.
    """

    template: Template = NATURAL

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        rows = self.template
        if not isinstance(rows, (tuple, list)) or len(rows) != self.channels:
            raise InputError(
                f"MaCo: template has (mean, c0, c1, c2) for each of {self.channels} channels, not"
                f" {rows!r}; MaCo.from_images makes one from images"
            )
        for row in rows:
            if not isinstance(row, (tuple, list)) or len(row) != 4:
                raise checks.error(self, "template", "(mean, c0, c1, c2) for each channel", row)
        checks.set_fields(
            self, template=tuple(tuple(checks.number(self, "template", v) for v in r) for r in rows)
        )

    @classmethod
    def from_images(cls, images: Iterable[np.ndarray], size: tuple[int, int] | None = None) -> MaCo:
        """Fit the template to images: the mean of their magnitudes, and their mean colour.

        The magnitudes of the (decorrelated) logits are averaged over images of one size, and
        their logarithm is fitted by a parabola in the logarithm of the frequency, each octave
        counting alike.

        Args:
            images: (h, w, c) arrays in [0, 1], all of one shape, of at least 4x4 pixels.
            size: (height, width) to render, or None for that of the images.

        Raises:
            InputError: if there is no image, or if the shapes differ or are too small.
        """
        shape: tuple[int, ...] | None = None
        total, means = np.zeros(()), []
        for image in images:
            array = np.asarray(image, np.float64)
            shape = array.shape if shape is None else shape
            if array.ndim != 3 or array.shape != shape or min(array.shape[:2]) < 4:
                raise InputError(
                    "MaCo: images are (height, width, channels) arrays of one shape and of at"
                    f" least 4x4 pixels, not {array.shape} after {shape}"
                )
            clipped = np.clip(array, CLIP, 1 - CLIP)
            planes = np.moveaxis(np.log(clipped) - np.log1p(-clipped), -1, 0)
            if shape[2] == 3:
                planes = np.einsum("ij,jhw->ihw", color.INVERSE, planes)
            total = total + np.abs(np.fft.rfft2(planes))
            means.append(planes.mean(axis=(1, 2)))
        if shape is None:
            raise InputError("MaCo: from_images takes at least one image, not none")
        frequency = frequencies((shape[0], shape[1]))
        alive = frequency > 0
        # The number of bins at a frequency grows with it: squared weights of 1 / f undo that.
        weights = frequency[alive] ** -0.5
        template = []
        for magnitude, average in zip(total / len(means), np.mean(means, axis=0), strict=True):
            # A spectrum that is zero somewhere (a flat image) has no logarithm.
            level = np.log(np.maximum(magnitude[alive] / math.sqrt(shape[0] * shape[1]), 1e-12))
            c2, c1, c0 = np.polyfit(np.log(frequency[alive]), level, 2, w=weights)
            template.append((float(average), float(c0), float(c1), float(c2)))
        return cls((shape[0], shape[1]) if size is None else size, shape[2], tuple(template))

    def magnitude(self) -> np.ndarray:
        """Return the template for this size, (c, h, w // 2 + 1) float64: `|rfft2|` of the image.

        It is of the image before the colours are mixed and squashed.
        """
        return np.abs(self.spectrum())

    def spectrum(self) -> np.ndarray:
        """Return (c, h, w // 2 + 1) float64 magnitudes, with the mean's sign at frequency 0."""
        height, width = self.size
        frequency = frequencies(self.size)
        frequency[0, 0] = 1
        level = np.log(frequency)
        planes = []
        for mean, c0, c1, c2 in self.template:
            plane = math.sqrt(height * width) * np.exp(c0 + c1 * level + c2 * level**2)
            plane[0, 0] = mean * height * width
            planes.append(plane)
        return np.stack(planes)
