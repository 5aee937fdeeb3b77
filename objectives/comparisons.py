"""Comparisons: with a target's activations, or among the images of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.core import Objective, check_number, leaf, static
from objectives.errors import ObjectiveError
from objectives.units import _cosine, _norm


def _positions(acts: Mapping[str, Any], layer: str) -> Any:
    a = acts[layer]
    if a.ndim < 3:
        raise ObjectiveError(
            f"layer {layer!r} has no positions: its activations are {tuple(a.shape)}, expected a "
            "map (n, h, w, c) or tokens (n, t, c)"
        )
    return a


def gram(activations: ArrayLike) -> jax.Array:
    """Gram matrices of activations over positions, (n, ..., c) to (n, c, c), mean-normalised.

    Gatys et al. 2015, "A Neural Algorithm of Artistic Style", equation 3, divided by their number.
    """
    a = jnp.asarray(activations)
    flat = a.reshape(a.shape[0], -1, a.shape[-1])
    return jnp.einsum("npc,npd->ncd", flat, flat) / flat.shape[1]


def _flat(a: jax.Array) -> jax.Array:
    return a.reshape(a.shape[0], -1)


def _target_like(objective: Any, a: jax.Array) -> jax.Array:
    target = jnp.asarray(objective.target, a.dtype)
    if target.shape[1:] != a.shape[1:]:
        raise ObjectiveError(
            f"the target of {type(objective).__name__} has shape {tuple(target.shape)}; layer "
            f"{objective.layer!r} gives {tuple(a.shape)} at this image size"
        )
    return target


def _check_target(objective: Objective, target: Any) -> None:
    if isinstance(target, jax.core.Tracer):
        return
    if not np.all(np.any(np.reshape(target, (np.shape(target)[0], -1)), axis=1)):
        raise ObjectiveError(f"{type(objective).__name__} needs a target that is not all zero")


class FeatureMatch(Objective):
    """Inversion: how near a layer's activations are to a target's.

    metric "l2": −‖a − t‖² / ‖t‖² (Mahendran & Vedaldi 2015, equation 2), 0 at a perfect match.
    metric "cosine": the true cosine of a and t, 1 at a perfect match up to scale.

    Args:
        layer: any layer.
        target: activations of the target (1, ...) for all images or (n, ...) for each its own.
        mask: weights in [0, 1] over positions, (1, h, w) or (n, h, w), on both a and t; the
            receptive-field figures of the paper use a central square. None: everywhere.
        metric: "l2" or "cosine".
    """

    layer: str = static()
    target: ArrayLike = leaf()
    mask: ArrayLike | None = leaf(default=None)
    metric: str = static(default="l2")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in ("l2", "cosine"):
            raise ObjectiveError(f"metric must be 'l2' or 'cosine'; got {self.metric!r}")
        _check_target(self, self.target)
        _ = self.batch_size  # raises where the mask and the target are for different images
        if self.mask is not None and np.shape(self.mask)[1:] == np.shape(self.target)[1:-1]:
            _check_target(self, self.target * jnp.asarray(self.mask)[..., None])

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0 (l2) or at most 1 (cosine)."""
        a = acts[self.layer]
        t = jnp.broadcast_to(_target_like(self, a), a.shape)
        if self.mask is not None:
            mask = jnp.asarray(self.mask, a.dtype)
            if mask.shape[1:] != _positions(acts, self.layer).shape[1:-1]:
                raise ObjectiveError(
                    f"the mask has shape {tuple(mask.shape)}; expected (1 or n, *{a.shape[1:-1]})"
                )
            a, t = a * mask[..., None], t * mask[..., None]
        a, t = _flat(a), _flat(t)
        if self.metric == "l2":
            return -jnp.sum((a - t) ** 2, axis=1) / jnp.sum(t * t, axis=1)
        return _cosine(a, t)


