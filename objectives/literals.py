"""Values as text and back: a whitelist over `ast`, shared by everything that has a text form.

Numbers, strings, None, True, False, lists, tuples, arithmetic on numbers, arrays and calls of named
things; nothing else, and never `eval`.
"""

from __future__ import annotations

import ast
import base64
import binascii
import difflib
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from objectives.errors import ObjectiveError, ParseError

# Above this many elements an array is written in base64: exact, and a third of the length.
_WRITTEN_OUT = 64
_DTYPES = ("float32", "int32", "uint32", "bool")


def format_literal(value: Any) -> str:
    """The text of a number, string, None, tuple, list or array; exact, so that it reads back equal.

    Raises:
        ObjectiveError: a value that has no text form.
    """
    if isinstance(value, (np.ndarray, jax.Array)):
        array = np.asarray(value)
        if array.ndim and array.size <= _WRITTEN_OUT and array.dtype in (np.float32, np.int32):
            if array.dtype == np.int32:
                return str(array.tolist())
            return _nested(array)
        if str(array.dtype) not in _DTYPES:
            raise ObjectiveError(f"an array of {array.dtype} has no text form; expected {_DTYPES}")
        raw = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return f"array('{array.dtype}', {list(array.shape)}, '{raw}')"
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, tuple):
        items = ", ".join(map(format_literal, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, list):
        return f"[{', '.join(map(format_literal, value))}]"
    raise ObjectiveError(f"{type(value).__name__} has no text form: {value!r}")


def _nested(array: np.ndarray) -> str:
    if array.ndim == 0:
        # float32's own shortest form: 0.1, not 0.10000000149011612.
        text = str(array[()])
        return text if any(c in text for c in ".en") else f"{text}.0"
    return f"[{', '.join(_nested(row) for row in array)}]"


def array(dtype: str, shape: list[int], data: str) -> np.ndarray:
    """An array from its text form: type, shape and base64 of its little-endian bytes.

    Raises:
        ObjectiveError: an unknown type, bad base64, or a length that does not fit the shape.
    """
    if dtype not in _DTYPES:
        raise ObjectiveError(f"array of {dtype!r}; expected one of {', '.join(_DTYPES)}")
    if not isinstance(shape, (list, tuple)) or not all(isinstance(s, int) and s >= 0 for s in shape):
        raise ObjectiveError(f"array shape {shape!r}; expected a list of lengths")
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ObjectiveError(f"array data is not base64: {error}") from error
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if len(raw) != wanted:
        raise ObjectiveError(f"array of shape {list(shape)} needs {wanted} bytes; got {len(raw)}")
    return np.frombuffer(raw, dtype).reshape(shape).copy()


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
