"""An image of which one part is optimised."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.errors import InputError
from featvis.parameterizations.around import Around
from featvis.parameterizations.parameterization import Params
from objectives import leaf

_HELD = "rest"


class Region(Around):
    """A part of an image as `of` has it; the rest stays what it is at the start, to the bit.

    The rest is that of the image one starts from (`init=image`), or else of one value. The part is
    a box, or what a mask says: `m * part + (1 - m) * rest`. The parameters are those of `of`, and
    `rest`, (h, w, c), which is held.

    Args:
        size: (height, width) of the image in pixels.
        channels: number of channels, that of `of` (the default).
        of: parameterization of the whole image, of the same size; it shows in the part alone.
        box: (top, left, bottom, right) in pixels, the last two not included.
        mask: in place of a box, an array (height, width) in [0, 1], not all 0; data of the program.
        value: in [0, 1], of the rest where no image is given to start from.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    box: tuple[int, int, int, int] | None = None
    mask: Any = leaf(default=None)
    value: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        if self._of.shape != self.shape:
            expected = f"of size {self.size} and {self.channels} channels"
            raise checks.error(self, "of", expected, self.of)
        if _HELD in self._of.held:
            raise checks.error(self, "of", "no region itself", self.of)
        if (self.box is None) == (self.mask is None):
            given = "neither" if self.box is None else "both"
            raise checks.error(self, "box", "given, or else a mask", given)
        value = checks.number(self, "value", self.value, 0, 1)
        checks.set_fields(self, box=self._checked_box(), value=value)
        if isinstance(self.mask, (np.ndarray, jax.Array)) and not _is_traced(self.mask):
            mask = checks.real_array("Region: mask", self.mask)
            # Written so that a NaN fails too.
            if mask.shape != self.size or not (mask.min() >= 0 and 0 < mask.max() <= 1):
                levels = f" from {mask.min():.3g} to {mask.max():.3g}" if mask.size else ""
                raise InputError(
                    f"{type(self).__name__}: mask is weights {self.size} in [0, 1], not all 0; got "
                    f"an array {mask.shape}{levels}"
                )
            mask.flags.writeable = False
            checks.set_fields(self, mask=mask)
        elif isinstance(self.mask, (bool, int, float)):
            raise checks.error(self, "mask", f"an array {self.size}", self.mask)

    def _checked_box(self) -> tuple[int, int, int, int] | None:
        if self.box is None:
            return None
        if not isinstance(self.box, (tuple, list)) or len(self.box) != 4:
            raise checks.error(self, "box", "(top, left, bottom, right)", self.box)
        top, left, bottom, right = (checks.integer(self, "box", one, 0) for one in self.box)
        if not (top < bottom <= self.size[0] and left < right <= self.size[1]):
            raise checks.error(self, "box", f"a part of the image, {self.size}", self.box)
        return top, left, bottom, right

    @property
    def held(self) -> frozenset[str]:
        """The rest, and what `of` holds."""
        return super().held | {_HELD}

    def _weights(self) -> jax.Array:
        """Of the part, (h, w, 1)."""
        if self.box is None:
            return jnp.asarray(self.mask, jnp.float32)[..., None]
        top, left, bottom, right = self.box
        weights = np.zeros((*self.size, 1), np.float32)
        weights[top:bottom, left:right] = 1
        return jnp.asarray(weights)

    def init(self, key: jax.Array) -> Params:
        """Draw the part; the rest is of one value."""
        return {**self._of.init(key), _HELD: jnp.full(self.shape, self.value, jnp.float32)}

    def decode(self, params: Params) -> jax.Array:
        """Put the part and the rest together, (h, w, c) float32 in [0, 1]."""
        weights, part = self._weights(), self._of.decode(self._without(params))
        # Without a gradient: an optimizer that looks at its norm must not see the rest.
        rest = jax.lax.stop_gradient(params[_HELD])
        # Where nothing of the part shows, or all of it, neither is rounded.
        mixed = jnp.where(weights == 1, part, weights * part + (1 - weights) * rest)
        return jnp.where(weights == 0, rest, mixed)

    def encode(self, image: jax.Array) -> Params:
        """Return the part's parameters for the whole of `image`, and the rest as it is.

        Raises:
            InputError: if the image has another shape, or `of` has no `encode`.
        """
        image = self._check_image(image)
        return {**self._of.encode(image), _HELD: image}

    def project(self, params: Params) -> Params:
        """Return the part's nearest parameters that obey its constraints."""
        return {**self._of.project(self._without(params)), _HELD: params[_HELD]}

    def _without(self, params: Params) -> Params:
        return {name: value for name, value in params.items() if name != _HELD}


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)
