"""An image as the phases of its spectrum, under magnitudes that stay what they are."""

from __future__ import annotations

import math
from abc import abstractmethod

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from featvis.errors import InputError
from featvis.images import Images, as_images
from featvis.kernels.trigonometry import cosine_and_sine
from featvis.parameterizations import color
from featvis.parameterizations.parameterization import Parameterization, Params, logit
from objectives import leaf


class OfPhase(Parameterization):
    """Phases under the magnitudes that a subclass says.

    `logit(image) = colours(irfft2(spectrum * exp(i * phase)))`. The parameters are `phase`, in
    radians, (c, h, w // 2 + 1) float32. For an image to be real, the phases of the first column
    (and of the last, for an even width) must be odd in the vertical frequency: their odd part is
    what counts, so that the magnitudes are the given ones in every bin.
    """

    @abstractmethod
    def spectrum(self) -> ArrayLike:
        """Return the magnitudes, (c, h, w // 2 + 1), signed where a bin has no phase."""

    def init(self, key: jax.Array) -> Params:
        """Draw uniform phases within [-pi, pi]."""
        shape = (self.channels, self.size[0], self.size[1] // 2 + 1)
        # Drawn flat, as in `draw_normal`: several axes take long to compile.
        flat = jax.random.uniform(key, (math.prod(shape),), jnp.float32, -math.pi, math.pi)
        return {"phase": flat.reshape(shape)}

    def decode(self, params: Params) -> jax.Array:
        """Turn phases into one image, (h, w, c) float32 in [0, 1]."""
        phase = self._odd(params["phase"])
        magnitude = jnp.asarray(self.spectrum(), jnp.float32)
        cosine, sine = cosine_and_sine(phase)
        spectrum = jax.lax.complex(magnitude * cosine, magnitude * sine)
        planes = jnp.fft.irfft2(spectrum, s=self.size)
        return jax.nn.sigmoid(jnp.moveaxis(color.correlate(planes), 0, -1))

    def encode(self, image: jax.Array) -> Params:
        """Return the phases of `image`, (h, w, c) in [0, 1]; its magnitudes are not kept.

        Raises:
            InputError: if the image has another shape.
        """
        planes = color.decorrelate(jnp.moveaxis(logit(self._check_image(image)), -1, 0))
        return {"phase": self._odd(jnp.angle(jnp.fft.rfft2(planes)))}

    def _odd(self, phase: jax.Array) -> jax.Array:
        """Make the self-conjugate columns odd in the vertical frequency."""
        width = self.size[1]
        own = np.arange(width // 2 + 1) == 0
        if width % 2 == 0:
            own[-1] = True
        mirrored = jnp.roll(phase[:, ::-1], 1, axis=1)
        return jnp.where(jnp.asarray(own)[None, None], (phase - mirrored) / 2, phase)


class Phases(OfPhase):
    """Only the phases are optimised; the magnitudes are those of one image.

    What an image's own frequencies allow, wherever its edges lie: the free parameters of feature
    accentuation by phase. `Phases.of(image)` is made of an image, and `encode(image)` then gives
    the phases that it has. As data, the magnitudes of another image of the size compile nothing.

    Source: Hamblin et al., "Feature Accentuation: Revealing What Features Respond To in Natural
    Images", 2024, the parameterization by phase in the authors' code.

    Args:
        size: (height, width) in pixels, two positive ints.
        channels: number of channels, at least 1.
        magnitudes: (c, h, w // 2 + 1) of the decorrelated logits of the image, signed in the bins
            that are real, which have no phase.

    Raises:
        InputError: at construction, for a field that is out of its range, or magnitudes of another
            shape.
    """

    magnitudes: ArrayLike = leaf()  # type: ignore[misc]  # keyword-only, as it has no default

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        wanted = (self.channels, self.size[0], self.size[1] // 2 + 1)
        if np.shape(self.magnitudes) != wanted:
            raise InputError(
                f"Phases: magnitudes are (channels, height, width // 2 + 1) = {wanted}, not an "
                f"array of shape {np.shape(self.magnitudes)}; Phases.of makes them of an image"
            )

    @classmethod
    def of(cls, image: Images, channels: int = 3) -> Phases:
        """Return the parameterization by the phases of one image.

        Args:
            image: (h, w, c) in [0, 1] or of uint8, or a picture file.
            channels: that it has.

        Raises:
            InputError: what is no such image.
        """
        shown = as_images(image, channels, what="image")
        if len(shown) != 1:
            raise InputError(f"Phases.of takes one image (h, w, c), not {len(shown)}")
        planes = color.decorrelate(jnp.moveaxis(logit(jnp.asarray(shown[0])), -1, 0))
        spectrum = jnp.fft.rfft2(planes)
        height, width = shown.shape[1:3]
        rows, columns = (np.isin(np.arange(n), (0, n / 2)) for n in (height, width))
        real = rows[:, None] & columns[None, : width // 2 + 1]
        magnitudes = jnp.where(jnp.asarray(real), spectrum.real, jnp.abs(spectrum))
        return cls((height, width), channels, magnitudes=np.asarray(magnitudes))

    def spectrum(self) -> ArrayLike:
        """Return the magnitudes that were given."""
        return self.magnitudes
