"""Units: how strongly a neuron, a channel, a direction, a layer or a class responds.

Definitions follow Olah et al. 2017, "Feature Visualization" (Distill), and Simonyan et al. 2013,
"Deep Inside Convolutional Networks", for class scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.core import Activations, Objective, check_number, leaf, static
from objectives.errors import ObjectiveError

#: A layer's name that the unit text `layer:index` takes without quotes.
UNIT_LAYER = re.compile(r"[A-Za-z_]\w*(?:[./]\w+)*", re.ASCII)


class _Indexed(Objective):
    """A unit found by `index` along the last axis of `layer`."""

    def __post_init__(self: Any) -> None:
        super().__post_init__()
        if not isinstance(self.index, jax.core.Tracer):
            index = np.asarray(self.index)
            if index.dtype.kind not in "iu" or index.size == 0 or index.min() < 0:
                raise ObjectiveError(
                    f"a unit's index is a whole number of 0 or more; got {index.tolist()}"
                )

    def _check_node(self: Any, acts: Activations) -> None:
        shape = acts[self.layer].shape
        highest = int(np.max(self.index))
        if highest >= shape[-1]:
            raise ObjectiveError(
                f"{self!r}: index {highest} is out of range; "
                f"{self.layer} has units 0 to {shape[-1] - 1}"
            )

    def _unit_text(self: Any, suffix: str = "") -> str | None:
        """`layer:index`, or None where the layer's name needs quotes."""
        if UNIT_LAYER.fullmatch(self.layer) is None:
            return None
        return f"{self.layer}:{np.asarray(self.index).tolist()}{suffix}"


def _spatial(acts: Mapping[str, Any], layer: str) -> Any:
    a = acts[layer]
    if a.ndim != 4:
        raise ObjectiveError(
            f"layer {layer!r} has no spatial extent: its activations are {tuple(a.shape)}, "
            f"expected (n, h, w, c)"
        )
    return a


def _vectors(acts: Mapping[str, Any], layer: str) -> Any:
    a = acts[layer]
    if a.ndim != 2:
        raise ObjectiveError(
            f"layer {layer!r} does not hold one vector an image: its activations are "
            f"{tuple(a.shape)}, expected (n, classes)"
        )
    return a


def _take(a: Any, index: Any) -> jax.Array:
    """Units of the last axis, one index or one an image: (n, ..., c) to (n, ...)."""
    index = jnp.asarray(index)
    # A masked sum has a dense gradient; a gather's would be a scatter, serial on a CPU.
    index = index.reshape(index.shape + (1,) * (a.ndim - index.ndim))
    hit = jnp.arange(a.shape[-1]) == index
    return jnp.sum(jnp.where(hit, a, 0), axis=-1)


