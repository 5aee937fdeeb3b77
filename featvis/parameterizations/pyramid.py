"""An image as a sum of pixel grids of halving sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.kernels.resampling import resize_weights
from featvis.parameterizations import color
from featvis.parameterizations.parameterization import Parameterization, Params, draw_normal, logit


class Pyramid(Parameterization):
    """A sum of bilinearly enlarged grids, in decorrelated colours, then a sigmoid.

    Level k has `ceil(size / 2**k)` pixels on each side, so one step of the optimizer moves coarse
    and fine structure alike. The parameters are `level0`, the finest, to
    `level{levels - 1}`, float32 arrays (c, h_k, w_k). Three channels are decorrelated
    (`featvis.parameterizations.color`), other numbers are not.

    Source: lucid's `laplacian_pyramid_image` (4 levels, sd 0.01); Burt & Adelson, 1983.

    Args:
        size: (height, width) in pixels, two positive ints.
        channels: number of channels, at least 1.
        levels: number of grids, 1 to 32.
        sd: standard deviation of the initial values of each grid, at least 0.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    levels: int = 4
    sd: float = 0.01

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        checks.set_fields(
            self,
            levels=checks.integer(self, "levels", self.levels, 1, 32),
            sd=checks.number(self, "sd", self.sd, 0),
        )

    def init(self, key: jax.Array) -> Params:
        """Draw normal values for every grid: a nearly grey image."""
        return _named([self.sd * grid for grid in draw_normal(key, self._shapes())])

    def decode(self, params: Params) -> jax.Array:
        """Turn the grids into one image, (h, w, c) float32 in [0, 1]."""
        planes = self._sum([params[f"level{k}"] for k in range(self.levels)])
        return jax.nn.sigmoid(jnp.moveaxis(color.correlate(planes), 0, -1))

    def encode(self, image: jax.Array) -> Params:
        """Return the Laplacian pyramid of `image`, (h, w, c) in [0, 1], clipped by 1/1024.

        Of the many grids that decode to it, each level holds what the coarser ones have left.

        Raises:
            InputError: if the image has another shape.
        """
        planes = color.decorrelate(jnp.moveaxis(logit(self._check_image(image)), -1, 0))
        grids: list[jax.Array] = []
        for shape in reversed(self._shapes()):
            known = [_resize(grid, shape) for grid in grids]
            grids.append(_resize(planes, shape) - sum(known))
        grids.reverse()
        # What the sum of the grids still misses goes into the finest.
        return _named([grids[0] + planes - self._sum(grids), *grids[1:]])

    def _sum(self, grids: list[jax.Array]) -> jax.Array:
        """(c, h, w) sum of the enlarged grids."""
        shape = self._shapes()[0]
        total = grids[0]
        for grid in grids[1:]:
            total = total + _resize(grid, shape)
        return total

    def _shapes(self) -> list[tuple[int, int, int]]:
        """(c, h, w) of each grid, the finest first."""
        height, width = self.size
        return [(self.channels, -(-height // 2**k), -(-width // 2**k)) for k in range(self.levels)]


def _named(grids: list[jax.Array]) -> Params:
    """Grids, the finest first, by the names of their levels."""
    return {f"level{k}": grid for k, grid in enumerate(grids)}


def _resize(planes: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Resize (c, h, w) planes to `shape`: linear to enlarge, a triangle filter to reduce."""
    for matrix in (
        resize_weights(shape[1], planes.shape[1]),
        resize_weights(shape[2], planes.shape[2]),
    ):
        # Twice: each turn resizes the first axis and swaps the two.
        weights = jnp.asarray(matrix, jnp.float32)
        planes = jnp.einsum("yh,chw->cwy", weights, planes, precision=jax.lax.Precision.HIGHEST)
    return planes
