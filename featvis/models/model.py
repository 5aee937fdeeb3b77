"""What a model is to featvis: a pure function from images to named activations, and its weights."""

from __future__ import annotations

import functools
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from featvis.errors import InputError
from featvis.models.input import Input
from objectives import Activations

#: Images of a dry run: as many as no network has positions, rows or classes by chance.
_DRY_RUN = 13


class Apply(Protocol):
    """A network as a pure function; hashable, and equal for equal architectures."""

    def __call__(self, params: Any, image: jax.Array, /) -> dict[str, jax.Array]:
        """Activations by layer name, in forward order, of images (n, h, w, c)."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A network behind what it declares of its input: images (n, h, w, c) in [0, 1] go in.

    Attributes:
        input: what the network expects.
        network: `(params, what the network takes) -> {layer: activations (n, ...)}`.
    """

    input: Input
    network: Apply

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        """Activations by layer name, in forward order, of images (n, h, w, c) in [0, 1]."""
        return self.network(params, self.input.prepare(image))


def _ordered(apply: Apply, params: Any, image: jax.Array) -> OrderedDict[str, jax.Array]:
    # jax sorts the keys of a dict, and keeps the order of this one.
    return OrderedDict(apply(params, image))


_activations = jax.jit(_ordered, static_argnums=0)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["name", "apply", "labels", "digest", "input", "origin"],
)
@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights; a pytree whose leaves are the weights.

    Attributes:
        name: As given to `featvis.models.load`, or one's own.
        apply: `(params, image (n, h, w, c) in [0, 1]) -> {layer: activations (n, ...)}`, pure
            and hashable. Preprocessing and padding are its own business.
        params: Weights, a pytree of arrays: an argument of a compiled function, never a constant.
        labels: Class names by index of the logits, or None.
        digest: SHA-256 of the weights.
        input: The images that it takes.
        origin: Where the weights come from, as far as it is known: a package and its version, an
            address, a repository and its revision, the name of a file.
    """

    name: str
    apply: Apply
    params: Any
    labels: tuple[str, ...] | None
    digest: str
    input: Input = field(default_factory=Input)
    origin: str = ""

    def __call__(self, image: jax.Array) -> Activations:
        """Activations by layer name, in forward order.

        Args:
            image: (n, h, w, c) in [0, 1].

        Raises:
            InputError: The image has another number of axes or channels, or a size that the
                network does not take.
        """
        shape = jnp.shape(image)
        if len(shape) != 4:
            raise InputError(
                f"{self.name} expects images (n, h, w, {self.input.channels}), got an array {shape}"
            )
        self.check_image_shape(*shape[1:])
        return Activations(_activations(self.apply, self.params, image))

    def check_image_shape(self, height: int, width: int, channels: int) -> None:
        """Checks the shape of one image.

        Raises:
            InputError: A size or a number of channels that it does not take; says what it does.
        """
        self.input.check(self.name, height, width, channels)

    def layers(self, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
        """Shapes of all activations of one image, without computing them.

        Args:
            size: Height and width in pixels; by default `self.input.size`.

        Returns:
            Shape without the batch axis by layer name, in forward order.

        Raises:
            InputError: A size that the network does not take.
        """
        height, width = size or self.input.size
        self.check_image_shape(height, width, self.input.channels)
        image = jax.ShapeDtypeStruct((_DRY_RUN, height, width, self.input.channels), jnp.float32)
        shapes = jax.eval_shape(functools.partial(_ordered, self.apply), self.params, image)
        return {name: layer.shape[1:] for name, layer in shapes.items()}

    def __repr__(self) -> str:
        return f"Model({self.name!r}, weights {self.digest[:12]})"
