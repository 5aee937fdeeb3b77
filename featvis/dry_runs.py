"""Dry runs: functions on shapes, so that what does not fit is said before anything is compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax

from featvis.errors import FeatvisError, InputError

_Found = TypeVar("_Found")


class Kind(NamedTuple):
    """Of what shape and type an array is, or a number; a plain tuple, as caches ask for it often.

    Attributes:
        shape: of the array; of a number ().
        dtype: of it.
        weak: whether it is a Python number: under strict promotion an array of its type does not
            fit others.
    """

    shape: tuple[int, ...]
    dtype: Any
    weak: bool

    def struct(self) -> jax.ShapeDtypeStruct:
        """What stands for it in a dry run."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype, weak_type=self.weak)


def _kind(leaf: Any) -> Kind:
    if not isinstance(leaf, jax.Array):
        leaf = jax.typeof(leaf)
    # A key of JAX has a type of its own, that is never weak.
    return Kind(leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False))


def kinds_of(tree: Any) -> tuple[Any, tuple[Kind, ...]]:
    """The structure of a pytree, and of what kinds its leaves are: what a cache goes by.

    Args:
        tree: of arrays, their shapes, and numbers.
    """
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(map(_kind, leaves))


def once_a_kind(function: Callable[..., _Found]) -> Callable[..., _Found]:
    """What is found of a pytree's types and shapes alone: once for each kind, then remembered.

    Args:
        function: of a pytree, in which it finds shapes in place of arrays, and of more that is
            hashable; what it raises is not remembered.
    """

    @functools.lru_cache(maxsize=128)
    def of_kind(structure: Any, kinds: tuple[Kind, ...], *more: Any) -> _Found:
        return function(jax.tree.unflatten(structure, [kind.struct() for kind in kinds]), *more)

    @functools.wraps(function)
    def of(tree: Any, *more: Any) -> _Found:
        return of_kind(*kinds_of(tree), *more)

    return of


def shapes_of(function: Callable[..., Any], *given: Any) -> Any:
    """What a function gives for arguments of these types and shapes, found once for each kind.

    Args:
        function: of arrays, hashable; of a network `apply`.
        *given: pytrees of arrays or of their shapes.

    Returns:
        Shapes and types, as of `jax.eval_shape`.
    """
    return _shapes_of(given, function)


@once_a_kind
def _shapes_of(given: tuple[Any, ...], function: Callable[..., Any]) -> Any:
    return jax.eval_shape(function, *given)


def tried(what: str, function: Callable[..., Any], *given: Any) -> Any:
    """What a function of the user's gives for shapes.

    Args:
        what: fails where it raises, and on what, as "its decoder cannot be called on (3,)".
        function: of arrays.
        *given: pytrees of arrays or of their shapes.

    Returns:
        Shapes and types, as of `jax.eval_shape`.

    Raises:
        InputError: the function raised; says what, and the first line of its error.
        FeatvisError: one of ours, as it is.
    """
    try:
        return jax.eval_shape(function, *given)
    except FeatvisError:
        raise
    # Whatever a function raises is its own; the user wants to know on what.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"{what}: {type(error).__name__}: {reason}") from error
