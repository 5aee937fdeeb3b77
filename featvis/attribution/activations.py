"""Attribution by the maps of a layer and the score's gradient by them; by attention, of tokens.

The layer is any that the score depends on and that has positions: a map (n, h, w, c), or tokens
(n, t, c), of which those beyond rows times columns come first and are no positions (a class token,
registers). Maps are enlarged to the image bilinearly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from featvis.attribution.method import Explained, method
from featvis.errors import InputError
from featvis.jaxprs.affine import AlphaBeta, Depths
from featvis.jaxprs.attention import attentions
from featvis.jaxprs.injection import Place, Program
from featvis.jaxprs.relevance import relevance_at
from objectives import Activations

#: Tokens that may come before those of positions: a class token and registers.
_MOST_OTHERS = 16


@method("grad_cam")
def grad_cam(given: Explained, *, layer: str | None = None, signed: bool = False) -> jax.Array:
    """A layer's channels weighted with their mean gradient, summed; what is above 0 of it.

    Selvaraju et al. 2017, "Grad-CAM". On a network of global average pooling and one product after
    it the class activation map of Zhou et al. 2016 by its number of positions.

    Args:
        given: what is explained.
        layer: a map or tokens. None: the last one whose positions the score depends on.
        signed: whether what is below 0 is kept.
    """

    def combine(maps: jax.Array, gradient: jax.Array) -> jax.Array:
        total = jnp.sum(maps * gradient.mean((1, 2), keepdims=True), axis=-1)
        return total if signed else jax.nn.relu(total)

    return _of_layer(given, layer, combine)


@method("grad_cam_plus_plus")
def grad_cam_plus_plus(given: Explained, *, layer: str | None = None) -> jax.Array:
    """As Grad-CAM, with weights that count each position of a channel alike; 0 or more.

    Chattopadhay et al. 2018, "Grad-CAM++", equation 19, of the exponential of the score.

    Args:
        given: what is explained.
        layer: a map or tokens. None: the last one whose positions the score depends on.
    """

    def combine(maps: jax.Array, gradient: jax.Array) -> jax.Array:
        square = gradient**2
        below = 2 * square + maps.sum((1, 2), keepdims=True) * gradient**3
        share = jnp.where(below != 0, square / jnp.where(below != 0, below, 1), 0)
        weight = jnp.sum(share * jax.nn.relu(gradient), axis=(1, 2), keepdims=True)
        return jax.nn.relu(jnp.sum(maps * weight, axis=-1))

    return _of_layer(given, layer, combine)


@method("layer_cam")
def layer_cam(given: Explained, *, layer: str | None = None) -> jax.Array:
    """A layer's channels weighted with their gradient above 0 at each position; 0 or more.

    Jiang et al. 2021, "LayerCAM".

    Args:
        given: what is explained.
        layer: a map or tokens. None: the last one whose positions the score depends on.
    """

    def combine(maps: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.nn.relu(jnp.sum(maps * jax.nn.relu(gradient), axis=-1))

    return _of_layer(given, layer, combine)


@method("zoom_cam")
def zoom_cam(given: Explained, *, layers: str | None = None) -> jax.Array:
    """Maps of several layers, each of its channels times their gradient, their largest; 0 to 1.

    Shi et al. 2020, "Zoom-CAM": of each layer what is above 0 of the sum over channels, scaled to
    [0, 1], from coarse to fine: the coarser maps so far are enlarged and the larger value is kept.

    Args:
        given: what is explained.
        layers: names joined by +. None: of each size of map the last layer.
    """
    program = given.program
    places = _places(given, program)
    if layers is not None:
        chosen = [_place(given, program, name) for name in layers.split("+")]
    else:
        last = {_extent(given, place): place for place in places.values()}
        chosen = list(last.values())
    values, gradients = program.gradients(chosen)
    whole = None
    for place in sorted(chosen, key=lambda place: math.prod(_extent(given, place))):
        maps, gradient = (_as_map(given, one[place]) for one in (values, gradients))
        own = jax.nn.relu(jnp.sum(maps * gradient, axis=-1))
        low, high = own.min((1, 2), keepdims=True), own.max((1, 2), keepdims=True)
        own = (own - low) / jnp.where(high > low, high - low, 1)
        whole = own if whole is None else jnp.maximum(_enlarged(whole, own.shape[1:]), own)
    assert whole is not None
    return _enlarged(whole, given.images.shape[1:3])


@method("attention_rollout")
def attention_rollout(given: Explained) -> jax.Array:
    """How attention mixes the positions up to the unit, whatever the unit is; 0 or more.

    Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers": the mean over heads, half of
    it the token itself, multiplied up. The row is the first token's where there is one beside the
    positions, else the mean of all. Only where the unit is, not which, makes a difference.

    Args:
        given: what is explained.
    """
    program = given.program
    places = _attentions(program)
    values = program.values(places)

    def mixed(place: Place) -> jax.Array:
        mean = values[place].mean(1)
        half = 0.5 * mean + 0.5 * jnp.eye(mean.shape[-1], dtype=mean.dtype)[None]
        return half / half.sum(-1, keepdims=True)

    return _of_tokens(given, places, lambda rolled, place: mixed(place) @ rolled)


@method("transformer_attribution")
def transformer_attribution(
    given: Explained, *, factor: Literal["attention", "relevance"] = "attention"
) -> jax.Array:
    """Attention or its relevance, times the gradient by it, above 0, rolled out; 0 or more.

    Chefer, Gur & Wolf 2021, "Generic Attention-model Explainability", equations 5 and 6, of
    attention among tokens of one kind. With its relevance in the place of the attention it is that
    of Chefer, Gur & Wolf 2021, "Transformer Interpretability Beyond Attention Visualization",
    equations 8 to 14: the relevance of a score of 1 by the z⁺-rule without biases, of which of a
    product of two values either gets half. (The authors hand relevance past a layer normalisation
    as it is, and shrink parts of a residual sum that are of opposite sign; here both are as in all
    methods of relevance.) The row is the first token's where there is one beside the positions,
    else the mean of all.

    Args:
        given: what is explained.
        factor: of the gradient: the attention or its relevance.
    """
    program = given.program
    places = _attentions(program)
    values, gradients = program.gradients(places)
    if factor == "relevance":
        depths = Depths(((1.0, AlphaBeta(1.0)),), biased=False, halved=True)
        found = relevance_at(program, given.images, depths, places)
        values = dict(zip(places, found, strict=True))

    def relevant(rolled: jax.Array, place: Place) -> jax.Array:
        own = jax.nn.relu(gradients[place] * values[place]).mean(1)
        return rolled + own @ rolled

    # What a token keeps of itself says nothing of the others.
    return _of_tokens(given, places, relevant, whole=False)


# ---- layers with positions -----------------------------------------------------------------


def _of_layer(
    given: Explained, layer: str | None, combine: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """What is made of a layer's map and of its gradient, enlarged to the images."""
    program = given.program
    place = _place(given, program, layer)
    values, gradients = program.gradients([place])
    found = combine(*(_as_map(given, one[place]) for one in (values, gradients)))
    return _enlarged(found, given.images.shape[1:3])


