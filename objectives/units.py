"""Units: how strongly a neuron, a channel, a direction, a layer or a class responds.

Definitions follow Olah et al. 2017, "Feature Visualization" (Distill), and Simonyan et al. 2013,
"Deep Inside Convolutional Networks", for class scores.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.activations import Activations
from objectives.errors import ObjectiveError
from objectives.fields import check_number, leaf, static
from objectives.measures import safe_cosine
from objectives.objective import Objective

#: A layer's name that the unit text `layer:index` takes without quotes.
UNIT_LAYER = re.compile(r"(?=\d*[A-Za-z_])\w+(?:[./]\w+)*", re.ASCII)


class Indexed(Objective):
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

    def _unit_text(self: Any, suffix: str = "") -> str:
        """`layer:index`, the layer's name in quotes where it needs them."""
        layer = self.layer if UNIT_LAYER.fullmatch(self.layer) else repr(self.layer)
        return f"{layer}:{np.asarray(self.index).tolist()}{suffix}"


def _vectors(acts: Mapping[str, Any], layer: str) -> Any:
    a = acts[layer]
    if a.ndim != 2:
        raise ObjectiveError(
            f"layer {layer!r} does not hold one vector an image: its activations are "
            f"{tuple(a.shape)}, expected (n, classes)"
        )
    return a


def take(a: Any, index: Any) -> jax.Array:
    """Units of the last axis, one index or one an image: (n, ..., c) to (n, ...)."""
    index = jnp.asarray(index, jnp.int32)
    # A masked sum has a dense gradient; a gather's would be a scatter, serial on a CPU.
    index = index.reshape(index.shape + (1,) * (a.ndim - index.ndim))
    hit = _along_axis(a.shape[-1], a.ndim - 1, a.ndim) == index
    return jnp.sum(jnp.where(hit, a, 0), axis=-1)


def _along_axis(length: int, axis: int, ndim: int) -> jax.Array:
    """0, 1, 2 and so on along one axis of `ndim`."""
    return jax.lax.broadcasted_iota(
        jnp.int32, tuple(length if place == axis else 1 for place in range(ndim)), axis
    )


