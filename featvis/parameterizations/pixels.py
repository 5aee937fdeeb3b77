"""An image as its pixels: free behind a sigmoid, or bounded by projection."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.parameterizations.parameterization import (
    Parameterization,
    Params,
    draw_normal,
    logit,
)

_GREY = 0.5


class Pixels(Parameterization):
    """One unconstrained number a pixel and channel, squashed by a sigmoid: `sigmoid(pixels)`.

    The parameters are `pixels`, (h, w, c) float32. Source: lucid's `pixel_image` (sd 0.01).

    Args:
        size: (height, width) in pixels, two positive ints.
        channels: number of channels, at least 1.
        sd: standard deviation of the initial values around 0, that is around mid-grey.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    sd: float = 0.01

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        checks.set_fields(self, sd=checks.number(self, "sd", self.sd, 0))

    def init(self, key: jax.Array) -> Params:
        """Draw normal values of standard deviation `sd` around mid-grey."""
        return {"pixels": self.sd * draw_normal(key, [self.shape])[0]}

    def decode(self, params: Params) -> jax.Array:
        """Turn (h, w, c) parameters into an image in [0, 1]."""
        return jax.nn.sigmoid(params["pixels"])

    def encode(self, image: jax.Array) -> Params:
        """Return the logit of `image`, (h, w, c) in [0, 1], clipped by 1/1024 at both ends.

        Raises:
            InputError: if the image has another shape.
        """
        return {"pixels": logit(self._check_image(image))}


class BoundedPixels(Parameterization):
    """The pixels themselves, as offsets from mid-grey, kept in bounds by projection.

    The parameters are `pixels`, (h, w, c) float32: `image = 0.5 + pixels`, and `project` returns
    them to the box [0, 1] and, with a `ball`, to a ball around mid-grey:

    - `None`: the box alone.
    - `"l2"`: the Euclidean norm of the whole image's offset is at most `radius`.
    - `"linf"`: each offset is at most `radius` in absolute value.
    - `"pixel"`: the Euclidean norm of each pixel's colour offset is at most `radius`
      (Mahendran & Vedaldi, IJCV 2016, section 3).

    Outside the box the gradient is that of the identity, so projected ascent can turn back.

    Args:
        size: (height, width) in pixels, two positive ints.
        channels: number of channels, at least 1.
        ball: the norm, or None for the box alone.
        radius: of the ball, in units of intensity (the box is [0, 1]), above 0; unused and None
            without a ball.
        sd: standard deviation of the initial offsets, before the projection.
        noise: how they are drawn, "normal" or "uniform".

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    ball: str | None = None
    radius: float | None = None
    sd: float = 0.01
    noise: str = "normal"

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        checks.set_fields(self, sd=checks.number(self, "sd", self.sd, 0))
        checks.choice(self, "noise", self.noise, ("normal", "uniform"))
        if self.ball is None:
            if self.radius is not None:
                raise checks.error(self, "radius", "given together with a ball", self.radius)
            return
        checks.choice(self, "ball", self.ball, ("l2", "linf", "pixel"))
        if self.radius is None:
            raise checks.error(self, "radius", "a number above 0 when a ball is given", None)
        checks.set_fields(self, radius=checks.positive(self, "radius", self.radius))

    def init(self, key: jax.Array) -> Params:
        """Draw offsets of standard deviation `sd`, projected into the bounds."""
        if self.noise == "normal":
            return self.project({"pixels": self.sd * draw_normal(key, [self.shape])[0]})
        # A uniform number within ±a has the standard deviation a / √3.
        drawn = jax.random.uniform(key, (math.prod(self.shape),), jnp.float32, -1, 1)
        return self.project({"pixels": self.sd * math.sqrt(3) * drawn.reshape(self.shape)})

    def decode(self, params: Params) -> jax.Array:
        """Turn (h, w, c) offsets into an image in [0, 1]."""
        image = _GREY + params["pixels"]
        # Straight through: the value is clipped and the gradient is not.
        return image + jax.lax.stop_gradient(jnp.clip(image, 0, 1) - image)

    def encode(self, image: jax.Array) -> Params:
        """Return the offsets of `image`, (h, w, c), projected into the bounds.

        Raises:
            InputError: if the image has another shape.
        """
        return self.project({"pixels": self._check_image(image) - _GREY})

    def project(self, params: Params) -> Params:
        """Clip to the box, then scale into the ball, which keeps the values in the box."""
        bound = _GREY
        if self.ball == "linf" and self.radius is not None:
            bound = min(bound, self.radius)
        pixels = jnp.clip(params["pixels"], -bound, bound)
        if self.radius is None or self.ball == "linf":
            return {"pixels": pixels}
        axes = None if self.ball == "l2" else -1
        square = jnp.sum(pixels**2, axis=axes, keepdims=True)
        # The smallest normal number keeps 0 / 0 out; it is far below any radius squared.
        tiny = float(jnp.finfo(jnp.float32).tiny)
        scale = jnp.minimum(1, self.radius * jax.lax.rsqrt(jnp.maximum(square, tiny)))
        return {"pixels": pixels * scale}
