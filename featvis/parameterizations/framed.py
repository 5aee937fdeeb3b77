"""An image that goes on from a smaller one, with a frame of new noise around it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.parameterizations.around import Around
from featvis.parameterizations.parameterization import Params


class Framed(Around):
    """An image as `of` has it; a run that goes on puts it into the middle of new noise.

    `Framed((84, 84), of=BoundedPixels((84, 84), noise="uniform", sd=0.2887), frame=(14, 14))` takes
    a picture of any size, resizes it bilinearly to 70 x 70, and has a frame of 7 pixels of noise on
    each side. Optimised at growing sizes, a picture grows from its middle.

    Source: Ghiasi et al., "Plug-In Inversion", ICML 2022 (centering).

    Args:
        size: (height, width) of the image in pixels.
        channels: number of channels, that of `of` (the default).
        of: parameterization of the image, of the same size; its noise is the frame's.
        frame: rows and columns of the frame, above and below together, left and right together; of
            an odd number the larger part is below and on the right.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    wanted = "a parameterization, as Pixels((84, 84))"

    frame: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        if self._of.shape != self.shape:
            expected = f"of size {self.size} and {self.channels} channels"
            raise checks.error(self, "of", expected, self.of)
        if not isinstance(self.frame, (tuple, list)) or len(self.frame) != 2:
            raise checks.error(self, "frame", "(rows, columns), two integers", self.frame)
        frame = tuple(checks.integer(self, "frame", one, 0) for one in self.frame)
        if frame[0] >= self.size[0] or frame[1] >= self.size[1]:
            raise checks.error(self, "frame", f"smaller than the image, {self.size}", frame)
        checks.set_fields(self, frame=frame)

    def init(self, key: jax.Array) -> Params:
        """Draw the parameters of `of`."""
        return self._of.init(key)

    def decode(self, params: Params) -> jax.Array:
        """Turn the parameters of `of` into an image."""
        return self._of.decode(params)

    def encode(self, image: jax.Array) -> Params:
        """Return the parameters of `of` for the whole of `image`, without a frame.

        Raises:
            InputError: if the image has another shape.
        """
        return self._of.encode(image)

    def resume(self, key: jax.Array, picture: jax.Array) -> Params:
        """Return parameters of a picture of any size, resized to what the frame leaves."""
        rows, columns = self.frame
        inner = (self.size[0] - rows, self.size[1] - columns, self.channels)
        # An enlarged picture is interpolated; one that is too large is averaged.
        resized = jnp.clip(jax.image.resize(picture, inner, "linear"), 0, 1)
        canvas = self._of.decode(self._of.init(key))
        corner = (rows // 2, columns // 2, 0)
        return self._of.encode(jax.lax.dynamic_update_slice(canvas, resized, corner))

    def project(self, params: Params) -> Params:
        """Return the nearest parameters that obey the constraints of `of`."""
        return self._of.project(params)
