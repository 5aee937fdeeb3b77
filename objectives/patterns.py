"""Patterns of a layer: directions in whitened activations, over an area, windows of positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.activations import Activations
from objectives.errors import ObjectiveError
from objectives.fields import canonical, check_number, is_traced, leaf, shorten, static
from objectives.measures import safe_cosine
from objectives.objective import Objective
from objectives.units import Indexed, take


def precision(activations: ArrayLike, ridge: float = 1e-3) -> jax.Array:
    """The inverse of E[a aᵀ] of activations (n, ..., c) over all but their channels, (c, c).

    Carter et al. 2019, "Activation Atlas": what `WhitenedDirection` takes.

    Args:
        activations: of natural images, at more positions than there are channels.
        ridge: added to the diagonal, as many times its mean, so that it has an inverse.

    Raises:
        ObjectiveError: no finite numbers (n, ..., c), or so few or so alike that there is no
            inverse.
    """
    check_number("ridge", ridge, at_least=0)
    a = canonical("activations", activations)
    if np.ndim(a) < 2:
        raise ObjectiveError(f"activations are (n, ..., c); got {shorten(activations)}")
    flat = jnp.asarray(a, jnp.float32).reshape(-1, np.shape(a)[-1])
    moment = flat.T @ flat / flat.shape[0]
    size = jnp.mean(jnp.diagonal(moment))
    found = jnp.linalg.inv(moment + ridge * size * jnp.eye(len(moment), dtype=moment.dtype))
    if not is_traced(found) and not bool(jnp.all(jnp.isfinite(found))):
        raise ObjectiveError(
            f"the second moment of activations at {len(flat)} positions of {len(moment)} channels "
            f"has no inverse with a ridge of {ridge:g}: give more positions, or a larger ridge"
        )
    return found


class WhitenedDirection(Objective):
    """A direction among whitened activations: mean over positions of dot · max(0.1, cos)^power.

    With the precision S = E[a aᵀ]⁻¹ of the layer, dot is aᵀ S v and cos is
    aᵀ S v / √(aᵀ S a · vᵀ S v): both as after whitening a and v (Carter et al. 2019, section
    "Feature visualization", where S weighs the direction). What is common among the layer's
    activations counts little.

    Args:
        layer: a layer with activations (n, ..., c).
        vector: the direction (c,), not whitened; or one an image, (n, c).
        precision: S, (c, c), symmetric: `precision(activations)`.
        power: of the cosine; 0 leaves the plain product.
    """

    layer: str = static()
    vector: ArrayLike = leaf(ndim=1)
    precision: ArrayLike = leaf(ndim=2)
    power: float = static(default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("power", self.power, at_least=0)
        width = np.shape(self.vector)[-1]
        if np.shape(self.precision)[-2:] != (width, width):
            raise ObjectiveError(
                f"the precision of {width} channels is {(width, width)}; got shape "
                f"{tuple(np.shape(self.precision))}"
            )

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,)."""
        a = acts[self.layer]
        a = a.reshape(a.shape[0], -1, a.shape[-1])
        v = jnp.atleast_2d(jnp.asarray(self.vector, a.dtype))
        s = jnp.asarray(self.precision, a.dtype)
        s = s if s.ndim == 3 else s[None]
        aimed = jnp.einsum("nij,nj->ni", jnp.broadcast_to(s, (len(v), *s.shape[1:])), v)
        dot = jnp.sum(a * aimed[:, None], axis=-1)
        if not self.power:
            return jnp.mean(dot, axis=1)
        spread = jnp.einsum("npi,nij,npj->np", a, jnp.broadcast_to(s, (len(a), *s.shape[1:])), a)
        length = jnp.sum(v * aimed, axis=-1)[:, None]
        squares = jnp.maximum(spread, 0) * jnp.maximum(length, 0)
        cosine = jnp.where(squares > 0, dot / jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        return jnp.mean(dot * jnp.maximum(0.1, cosine) ** self.power, axis=1)

    def _check_node(self, acts: Activations) -> None:
        width, given = acts[self.layer].shape[-1], np.shape(self.vector)[-1]
        if width != given:
            raise ObjectiveError(
                f"{self!r}: the vector has {given} entries; {self.layer} has {width} channels"
            )


class SpatialDirection(Objective):
    """A pattern of directions over an area of a map: dot · max(0.1, cos)^power of both as a whole.

    lucid's `tensor_direction`: what was active at several positions of a layer, at once.

    Args:
        layer: a layer with activations (n, h, w, c).
        pattern: a vector at each position of an area (h', w', c); or one an image, (n, h', w', c).
        corner: (y, x) of the area's first position; or one an image, (n, 2). None: the area is in
            the middle, at ((h - h') // 2, (w - w') // 2).
        power: of the true cosine; 0 leaves the plain dot product.
    """

    layer: str = static()
    pattern: ArrayLike = leaf(ndim=3)
    corner: ArrayLike | None = leaf(default=None, ndim=1)
    power: float = static(default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("power", self.power, at_least=0)
        if self.corner is not None and not isinstance(self.corner, jax.core.Tracer):
            given = np.asarray(self.corner)
            if given.dtype.kind not in "iu" or given.shape[-1] != 2 or np.any(given < 0):
                raise ObjectiveError(
                    f"a corner is (y, x), whole numbers of 0 or more; got {given.tolist()}"
                )

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,)."""
        a = acts[self.layer]
        height, width = self._area(a)
        if self.corner is None:
            y, x = (a.shape[1] - height) // 2, (a.shape[2] - width) // 2
            area = a[:, y : y + height, x : x + width]
        else:
            corner = jnp.atleast_2d(jnp.asarray(self.corner, jnp.int32))
            # Products with zeros and ones: their gradient is dense, that of a slice at a place
            # which is data is a scatter.
            rows, columns = (
                (
                    corner[:, axis, None, None] + np.arange(side, dtype=np.int32)[None, :, None]
                    == np.arange(a.shape[1 + axis], dtype=np.int32)[None, None]
                ).astype(a.dtype)
                for axis, side in enumerate((height, width))
            )
            shape = (len(a), *rows.shape[1:]), (len(a), *columns.shape[1:])
            rows, columns = jnp.broadcast_to(rows, shape[0]), jnp.broadcast_to(columns, shape[1])
            area = jnp.einsum("nih,nhwc,njw->nijc", rows, a, columns)
        wanted = jnp.asarray(self.pattern, a.dtype).reshape(-1, height * width * a.shape[-1])
        area = area.reshape(len(a), -1)
        dot = jnp.sum(area * wanted, axis=-1)
        if not self.power:
            return dot
        return dot * jnp.maximum(0.1, safe_cosine(area, wanted)) ** self.power

    def _area(self, a: Any) -> tuple[int, int]:
        height, width, channels = np.shape(self.pattern)[-3:]
        fits = len(a.shape) == 4 and a.shape[-1] == channels
        if not fits or height > a.shape[1] or width > a.shape[2]:
            raise ObjectiveError(
                f"a pattern {(height, width, channels)} does not fit into layer {self.layer!r}, "
                f"whose activations are {tuple(a.shape)}"
            )
        return height, width

    def _check_node(self, acts: Activations) -> None:
        a = acts[self.layer]
        sides = self._area(a)
        if self.corner is None:
            return
        last = [a.shape[1] - sides[0], a.shape[2] - sides[1]]
        if np.any(np.asarray(self.corner) > last):
            raise ObjectiveError(
                f"{self!r}: an area of {sides[0]} x {sides[1]} in {self.layer} has its corner at "
                f"most at {last}; got {np.asarray(self.corner).tolist()}"
            )


class Window(Indexed):
    """A channel over a window: the mean over positions with weights, Σ w·a / Σ w.

    Between `Neuron`, all weight at one position, and `Channel`, the same everywhere.

    Args:
        layer: a layer with activations (n, h, w, c).
        index: the channel, an integer; or one an image, (n,).
        weights: of the positions (h, w), at least 0 and not all 0; or one map an image, (n, h, w).
    """

    layer: str = static()
    index: ArrayLike = leaf(ndim=0)
    weights: ArrayLike = leaf(ndim=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.weights, jax.core.Tracer):
            return
        weights = np.asarray(self.weights)
        if np.any(weights < 0) or not np.all(np.any(weights > 0, axis=(-2, -1))):
            raise ObjectiveError("the weights of a window are at least 0, and not all of them 0")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), in the units of the activations."""
        a = acts[self.layer]
        weights = jnp.asarray(self.weights, a.dtype)
        if a.ndim != 4 or weights.shape[-2:] != a.shape[1:3]:
            raise ObjectiveError(
                f"the weights of a window are {tuple(weights.shape[-2:])}; the activations of "
                f"layer {self.layer!r} are {tuple(a.shape)}"
            )
        weights = weights / jnp.sum(weights, axis=(-2, -1), keepdims=True)
        weights = weights.reshape(-1, *weights.shape[-2:])
        return jnp.sum(take(a, self.index) * weights, axis=(1, 2))
