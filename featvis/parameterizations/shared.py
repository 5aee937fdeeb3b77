"""Images of a batch that have a coarse part in common."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.kernels.resampling import apply_separable, resize_weights
from featvis.parameterizations.around import Around
from featvis.parameterizations.parameterization import Params, logit

_SHARED = "shared"


class Shared(Around):
    """Another parameterization, with a coarse part added that all images of a batch share.

    The shared part is a small grid, magnified and added before the sigmoid:
    `sigmoid(logit(of) + grid)`. What the images have in common is there, so that they differ in
    what they must (lucid's shared low-resolution tensors, for interpolations that stay in place).

    Args:
        size: (height, width) of the image in pixels.
        channels: number of channels, that of `of` (the default).
        of: parameterization of each image's own part, of the same size.
        grid: (height, width) of the shared part, at most the image's; by default an eighth.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    wanted = "the parameterization of an image's own part, as Fourier((64, 64))"

    grid: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        if self._of.shape != self.shape:
            raise checks.error(self, "of", f"of the shape {self.shape}", self.of)
        given = self.grid or tuple(-(-side // 8) for side in self.size)
        grid = checks.image_size(self, "grid", given)
        if grid[0] > self.size[0] or grid[1] > self.size[1]:
            raise checks.error(self, "grid", f"at most {self.size}", self.grid)
        checks.set_fields(self, grid=grid)

    @property
    def shared(self) -> frozenset[str]:
        """The grid, and what `of` shares."""
        return super().shared | {_SHARED}

    def init(self, key: jax.Array) -> Params:
        """Draw the image's own part; the shared one is 0."""
        return {**self._of.init(key), _SHARED: self._nothing()}

    def decode(self, params: Params) -> jax.Array:
        """Add both parts, to (h, w, c) float32 in [0, 1]."""
        assert self.grid is not None
        own = self._of.decode(self._own(params))
        rows, columns = (
            jnp.asarray(resize_weights(*lengths), jnp.float32)
            for lengths in zip(self.size, self.grid, strict=True)
        )
        return jax.nn.sigmoid(logit(own) + apply_separable(rows, columns, params[_SHARED]))

    def encode(self, image: jax.Array) -> Params:
        """Return the parameters of `image` as the image's own part, nothing being shared.

        Raises:
            InputError: if the image has another shape.
        """
        return {**self._of.encode(self._check_image(image)), _SHARED: self._nothing()}

    def project(self, params: Params) -> Params:
        """Return the nearest parameters that obey the constraints of `of`."""
        return {**self._of.project(self._own(params)), _SHARED: params[_SHARED]}

    def _nothing(self) -> jax.Array:
        assert self.grid is not None
        return jnp.zeros((*self.grid, self.channels), jnp.float32)

    def _own(self, params: Params) -> Params:
        return {name: value for name, value in params.items() if name != _SHARED}
