"""Numbers and arrays as text."""

from __future__ import annotations

import base64
import math
from typing import Any

import jax
import numpy as np

from objectives.errors import ObjectiveError

# Above this many elements an array is written in base64: exact, and a third of the length.
_WRITTEN_OUT = 64

_DTYPES = ("float32", "int32", "uint32", "bool")


def format_literal(value: Any) -> str:
    """The text of a number, string, None, tuple, list or array; exact, so that it reads back equal.

    Raises:
        ObjectiveError: a value that has no text form.
    """
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _format_array(np.asarray(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, tuple):
        items = ", ".join(map(format_literal, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, list):
        return f"[{', '.join(map(format_literal, value))}]"
    raise ObjectiveError(f"{type(value).__name__} has no text form: {value!r}")


def _format_array(array: np.ndarray) -> str:
    if array.ndim == 0 and array.dtype.kind in "biuf":
        # A float32 in its own shortest form: 0.1, not 0.10000000149011612.
        return str(array[()])
    if str(array.dtype) not in _DTYPES:
        raise ObjectiveError(f"an array of {array.dtype} has no text form; expected {_DTYPES}")
    if array.size <= _WRITTEN_OUT and array.dtype in (np.float32, np.int32):
        return _nested(array)
    raw = base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    return f"array('{array.dtype}', {list(array.shape)}, '{raw}')"


def _nested(array: np.ndarray) -> str:
    if array.ndim == 0:
        return str(array[()])
    return f"[{', '.join(map(_nested, array))}]"


def array(dtype: str, shape: list[int], data: str) -> np.ndarray:
    """An array from its text form: type, shape and base64 of its little-endian bytes.

    Raises:
        ObjectiveError: an unknown type, bad base64, or a length that does not fit the shape.
    """
    if dtype not in _DTYPES:
        raise ObjectiveError(f"array of {dtype!r}; expected one of {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or not all(type(s) is int and s >= 0 for s in shape):
        raise ObjectiveError(f"array shape {shape!r}; expected a list of lengths")
    try:
        raw = base64.b64decode(data, validate=True)
    except (ValueError, TypeError) as error:
        raise ObjectiveError(f"array data is not base64: {error}") from error
    stored = np.dtype(dtype).newbyteorder("<")
    wanted = math.prod(shape) * stored.itemsize
    if len(raw) != wanted:
        raise ObjectiveError(f"array of shape {shape} needs {wanted} bytes; got {len(raw)}")
    return np.frombuffer(raw, stored).reshape(shape).astype(dtype)
