"""What a network expects to see, declared in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.errors import InputError

#: Of the photographs of ImageNet in [0, 1], as torchvision normalises with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Input:
    """The images a network takes, and how it wants their values.

    Images are always (n, height, width, channels) in [0, 1] for featvis. A network gets
    `preprocess((low + image * (high - low) - mean) / std)` in its own layout.

    Args:
        size: (height, width) in pixels that the network was trained at, the default for pictures.
        channels: number of channels.
        fixed_size: whether it takes that size only.
        min_size: smallest height or width that it can see.
        multiple_of: what height and width must be multiples of, as the patch of a transformer.
        value_range: what it calls black and white, (low, high).
        mean: subtracted after that; one number, or one a channel.
        std: what the difference is divided by; one number, or one a channel.
        layout: "NHWC", or "NCHW" for a network that takes channels first: its image is turned
            round, and so are those of its maps whose channels are first too. Its convolutions say
            which these are, and what follows them; one's own networks can be told of others
            (`channel_axes`).
        preprocess: any pure function of the network's input (n, h, w, c), after the rest.

    Raises:
        InputError: a field out of its range.
    """

    size: tuple[int, int] = (224, 224)
    channels: int = 3
    fixed_size: bool = False
    min_size: int = 1
    multiple_of: int = 1
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    layout: str = "NHWC"
    preprocess: Callable[[jax.Array], jax.Array] | None = None

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.set_fields(
            self,
            size=checks.image_size(self, "size", self.size),
            channels=checks.integer(self, "channels", self.channels, 1),
            min_size=checks.integer(self, "min_size", self.min_size, 1),
            multiple_of=checks.integer(self, "multiple_of", self.multiple_of, 1),
            value_range=checks.interval(self, "value_range", self.value_range),
            mean=self._per_channel("mean", self.mean),
            std=self._per_channel("std", self.std),
            layout=checks.choice(self, "layout", self.layout, ("NHWC", "NCHW")),
        )
        if self.value_range[0] == self.value_range[1]:
            raise checks.error(self, "value_range", "(low, high), two numbers", self.value_range)
        deviations = self.std if isinstance(self.std, tuple) else (self.std,)
        if min(deviations) <= 0:
            raise checks.error(self, "std", "above 0", self.std)
        if self.preprocess is not None and not callable(self.preprocess):
            raise checks.error(self, "preprocess", "a function", self.preprocess)

    def _per_channel(self, name: str, value: object) -> float | tuple[float, ...]:
        if hasattr(value, "tolist"):  # an array of NumPy or JAX
            value = value.tolist()
        if not isinstance(value, (tuple, list)):
            return checks.number(self, name, value)
        if len(value) != self.channels:
            raise checks.error(self, name, f"one number or {self.channels}, one a channel", value)
        return tuple(checks.number(self, name, one) for one in value)

    def prepare(self, image: jax.Array, weights: Any = ()) -> jax.Array:
        """Turns images (n, h, w, c) in [0, 1] into what the network takes.

        Args:
            image: float32.
            weights: the network's; where some are of float64 it gets images of float64.
        """
        if any(getattr(one, "dtype", None) == jnp.float64 for one in jax.tree.leaves(weights)):
            image = image.astype(jnp.float64)
        low, high = self.value_range
        if self.value_range != (0.0, 1.0):
            image = low + image * (high - low)
        if self.mean != 0.0:
            image = image - _along_channels(self.mean, image)
        if self.std != 1.0:
            image = image / _along_channels(self.std, image)
        if self.preprocess is not None:
            image = self.preprocess(image)
        return jnp.moveaxis(image, -1, 1) if self.layout == "NCHW" else image

    def check(self, name: str, height: int, width: int, channels: int) -> None:
        """Checks the shape of one image, (`height`, `width`, `channels`), for a network's `name`.

        Raises:
            InputError: a size or a number of channels that it does not take; says what it takes.
        """
        given = f"got {height}x{width}"
        if channels != self.channels:
            raise InputError(f"{name} expects images of {self.channels} channels, got {channels}")
        if self.fixed_size and (height, width) != self.size:
            raise InputError(
                f"{name} takes images of {self.size[0]}x{self.size[1]} pixels (height x width) "
                f"only, {given}"
            )
        if min(height, width) < self.min_size:
            raise InputError(
                f"{name} needs images of at least {self.min_size}x{self.min_size} pixels "
                f"(height x width), {given}"
            )
        if height % self.multiple_of or width % self.multiple_of:
            near = " or ".join(
                f"{h}x{w}" for h, w in self._nearest(height, width) if min(h, w) >= self.min_size
            )
            raise InputError(
                f"{name} needs a height and a width that are multiples of {self.multiple_of} "
                f"pixels, {given}; nearest: {near}"
            )

    def _nearest(self, height: int, width: int) -> list[tuple[int, int]]:
        m = self.multiple_of
        down = (max(height // m, 1) * m, max(width // m, 1) * m)
        up = (-(-height // m) * m, -(-width // m) * m)
        return [down] if down == up else [down, up]


def _along_channels(values: float | Sequence[float], image: jax.Array) -> jax.Array:
    """A number, or one a channel, as an array that broadcasts with images (n, h, w, c)."""
    return jnp.asarray(values, image.dtype).reshape(1, 1, 1, -1)
