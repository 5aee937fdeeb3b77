"""An image of which some channels are held fixed."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.parameterizations.parameterization import Parameterization, Params

_HELD = "frozen"


class FrozenChannels(Parameterization):
    """Some channels held as they are at the start; the others are what `free` makes of them.

    They are those of the image one starts from (`init=image`), or else of one value: a network that
    also takes a depth map, a mask or the image before is asked what it wants to see beside them.

    Args:
        size: (height, width) of the image in pixels.
        channels: number of channels, the frozen ones included.
        free: parameterization of the other channels, of the same size.
        frozen: indices of the channels that are held, at least one and not all.
        value: in [0, 1], of the frozen channels where no image is given to start from.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    free: Parameterization | None = None
    frozen: Sequence[int] = ()
    value: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        given = self.frozen if isinstance(self.frozen, (tuple, list)) else (self.frozen,)
        frozen = tuple(checks.integer(self, "frozen", index, 0) for index in given)
        if not 0 < len(set(frozen)) == len(frozen) < self.channels or max(frozen) >= self.channels:
            raise checks.error(
                self,
                "frozen",
                f"some of the channels 0 to {self.channels - 1}, each once and not all",
                self.frozen,
            )
        checks.set_fields(self, frozen=frozen, value=checks.number(self, "value", self.value, 0, 1))
        left = self.channels - len(frozen)
        if not isinstance(self.free, Parameterization):
            expected = f"the parameterization of the other {left}, as Fourier(channels={left})"
            raise checks.error(self, "free", expected, self.free)
        if self.free.shape != (*self.size, left):
            expected = f"of size {self.size} and {left} channels"
            raise checks.error(self, "free", expected, self.free)

    @property
    def held(self) -> frozenset[str]:
        """The frozen channels, and what `free` holds."""
        return self._free.held | {_HELD}

    @property
    def shared(self) -> frozenset[str]:
        """What `free` shares."""
        return self._free.shared

    @property
    def _free(self) -> Parameterization:
        assert self.free is not None  # checked at construction
        return self.free

    def _others(self) -> list[int]:
        return [channel for channel in range(self.channels) if channel not in self.frozen]

    def init(self, key: jax.Array) -> Params:
        """Draw the free channels; the frozen ones are of one value."""
        constant = jnp.full((*self.size, len(self.frozen)), self.value, jnp.float32)
        return {**self._free.init(key), _HELD: constant}

    def decode(self, params: Params) -> jax.Array:
        """Put free and frozen channels together, (h, w, c) float32 in [0, 1]."""
        free = self._free.decode(self._without(params))
        planes = {c: free[..., i] for i, c in enumerate(self._others())}
        # Without a gradient: an optimizer that looks at its norm must not see the frozen channels.
        held = jax.lax.stop_gradient(params[_HELD])
        planes |= {c: held[..., i] for i, c in enumerate(self.frozen)}
        return jnp.stack([planes[c] for c in range(self.channels)], axis=-1)

    def encode(self, image: jax.Array) -> Params:
        """Return the free channels' parameters, and the frozen channels as they are.

        Raises:
            InputError: if the image has another shape.
        """
        image = self._check_image(image)
        free = self._free.encode(image[..., jnp.asarray(self._others())])
        return {**free, _HELD: image[..., jnp.asarray(self.frozen)]}

    def project(self, params: Params) -> Params:
        """Return the free channels' nearest parameters that obey their constraints."""
        return {**self._free.project(self._without(params)), _HELD: params[_HELD]}

    def pull(self, params: Params) -> Params:
        """Return what draws the free channels' parameters."""
        return self._free.pull(params)

    def _without(self, params: Params) -> Params:
        return {name: value for name, value in params.items() if name != _HELD}
