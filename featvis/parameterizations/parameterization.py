"""The protocol of a parameterization: how the numbers that are optimised become one image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.errors import InputError

Params = dict[str, jax.Array]
"""The parameters of one image, float32 arrays by name."""

CLIP = 1 / 1024
"""Images are clipped to [CLIP, 1 - CLIP] before a logit: under half of an 8-bit level."""


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True, repr=False)
class Parameterization(ABC):
    """How one image is written in terms of the parameters that are optimised.

    A subclass is a frozen dataclass without saying so, whose fields are literals: equal values are
    equal and hash alike, so a compiled loop is reused, and `repr` is its text form. Every method is
    pure, is about ONE image, and works under `jit` and `vmap`. Parameters are a dict of float32
    arrays, never a bare array: a bare array to start from is always an image.

    Args:
        size: (height, width) of the image in pixels, two positive ints.
        channels: number of channels, at least 1.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    size: tuple[int, int]
    channels: int = 3

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, repr=False)(cls)

    def __repr__(self) -> str:
        return checks.text_of(self)

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.set_fields(
            self,
            size=checks.image_size(self, "size", self.size),
            channels=checks.integer(self, "channels", self.channels, 1, 2**16),
        )

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
        """Turn parameters into one image, (h, w, c) float32 in [0, 1]."""

    @abstractmethod
    def encode(self, image: jax.Array) -> Params:
        """Return parameters that decode to `image`, (h, w, c) in [0, 1].

        Raises:
            InputError: if the image has another shape.
        """

    def resume(self, key: jax.Array, picture: jax.Array) -> Params:
        """Return parameters to go on with from a picture (h', w', c) of any size, in [0, 1].

        Those of the picture, resized; `key` is for what a parameterization draws anew.
        """
        return self.encode(jnp.clip(jax.image.resize(picture, self.shape, "cubic"), 0, 1))

    def project(self, params: Params) -> Params:
        """Return the nearest parameters that obey the hard constraints; without any, the same."""
        return params

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
