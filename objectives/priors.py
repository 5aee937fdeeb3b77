"""Image priors: how far an image is from what is expected of images.

Each is a size of something unwanted, so it is subtracted: `Channel("block8", 3) - 0.1 *
TotalVariation()`. All are means over the pixels, so that a weight means the same at every size.
They read the image itself, (n, h, w, c) in [0, 1], before any transform.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.errors import ObjectiveError
from objectives.fields import check_number, leaf, static
from objectives.measures import safe_power
from objectives.objective import Objective, Scaled, Sum


class Prior(Objective):
    """Base of the objectives that read the image and no activation."""


class TotalVariation(Prior):
    """Mean over pixels and channels of (dx² + dy²)^(beta/2), forward differences.

    Mahendran & Vedaldi 2016, equation 5; the differences out of the image are 0.

    Args:
        beta: above 0; 1 favours flat areas with edges, 2 smoothness.
    """

    aliases = ("tv",)

    beta: float = static(default=2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta", self.beta, above=0)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0."""
        dy = jnp.pad(jnp.diff(image, axis=1), ((0, 0), (0, 1), (0, 0), (0, 0)))
        dx = jnp.pad(jnp.diff(image, axis=2), ((0, 0), (0, 0), (0, 1), (0, 0)))
        return safe_power(dx**2 + dy**2, self.beta / 2).mean(axis=(1, 2, 3))


class AlphaNorm(Prior):
    """Mean over pixels of ‖x − center‖^alpha: keeps intensities within bounds.

    The norm is the Euclidean one over colours (Mahendran & Vedaldi 2016, equation 4), or with
    `joint=False` each colour counts by itself, Σ|x − center|^alpha (2015, section 2.1).

    Args:
        alpha: at least 1; 6 in the papers.
        center: what is taken off first, for images in [0, 1] that the papers centre on 0.
        joint: whether a pixel's colours have one norm.
    """

    alpha: float = static(default=6.0)
    center: float = static(default=0.5)
    joint: bool = static(default=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, at_least=1)
        check_number("center", self.center)
        if not isinstance(self.joint, bool):
            raise ObjectiveError(f"joint must be True or False; got {self.joint!r}")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0."""
        squares = (image - self.center) ** 2
        if self.joint:
            squares = jnp.sum(squares, axis=-1, keepdims=True)
        return jnp.sum(safe_power(squares, self.alpha / 2), axis=-1).mean(axis=(1, 2))


class L1(Prior):
    """Mean over pixels and channels of |x − center|.

    Args:
        center: what is taken off first; mid-grey.
    """

    center: float = static(default=0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("center", self.center)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0."""
        return jnp.abs(image - self.center).mean(axis=(1, 2, 3))