class Caricature(Objective):
    """Exaggerates what a layer sees in an image: ⟨a, t⟩/‖t‖² · max(0.1, cos(a, t))^power.

    The cosine is the true one and the product is per image, so that the score is 1 at the
    original and grows only along its direction (lucid's caricature, with both norms divided out).
    Mahendran & Vedaldi 2016, section 6, take the positive part of the original's activations:
    give `max(target, 0)` for their objective, which differs at layers without a rectifier.

    Args:
        layer: any layer.
        target: activations of the original, (1, ...) or (n, ...).
        power: of the cosine; 0 leaves the plain inner product.
    """

    layer: str = static()
    target: ArrayLike = leaf()
    power: float = static(default=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("power", self.power, at_least=0)
        _check_target(self, self.target)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), 1 at the original."""
        a = acts[self.layer]
        t = _flat(jnp.broadcast_to(_target_like(self, a), a.shape))
        a = _flat(a)
        score = jnp.sum(a * t, axis=1) / jnp.sum(t * t, axis=1)
        return score * jnp.maximum(0.1, _cosine(a, t)) ** self.power if self.power else score


class Style(Objective):
    """Style match: −‖G(a) − G₀‖² / ‖G₀‖² of Gram matrices (Gatys et al. 2015, equation 4).

    Args:
        layer: a layer with activations (n, h, w, c), or tokens (n, t, c).
        target: Gram matrices (1, c, c) or (n, c, c), as `gram` makes them; the style image may
            have another size.
    """

    layer: str = static()
    target: ArrayLike = leaf()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_target(self, self.target)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0."""
        g = gram(_positions(acts, self.layer))
        t = jnp.asarray(self.target, g.dtype)
        if t.shape[1:] != g.shape[1:]:
            raise ObjectiveError(
                f"the target of Style has shape {tuple(t.shape)}; layer {self.layer!r} has Gram "
                f"matrices {tuple(g.shape)}"
            )
        t = jnp.broadcast_to(t, g.shape)
        return -jnp.sum((g - t) ** 2, axis=(1, 2)) / jnp.sum(t * t, axis=(1, 2))


def _several(objective: Objective, count: int) -> None:
    if count < 2:
        raise ObjectiveError(f"{objective!r} compares images and needs at least 2; got {count}")


def _mean_squares(objective: Objective, values: jax.Array) -> jax.Array:
    """Mean square differences of every two images, (n, ...) to (n, n)."""
    x = _flat(values)
    _several(objective, x.shape[0])
    return jnp.mean((x[:, None] - x[None]) ** 2, axis=2)


class Diversity(Objective):
    """Difference in style among the images: minus the mean cosine of their Gram matrices.

    Olah et al. 2017; lucid sums over the other images, this is the mean, so that a weight means
    the same for any number of images. A diversity term alone does not recover all the facets of a
    unit: start from many seeds too.

    Args:
        layer: a layer with activations (n, h, w, c), or tokens (n, t, c).
    """

    couples_images = True

    layer: str = static()

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,) in [−1, 1]."""
        g = _flat(gram(_positions(acts, self.layer)))
        count = g.shape[0]
        _several(self, count)
        g = g / _norm(g)[:, None]
        others = g @ g.T * (1 - jnp.eye(count, dtype=g.dtype))
        return -jnp.sum(others, axis=1) / (count - 1)


class MinDistance(Objective):
    """The smallest root-mean-square distance between any two images, the same score for all.

    Cadena et al. 2018, "Diverse feature visualizations reveal invariances", equation 2.

    Args:
        layer: where the distance is taken; None: the pixels.
    """

    couples_images = True

    layer: str | None = static(default=None)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at least 0, all equal."""
        squares = _mean_squares(self, image if self.layer is None else acts[self.layer])
        count = squares.shape[0]
        smallest = jnp.min(jnp.where(np.eye(count, dtype=bool), jnp.inf, squares))
        # The root's gradient is infinite at 0: coinciding images get distance 0 and gradient 0.
        apart = smallest > 0
        distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, smallest, 1)), 0)
        return jnp.broadcast_to(distance, (count,))


class Alignment(Objective):
    """Likeness to the neighbours in the batch: −Σⱼ decay^−|i−j| · mean (xᵢ − xⱼ)².

    Keeps the corresponding features of an interpolation in place (lucid's alignment).

    Args:
        layer: where images are compared; None: the pixels.
        decay: how much less each step away counts, at least 1.
    """

    couples_images = True

    layer: str | None = static(default=None)
    decay: float = static(default=2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("decay", self.decay, at_least=1)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0."""
        squares = _mean_squares(self, image if self.layer is None else acts[self.layer])
        count = squares.shape[0]
        steps = np.abs(np.arange(count)[:, None] - np.arange(count))
        weights = np.where(steps > 0, float(self.decay) ** -steps, 0.0)
        return -jnp.sum(jnp.asarray(weights, squares.dtype) * squares, axis=1)
