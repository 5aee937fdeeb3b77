"""Argument checks shared by the frozen dataclasses of featvis: each returns a plain literal.

A dataclass whose fields are plain literals has a `repr` that is its text form in a manifest, so
numpy scalars and lists are turned into Python numbers and tuples here.
"""

import dataclasses
import math
import numbers
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from featvis.errors import InputError, printable

#: Of an image, in pixels.
LONGEST_SIDE = 2**16

#: The largest number of 32 bits, which programs compute with: one beyond is infinite to them.
LARGEST = float(np.finfo(np.float32).max)


def integer(owner: object, name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """Return `value` as an int within [low, high]; InputError names the field otherwise."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        if low <= int(value) <= high:
            return int(value)
        if int(value) > high:
            raise error(owner, name, f"an integer from {low} to {high}", value)
    raise error(owner, name, f"an integer of at least {low}", value)


def number(
    owner: object, name: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> float:
    """Return `value` as a finite float within [low, high]; InputError names the field otherwise.

    Finite is what is finite in 32 bits.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        plain = as_float(value)
        if abs(plain) <= LARGEST and low <= plain <= high:
            return plain
        if math.isfinite(plain) and abs(plain) > LARGEST and low <= plain <= high:
            raise error(owner, name, f"of a size of at most {LARGEST:.4g}", value)
    if math.isfinite(low) and math.isfinite(high):
        expected = f"a number from {low:g} to {high:g}"
    elif math.isfinite(low):
        expected = f"a finite number of at least {low:g}"
    else:
        expected = "a finite number"
    raise error(owner, name, expected, value)


def as_float(value: Any) -> float:
    """As a float; infinite where it has more digits than one has."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def positive(owner: object, name: str, value: Any) -> float:
    """Return `value` as a finite float above 0; InputError names the field otherwise."""
    if number(owner, name, value, 0) == 0:
        raise error(owner, name, "a number above 0", value)
    return float(value)


def interval(
    owner: object, name: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float]:
    """Return `value` as (lowest, highest), floats within [low, high]; InputError otherwise."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise error(owner, name, "a pair (lowest, highest)", value)
    lowest, highest = (number(owner, name, v, low, high) for v in value)
    if lowest > highest:
        raise error(owner, name, "a pair (lowest, highest) in this order", value)
    return lowest, highest


def switch(owner: object, name: str, value: Any) -> bool:
    """Return `value` as a bool if it is one, NumPy's too; InputError names the field otherwise."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise error(owner, name, "True or False", value)


def seed(owner: object, name: str, value: Any) -> int:
    """Return `value` as a seed, an int from 0 to 2^32 - 1; InputError names the field otherwise."""
    return integer(owner, name, value, 0, 2**32 - 1)


def choice(owner: object, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`; InputError lists them otherwise."""
    if isinstance(value, str) and value in choices:
        return value
    listed = ", ".join(repr(c) for c in choices)
    raise error(owner, name, f"one of {listed}", value)


def path(owner: object, name: str, value: Any) -> Path:
    """Return `value` as a Path if it is a text that is not empty, or one; InputError otherwise."""
    if isinstance(value, (str, os.PathLike)) and str(value):
        return Path(value)
    raise error(owner, name, "a path", value)


def image_size(owner: object, name: str, value: Any) -> tuple[int, int]:
    """Return `value` as (height, width), two positive ints; InputError otherwise."""
    if (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(v, numbers.Integral) and not isinstance(v, bool) for v in value)
        and min(value) >= 1
    ):
        if max(value) > LONGEST_SIDE:
            raise error(owner, name, f"(height, width) of at most {LONGEST_SIDE}", value)
        return int(value[0]), int(value[1])
    raise error(owner, name, "(height, width), two positive integers", value)


def read_size(name: str, text: str) -> tuple[int, int]:
    """Return the (height, width) that a text says, "160x224" or "160"; InputError otherwise."""
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text.strip())
    if match is None:
        raise InputError(
            f"{name} must be HEIGHTxWIDTH in pixels, as 160x224, or one number; got "
            f"{printable(repr(text), 80)}"
        )
    sides = [match[1], match[2] or match[1]]
    # Python reads no integer of thousands of digits.
    if any(len(side) > 9 or int(side) > LONGEST_SIDE for side in sides):
        raise InputError(f"{name} is at most {LONGEST_SIDE} a side; got {printable(text, 40)}")
    return int(sides[0]), int(sides[1])


def set_fields(owner: object, **values: Any) -> None:
    """Assign checked values to the fields of a frozen dataclass, in its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)


def real_array(what: str, value: Any, dtype: Any = np.float32) -> np.ndarray:
    """Return `value` as an array of real numbers; InputError says what it is of otherwise."""
    try:
        with np.errstate(over="ignore"):  # what is too large is infinite, which is looked for
            return np.asarray(value).astype(dtype, casting="same_kind")
    except (TypeError, ValueError) as cause:  # texts, ragged lists, complex numbers
        shown = printable(repr(value), 80)
        raise InputError(f"{what} must be an array of real numbers; got {shown}") from cause


def error(owner: object, name: str, expected: str, value: Any) -> InputError:
    """Build the InputError that says what a field is and what was given."""
    return InputError(f"{_field(owner, name)} is {expected}, not {value!r}")


def _field(owner: object, name: str) -> str:
    """`Fourier: decay`: the class, or the function by its name, and the field of a message."""
    return f"{owner if isinstance(owner, str) else type(owner).__name__}: {name}"


def text_of(instance: Any) -> str:
    """A frozen dataclass as its class's name called with its fields, wherever the class is."""
    given = (f"{one.name}={getattr(instance, one.name)!r}" for one in dataclasses.fields(instance))
    return f"{type(instance).__name__}({', '.join(given)})"
