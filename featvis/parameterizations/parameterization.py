"""The protocol of a parameterization: how the numbers that are optimised become one image.

A parameterization is a pytree: the arrays of its `leaf` fields, and of the parameterizations in it,
are data of the compiled program; all its other fields are part of the program.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.digests import digest_of_tree
from featvis.errors import InputError
from objectives import leaf, static

Params = dict[str, jax.Array]
"""The parameters of one image, float32 arrays by name."""

CLIP = 1 / 1024
"""Images are clipped to [CLIP, 1 - CLIP] before a logit: under half of an 8-bit level."""


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static, leaf, dataclasses.field)
)
@dataclass(frozen=True, eq=False, repr=False)
class Parameterization(ABC):
    """How one image is written in terms of the parameters that are optimised.

    A subclass is a frozen dataclass without saying so. Its fields are literals, and part of the
    program that is compiled; one that is declared with `leaf()` is data of it, an array or a pytree
    of arrays, as a generator's weights are: others of the same shapes compile nothing. Without a
    default it is keyword-only. Parameterizations are equal where their fields and their data are,
    and print as their text form, which names data by their SHA-256. Every method is
    pure, is about ONE image, and works under `jit` and `vmap`. Parameters are a dict of float32
    arrays, never a bare array: a bare array to start from is always an image.

    Args:
        size: (height, width) of the image in pixels, two positive ints.
        channels: number of channels, at least 1.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    size: tuple[int, int]
    channels: int = 3

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _let_data_lack_defaults(cls)
        dataclass(frozen=True, eq=False, repr=False)(cls)
        jax.tree_util.register_pytree_node(cls, _flatten, functools.partial(_unflatten, cls))

    def __repr__(self) -> str:
        """Short and readable; arrays as their types and shapes."""
        return _text_of(self, short=True)

    def __str__(self) -> str:
        """The text form; data as their digest, which only who holds them reads back."""
        return self._text

    @functools.cached_property
    def _text(self) -> str:
        return _text_of(self, short=False)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        mine, theirs = jax.tree.flatten(self), jax.tree.flatten(other)
        same_structure: bool = mine[1] == theirs[1]  # type: ignore[operator]
        return same_structure and all(
            a is b or np.array_equal(a, b) for a, b in zip(mine[0], theirs[0], strict=True)
        )

    def __hash__(self) -> int:
        # Of the structure alone: to look at megabytes of data takes longer than to compare them.
        return hash(jax.tree.structure(self))

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        checks.set_fields(
            self,
            size=checks.image_size(self, "size", self.size),
            channels=checks.integer(self, "channels", self.channels, 1, 2**16),
        )
        for field in dataclasses.fields(self):
            if _is_data(field):
                value = _checked_data(self, field.name, getattr(self, field.name))
                checks.set_fields(self, **{field.name: value})

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the image."""
        return (*self.size, self.channels)

    @property
    def held(self) -> frozenset[str]:
        """Names of the parameters that stay what they are, whatever the optimizer does."""
        return frozenset()

    @property
    def shared(self) -> frozenset[str]:
        """Names of the parameters that are the same for all images of a batch."""
        return frozenset()

    @abstractmethod
    def init(self, key: jax.Array) -> Params:
        """Draw the parameters of one image from `key`: a dict of float32 arrays."""

    @abstractmethod
    def decode(self, params: Params) -> jax.Array:
        """Turn `params` into one image, (h, w, c) float32 in [0, 1]."""

    def encode(self, image: jax.Array) -> Params:
        """Return parameters that decode to `image`, (h, w, c) in [0, 1].

        A class need not have it: then nothing begins from an image.

        Raises:
            InputError: if the image has another shape, or the class has no `encode`.
        """
        raise InputError(
            f"{type(self).__name__} has no way from an image to its parameters (encode): begin "
            "from the seed, or from parameters (init=result.params)"
        )

    def resume(self, key: jax.Array, picture: jax.Array) -> Params:
        """Return parameters to go on with from a `picture` (h', w', c) of any size, in [0, 1].

        Those of the picture, resized; `key` is for what a parameterization draws anew.
        """
        return self.encode(jnp.clip(jax.image.resize(picture, self.shape, "cubic"), 0, 1))

    def project(self, params: Params) -> Params:
        """Return the parameters nearest to `params` that obey the hard constraints; any do here."""
        return params

    def _check_image(self, image: jax.Array) -> jax.Array:
        """Return `image` as float32, or raise InputError if its shape is not `self.shape`."""
        image = jnp.asarray(image, jnp.float32)
        if image.shape != self.shape:
            raise InputError(
                f"{type(self).__name__}: an image of shape {self.shape} (height, width, channels)"
                f" is expected, not {image.shape}"
            )
        return image


def data_of(parameterization: Parameterization) -> dict[str, Any]:
    """The data that the text form names, by their digests: arrays and pytrees of arrays."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(parameterization):
        value = getattr(parameterization, field.name)
        if _is_data(field) and not _is_literal(value):
            found[digest_of_tree(value)] = value
        for one in _parts(value):
            found.update(data_of(one))
    return found