def _place(given: Explained, program: Program, layer: str | None) -> Place:
    """Where a layer is, or the last one with positions that the score depends on.

    Raises:
        InputError: the layer has no positions, or the score does not depend on it.
        UnknownLayer: no layer of that name.
    """
    if layer is None:
        return list(_places(given, program).values())[-1]
    shape = Activations(program.shapes)[layer]  # an unknown one says the nearest
    place = program.layer(layer)
    able = _places(given, program)
    listed = ", ".join([*able][-4:])
    if _extent_of(given, shape) is None:
        raise InputError(
            f"layer {layer!r} is {shape[1:]} and has no positions; among those that have: {listed}"
        )
    if place is None:
        raise InputError(
            f"the unit does not depend on layer {layer!r}; among those that it does "
            f"depend on: {listed}"
        )
    return place


def _places(given: Explained, program: Program) -> dict[str, Place]:
    """The layers with positions that the score depends on, in forward order.

    Raises:
        InputError: there is none.
    """
    found = {
        name: place
        for name, shape in program.shapes.items()
        if _extent_of(given, shape) is not None and (place := program.layer(name)) is not None
    }
    mixing = [place.number for place in attentions(program)]
    if mixing:
        # After the last attention the token that is read does not know of the others.
        before = {n: p for n, p in found.items() if program.origin(p) < max(mixing)}
        found = before or found
    if not found:
        raise InputError("the unit depends on no layer that has positions")
    return dict(sorted(found.items(), key=lambda item: program.origin(item[1])))


