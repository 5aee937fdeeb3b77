"""What stands for the absence of everything in an image: where paths of attributions begin."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis.attribution.options import Named, Option, Range
from featvis.images import Images
from featvis.transforms import Blur

#: Of a blurred baseline: its deviation, as a share of the image's longer side.
_BLUR = 0.1

_NAMES = ("black", "white", "grey", "mean", "blur", "noise")

Baseline = Annotated[Images, Named(*_NAMES)]
"""Images, or texts that stand for some; several, joined by +, are averaged over."""


def checked_baseline(owner: str, baseline: Any, image: np.ndarray) -> str | np.ndarray:
    """A baseline of one image (h, w, c): names, or an image of its shape.

    Args:
        owner: who takes it, for messages.
        baseline: as an option of a method is given.
        image: (h, w, c).

    Raises:
        InputError: another name, shape, range or kind.
    """
    option = Option("baseline", "images", None, False, Range(), _NAMES, "")
    found: str | np.ndarray = option.check(owner, baseline, image[None])
    return found if isinstance(found, str) else found[0]


def baselines(images: jax.Array, keys: jax.Array, baseline: Any) -> jax.Array:
    """The baselines of images, (k, n, h, w, c).

    Args:
        images: (n, h, w, c).
        keys: a key an image, (n,), for noise.
        baseline: images (n, h, w, c), or names joined by +: "black", "white", "grey", "mean" (the
            image's own colour), "blur" (its own Gaussian blur) and "noise" (uniform, in [0, 1]).
    """
    if not isinstance(baseline, str):
        return jnp.asarray(baseline)[None]

    def one(name: str) -> jax.Array:
        if name == "mean":
            return jnp.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
        if name == "blur":
            blur = Blur(sigma=_BLUR * max(images.shape[1:3]))
            return jax.vmap(blur)(keys, images)
        if name == "noise":
            return jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], jnp.float32))(
                keys
            )
        return jnp.full_like(images, {"black": 0.0, "white": 1.0, "grey": 0.5}[name])

    return jnp.stack([one(name) for name in baseline.split("+")])
