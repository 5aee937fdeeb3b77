"""What a network is called with beside the image: data of the model, or part of the program."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from featvis.errors import InputError


@dataclass(frozen=True, eq=False)
class Same:
    """Stands in for a value that cannot be hashed: the same object is equal, no other."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def static(value: Any) -> Any:
    """The value as a part of what is compiled."""
    try:
        hash(value)
    except TypeError:
        return Same(value)
    return value


def plain(value: Any) -> Any:
    """What `static` was given."""
    return value.value if isinstance(value, Same) else value


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["weights", "keys", "call"], meta_fields=[]
)
@dataclass(frozen=True)
class Given:
    """What a network computes with beside the image: data, no part of what is compiled.

    Attributes:
        weights: its variables or parameters.
        keys: its random state.
        call: the arrays among the arguments of its call.
    """

    weights: Any
    keys: Any = ()
    call: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Call:
    """How a network is called: which argument is the image, and what the others are.

    Attributes:
        image: the image's argument, by its name or its place.
        others: the rest by name or place, each as `_frozen` has it.
    """

    image: int | str
    others: tuple[tuple[int | str, Any], ...]

    def arguments(
        self, x: jax.Array, arrays: Sequence[Any], each: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for images `x`.

        Args:
            x: the images, as the network takes them.
            arrays: those that `read_call` took out of the others.
            each: whether an array whose first axis is 1 is repeated for each image.
        """
        if each:
            arrays = [_repeated(array, len(x)) for array in arrays]
        given = {key: _thawed(value, arrays) for key, value in self.others}
        given[self.image] = x
        places = sorted(key for key in given if isinstance(key, int))
        named = {key: value for key, value in given.items() if isinstance(key, str)}
        return [given[place] for place in places], named

    def __str__(self) -> str:
        """What it is, the same in every process."""
        return repr((self.image, [(key, _described(value)) for key, value in self.others]))


def read_call(
    image: int | str, call: Mapping[Any, Any] | None, *, first: int = 0
) -> tuple[Call, tuple[Any, ...]]:
    """How a network is called, and the arrays that it is called with.

    Args:
        image: the image's argument, by its name or its place.
        call: the other arguments, by their names or places.
        first: the place of the first argument that is one of these.

    Raises:
        InputError: no such form, an argument given twice, or a place left free.
    """
    if isinstance(image, bool) or not isinstance(image, (int, str)):
        raise InputError(
            f"image says which argument is the image, by its name or its place; got {image!r}"
        )
    if call is not None and not isinstance(call, Mapping):
        raise InputError(
            f"call is of arguments by name, as {{'train': False}}; got {type(call).__name__}"
        )
    for key in call or {}:
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            raise InputError(f"call is of arguments by name or place; got {key!r}")
        if key == image:
            raise InputError(f"argument {key!r} is the image: call cannot give it too")
    places = sorted(key for key in (image, *(call or {})) if isinstance(key, int))
    if places != list(range(first, first + len(places))):
        raise InputError(
            f"the arguments by place are {places}: those before the last must be given, from "
            f"{first} on, in call={{place: value}} or by their names"
        )
    arrays: list[Any] = []
    # In order of their names: how a call is written down makes no other network.
    others = sorted((call or {}).items(), key=lambda item: str(item[0]))
    frozen = tuple((key, _frozen(value, arrays)) for key, value in others)
    return Call(image, frozen), tuple(arrays)


def key_of(seed: Any) -> jax.Array:
    """A key of JAX, of a seed, a key or the numbers of one.

    Raises:
        InputError: something else.
    """
    if isinstance(seed, int) and not isinstance(seed, bool):
        return jax.random.key(seed)
    if not hasattr(seed, "dtype"):
        raise InputError(f"rngs are seeds or keys, by stream; got {type(seed).__name__}")
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    return jax.random.wrap_key_data(seed)


def _repeated(array: Any, count: int) -> Any:
    if not np.ndim(array) or array.shape[0] != 1:
        return array
    return jnp.broadcast_to(array, (count, *array.shape[1:]))


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


def _frozen(value: Any, arrays: list[Any]) -> tuple[Any, ...]:
    """A value, its arrays by their number, as a part of what is compiled."""
    if _is_array(value):
        arrays.append(jnp.asarray(value))
        return ("array", len(arrays) - 1)
    if isinstance(value, dict):
        return ("dict", type(value), tuple((k, _frozen(v, arrays)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return ("sequence", type(value), tuple(_frozen(v, arrays) for v in value))
    leaves, tree = jax.tree.flatten(value)
    if not jax.tree_util.treedef_is_leaf(tree) and leaves:
        return ("tree", tree, tuple(_frozen(leaf, arrays) for leaf in leaves))
    # With its type: of two calls that differ in 1 and True each compiles its own.
    return ("value", static(value), type(value))


def _thawed(frozen: tuple[Any, ...], arrays: Sequence[Any]) -> Any:
    match frozen:
        case ("array", int(number)):
            return arrays[number]
        case ("dict", kind, items):
            found = {key: _thawed(value, arrays) for key, value in items}
            return found if kind is dict else kind(found)
        case ("sequence", kind, items):
            values = [_thawed(value, arrays) for value in items]
            return kind(*values) if hasattr(kind, "_fields") else kind(values)
        case ("tree", tree, items):
            return jax.tree.unflatten(tree, [_thawed(value, arrays) for value in items])
    return plain(frozen[1])


def _described(frozen: tuple[Any, ...]) -> str:
    match frozen:
        case ("array", int(number)):
            return f"array {number}"
        case ("dict", _, items):
            return repr([(key, _described(value)) for key, value in items])
        case ("sequence" | "tree", kind, items):
            return repr((str(kind), [_described(value) for value in items]))
    value = plain(frozen[1])
    return str(getattr(value, "__qualname__", repr(value)))


def key_order(tree: Any) -> Any:
    """The order of the keys of all dicts in a pytree; None where jax would not change any."""
    if isinstance(tree, (dict, FrozenDict)):
        inside = tuple(key_order(value) for value in tree.values())
        keys = tuple(tree)
        try:
            as_they_are = list(keys) == sorted(keys)
        except TypeError:
            as_they_are = True  # which jax refuses itself
        if as_they_are and not any(inside):
            return None
        return (keys, inside)
    children, structure = jax.tree.flatten(tree, is_leaf=lambda part: part is not tree)
    if jax.tree_util.treedef_is_leaf(structure):
        return None
    inside = tuple(key_order(child) for child in children)
    return (None, inside) if any(inside) else None


def in_order(tree: Any, order: Any) -> Any:
    """A pytree, the keys of its dicts in an order again: jax sorts them."""
    if order is None:
        return tree
    keys, inside = order
    if keys is None:
        children, structure = jax.tree.flatten(tree, is_leaf=lambda part: part is not tree)
        ordered = [in_order(*pair) for pair in zip(children, inside, strict=True)]
        return jax.tree.unflatten(structure, ordered)
    found = {key: in_order(tree[key], one) for key, one in zip(keys, inside, strict=True)}
    if isinstance(tree, FrozenDict):
        return FrozenDict(found)
    if type(tree) is dict:
        return found
    changed = tree.copy()
    changed.clear()
    changed.update(found)
    return changed
