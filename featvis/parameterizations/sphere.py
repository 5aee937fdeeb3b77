"""An image of a fixed contrast within a window, as stimuli of a neuron have it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.kernels import kept
from featvis.parameterizations.parameterization import Parameterization, Params, draw_normal

#: Rounds in which the pixels that the box cuts off are found; each cuts off more, and few do.
_ROUNDS = 8


class FixedNorm(Parameterization):
    """Offsets from mid-grey of a fixed norm over a window: `0.5 + contrast · z / rms(z)`.

    What drives a unit is then its shape and not its contrast (Cadena et al. 2018: half of the norm
    of natural images on the receptive field, which is 0.12 to 0.13 of the range in their code for
    VGG-19). The gradient has no part along the norm. Where an offset would leave [0, 1] it is cut
    off, and the others are scaled so that the norm is as asked.

    The parameters are `pixels`, (h, w, c) float32 of the window; their size does not matter.

    Args:
        size: (height, width) in pixels, two positive ints.
        channels: number of channels, at least 1.
        contrast: root mean square of the offsets in the window, above 0 and below 0.5.
        window: (top, left, height, width) of the pixels that are not grey: a receptive field.
            None: all.
        decay: of the spectrum of `z` beside that of the parameters, f^-decay with f in cycles a
            window and 1 below that, at least 0: with 1, noise is as natural images are, and a step
            moves what is coarse first.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    contrast: float = 0.125
    window: Sequence[int] | None = None
    decay: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        checks.set_fields(self, contrast=checks.positive(self, "contrast", self.contrast))
        if self.contrast >= 0.5:
            raise checks.error(self, "contrast", "a number below 0.5", self.contrast)
        checks.set_fields(self, decay=checks.number(self, "decay", self.decay, 0, 4))
        if self.window is None:
            return
        given = self.window if isinstance(self.window, (tuple, list)) else ()
        expected = f"(top, left, height, width) within {self.size}"
        if len(given) != 4:
            raise checks.error(self, "window", expected, self.window)
        top, left, height, width = (checks.integer(self, "window", side, 0) for side in given)
        inside = top + height <= self.size[0] and left + width <= self.size[1]
        if not (inside and height and width):
            raise checks.error(self, "window", expected, self.window)
        checks.set_fields(self, window=(top, left, height, width))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the window."""
        if self.window is None:
            return (0, 0, *self.size)
        top, left, height, width = self.window
        return top, left, height, width

    @property
    def norm(self) -> float:
        """The Euclidean norm of all offsets."""
        _, _, height, width = self.box
        return self.contrast * math.sqrt(height * width * self.channels)

    def init(self, key: jax.Array) -> Params:
        """Draw standard normal values."""
        return {"pixels": draw_normal(key, [(*self.box[2:], self.channels)])[0]}

    def decode(self, params: Params) -> jax.Array:
        """Turn (h', w', c) values of the window into an image (h, w, c) in [0, 1]."""
        top, left, height, width = self.box
        inside = self._on_sphere(self._filtered(params["pixels"], -self.decay))
        below, right = self.size[0] - top - height, self.size[1] - left - width
        return 0.5 + jnp.pad(inside, ((top, below), (left, right), (0, 0)))

    def encode(self, image: jax.Array) -> Params:
        """Return the values of `image`, (h, w, c) in [0, 1], in the window.

        They decode to an image of the asked contrast: `image` itself where it has that.

        Raises:
            InputError: if the image has another shape.
        """
        top, left, height, width = self.box
        image = self._check_image(image)[top : top + height, left : left + width]
        offsets = self._filtered((image - 0.5) / self.contrast, self.decay)
        # Of the size that parameters have at first, whatever their spectrum.
        tiny = float(jnp.finfo(jnp.float32).tiny)
        return {"pixels": offsets * jax.lax.rsqrt(jnp.maximum(jnp.mean(offsets**2), tiny))}

    def _filtered(self, pixels: jax.Array, power: float) -> jax.Array:
        """Pixels (h, w, c) whose spectrum is multiplied by f^power."""
        if not power:
            return pixels
        height, width = pixels.shape[:2]
        y, x = np.fft.fftfreq(height, 1 / height), np.fft.rfftfreq(width, 1 / width)
        factors = np.maximum(1.0, np.hypot(y[:, None], x[None]))[..., None] ** power
        spectrum = jnp.fft.rfft2(pixels, axes=(0, 1)) * jnp.asarray(factors, jnp.complex64)
        # Kept: on several devices XLA would hand its FFT for a CPU an array in another order.
        return jnp.fft.irfft2(kept(spectrum), (height, width), axes=(0, 1))

    def _on_sphere(self, pixels: jax.Array) -> jax.Array:
        """The offsets, of the norm and within ±0.5.

        The size of the other pixels is such that the whole has the norm; through it flows the part
        of the gradient that keeps the norm. Pixels that are cut off have a gradient of their own,
        so that they can turn back.
        """
        limit, whole = 0.5, self.norm**2
        tiny = float(jnp.finfo(jnp.float32).tiny)
        still = jax.lax.stop_gradient(pixels)
        cut = jnp.zeros(still.shape, bool)
        for _ in range(_ROUNDS):
            free = jnp.sum(jnp.where(cut, 0, still) ** 2)
            left = jnp.maximum(whole - limit**2 * jnp.sum(cut, dtype=jnp.float32), 0)
            scale = jnp.sqrt(left / jnp.maximum(free, tiny))
            cut = cut | (jnp.abs(scale * still) > limit)
        kept = jnp.where(cut, 0, pixels)
        left = jnp.maximum(whole - limit**2 * jnp.sum(cut, dtype=jnp.float32), 0)
        length = jnp.sum(kept**2)
        size = jnp.sqrt(left) * jax.lax.rsqrt(jnp.maximum(length, tiny))
        turning = jax.lax.stop_gradient(size) * (pixels - still)  # 0, with a slope
        edge = turning + limit * jnp.sign(still)
        return jnp.where(cut, edge, jnp.clip(size * kept, -limit, limit))


def offsets_of(image: np.ndarray | jax.Array, window: Sequence[int]) -> np.ndarray:
    """The offsets from mid-grey of images (..., h, w, c) within a window."""
    top, left, height, width = window
    return np.asarray(image)[..., top : top + height, left : left + width, :] - 0.5
