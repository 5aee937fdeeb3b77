"""An image that is written at a smaller size and magnified."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.kernels.resampling import apply_separable, resize_weights
from featvis.parameterizations.around import Around
from featvis.parameterizations.parameterization import Params


class Upsampled(Around):
    """A smaller image, magnified bilinearly: `Upsampled((224, 224), of=BoundedPixels((56, 56)))`.

    Pixels are half a pixel from the border, where the edge is repeated. Optimised at growing sizes,
    each from the image before (`init=image`), a picture is settled from coarse to fine.

    Source: Ghiasi et al., "Plug-In Inversion", ICML 2022 (from 2/8 to 8/8 of the side).

    Args:
        size: (height, width) of the image in pixels.
        channels: number of channels, that of `of` (the default).
        of: parameterization of the smaller image, at most of this size.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    wanted = "the parameterization of the smaller image, as Pixels((56, 56))"

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        if self.channels != self._of.channels:
            expected = f"{self._of.channels}, as of {self.of}"
            raise checks.error(self, "channels", expected, self.channels)
        if self._of.size[0] > self.size[0] or self._of.size[1] > self.size[1]:
            raise checks.error(self, "of", f"at most of size {self.size}", self.of)

    def init(self, key: jax.Array) -> Params:
        """Draw the parameters of the smaller image."""
        return self._of.init(key)

    def decode(self, params: Params) -> jax.Array:
        """Magnify the smaller image, to (h, w, c) float32 in [0, 1]."""
        return _apply(self._matrices(), self._of.decode(params))

    def encode(self, image: jax.Array) -> Params:
        """Return the parameters of the smaller image that is nearest to `image` when magnified.

        It is that of least squares, clipped to [0, 1].

        Raises:
            InputError: if the image has another shape.
        """
        return self._of.encode(self._reduced(self._check_image(image)))

    def resume(self, key: jax.Array, picture: jax.Array) -> Params:
        """Return parameters to go on with from a picture, as `of` goes on from the smaller one."""
        resized = jnp.clip(jax.image.resize(picture, self.shape, "cubic"), 0, 1)
        return self._of.resume(key, self._reduced(resized))

    def project(self, params: Params) -> Params:
        """Return the nearest parameters that obey the constraints of `of`."""
        return self._of.project(params)

    def _reduced(self, image: jax.Array) -> jax.Array:
        """The smaller image that is nearest to `image` when magnified, clipped to [0, 1]."""
        inverses = [np.linalg.pinv(matrix) for matrix in self._matrices()]
        return jnp.clip(_apply(inverses, image), 0, 1)

    def _matrices(self) -> list[np.ndarray]:
        """What magnifies along the height, and along the width."""
        return [resize_weights(*lengths) for lengths in zip(self.size, self._of.size, strict=True)]


def _apply(matrices: list[np.ndarray], image: jax.Array) -> jax.Array:
    rows, columns = (jnp.asarray(matrix, jnp.float32) for matrix in matrices)
    return apply_separable(rows, columns, image)
