"""Transforms that change values: blur, noise, colours and a part that is hidden."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks, kernels, limits
from featvis.kernels.resampling import apply_separable
from featvis.transforms.schedules import Scheduled, number_or_schedule
from featvis.transforms.transform import Transform, uniform


class Blur(Transform):
    """Gaussian blur, the same for every image; beyond the border lies the nearest pixel.

    The kernel is the Gaussian at whole pixels, cut off and divided by its sum. It does not draw
    from the key.

    Args:
        sigma: standard deviation in pixels, above 0 and at most 1000.
        radius: of the kernel in pixels, 1 (which is 3x3) to 4000; None for `ceil(3 sigma)`.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    sigma: float
    radius: int | None = None

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.positive(self, "sigma", self.sigma)
        checks.set_fields(self, sigma=checks.number(self, "sigma", self.sigma, 0, 1000))
        if self.radius is not None:
            checks.set_fields(self, radius=checks.integer(self, "radius", self.radius, 1, 4000))

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        rows, columns = (jnp.asarray(self._matrix(n), jnp.float32) for n in image.shape[:2])
        return apply_separable(rows, columns, image)

    def _matrix(self, length: int) -> np.ndarray:
        """(length, length) weights of the inputs for each output along one axis."""
        radius = math.ceil(3 * self.sigma) if self.radius is None else self.radius
        offsets = np.arange(-radius, radius + 1)
        kernel = np.exp(-(offsets**2) / (2 * self.sigma**2))
        limits.require(2 * 8 * length**2, f"Blur of {length} pixels in a row")
        matrix = np.zeros((length, length))
        places = np.arange(length)
        for offset, weight in zip(offsets, kernel / kernel.sum(), strict=True):
            np.add.at(matrix, (places, np.clip(places + offset, 0, length - 1)), weight)
        return matrix


class Noise(Transform):
    """Add normal noise, independent for every pixel and channel; the result is not clipped.

    Args:
        sd: standard deviation in units of intensity, at least 0, or a schedule.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    sd: Scheduled

    def __post_init__(self) -> None:
        """Check the field and turn it into a plain literal."""
        checks.set_fields(self, sd=number_or_schedule(self, "sd", self.sd, 0))

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        # Drawn flat: several axes take long to compile.
        # Kept: merged into a padding that reads it, it would be made a number at a time.
        noise = kernels.kept(jax.random.normal(key, (image.size,), image.dtype))
        noise = noise.reshape(image.shape)
        return image + self.sd * noise


class ColorShift(Transform):
    """Scale and shift each channel: `image * exp(a) + b`, a and b uniform; not clipped.

    Source: Ghiasi et al., "Plug-In Inversion", ICML 2022 (strength 1).

    Args:
        strength: a and b are drawn for each channel from [-strength, strength], at least 0, or a
            schedule.

    Raises:
        InputError: at construction, for a field out of its range.
    """

    strength: Scheduled = 1.0

    def __post_init__(self) -> None:
        """Check the field and turn it into a plain literal."""
        checks.set_fields(self, strength=number_or_schedule(self, "strength", self.strength, 0))

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        bounds = (-self.strength, self.strength)
        scale, shift = uniform(key, bounds, (2, 1, 1, image.shape[2]))
        return image * jnp.exp(scale) + shift


class Cutout(Transform):
    """Hide a rectangle of the picture's proportions: what is shown must not stand in one place.

    Its centre is anywhere in the picture, so that it may reach over the border.

    Source: DeVries & Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017, section 3.2 (there squares of half of the side or less).

    Args:
        side: of the rectangle over that of the picture, 0 to 1, or a schedule.
        value: intensity in its place, within [0, 1].

    Raises:
        InputError: at construction, for a field out of its range.
    """

    side: Scheduled = 0.25
    value: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.set_fields(
            self,
            side=number_or_schedule(self, "side", self.side, 0, 1),
            value=checks.number(self, "value", self.value, 0, 1),
        )

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Transform `image`, (h, w, c), with the randomness of `key`."""
        places = uniform(key, (0.0, 1.0), (2,))
        rows, columns = (
            jnp.abs((jnp.arange(count, dtype=jnp.float32) + 0.5) / count - place) < self.side / 2
            for count, place in zip(image.shape[:2], places, strict=True)
        )
        return jnp.where((rows[:, None] & columns[None])[..., None], self.value, image)
