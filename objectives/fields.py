"""The fields of objectives: what is part of the program, what is data, and what may be in them."""

from __future__ import annotations

import dataclasses
import keyword
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.errors import ObjectiveError
from objectives.literals import format_literal


class NamedArray(np.ndarray):
    """Data of an objective that its text form writes by name, as `feature_match('block2', target)`.

    `parse(text, target=array)` reads it back. Numbers of float32 that are never changed; what is
    computed from one has no name.

    Args:
        values: an array of numbers.
        name: letters, digits and underscores, in lower case; no word of Python's own (`in`).

    Raises:
        ObjectiveError: another name, what is no number, or numbers that are not finite.
    """

    name: str | None

    def __new__(cls, values: ArrayLike, name: str) -> NamedArray:
        """Makes a copy of the values that is never changed."""
        fits = isinstance(name, str) and re.fullmatch(r"[a-z_][a-z0-9_]*", name, re.ASCII)
        if not fits or keyword.iskeyword(name):
            raise ObjectiveError(
                "an array's name is of lower case letters, digits and underscores, and no word of "
                f"Python's own; got {name!r}"
            )
        # None is fine for an optional field, and not here.
        plain = canonical(name, np.asarray(None) if values is None else values)
        # A copy: what the caller does to the original afterwards is not the objective's.
        array = np.array(plain, np.float32).view(cls)
        array.name = name
        array.flags.writeable = False
        return array

    def __array_finalize__(self, array: Any) -> None:
        self.name = None


def static(*, default: Any = dataclasses.MISSING) -> Any:
    """A field that is part of the program: a layer's name, an option. Must be hashable.

    A field called `layer` names a layer: a string, or None where that is the default.

    Args:
        default: the value when none is given.
    """
    return dataclasses.field(default=default, metadata={"static": True})


def leaf(*, default: Any = dataclasses.MISSING, ndim: int | None = None) -> Any:
    """A field that is data, numbers of 32 bits: changing it does not recompile.

    Args:
        default: the value when none is given.
        ndim: the rank of one image's value; one axis more, in front, gives each image its own.
            None: the first axis is always the images', of length 1 (shared) or n.
    """
    return dataclasses.field(default=default, metadata={"leaf": True, "ndim": ndim})


def is_traced(value: Any) -> bool:
    """Whether a value is JAX's stand-in for one that is not known yet."""
    return isinstance(value, jax.core.Tracer)


def array_name(value: Any) -> str | None:
    """The name of a named array; None of anything else."""
    return value.name if isinstance(value, NamedArray) else None


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy or JAX."""
    return isinstance(value, (np.ndarray, jax.Array))


def canonical(name: str, value: Any) -> Any:
    """A number as a plain number, an array as a fixed one of 32 bits; a traced one as it is."""
    if value is None or is_traced(value) or array_name(value) is not None:
        return value
    try:
        given = np.asarray(value)
    except (ValueError, TypeError):  # rows of several lengths
        given = np.asarray(None)
    if given.dtype != object and not given.size:
        raise ObjectiveError(f"{name} has no numbers; got an array {given.shape}")
    dtype: Any = None
    if jnp.issubdtype(given.dtype, jnp.floating):  # bfloat16 too
        dtype = np.float32
    elif given.dtype.kind in "iub":
        dtype = np.bool_ if given.dtype.kind == "b" else np.int32
    if dtype is None:
        raise ObjectiveError(
            f"{name} must be a number or an array of numbers; got {shorten(value)}"
        )
    with np.errstate(over="ignore"):
        array = given.astype(dtype)
    if dtype is np.int32 and np.any(array != given):
        raise ObjectiveError(f"{name} must fit into 32 bits; got {shorten(value)}")
    if not np.all(np.isfinite(array)):
        raise ObjectiveError(f"{name} must be finite in float32; got {shorten(value)}")
    if given.ndim == 0:
        return float(given) if dtype is np.float32 else given.item()
    array.flags.writeable = False
    return array


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Checks an option that is a number; for the `__post_init__` of an objective's class.

    Args:
        name: of the option, for messages.
        value: what was given.
        above: what it is larger than.
        at_least: the least that it may be.
        at_most: the most that it may be.

    Raises:
        ObjectiveError: not a finite number, or one out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ObjectiveError(f"{name} must be a number; got {value!r}")
    if not (math.isfinite(value) and above < value and at_least <= value <= at_most):
        wanted = [
            f"{word} {bound:g}"
            for word, bound in (("above", above), ("at least", at_least), ("at most", at_most))
            if math.isfinite(bound)
        ]
        raise ObjectiveError(f"{name} must be {' and '.join(wanted) or 'finite'}; got {value!r}")


def fields_of(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The declared fields of an objective's class, in order."""
    return dataclasses.fields(cls)


def leaf_value(leaf_: Any) -> np.ndarray:
    """What a leaf is in the program: a float of 32 bits or an integer."""
    array = np.asarray(leaf_)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    # Adding 0.0 makes -0.0 and 0.0, which are equal, the same bytes.
    return array.astype(np.float64) + 0.0


def same_value(value: Any, default: Any) -> bool:
    """Whether a leaf has the value of its default."""
    if value is None or default is None:
        return value is default
    return not is_array(value) and bool(value == default)


def leaf_text(value: Any) -> str:
    """A leaf as the text form writes it."""
    name = array_name(value)
    if name is not None:
        return name
    return format_literal(np.float32(value) if isinstance(value, float) else value)


def shorten(value: Any) -> str:
    """One short line, of arrays the name, or the type and shape."""
    name = array_name(value)
    if name is not None:
        return name
    if is_array(value):
        if value.size <= 8 and not is_traced(value):
            array = np.asarray(value)
            written = array.dtype in (np.float32, np.int32)
            return format_literal(array) if written else str(array.tolist())
        return f"<{value.dtype}{list(value.shape)}>"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def checked_static(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """A value of a static field, in its plain form."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        hash(value)
    except TypeError:
        raise ObjectiveError(
            f"{name} is part of the program and must be hashable; got {shorten(value)}"
        ) from None
    optional = value is None and field.default is None
    if field.name == "layer" and not optional and not (isinstance(value, str) and value):
        raise ObjectiveError(f"a layer is a name in quotes, such as 'block8'; got {value!r}")
    return value


def check_rank(name: str, ndim: int | None, value: Any) -> None:
    """Checks the rank of a leaf: one image's, or one axis more."""
    if value is None:
        return
    rank = np.ndim(value)
    if ndim is None:
        fits, wanted = rank >= 1, "images first, (1, ...) or (n, ...)"
    else:
        fits, wanted = rank in (ndim, ndim + 1), f"rank {ndim}, or {ndim + 1} with images first"
    if not fits:
        raise ObjectiveError(f"{name} must have {wanted}; got shape {tuple(np.shape(value))}")


def image_count(field: dataclasses.Field[Any], value: Any) -> int | None:
    """The number of images that a leaf has values for; None where one is shared."""
    if value is None or not field.metadata.get("leaf"):
        return None
    ndim, shape = field.metadata["ndim"], np.shape(value)
    if ndim is None:
        return shape[0] if shape[0] != 1 else None
    return shape[0] if len(shape) == ndim + 1 else None
