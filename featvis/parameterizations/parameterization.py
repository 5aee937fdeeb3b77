"""The protocol of a parameterization: how the numbers that are optimised become one image."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.errors import InputError
from featvis.parameterizations.component import Component

Params = dict[str, jax.Array]
"""The parameters of one image, float32 arrays by name."""

CLIP = 1 / 1024
"""Images are clipped to [CLIP, 1 - CLIP] before a logit: under half of an 8-bit level."""


class Parameterization(Component):
    """How one image is written in terms of the parameters that are optimised.

    A subclass is a `Component`: a frozen dataclass without saying so, whose fields are literals, or
    data where they are declared with `leaf()`. Every method is pure, is about ONE image, and works
    under `jit` and `vmap`. Parameters are a dict of float32 arrays, never a bare array: a bare
    array to start from is always an image.

    Args:
        size: (height, width) of the image in pixels, two positive ints.
        channels: number of channels, at least 1.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    size: tuple[int, int]
    channels: int = 3

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.set_fields(
            self,
            size=checks.image_size(self, "size", self.size),
            channels=checks.integer(self, "channels", self.channels, 1, 2**16),
        )
        super().__post_init__()
        self._check_that_draws_are_kept()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the image."""
        return (*self.size, self.channels)

    @property
    def held(self) -> frozenset[str]:
        """Names of the parameters that stay what they are, whatever the optimizer does."""
        return frozenset()

    @property
    def shared(self) -> frozenset[str]:
        """Names of the parameters that are the same for all images of a batch."""
        return frozenset()

    @abstractmethod
    def init(self, key: jax.Array) -> Params:
        """Draw the parameters of one image from `key`: a dict of float32 arrays."""

    @abstractmethod
    def decode(self, params: Params) -> jax.Array:
        """Turn `params` into one image, (h, w, c) float32 in [0, 1]."""

    def shown(self, key: jax.Array, params: Params) -> jax.Array:
        """Return the image that the network sees at a step, (h, w, c) float32 in [0, 1].

        By default what `decode` gives; a class that draws some of it, as a background, does so from
        `key`.

        Args:
            key: of the step and the image.
            params: of one image.
        """
        return self.decode(params)

    def with_opacity(self, params: Params) -> jax.Array | None:
        """Return colours and their opacity, (h, w, c + 1) in [0, 1]; None: all is opaque.

        Args:
            params: of one image.
        """
        return None

    def encode(self, image: jax.Array) -> Params:
        """Return parameters that decode to `image`, (h, w, c) in [0, 1].

        A class need not have it: then nothing begins from an image.

        Raises:
            InputError: if the image has another shape, or the class has no `encode`.
        """
        raise InputError(
            f"{type(self).__name__} has no way from an image to its parameters (encode): begin "
            "from the seed, or from parameters (init=result.params)"
        )

    def resume(self, key: jax.Array, picture: jax.Array) -> Params:
        """Return parameters to go on with from a `picture` (h', w', c) of any size, in [0, 1].

        Those of the picture, resized; `key` is for what a parameterization draws anew.
        """
        return self.encode(jnp.clip(jax.image.resize(picture, self.shape, "cubic"), 0, 1))

    def project(self, params: Params) -> Params:
        """Return the parameters nearest to `params` that obey the hard constraints; any do here."""
        return params

    def pull(self, params: Params) -> Params:
        """Return what draws `params` beside the objective, by the names of those that it draws.

        It is added to the gradient of the score, as that of a prior on the parameters would be, and
        has no part in any score; nothing by default.
        """
        return {}

    def _check_that_draws_are_kept(self) -> None:
        """Refuses a part that draws at each step, which is asked for its `decode` alone."""
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            if (
                isinstance(part, Parameterization)
                and type(part).shown is not Parameterization.shown
            ):
                name = type(part).__name__
                expected = f"one that draws nothing at a step: {name} stands around others"
                raise checks.error(self, field.name, expected, part)

    def _check_image(self, image: jax.Array) -> jax.Array:
        """Return `image` as float32, or raise InputError if its shape is not `self.shape`."""
        image = jnp.asarray(image, jnp.float32)
        if image.shape != self.shape:
            raise InputError(
                f"{type(self).__name__}: an image of shape {self.shape} (height, width, channels)"
                f" is expected, not {image.shape}"
            )
        return image


def logit(image: jax.Array) -> jax.Array:
    """Inverse of the sigmoid, for an image in [0, 1] that is first clipped by `CLIP`."""
    clipped = jnp.clip(image, CLIP, 1 - CLIP)
    return jnp.log(clipped) - jnp.log1p(-clipped)


def draw_normal(key: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """Standard normal float32 arrays of these shapes, from one flat draw.

    XLA compiles a draw of one axis in 0.3 s on a CPU, one of four axes in 2 s.
    """
    counts = [math.prod(shape) for shape in shapes]
    flat = jax.random.normal(key, (sum(counts),), jnp.float32)
    parts = jnp.split(flat, np.cumsum(counts)[:-1].tolist())
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
