"""Comparisons: with a target's activations, or among the images of the batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.activations import See
from objectives.errors import ObjectiveError
from objectives.fields import check_number, leaf, static
from objectives.measures import safe_cosine, safe_norm, safe_power
from objectives.objective import Objective

#: Keeps the logarithm of a squared relative error finite.
_LEAST_ERROR = 1e-12

_METRICS = ("norm", "l2", "log", "cosine")


def _positions(acts: Mapping[str, Any], layer: str) -> Any:
    a = acts[layer]
    if a.ndim < 3:
        raise ObjectiveError(
            f"layer {layer!r} has no positions: its activations are {tuple(a.shape)}, expected a "
            "map (n, h, w, c) or tokens (n, t, c)"
        )
    return a


def gram(activations: ArrayLike) -> jax.Array:
    """Gram matrices of `activations` over positions, (n, ..., c) to (n, c, c), mean-normalised.

    In float32, whatever the activations are in.

    Gatys et al. 2015, "A Neural Algorithm of Artistic Style", equation 3, divided by their number.
    """
    a = jnp.asarray(activations, jnp.float32)
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


def _check_images(objective: Any) -> None:
    images = objective.images
    if images is not None and np.ndim(images) != 4:
        raise ObjectiveError(
            f"the images of {type(objective).__name__} are (1, h, w, c) or (n, h, w, c); got shape "
            f"{tuple(np.shape(images))}"
        )
    _ = objective.batch_size  # raises where they and the target are for different images


def _check_target(objective: Objective, target: Any) -> None:
    if isinstance(target, jax.core.Tracer):
        return
    if not np.all(np.any(np.reshape(target, (np.shape(target)[0], -1)), axis=1)):
        raise ObjectiveError(f"{type(objective).__name__} needs a target that is not all zero")


class Comparison(Objective):
    """Base of the objectives that compare an image's activations with a target's.

    The target is the same whatever transform the image goes through, as in the papers' inversions;
    where a subclass has `images`, it is what the layer gives for them under that very transform.
    """

    def seen(self: Any, see: See) -> Objective:
        """With the target that `see` gives for the images, where it has some."""
        if self.images is None:
            return self
        target = see(self.images, None)[self.layer]
        return dataclasses.replace(self, target=target, images=None)


class FeatureMatch(Comparison):
    """Inversion: how near a layer's activations are to a target's.

    metric "l2": −‖a − t‖² / ‖t‖² (Mahendran & Vedaldi 2015, equation 2), 0 at a perfect match.
    metric "log": −log(‖a − t‖ / ‖t‖), of a relative error of 1 % 4.6; its gradient does not fade as
    the match gets better, so that Adam, which remembers the first steps' gradients for long, does
    not slow down. It ends at 13.8, a relative error of 10⁻⁶ (float32 knows no better).
    metric "cosine": the true cosine of a and t, 1 at a perfect match up to scale.
    metric "norm": minus the mean over positions of ‖a − t‖₂ over the channels, in the layer's own
    units (Hamblin et al. 2024): its gradient does not fade with the distance, so that a weight
    above a bound makes the match perfect. At a perfect match the gradient is 0.

    Args:
        layer: any layer.
        target: activations of the target (1, ...) for all images or (n, ...) for each its own.
        mask: weights in [0, 1] over positions, (1, h, w) or (n, h, w), on both a and t; the
            receptive-field figures of the paper use a central square. None: everywhere.
        metric: "l2", "log", "cosine" or "norm".
        images: (1, h, w, c) or (n, h, w, c), whose activations the target are: they then go through
            each step's transforms beside the picture. None: the target does not move.
    """

    layer: str = static()
    target: ArrayLike = leaf()
    mask: ArrayLike | None = leaf(default=None)
    metric: str = static(default="l2")
    images: ArrayLike | None = leaf(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in _METRICS:
            *others, last = map(repr, _METRICS)
            raise ObjectiveError(
                f"metric must be {', '.join(others)} or {last}; got {self.metric!r}"
            )
        _check_target(self, self.target)
        _check_images(self)
        if self.mask is not None and np.shape(self.mask)[1:] == np.shape(self.target)[1:-1]:
            mask = jnp.asarray(self.mask, jnp.float32)[..., None]
            _check_target(self, jnp.asarray(self.target, jnp.float32) * mask)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0 (l2, norm), 13.8 (log) or 1 (cosine)."""
        a = acts[self.layer]
        t = jnp.broadcast_to(_target_like(self, a), a.shape)
        if self.mask is not None:
            mask = jnp.asarray(self.mask, a.dtype)
            if mask.shape[1:] != _positions(acts, self.layer).shape[1:-1]:
                raise ObjectiveError(
                    f"the mask has shape {tuple(mask.shape)}; expected (1 or n, *{a.shape[1:-1]})"
                )
            a, t = a * mask[..., None], t * mask[..., None]
        if self.metric == "norm":
            distances = safe_power(jnp.sum((a - t) ** 2, axis=-1), 0.5)
            return -jnp.mean(distances, axis=tuple(range(1, distances.ndim)))
        a, t = _flat(a), _flat(t)
        if self.metric == "cosine":
            return safe_cosine(a, t)
        error = jnp.sum((a - t) ** 2, axis=1) / jnp.sum(t * t, axis=1)
        return -error if self.metric == "l2" else -0.5 * jnp.log(error + _LEAST_ERROR)