def with_arrays(parameterization: Parameterization) -> Parameterization:
    """The same with JAX's arrays for data: a number and an array would be two programs."""
    kinds = {bool: jnp.bool_, int: jnp.int32, float: jnp.float32}
    made: Parameterization = jax.tree.map(
        lambda value: jnp.asarray(value, kinds.get(type(value))), parameterization
    )
    return made


def check_static(parameterization: Parameterization) -> None:
    """Checks that all that is part of a program can be.

    Raises:
        InputError: an array or a list in a field that is not declared as data.
    """
    for field in dataclasses.fields(parameterization):
        value = getattr(parameterization, field.name)
        if _is_data(field):
            continue
        for one in _parts(value):
            check_static(one)
        try:
            hash(value)
        except TypeError:
            raise InputError(
                f"{type(parameterization).__name__}: {field.name} is part of the program and must "
                f"be hashable, as numbers and tuples are; arrays are data, declared by "
                f"{field.name}: ArrayLike = leaf(); got {type(value).__name__}"
            ) from None


def _let_data_lack_defaults(cls: type) -> None:
    """Makes marked fields without a default keyword-only: they come after some that have one."""
    for value in vars(cls).values():
        if isinstance(value, dataclasses.Field) and value.metadata:
            lacks = value.default is value.default_factory is dataclasses.MISSING
            if lacks and value.kw_only is dataclasses.MISSING:
                value.kw_only = True


def _is_data(field: dataclasses.Field[Any]) -> bool:
    return bool(field.metadata.get("leaf"))


def _is_literal(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def _parts(value: Any) -> tuple[Parameterization, ...]:
    """The parameterizations that a field holds: one, or a tuple of them."""
    some = value if isinstance(value, tuple) else (value,)
    return some if all(isinstance(one, Parameterization) for one in some) else ()


def _checked_data(owner: Parameterization, name: str, values: Any) -> Any:
    """Data as they are kept: what the caller may still change is copied."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (jax.Array, jax.ShapeDtypeStruct, bool, int, float)):
            return value
        if not isinstance(value, np.ndarray) or value.dtype.kind in "OUSMm":
            raise checks.error(owner, name, "arrays or numbers, or a pytree of them", value)
        if value.flags.writeable:
            value = value.copy()
            value.flags.writeable = False
        return value

    return jax.tree.map(plain, values)


def _flatten(instance: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The data; and their names with all that is static."""
    data: list[tuple[str, Any]] = []
    fixed: list[tuple[str, Any]] = []
    for field in dataclasses.fields(instance):
        pair = field.name, getattr(instance, field.name)
        (data if _is_data(field) or _parts(pair[1]) else fixed).append(pair)
    return tuple(value for _, value in data), (tuple(name for name, _ in data), tuple(fixed))


def _unflatten(cls: type, structure: tuple[Any, ...], values: Iterable[Any]) -> Any:
    # Without __init__: JAX unflattens with placeholders that no check would pass.
    instance: Any = object.__new__(cls)
    names, fixed = structure
    checks.set_fields(instance, **dict(zip(names, values, strict=True)), **dict(fixed))
    return instance


def _text_of(instance: Parameterization, *, short: bool) -> str:
    """The class's name called with its fields; data by shape, or by digest."""

    def text(field: dataclasses.Field[Any]) -> str:
        value, form = getattr(instance, field.name), repr if short else str
        if _is_data(field) and not _is_literal(value):
            return _shapes(value) if short else f"sha256({digest_of_tree(value)!r})"
        if isinstance(value, tuple) and _parts(value):
            return f"({''.join(f'{form(one)}, ' for one in value)})"
        return form(value) if isinstance(value, Parameterization) else repr(value)

    given = (f"{one.name}={text(one)}" for one in dataclasses.fields(instance))
    return f"{type(instance).__name__}({', '.join(given)})"


def _shapes(values: Any) -> str:
    leaves = jax.tree.leaves(values)
    shown = ", ".join(f"{jnp.result_type(one)}{list(np.shape(one))}" for one in leaves[:3])
    return f"<{shown}{f' and {len(leaves) - 3} more' if len(leaves) > 3 else ''}>"


def logit(image: jax.Array) -> jax.Array:
    """Inverse of the sigmoid, for an image in [0, 1] that is first clipped by `CLIP`."""
    clipped = jnp.clip(image, CLIP, 1 - CLIP)
    return jnp.log(clipped) - jnp.log1p(-clipped)


def draw_normal(key: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """Standard normal float32 arrays of these shapes, from one flat draw.

    XLA compiles a draw of one axis in 0.3 s on a CPU, one of four axes in 2 s.
    """
    counts = [math.prod(shape) for shape in shapes]
    flat = jax.random.normal(key, (sum(counts),), jnp.float32)
    parts = jnp.split(flat, np.cumsum(counts)[:-1].tolist())
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
