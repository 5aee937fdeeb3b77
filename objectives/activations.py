"""Activations: what the layers of a network give, by name, in float32."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from objectives.errors import UnknownLayer


class Activations(Mapping[str, Any]):
    """Layer name to activations (n, ...), in forward order; an unknown name says the nearest.

    They are handed out in float32, whatever a network computes in: the sums of squares of an
    objective have no room in float16, nor the digits in bfloat16.

    Args:
        layers: the activations by name, or pairs of both.
        **more: further ones.
    """

    def __init__(
        self, layers: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any
    ) -> None:
        whole = layers if isinstance(layers, Mapping) and not more else {**dict(layers), **more}
        self._layers: Mapping[str, Any] = whole

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            near = difflib.get_close_matches(str(name), self, n=4, cutoff=0.4)
            hint = f"; nearest: {', '.join(near)}" if near else f"; it has: {', '.join(self)}"
            raise UnknownLayer(f"unknown layer {name!r}{hint}")
        return in_float32(self._layers[name])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._layers

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        shapes = (f"{name}: {tuple(np.shape(a))}" for name, a in self._layers.items())
        return f"Activations({', '.join(shapes)})"


def in_float32(value: Any) -> Any:
    """Floating-point numbers in float32, anything else as it is."""
    number = isinstance(value, (np.ndarray, jax.Array))
    if number and jnp.issubdtype(value.dtype, jnp.floating) and value.dtype != np.float32:
        return value.astype(np.float32)
    return value


def _flatten_activations(acts: Activations) -> Any:
    # In forward order, where jax would sort the keys of a dictionary; as they are, not cast.
    layers = acts._layers
    return [(jax.tree_util.DictKey(name), layers[name]) for name in layers], tuple(layers)


jax.tree_util.register_pytree_with_keys(
    Activations,
    _flatten_activations,
    lambda names, values: Activations(zip(names, values, strict=True)),
)


See = Callable[[Any, Any], Mapping[str, Any]]
"""Images, and the places in the batch that they are for, to their activations."""