class Caricature(Comparison):
    """Exaggeration of what a layer sees in an image: ⟨a, t⟩/‖t‖² · max(0.1, cos(a, t))^power.

    The cosine is the true one and the product is per image, so that the score is 1 at the
    original and grows only along its direction (lucid's caricature, with both norms divided out).

    Args:
        layer: any layer.
        target: activations of the original, (1, ...) or (n, ...).
        power: of the cosine; 0 leaves the plain inner product.
        positive: take the positive part of the target, as Mahendran & Vedaldi 2016, section 6, do;
            it differs at layers without a rectifier, where the score of the original is not 1.
        images: as for `FeatureMatch`.
    """

    layer: str = static()
    target: ArrayLike = leaf()
    power: float = static(default=1.0)
    positive: bool = static(default=False)
    images: ArrayLike | None = leaf(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("power", self.power, at_least=0)
        if not isinstance(self.positive, bool):
            raise ObjectiveError(f"positive must be True or False; got {self.positive!r}")
        _check_target(self, np.maximum(self.target, 0) if self._takes_part else self.target)
        _check_images(self)

    @property
    def _takes_part(self) -> bool:
        return self.positive and not isinstance(self.target, jax.core.Tracer)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), 1 at the original unless `positive`."""
        a = acts[self.layer]
        t = _flat(jnp.broadcast_to(_target_like(self, a), a.shape))
        t = jnp.maximum(t, 0) if self.positive else t
        a = _flat(a)
        score = jnp.sum(a * t, axis=1) / jnp.sum(t * t, axis=1)
        return score * jnp.maximum(0.1, safe_cosine(a, t)) ** self.power if self.power else score


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
        g = g / safe_norm(g)[:, None]
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
        smallest = jnp.min(squares[np.triu_indices(count, 1)])
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


class BatchStatistics(Objective):
    """How near the statistics of a layer over the batch are to given ones, the same score for all.

    −‖μ − mean‖₂ − ‖σ² − variance‖₂ with μ and σ² those of each channel over images and positions:
    a term of DeepInversion's prior (Yin et al. 2020, section 3.2), where they are a batch norm's
    running ones and the layer is its input (`featvis.batch_norm_prior` makes them all).

    Args:
        layer: any layer with channels last.
        mean: wanted mean of each channel, (c,).
        variance: wanted variance of each channel, (c,), at least 0.
    """

    couples_images = True

    layer: str = static()
    mean: ArrayLike = leaf(ndim=1)
    variance: ArrayLike = leaf(ndim=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes = np.shape(self.mean), np.shape(self.variance)
        if shapes[0] != shapes[1] or len(shapes[0]) != 1:
            raise ObjectiveError(
                "BatchStatistics takes a mean and a variance of each channel, (c,) both, for the "
                f"whole batch; got shapes {shapes[0]} and {shapes[1]}"
            )
        if not isinstance(self.variance, jax.core.Tracer) and np.min(self.variance) < 0:
            raise ObjectiveError(f"a variance is at least 0; got {np.min(self.variance)}")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0, all equal."""
        a = acts[self.layer]
        wanted = jnp.asarray(self.mean, jnp.float32)
        if wanted.shape != a.shape[-1:]:
            raise ObjectiveError(
                f"BatchStatistics has a mean of {wanted.shape[0]} channels; layer {self.layer!r} "
                f"has {a.shape[-1]}"
            )
        axes = tuple(range(a.ndim - 1))
        off = jnp.mean(a, axes) - wanted, jnp.var(a, axes) - jnp.asarray(self.variance, jnp.float32)
        distance = sum(safe_power(jnp.sum(d * d), 0.5) for d in off)
        return jnp.broadcast_to(-distance, a.shape[:1])