class L2(Prior):
    """Mean over pixels and channels of (x − center)² (Simonyan et al. 2013, equation 1).

    Args:
        center: what is taken off first; mid-grey.
    """

    center: float = static(default=0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("center", self.center)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0."""
        return ((image - self.center) ** 2).mean(axis=(1, 2, 3))


class Blur(Prior):
    """High-frequency energy: mean square of the image less its Gaussian blur.

    The penalty form of blurring at every step (Yosinski et al. 2015, section 3).

    Args:
        sigma: of the blur, in pixels, above 0 and at most 1000; the border is repeated.
    """

    sigma: float = static(default=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("sigma", self.sigma, above=0, at_most=1000)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0."""
        _, height, width, _ = image.shape
        rows, columns = (_blur_matrix(length, self.sigma) for length in (height, width))
        smooth = jnp.einsum("ih,nhwc,jw->nijc", rows, image, columns)
        return ((image - smooth) ** 2).mean(axis=(1, 2, 3))


def _blur_matrix(length: int, sigma: float) -> np.ndarray:
    """A Gaussian blur of a line with repeated ends, as a matrix (length, length)."""
    radius = max(1, round(4 * sigma))
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()
    matrix = np.zeros((length, length))
    for offset, tap in zip(offsets, taps, strict=True):
        sources = np.clip(np.arange(length) + offset, 0, length - 1)
        np.add.at(matrix, (np.arange(length), sources), tap)
    return matrix.astype(np.float32)


class CenterBias(Prior):
    """Contrast away from the centre: mean of (1 − exp(−r²/2sigma²)) · (x − 0.5)².

    Subtracted, it draws the picture to the centre, as the centre bias of Nguyen et al. 2016
    (multifaceted feature visualization) does by its crops.

    Args:
        sigma: of the Gaussian, in units of the image's half height and half width, above 0.
    """

    sigma: float = static(default=0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("sigma", self.sigma, above=0)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0."""
        _, height, width, _ = image.shape
        y, x = (2 * (np.arange(k) + 0.5) / k - 1 for k in (height, width))
        squares = y[:, None] ** 2 + x[None, :] ** 2
        weight = 1 - np.exp(-squares / (2 * self.sigma**2))[None, ..., None]
        return (jnp.asarray(weight, image.dtype) * (image - 0.5) ** 2).mean((1, 2, 3))


class Boundary(Prior):
    """What is at the picture's rim: mean over its pixels of (x − blur x)² + 0.8·(x − 0.5)².

    Subtracted, it leaves the rim flat and grey, so that icons of an atlas do not run into each
    other (lucid's `penalize_boundary_complexity`, there with a blur of 5 x 5 pixels and a sum).

    Args:
        width: of the rim in pixels, at least 1; a picture that is all rim counts whole.
        sigma: of the blur in pixels, above 0 and at most 1000.
    """

    width: int = static(default=20)
    sigma: float = static(default=1.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 1:
            raise ObjectiveError(f"width is a whole number of pixels above 0; got {self.width!r}")
        check_number("sigma", self.sigma, above=0, at_most=1000)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0."""
        _, height, width, _ = image.shape
        rows, columns = (_blur_matrix(length, self.sigma) for length in (height, width))
        smooth = jnp.einsum("ih,nhwc,jw->nijc", rows, image, columns)
        rim = np.ones((1, height, width, 1), np.float32)
        rim[:, self.width : height - self.width, self.width : width - self.width] = 0
        costs = (image - smooth) ** 2 + 0.8 * (image - 0.5) ** 2
        return jnp.sum(rim * costs, axis=(1, 2, 3)) / (rim.sum() * image.shape[-1])


class Change(Prior):
    """What a prior says of the difference between the image and another: how much has changed.

    `Change(L2(0.0), original)` is the mean square of the change, and `Change(TotalVariation(),
    original)` how rough it is.

    Args:
        prior: an image prior, or a weighted sum of some.
        original: images (1, h, w, c) for all or (n, h, w, c) for each its own.
    """

    prior: Objective
    original: ArrayLike = leaf()

    def __post_init__(self) -> None:
        nodes = self.prior.walk() if isinstance(self.prior, Objective) else [self.prior]
        for node in nodes:
            if not isinstance(node, (Prior, Scaled, Sum)):
                raise ObjectiveError(f"a change is measured by image priors; got {node!r}")
        super().__post_init__()

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), as the prior's."""
        original = jnp.asarray(self.original, image.dtype)
        if original.shape[1:] != image.shape[1:]:
            raise ObjectiveError(
                f"the original of Change has shape {tuple(original.shape)}; the images are "
                f"{tuple(image.shape)}"
            )
        return self.prior(acts, image - original)


class Tone(Prior):
    """How far the colours and the contrast are from given ones.

    The mean over channels of (mean − mean₀)² + (deviation − deviation₀)² over an image's pixels.

    Args:
        mean: of each channel, (c,), or one row an image (n, c).
        deviation: standard deviation of each channel, (c,) or (n, c), at least 0.
    """

    mean: ArrayLike = leaf(ndim=1)
    deviation: ArrayLike = leaf(ndim=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.batch_size  # raises where the two are for different images
        if not isinstance(self.deviation, jax.core.Tracer) and np.min(self.deviation) < 0:
            raise ObjectiveError(f"a deviation is at least 0; got {np.min(self.deviation)}")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0."""
        for name in ("mean", "deviation"):
            channels = np.shape(getattr(self, name))[-1]
            if channels != image.shape[-1]:
                raise ObjectiveError(
                    f"the {name} of Tone is of {channels} channels; the images have "
                    f"{image.shape[-1]}"
                )
        mean = jnp.mean(image, (1, 2))
        deviation = safe_power(jnp.var(image, (1, 2)), 0.5)
        aims = (jnp.asarray(aim, image.dtype) for aim in (self.mean, self.deviation))
        off, spread = (
            found - jnp.broadcast_to(aim, found.shape)
            for found, aim in zip((mean, deviation), aims, strict=True)
        )
        return jnp.mean(off**2 + spread**2, axis=1)