def _at(acts: Mapping[str, Any], layer: str, position: Any) -> jax.Array:
    """The vector at one position, or one an image: (n, h, w, c) or (n, t, c) to (n, c)."""
    a = acts[layer]
    axes = a.ndim - 2
    if axes not in (1, 2):
        raise ObjectiveError(
            f"layer {layer!r} has no positions: its activations are {tuple(a.shape)}, expected a "
            "map (n, h, w, c) or tokens (n, t, c)"
        )
    if position is None:
        if axes == 1:
            raise ObjectiveError(
                f"layer {layer!r} holds {a.shape[1]} tokens, which have no centre: give one, as @0 "
                "in a text or position=(0,)"
            )
        return a[:, a.shape[1] // 2, a.shape[2] // 2, :]
    places = jnp.asarray(position, jnp.int32)
    if places.shape[-1] != axes:
        raise ObjectiveError(
            f"a position in layer {layer!r} is "
            + ("(y, x), as @7,7" if axes == 2 else "one token, as @7")
            + f"; got {np.asarray(position).tolist() if _is_concrete(position) else places.shape}"
        )
    hits = []
    for axis in range(axes):
        place = places[..., axis]
        place = place.reshape(place.shape + (1,) * (axes + 1 - place.ndim))
        hits.append(_along_axis(a.shape[1 + axis], 1 + axis, 1 + axes) == place)
    hit = functools.reduce(jnp.logical_and, hits)
    return jnp.sum(jnp.where(hit[..., None], a, 0), axis=tuple(range(1, 1 + axes)))


def _is_concrete(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


def _check_position(position: Any) -> None:
    if position is None or not _is_concrete(position):
        return
    given = np.asarray(position)
    whole = given.dtype.kind in "iu" and given.ndim and given.shape[-1] in (1, 2)
    if not whole or np.any(given < 0):
        raise ObjectiveError(
            f"a position is (y, x), or (token,), whole numbers of 0 or more; got {given.tolist()}"
        )


def _check_position_in(objective: Any, acts: Activations) -> None:
    extent = acts[objective.layer].shape[1:-1]
    if objective.position is None or np.shape(objective.position)[-1] != len(extent):
        return  # the call says so
    if np.any(np.asarray(objective.position) >= extent):
        place = np.asarray(objective.position).tolist()
        if len(extent) == 1:
            raise ObjectiveError(
                f"{objective!r}: token {place} is out of range; {objective.layer} has tokens 0 to "
                f"{extent[0] - 1}"
            )
        raise ObjectiveError(
            f"{objective!r}: position (y, x) = {place} is out "
            f"of range; {objective.layer} is {extent[0]} high and {extent[1]} wide"
        )


class Channel(Indexed):
    """Mean activation of a channel over its map or its tokens.

    Args:
        layer: a layer with activations (n, ..., c).
        index: the channel, an integer; or one an image, (n,).
        skip: the first tokens, which the mean leaves out: 1 leaves out a class token.
    """

    layer: str = static()
    index: ArrayLike = leaf(ndim=0)
    skip: int = static(default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.skip, bool) or not isinstance(self.skip, int) or self.skip < 0:
            raise ObjectiveError(f"skip is a whole number of tokens; got {self.skip!r}")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), in the units of the activations."""
        a = acts[self.layer]
        if self.skip and not (a.ndim == 3 and self.skip < a.shape[1]):
            raise ObjectiveError(
                f"skip={self.skip} leaves out tokens of a layer (n, t, c) that has more of them; "
                f"{self.layer!r} is {tuple(a.shape)}"
            )
        values = take(a[:, self.skip :] if self.skip else a, self.index)
        return values.reshape(values.shape[0], -1).mean(axis=1)

    def __str__(self) -> str:
        return super().__str__() if self.layer == "logits" or self.skip else self._unit_text()


class Neuron(Indexed):
    """Activation of a channel at one position of a map, or at one token.

    Args:
        layer: a layer with activations (n, h, w, c), or tokens (n, t, c).
        index: the channel, an integer; or one an image, (n,).
        position: (y, x) in the layer's map; or one an image, (n, 2). None: the centre,
            (h // 2, w // 2). Of tokens, (token,) or (n, 1).
    """

    layer: str = static()
    index: ArrayLike = leaf(ndim=0)
    position: ArrayLike | None = leaf(default=None, ndim=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_position(self.position)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), in the units of the activations."""
        return take(_at(acts, self.layer, self.position), self.index)

    def _check_node(self, acts: Activations) -> None:
        super()._check_node(acts)
        _check_position_in(self, acts)

    def __str__(self) -> str:
        if self.position is None:
            return self._unit_text("@center")
        position = np.asarray(self.position)
        if position.ndim > 1:
            return super().__str__()
        return self._unit_text(f"@{','.join(map(str, position))}")


def _along(a: jax.Array, vector: Any, power: float) -> jax.Array:
    """The product a · vector times max(0.1, cos)^power along the last axis."""
    v = jnp.asarray(vector, a.dtype)
    # Of all images, or one an image: (1 or n, 1, ..., c).
    v = v.reshape(-1, *(1,) * (a.ndim - 2), v.shape[-1])
    dot = jnp.sum(a * v, axis=-1)
    return dot * jnp.maximum(0.1, safe_cosine(a, v)) ** power if power else dot


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
        layer: a layer with activations (n, h, w, c), or tokens (n, t, c).
        vector: the direction (c,); or one an image, (n, c).
        position: (y, x) in the layer's map; or one an image, (n, 2). None: the centre. Of tokens,
            (token,) or (n, 1).
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
        return _along(_at(acts, self.layer, self.position), self.vector, self.power)

    def _check_node(self, acts: Activations) -> None:
        _check_direction(self, acts)
        _check_position_in(self, acts)


class Facet(Objective):
    """What a score takes from one facet of a layer: the sum of vector · a · max(0, ∂score/∂a).

    Goh et al. 2021, "Multimodal Neurons in Artificial Neural Networks" (faceted feature
    visualization): added to the score, it keeps the picture to what a linear probe at some layers
    takes for a facet, say faces or text, counting only what the unit itself asks for there. In the
    authors' code each of L layers has 5 / L of it times a strength from 0.1 to 5, a picture each;
    their probe may have weights for each position.

    Args:
        layer: a layer of a network of `featvis.attributed(model, score, layer)`, which has the
            gradient as `LAYER/attribution`.
        vector: the probe's direction (c,); or one an image, (n, c).
    """

    layer: str = static()
    vector: ArrayLike = leaf(ndim=1)

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), in units of the score times those of the vector."""
        a = acts[self.layer]
        own = a * jax.nn.relu(jax.lax.stop_gradient(acts[f"{self.layer}/attribution"]))
        return _along(own, self.vector, 0.0).reshape(a.shape[0], -1).sum(axis=1)

    def _check_node(self, acts: Activations) -> None:
        if f"{self.layer}/attribution" not in acts:
            raise ObjectiveError(
                f"{self.layer} has no attribution: Facet is of a network of "
                f"featvis.attributed(model, score, {self.layer!r})"
            )
        _check_direction(self, acts)


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


class Logit(Indexed):
    """A class's score before the softmax (Simonyan et al. 2013, section 2).

    Args:
        index: the class; or one an image, (n,).
        layer: the layer of class scores (n, classes).
    """

    index: ArrayLike = leaf(ndim=0)
    layer: str = static(default="logits")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), logits."""
        return take(_vectors(acts, self.layer), self.index)

    def __str__(self) -> str:
        return self._unit_text() if self.layer == "logits" else super().__str__()


class Probability(Indexed):
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
        return take(jax.nn.softmax(_vectors(acts, self.layer)), self.index)


class LogProbability(Indexed):
    """The logarithm of a class's posterior, whose gradient does not vanish far from the class.

    Args:
        index: the class; or one an image, (n,).
        layer: the layer of class scores (n, classes).
    """

    index: ArrayLike = leaf(ndim=0)
    layer: str = static(default="logits")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0, in nats."""
        return take(jax.nn.log_softmax(_vectors(acts, self.layer)), self.index)


class DoubtedLogit(Indexed):
    """The logarithm of a posterior, whose gradient is (1 − p) times that of the logit alone.

    What the code of Plug & Play Generative Networks (Nguyen et al. 2017) climbs as "log p": it
    leaves out that the other logits are to fall, −Σ p_j ∇logit_j over the other classes. The true
    gradient is that of `LogProbability`.

    Args:
        index: the class; or one an image, (n,). Of a layer of maps, the channel: the posterior is
            the softmax over the channels at the centre, as in their code.
        layer: the layer of class scores (n, classes), or of maps (n, h, w, c).
    """

    index: ArrayLike = leaf(ndim=0)
    layer: str = static(default="logits")

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0, in nats."""
        scores = acts[self.layer]
        if scores.ndim == 4:
            scores = scores[:, scores.shape[1] // 2, scores.shape[2] // 2]
        else:
            scores = _vectors(acts, self.layer)
        logit = take(scores, self.index)
        logarithm = jax.lax.stop_gradient(take(jax.nn.log_softmax(scores), self.index))
        # The value of the one with the gradient of the other.
        return logarithm - jnp.expm1(logarithm) * (logit - jax.lax.stop_gradient(logit))
