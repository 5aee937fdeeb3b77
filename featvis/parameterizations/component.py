"""What is part of a compiled program and what is data of it, in one class that has a text.

A component is a pytree: the arrays of its `leaf` fields, and of the components in it, are data of
the compiled program; all its other fields are part of the program.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.digests import digest_of_tree
from featvis.errors import InputError
from objectives import leaf, static


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static, leaf, dataclasses.field)
)
@dataclass(frozen=True, eq=False, repr=False)
class Component(ABC):  # noqa: B024  its subclasses have abstract methods
    """A frozen dataclass of literals, which a program is compiled for, and of data of it.

    A subclass is a frozen dataclass without saying so. Its fields are literals, and part of the
    program that is compiled; one that is declared with `leaf()` is data of it, an array or a pytree
    of arrays, as a generator's weights are: others of the same shapes compile nothing. Without a
    default it is keyword-only. Components are equal where their fields and their data are, and
    print as their text form, which names data by their SHA-256.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

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

    @property
    def digest(self) -> str | None:
        """The SHA-256 by which texts name the whole of it; None: they have its fields."""
        return None

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
        for field in dataclasses.fields(self):
            if _is_data(field):
                value = _checked_data(self, field.name, getattr(self, field.name))
                checks.set_fields(self, **{field.name: value})


C = TypeVar("C", bound=Component)


def data_of(component: Component) -> dict[str, Any]:
    """The data that the text form names, by their digests: arrays, pytrees, whole components."""
    if component.digest is not None:
        return {component.digest: component}
    found: dict[str, Any] = {}
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        if _is_data(field) and not _is_literal(value):
            found[digest_of_tree(value)] = value
        for one in _parts(value):
            found.update(data_of(one))
    return found


def with_arrays(component: C) -> C:
    """The same with JAX's arrays for data: a number and an array would be two programs."""
    kinds = {bool: jnp.bool_, int: jnp.int32, float: jnp.float32}
    made: C = jax.tree.map(lambda value: jnp.asarray(value, kinds.get(type(value))), component)
    return made


def check_static(component: Component) -> None:
    """Checks that all that is part of a program can be.

    Raises:
        InputError: an array or a list in a field that is not declared as data.
    """
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        if _is_data(field):
            continue
        for one in _parts(value):
            check_static(one)
        try:
            hash(value)
        except TypeError:
            raise InputError(
                f"{type(component).__name__}: {field.name} is part of the program and must "
                f"be hashable, as numbers and tuples are; arrays are data, declared by "
                f"{field.name}: ArrayLike = leaf(); got {type(value).__name__}"
            ) from None


def numbers_of(value: Any) -> np.ndarray | None:
    """The numbers of data; None where they are not there, or JAX's stand-ins for them."""
    if value is None or isinstance(value, (jax.core.Tracer, jax.ShapeDtypeStruct)):
        return None
    return np.asarray(value)


def check_finite(owner: Component, *names: str) -> None:
    """Checks that all numbers of data are finite.

    Args:
        owner: whose fields they are.
        *names: of the fields, each an array or a number.

    Raises:
        InputError: NaN or an infinity, or no numbers; names the field.
    """
    for name in names:
        found = numbers_of(getattr(owner, name))
        if found is None:
            continue
        if found.dtype.kind not in "biuf":
            raise checks.error(owner, name, "real numbers", f"an array of {found.dtype}")
        if not np.all(np.isfinite(found)):
            raise checks.error(owner, name, "finite", "NaN or infinity")


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


def _parts(value: Any) -> tuple[Component, ...]:
    """The components that a field holds: one, or a tuple of them."""
    some = value if isinstance(value, tuple) else (value,)
    return some if all(isinstance(one, Component) for one in some) else ()


def _checked_data(owner: Component, name: str, values: Any) -> Any:
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


def _text_of(instance: Component, *, short: bool) -> str:
    """The class's name called with its fields; data by shape, or by digest."""

    def text(field: dataclasses.Field[Any]) -> str:
        value, form = getattr(instance, field.name), repr if short else str
        if _is_data(field) and not _is_literal(value):
            return _shapes(value) if short else f"sha256({digest_of_tree(value)!r})"
        if isinstance(value, tuple) and _parts(value):
            return f"({''.join(f'{form(one)}, ' for one in value)})"
        return form(value) if isinstance(value, Component) else repr(value)

    if instance.digest is not None and not short:
        return f"sha256({instance.digest!r})"
    given = (f"{one.name}={text(one)}" for one in dataclasses.fields(instance))
    return f"{type(instance).__name__}({', '.join(given)})"


def _shapes(values: Any) -> str:
    leaves = jax.tree.leaves(values)
    shown = ", ".join(f"{jnp.result_type(one)}{list(np.shape(one))}" for one in leaves[:3])
    return f"<{shown}{f' and {len(leaves) - 3} more' if len(leaves) > 3 else ''}>"
