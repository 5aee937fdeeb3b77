"""What a model is to featvis: a pure function from images to named activations, and its weights."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from featvis.errors import InputError
from objectives import Activations

__all__ = ["Apply", "Model", "ModelEntry", "model_entry"]


class Apply(Protocol):
    """A network as a pure function; hashable, and equal for equal architectures."""

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        """Activations by layer name, in forward order, of images (n, h, w, c) in [0, 1]."""
        ...


def _ordered(apply: Apply, params: Any, image: jax.Array) -> OrderedDict[str, jax.Array]:
    # jax sorts the keys of a dict, and keeps the order of this one.
    return OrderedDict(apply(params, image))


_activations = jax.jit(_ordered, static_argnums=0)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["name", "apply", "channels", "size", "min_size", "labels", "digest"],
)
@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights; a pytree whose leaves are the weights.

    Attributes:
        name: As given to `featvis.models.load`.
        apply: `(params, image (n, h, w, c) in [0, 1]) -> {layer: activations (n, ...)}`, pure
            and hashable. Preprocessing and padding are its own business.
        params: Weights, a pytree of arrays: an argument of a compiled function, never a constant.
        labels: Class names by index of the logits, or None.
        channels: Of the images.
        size: Height and width the network was trained at, in pixels.
        min_size: Smallest height or width it can see.
        digest: SHA-256 of the weights file.
    """

    name: str
    apply: Apply
    params: Any
    labels: tuple[str, ...] | None
    digest: str
    channels: int = 3
    size: tuple[int, int] = (224, 224)
    min_size: int = 1

    def __call__(self, image: jax.Array) -> Activations:
        """Activations by layer name, in forward order.

        Args:
            image: (n, h, w, c) in [0, 1].

        Raises:
            InputError: The image has another number of axes or channels, or is too small.
        """
        shape = jnp.shape(image)
        if len(shape) != 4:
            raise InputError(
                f"{self.name} expects images (n, h, w, {self.channels}), got an array {shape}"
            )
        self.check_image_shape(*shape[1:])
        return Activations(_activations(self.apply, self.params, image))

    def check_image_shape(self, height: int, width: int, channels: int) -> None:
        """Checks the shape of one image.

        Raises:
            InputError: Too small, or another number of channels; says what is expected.
        """
        if channels != self.channels:
            raise InputError(
                f"{self.name} expects images of {self.channels} channels, got {channels}"
            )
        if min(height, width) < self.min_size:
            raise InputError(
                f"{self.name} needs images of at least {self.min_size}x{self.min_size} pixels "
                f"(height x width), got {height}x{width}"
            )

    def layers(self, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
        """Shapes of all activations of one image, without computing them.

        Args:
            size: Height and width in pixels; by default `self.size`.

        Returns:
            Shape without the batch axis by layer name, in forward order.

        Raises:
            InputError: The size is too small.
        """
        height, width = size or self.size
        self.check_image_shape(height, width, self.channels)
        image = jax.ShapeDtypeStruct((1, height, width, self.channels), jnp.float32)
        shapes = jax.eval_shape(functools.partial(_ordered, self.apply), self.params, image)
        return {name: layer.shape[1:] for name, layer in shapes.items()}

    def __repr__(self) -> str:
        return f"Model({self.name!r}, weights {self.digest[:12]})"


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be loaded by name, and what is known of it without loading it.

    Attributes:
        name: For `featvis.models.load`.
        parameters: Number of trained weights.
        size: Height and width it was trained at, in pixels.
        accuracy: Published ImageNet top-1 accuracy, in [0, 1].
        source: Where the weights come from, and their licence.
        is_available: Tells whether the weights are on this machine.
        build: Reads the weights and makes the model.
    """

    name: str
    parameters: int
    size: tuple[int, int]
    accuracy: float
    source: str
    is_available: Callable[[], bool]
    build: Callable[[], Model]

    @property
    def available(self) -> bool:
        """Whether the weights are on this machine."""
        return self.is_available()

    def as_dict(self) -> dict[str, Any]:
        """The facts as plain data, for tables and JSON."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "size": list(self.size),
            "accuracy": self.accuracy,
            "source": self.source,
            "available": self.available,
        }


def model_entry(
    *,
    parameters: int,
    size: tuple[int, int],
    accuracy: float,
    source: str,
    is_available: Callable[[], bool],
) -> Callable[[Callable[[], Model]], ModelEntry]:
    """Makes a loadable model of a function that builds one; the model has the function's name.

    A module of the package `featvis.models` needs nothing more to be found by `load`.
    """

    def decorate(build: Callable[[], Model]) -> ModelEntry:
        return ModelEntry(build.__name__, parameters, size, accuracy, source, is_available, build)

    return decorate
