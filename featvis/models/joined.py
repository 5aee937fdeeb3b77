"""Several networks as one, which see the same picture."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from featvis.errors import InputError
from featvis.models.input import Input
from featvis.models.model import Apply, Model


def join(models: Mapping[str, Model], name: str | None = None) -> Model:
    """Join several networks to one model: what all ask for is less one network's fault.

    Its layers are those of each behind its name, `a/block8`, and one more where all have scores of
    the same classes: `logits`, their mean. So `fv.class_model(fv.join({"a": m1, "b": m2}), 285)`
    shows what both take for a tiger cat, and `fv.Channel("a/block8", 3) + fv.Channel("b/conv4", 7)`
    one picture of two units. A network that does not take the picture's size sees it resized to its
    own (bilinear, averaged where it shrinks).

    Args:
        models: at least two networks by a name of letters, digits and underscores each.
        name: of the model; by default those of the networks with `+` between, which `load` takes
            where all are networks of the zoo under their own names.

    Returns:
        A model at the first one's size; its digest is that of all digests and names.

    Raises:
        InputError: fewer than two, a name that no layer can begin with, no name, what is no
            model, or images of unequal numbers of channels.
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        raise InputError(
            'join takes at least two networks by name, as join({"a": m1, "b": m2}); '
            f"got {models!r}"
        )
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise InputError(f"a model's name is a text that is not empty, or None; got {name!r}")
    for key, model in models.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII):
            raise InputError(
                f"a joined network's name is of letters, digits and underscores, as layers begin "
                f"with it; got {key!r}"
            )
        if not isinstance(model, Model):
            raise InputError(f"join takes models; {key!r} is {type(model).__name__}")
    first = next(iter(models.values()))
    channels = {key: model.input.channels for key, model in models.items()}
    if len(set(channels.values())) > 1:
        raise InputError(f"joined networks take images of the same channels; got {channels}")
    labels = first.labels
    alike = labels is not None and all(model.labels == labels for model in models.values())
    shared = alike and all(len(model.layers().get("logits", ())) == 1 for model in models.values())
    digests = ";".join(f"{key}:{model.digest}" for key, model in models.items())
    networks = tuple((key, model.apply, model.input) for key, model in models.items())
    return Model(
        name=name or "+".join(models),
        apply=_Joined(networks, shared),
        params={key: model.params for key, model in models.items()},
        labels=labels if shared else None,
        digest=hashlib.sha256(digests.encode()).hexdigest(),
        input=Input(size=first.input.size, channels=first.input.channels),
        origin="; ".join(f"{key}: {model.name}, {model.origin}" for key, model in models.items()),
        left_out={
            f"{key}/{layer}": why
            for key, model in models.items()
            for layer, why in model.left_out.items()
        },
        drawn=tuple(f"{key}/{layer}" for key, model in models.items() for layer in model.drawn),
        joined=tuple((model.name, model.digest) for model in models.values()),
    )


@dataclass(frozen=True)
class _Joined:
    """Networks by name with what each expects, and whether there is a mean of their scores."""

    networks: tuple[tuple[str, Apply, Input], ...]
    shared: bool

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        found: dict[str, jax.Array] = {}
        for key, apply, takes in self.networks:
            for layer, values in apply(params[key], _at_home(image, takes)).items():
                found[f"{key}/{layer}"] = values
        if self.shared:
            scores = [found[f"{key}/logits"] for key, *_ in self.networks]
            found["logits"] = sum(scores[1:], scores[0]) / len(scores)
        return found


def _at_home(image: jax.Array, takes: Input) -> jax.Array:
    """Images (n, h, w, c) as they are where a network takes their size, else at its own."""
    count, height, width, channels = image.shape
    try:
        takes.check("", height, width, channels)
    except InputError:
        return jax.image.resize(image, (count, *takes.size, channels), "linear")
    return image
