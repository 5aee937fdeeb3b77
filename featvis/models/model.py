"""What a model is to featvis: a pure function from images to named activations, and its weights."""

from __future__ import annotations

import functools
import math
import numbers
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from featvis import kernels, limits
from featvis.dry_runs import once_a_kind
from featvis.errors import InputError
from featvis.images import Images, as_images, check_numbers
from featvis.models.classes import classes_called, listed, nearest_classes
from featvis.models.input import Input
from objectives import Activations

#: Images of a dry run: as many as no network has positions, rows or classes by chance.
_DRY_RUN = 13
#: Numbers of images above which the memory for their activations is checked.
_MANY = 2**22


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
        return self.network(params, self.input.prepare(image, params))


def _ordered(apply: Apply, params: Any, image: jax.Array) -> OrderedDict[str, jax.Array]:
    # jax sorts the keys of a dict, and keeps the order of this one.
    return OrderedDict(apply(params, image))


_activations = kernels.compiled(_ordered, static=("apply",))


@once_a_kind
def _shapes(params: Any, apply: Any, image: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
    """Shapes of one image's activations by layer."""
    x = jax.ShapeDtypeStruct((_DRY_RUN, *image), jnp.float32)
    found = jax.eval_shape(functools.partial(_ordered, apply), params, x)
    return tuple((name, layer.shape[1:]) for name, layer in found.items())


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=[
        *("name", "apply", "labels", "digest", "input", "origin", "left_out", "drawn", "joined")
    ],
)
@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights; a pytree whose leaves are the weights.

    Attributes:
        name: As given to `featvis.loading.load`, or one's own.
        apply: `(params, image (n, h, w, c) in [0, 1]) -> {layer: activations (n, ...)}`, pure
            and hashable. Preprocessing and padding are its own business.
        params: Weights, a pytree of arrays: an argument of a compiled function, never a constant.
        labels: Class names by index of the logits, or None.
        digest: SHA-256 of the weights.
        input: The images that it takes.
        origin: Where the weights come from, as far as it is known: a package and its version, an
            address, a repository and its revision, the name of a file.
        left_out: What the network gives that is no layer, by name, and why it is none.
        drawn: Layers that depend on random numbers, the same at each call: their seed is fixed.
        joined: Name and digest of each network that it is joined of; of one alone, none.
    """

    name: str
    apply: Apply
    params: Any
    labels: tuple[str, ...] | None
    digest: str
    input: Input = field(default_factory=Input)
    origin: str = ""
    left_out: Mapping[str, str] = field(default_factory=FrozenDict)
    drawn: tuple[str, ...] = ()
    joined: tuple[tuple[str, str], ...] = ()

    def __call__(self, image: Images) -> Activations:
        """Activations by layer name, in forward order.

        Args:
            image: (n, h, w, c) in [0, 1], or whatever else `as_images` takes. Under `jit`, `grad`
                and `vmap` an array (n, h, w, c), whose values nobody knows yet.

        Raises:
            InputError: What is no image, values out of [0, 1], another number of axes or channels,
                or a size that the network does not take.
            TooLargeError: The activations do not fit the memory.
        """
        if isinstance(image, jax.core.Tracer):
            if image.ndim != 4:
                raise InputError(
                    f"{self.name} expects images (n, h, w, {self.input.channels}), got an array "
                    f"{image.shape}"
                )
            check_numbers(image)
            self.check_image_shape(*image.shape[1:])
            seen: Any = image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image
        else:
            seen = self.as_images(image)
        count, height, width, channels = seen.shape
        what = f"the activations of {count} images {height}x{width}"
        if count * height * width * channels > _MANY:
            layers = self.layers((height, width)).values()
            limits.require(4 * count * sum(map(math.prod, layers)), what)
        with limits.explained(what):
            return Activations(_activations(self.apply, self.params, seen))

    def as_images(self, images: Images, size: tuple[int, int] | None = None) -> np.ndarray:
        """Images (n, h, w, c) float32 in [0, 1] that the network takes, as `images.as_images`.

        Args:
            images: an array in [0, 1] or of uint8, picture files, or a list of them.
            size: (height, width) of files; by default the network's own. Arrays have theirs.

        Raises:
            InputError: anything else, or a shape that the network does not take.
        """
        array = as_images(images, self.input.channels, size or self.input.size)
        self.check_image_shape(*array.shape[1:])
        return array

    def check_image_shape(self, height: int, width: int, channels: int) -> None:
        """Checks the shape of one image, (`height`, `width`, `channels`).

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
        return dict(_shapes(self.params, self.apply, (height, width, self.input.channels)))

    def class_index(self, name_or_number: int | str) -> int:
        """The number of a class: the index of its logit.

        Args:
            name_or_number: A number, also as text; or a name. A name is a label as it is written,
                else an identifier (`n02123045`), else a label or one of its synonyms (commas
                separate them) in any capitals, else a part of one label only.

        Raises:
            InputError: A number out of range; a name that several classes have (lists them) or
                none (the nearest); any name where the model has no labels.
        """
        given, labels = name_or_number, self.labels or ()
        text = given.strip() if isinstance(given, str) else ""
        found = classes_called(labels, text)
        if not found and re.fullmatch(r"[+-]?\d{1,9}", text):
            given = int(text)
        if isinstance(given, numbers.Integral) and not isinstance(given, bool):
            if 0 <= given < self._classes():
                return int(given)
            raise InputError(f"{self.name} has classes 0 to {self._classes() - 1}, not {given}")
        if not text:
            raise InputError(f"a class is a number or a name, not {given!r}")
        found = found or [i for i, name in enumerate(labels) if text.casefold() in name.casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{len(found)} classes of {self.name} match {given!r}; give the number of one: "
                f"{listed(labels, found)}"
            )
        if not labels:
            raise InputError(
                f"{self.name} has no class names: give the number of {given!r}, "
                f"0 to {self._classes() - 1}"
            )
        near = nearest_classes(labels, text)
        hint = "nearest" if near else "it has"
        shown = listed(labels, near or range(len(labels)))
        raise InputError(f"{self.name} has no class {given!r}; {hint}: {shown}")

    def _classes(self) -> int:
        return self.check_scores() if self.labels is None else len(self.labels)

    def check_scores(self) -> int:
        """The number of class scores in the layer `logits`.

        Raises:
            InputError: There is no such layer, or it is no vector; says which are.
        """
        layers = self.layers()
        scores = layers.get("logits", ())
        if len(scores) == 1:
            return scores[0]
        vectors = [name for name, shape in layers.items() if len(shape) == 1]
        what = f"is {scores}, no vector" if scores else "is called 'logits'"
        which = "its layer 'logits'" if scores else "none of its layers"
        raise InputError(
            f"{self.name} has no classes: {which} {what}; say which layer holds the class scores "
            f"when the model is made (logits=); its vectors: {', '.join(vectors) or 'none'}"
        )

    def __repr__(self) -> str:
        return f"Model({self.name!r}, weights {self.digest[:12]})"