def _at(a: Any, position: Any) -> jax.Array:
    """The vector at one position (y, x), or one an image: (n, h, w, c) to (n, c)."""
    if position is None:
        return a[:, a.shape[1] // 2, a.shape[2] // 2, :]
    y, x = jnp.moveaxis(jnp.asarray(position), -1, 0)
    y, x = (jnp.reshape(v, v.shape + (1,) * (3 - v.ndim)) for v in (y, x))
    rows = jnp.arange(a.shape[1])[:, None] == y
    columns = jnp.arange(a.shape[2])[None, :] == x
    return jnp.sum(jnp.where((rows & columns)[..., None], a, 0), axis=(1, 2))


def _check_position(position: Any) -> None:
    if position is None or isinstance(position, jax.core.Tracer):
        return
    given = np.asarray(position)
    if given.dtype.kind not in "iu" or given.shape[-1] != 2 or np.any(given < 0):
        raise ObjectiveError(
            f"a position is (y, x), whole numbers of 0 or more; got {given.tolist()}"
        )


def _check_position_in(objective: Any, acts: Activations) -> None:
    shape = _spatial(acts, objective.layer).shape
    if objective.position is not None and np.any(np.asarray(objective.position) >= shape[1:3]):
        raise ObjectiveError(
            f"{objective!r}: position (y, x) = {np.asarray(objective.position).tolist()} is out "
            f"of range; {objective.layer} is {shape[1]} high and {shape[2]} wide"
        )


class Channel(_Indexed):
    """Mean activation of a channel over its map.

    Args:
        layer: a layer with activations (n, ..., c).
        index: the channel, an integer; or one an image, (n,).
    """

    layer: str = static()
    index: ArrayLike = leaf(ndim=0)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), in the units of the activations."""
        values = _take(acts[self.layer], self.index)
        return values.reshape(values.shape[0], -1).mean(axis=1)

    def __str__(self) -> str:
        text = None if self.layer == "logits" else self._unit_text()
        return text or super().__str__()


class Neuron(_Indexed):
    """Activation of a channel at one position.

    Args:
        layer: a layer with activations (n, h, w, c).
        index: the channel, an integer; or one an image, (n,).
        position: (y, x) in the layer's map; or one an image, (n, 2). None: the centre,
            (h // 2, w // 2).
    """

    layer: str = static()
    index: ArrayLike = leaf(ndim=0)
    position: ArrayLike | None = leaf(default=None, ndim=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_position(self.position)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), in the units of the activations."""
        return _take(_at(_spatial(acts, self.layer), self.position), self.index)

    def _check_node(self, acts: Activations) -> None:
        super()._check_node(acts)
        _check_position_in(self, acts)

    def __str__(self) -> str:
        if self.position is None:
            return self._unit_text("@center") or super().__str__()
        position = np.asarray(self.position)
        if position.ndim > 1:
            return super().__str__()
        return self._unit_text(f"@{position[0]},{position[1]}") or super().__str__()


def _norm(a: jax.Array) -> jax.Array:
    """Norm of the last axis; 1 for zeros, where the true norm has no gradient."""
    squares = jnp.sum(a * a, axis=-1)
    return jnp.sqrt(jnp.where(squares > 0, squares, 1))


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """True cosine of the last axes; 0 where either is all zero."""
    return jnp.sum(a * b, axis=-1) / _norm(a) / _norm(b)


def _along(a: jax.Array, vector: Any, power: float) -> jax.Array:
    """The product a · vector times max(0.1, cos)^power along the last axis."""
    v = jnp.asarray(vector, a.dtype)
    if v.ndim == 2:  # one an image
        v = v.reshape(v.shape[0], *(1,) * (a.ndim - 2), v.shape[1])
    dot = jnp.sum(a * v, axis=-1)
    return dot * jnp.maximum(0.1, _cosine(a, v)) ** power if power else dot


def _check_direction(objective: Any, acts: Activations) -> None:
    width, given = acts[objective.layer].shape[-1], np.shape(objective.vector)[-1]
    if width != given:
        raise ObjectiveError(
            f"{objective!r}: the vector has {given} entries; {objective.layer} has {width} channels"
        )


class Direction(Objective):
    """Mean over positions of dot · max(0.1, cos)^power with a vector of the layer.

    The cosine is the true one: of the activation and the vector at each position, both norms
    divided out (lucid's definition; Olah et al. 2018, Carter et al. 2019 use power 4).

    Args:
        layer: a layer with activations (n, ..., c).
        vector: the direction (c,), not normalised; or one an image, (n, c).
        power: of the cosine; 0 leaves the plain dot product.
    """

    layer: str = static()
    vector: ArrayLike = leaf(ndim=1)
    power: float = static(default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("power", self.power, at_least=0)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,)."""
        a = acts[self.layer]
        return _along(a, self.vector, self.power).reshape(a.shape[0], -1).mean(axis=1)

    def _check_node(self, acts: Activations) -> None:
        _check_direction(self, acts)


class DirectionNeuron(Objective):
    """dot · max(0.1, cos)^power with a vector at one position of the layer.

    Args:
        layer: a layer with activations (n, h, w, c).
        vector: the direction (c,); or one an image, (n, c).
        position: (y, x) in the layer's map; or one an image, (n, 2). None: the centre.
        power: of the true cosine; 0 leaves the plain dot product.
    """

    layer: str = static()
    vector: ArrayLike = leaf(ndim=1)
    position: ArrayLike | None = leaf(default=None, ndim=1)
    power: float = static(default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("power", self.power, at_least=0)
        _check_position(self.position)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,)."""
        return _along(_at(_spatial(acts, self.layer), self.position), self.vector, self.power)

    def _check_node(self, acts: Activations) -> None:
        _check_direction(self, acts)
        _check_position_in(self, acts)


class Layer(Objective):
    """DeepDream: mean square of all of a layer's activations (Mordvintsev et al. 2015).

    Args:
        layer: any layer.
    """

    layer: str = static()

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), in squared units of the activations."""
        a = acts[self.layer]
        return jnp.square(a).reshape(a.shape[0], -1).mean(axis=1)


class Logit(_Indexed):
    """A class's score before the softmax (Simonyan et al. 2013, section 2).

    Args:
        index: the class; or one an image, (n,).
        layer: the layer of class scores (n, classes).
    """

    index: ArrayLike = leaf(ndim=0)
    layer: str = static(default="logits")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), logits."""
        return _take(_vectors(acts, self.layer), self.index)

    def __str__(self) -> str:
        text = self._unit_text() if self.layer == "logits" else None
        return text or super().__str__()


class Probability(_Indexed):
    """A class's posterior: the softmax of the scores (Nguyen et al. 2015).

    Raising it also means lowering the other classes, which the logit does not.

    Args:
        index: the class; or one an image, (n,).
        layer: the layer of class scores (n, classes).
    """

    index: ArrayLike = leaf(ndim=0)
    layer: str = static(default="logits")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,) in [0, 1]."""
        return _take(jax.nn.softmax(_vectors(acts, self.layer)), self.index)


class LogProbability(_Indexed):
    """The logarithm of a class's posterior, whose gradient does not vanish far from the class.

    Args:
        index: the class; or one an image, (n,).
        layer: the layer of class scores (n, classes).
    """

    index: ArrayLike = leaf(ndim=0)
    layer: str = static(default="logits")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0, in nats."""
        return _take(jax.nn.log_softmax(_vectors(acts, self.layer)), self.index)