def _extent_of(given: Explained, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(rows, columns) of a layer (n, ...); None where it has none, or one position."""
    if len(shape) == 4:
        rows, columns = shape[1:3]
        return (rows, columns) if rows * columns > 1 else None
    return _grid(given, shape[1]) if len(shape) == 3 else None


def _extent(given: Explained, place: Place) -> tuple[int, int]:
    found = _extent_of(given, place.shape)
    assert found is not None
    return found


def _grid(given: Explained, tokens: int) -> tuple[int, int] | None:
    """(rows, columns) of so many tokens, in the images' proportion; None where none are."""
    height, width = given.images.shape[1:3]
    for others in range(min(_MOST_OTHERS, tokens - 1)):
        rows = round(math.sqrt((tokens - others) * height / width))
        columns = round(math.sqrt((tokens - others) * width / height))
        if rows * columns == tokens - others > 1:
            return rows, columns
    return None


def _as_map(given: Explained, values: jax.Array) -> jax.Array:
    """A layer as a map (n, h, w, c)."""
    if values.ndim == 4:
        return values
    grid = _grid(given, values.shape[1])
    assert grid is not None
    rows, columns = grid
    return values[:, -rows * columns :].reshape(len(values), rows, columns, -1)


def _enlarged(maps: jax.Array, size: tuple[int, ...]) -> jax.Array:
    return jax.image.resize(maps, (len(maps), *size), "linear")


# ---- attention -----------------------------------------------------------------------------


def _attentions(program: Program) -> list[Place]:
    """The attentions that the score depends on, from the image on.

    Raises:
        InputError: there is none.
    """
    found = attentions(program)
    if not found:
        raise InputError(
            "the network has no softmax attention between tokens before this unit, outside of "
            "loops: grad_cam and layer_cam take maps of any layer"
        )
    return found


def _of_tokens(
    given: Explained,
    places: list[Place],
    step: Callable[[jax.Array, Place], jax.Array],
    whole: bool = True,
) -> jax.Array:
    """Maps of what is rolled out through attentions, from the token that is read.

    Args:
        given: what is explained.
        places: of the attentions, (n, heads, tokens, tokens) each.
        step: what was rolled out before an attention, (n, tokens, tokens), to what is after it.
        whole: whether a token's own share counts, where it is the mean of all that is read.
    """
    tokens = places[0].shape[-1]
    if any(place.shape[-1] != tokens for place in places):
        raise InputError("attention between different numbers of tokens cannot be rolled out")
    grid = _grid(given, tokens)
    if grid is None:
        raise InputError(f"{tokens} tokens are no grid of the images' proportion")
    rows, columns = grid
    itself = jnp.eye(tokens, dtype=jnp.float32)[None]
    rolled = jnp.broadcast_to(itself, (len(given.images), tokens, tokens))
    for place in places:
        rolled = step(rolled, place)
    if not whole:
        rolled = rolled - itself
    read = rolled[:, 0] if tokens > rows * columns else rolled.mean(1)
    maps = read[:, -rows * columns :].reshape(-1, rows, columns)
    return _enlarged(maps, given.images.shape[1:3])
