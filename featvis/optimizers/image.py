"""Updates of images as images: whitened, or in proportion to those of the whole batch.

A run updates each image by itself, under `vmap` with the axis `IMAGES`: what an update is to know
of the other images, it has from JAX's collectives over that axis.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from featvis.errors import InputError

#: The axis of a batch's images, for `jax.lax.psum` and its like in an optimizer's update.
IMAGES = "images"

#: The names of parameters that are maps (h, w, c) of the image.
_MAPS = ("pixels", "code")


def whiten_gradient(power: float = 0.5) -> optax.GradientTransformation:
    """Divides the spectrum of an image's gradient by f^power: what is coarse moves first.

    Cadena et al. 2018: their √F, with f in cycles an image and 1 below that, and the factors'
    mean 1, as in the authors' code. For the parameters called `pixels`, and `code` where that is a
    map; others are left alone: Fourier coefficients are scaled so already.

    Args:
        power: of the frequency, at least 0; the paper's is 0.5.

    Raises:
        InputError: another number, or, when it is first used, parameters that are no image.
    """
    number = isinstance(power, numbers.Real) and not isinstance(power, bool)
    if not (number and math.isfinite(power) and power >= 0):
        raise InputError(f"power must be a number of at least 0; got {power!r}")

    def init(params: Any) -> optax.EmptyState:
        if not (isinstance(params, dict) and any(_is_map(params, name) for name in _MAPS)):
            named = ", ".join(params) if isinstance(params, dict) else "an array"
            raise InputError(
                "whiten_gradient is for `pixels` (h, w, c), as FixedNorm or BoundedPixels have "
                f"them, or `code` (h, w, c), as Latent has it; the parameters are {named}"
            )
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        maps = [name for name in _MAPS if _is_map(updates, name)]
        return {**updates, **{name: _filtered(updates[name], power) for name in maps}}, state

    return optax.GradientTransformation(init, update)


def _is_map(params: dict[str, Any], name: str) -> bool:
    return jnp.ndim(params.get(name, 0)) == 3


def _filtered(image: jax.Array, power: float) -> jax.Array:
    height, width = image.shape[:2]
    y, x = (np.minimum(np.arange(side), side - np.arange(side)) for side in (height, width))
    factors = np.maximum(1.0, np.hypot(y[:, None], x[None])) ** -power
    half = (factors / factors.mean())[:, : width // 2 + 1, None].astype(np.float32)
    spectrum = jnp.fft.rfft2(image, axes=(0, 1)) * jnp.asarray(half, jnp.complex64)
    return jnp.fft.irfft2(spectrum, (height, width), axes=(0, 1)).astype(image.dtype)


def normalize_over_batch() -> optax.GradientTransformationExtraArgs:
    """Divides the updates of all images by their common root mean square.

    For rules whose steps are as long as the gradient, as `sgd`: with a norm of its own for each
    image, the gradient of what makes images differ, which is wide and faint, would drown in that of
    the unit of one image and be all there is in another. What is not finite counts as 0.
    """

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **more: Any) -> tuple[Any, Any]:
        leaves = jax.tree.leaves(updates)
        squares = [jnp.where(jnp.isfinite(leaf), leaf, 0) ** 2 for leaf in leaves]
        total = jnp.sum(jnp.stack([jnp.sum(one) for one in squares]))
        mean = jax.lax.pmean(total / sum(leaf.size for leaf in leaves), IMAGES)
        scale = jnp.where(mean > 0, jax.lax.rsqrt(jnp.where(mean > 0, mean, 1)), 0)
        return jax.tree.map(lambda leaf: leaf * scale, updates), state

    return optax.GradientTransformationExtraArgs(init, update)
