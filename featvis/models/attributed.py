"""A network that gives, beside its layers, how much a score depends on each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from featvis.errors import InputError
from featvis.jaxprs.injection import Program
from featvis.models.model import Apply, Model
from objectives import Activations, Objective, parse


def attributed(model: Model, score: Objective | str, layers: str | Sequence[str]) -> Model:
    """Add a score's gradient by some layers of a network as layers of their own.

    Each is called as its layer with `/attribution` behind it, has its shape, and counts as a
    constant: what is maximised changes the layer, and not its gradient. `Facet` reads them. So
    `attributed(model, "logits:285", "block10")` has a layer `block10/attribution`. Another unit of
    the score's layer compiles nothing.

    Args:
        model: a network.
        score: what the gradient is of, an objective or its text, the same for all images.
        layers: a layer or several, that the score depends on.

    Returns:
        A model whose digest is of the network's, the score and the layers.

    Raises:
        InputError: no layers, or one that the score does not depend on.
        UnknownLayer: no such layer.
        ObjectiveError: a score that does not fit the network, or is of several images.
    """
    named = (layers,) if isinstance(layers, str) else tuple(layers)
    known = Activations(model.layers())
    if not named:
        raise InputError("attributed takes at least one layer; got none")
    for layer in named:
        known[layer]  # says the nearest
    objective = parse(score) if isinstance(score, str) else score
    arrays: Objective = jax.tree.map(jnp.asarray, objective)
    text = f"{model.digest};{objective};{','.join(named)}"
    made = replace(
        model,
        apply=_Attributed(model.apply, named),
        params={"network": model.params, "score": arrays},
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )
    image = jax.ShapeDtypeStruct((1, *model.input.size, model.input.channels), jnp.float32)
    acts = Activations(jax.eval_shape(model.apply, model.params, image))
    objective.check(acts, image.shape)
    jax.eval_shape(made.apply, made.params, image)
    return made


@dataclass(frozen=True)
class _Attributed:
    """A network, and the layers by which a score's gradient is given."""

    network: Apply
    layers: tuple[str, ...]

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        def scored(weights: Any, image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            found = Activations(self.network(weights, image))
            return params["score"](found, image), {one: found[one] for one in self.layers}

        program = Program(scored, params["network"], image)
        places = {layer: program.layer(layer) for layer in self.layers}
        for layer, place in places.items():
            if place is None:
                raise InputError(f"the score does not depend on {layer}: name a layer before it")
        _, gradients = program.gradients([one for one in places.values() if one is not None])
        found = dict(self.network(params["network"], image))
        for layer, place in places.items():
            assert place is not None
            found[f"{layer}/attribution"] = jax.lax.stop_gradient(gradients[place])
        return found
