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


class Place:
    """Maps places in the parsed text to places in the text that the user wrote."""

    def __init__(self, text: str, parsed: str, spans: list[tuple[int, int, int, int]]) -> None:
        self.text, self._parsed, self._spans = text, parsed, spans

    def of(self, byte_offset: int) -> int:
        """The user's column of a byte offset in the parsed text (`ast` counts UTF-8 bytes)."""
        column = len(self._parsed.encode()[:byte_offset].decode(errors="ignore"))
        shift = 0
        for start, stop, was_start, was_stop in self._spans:
            if column < start:
                break
            if column < stop:
                return was_start
            shift = was_stop - stop
        return column + shift

    def error(self, message: str, column: int) -> ParseError:
        """A ParseError that shows the text with a mark under the place."""
        column = max(0, min(column, len(self.text)))
        start = max(0, column - 50)
        shown = "".join(" " if c.isspace() else c for c in self.text[start : column + 50])
        lead = "…" if start else ""
        return ParseError(f"{message}\n  {lead}{shown}\n  {' ' * (len(lead) + column - start)}^")


class Evaluator:
    """Evaluates a whitelisted expression over given names.

    Args:
        names: what may be called or named.
        what: what the text describes, for messages ("objective", "transform").
        methods: the methods that may be called on a value.
        bare: the value of a name that is not called; None where a name must be called.
    """

    def __init__(
        self,
        names: Mapping[str, Any],
        what: str,
        *,
        methods: tuple[str, ...] = (),
        bare: Callable[[str], Any] | None = None,
    ) -> None:
        self._names, self._what, self._methods, self._bare = names, what, methods, bare

    def evaluate(
        self, text: str, parsed: str | None = None, spans: list[tuple[int, int, int, int]] | None = None
    ) -> Any:
        """The value of `text`.

        Args:
            text: what the user wrote, for messages.
            parsed: what to parse, where it differs from `text`.
            spans: (start, stop, start in text, stop in text) of each replaced part of `parsed`.

        Raises:
            ParseError: anything but a whitelisted expression; the message marks the place.
        """
        parsed = text if parsed is None else parsed
        place = Place(text, parsed, spans or [])
        stripped = parsed.lstrip()
        lead = len(parsed) - len(stripped)
        if not stripped:
            raise place.error(f"an empty text is no {self._what}", 0)
        try:
            # Parentheses make line breaks insignificant.
            tree = ast.parse(f"({stripped}\n)", mode="eval")
        except SyntaxError as error:
            lines = stripped.split("\n")
            row = min((error.lineno or 1) - 1, len(lines) - 1)
            before = sum(len(line) + 1 for line in lines[:row])
            column = before + (error.offset or 1) - 1 - (1 if row == 0 else 0)
            column = max(0, min(column, len(stripped)))
            offset = len(parsed[: lead + column].encode())
            reason = error.msg.split("(")[0].strip()
            raise place.error(f"malformed {self._what}: {reason}", place.of(offset)) from None
        except (RecursionError, MemoryError, ValueError) as error:
            raise place.error(f"malformed {self._what}: {error or 'nested too deeply'}", 0) from None
        starts = [0]
        for line in stripped.split("\n"):
            starts.append(starts[-1] + len(line.encode()) + 1)

        def fail(node: ast.AST, message: str) -> ParseError:
            row = getattr(node, "lineno", 1) - 1
            offset = starts[min(row, len(starts) - 1)] + getattr(node, "col_offset", 0)
            offset -= 1 if row == 0 else 0
            return place.error(message, place.of(offset + len(parsed[:lead].encode())))

        try:
            return self._visit(tree.body, fail)
        except RecursionError:
            raise place.error(f"malformed {self._what}: nested too deeply", 0) from None

    def _visit(self, node: ast.expr, fail: Callable[[ast.AST, str], ParseError]) -> Any:
        match node:
            case ast.Constant(value=value):
                if value is None or isinstance(value, (bool, int, str)):
                    return value
                if isinstance(value, float) and math.isfinite(value):
                    return value
                raise fail(node, f"{value!r} is not allowed in an {self._what}")
            case ast.Name(id=name):
                if self._bare is not None:
                    return self._attempt(node, fail, lambda: self._bare(name))  # type: ignore[misc]
                raise fail(node, self._unknown(name))
            case ast.List(elts=items):
                return [self._visit(item, fail) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self._visit(item, fail) for item in items)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                value = self._operand(operand, fail)
                return self._attempt(node, fail, lambda: _UNARY[type(op)](value))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                a, b = self._operand(left, fail), self._operand(right, fail)
                return self._attempt(node, fail, lambda: _BINARY[type(op)](a, b))
            case ast.Call(func=func, args=args, keywords=keywords):
                function = self._function(func, fail)
                values = [self._visit(arg, fail) for arg in args]
                named = {}
                for keyword in keywords:
                    if keyword.arg is None:
                        raise fail(keyword.value, f"** is not allowed in an {self._what}")
                    named[keyword.arg] = self._visit(keyword.value, fail)
                return self._attempt(node, fail, lambda: function(*values, **named))
        raise fail(node, f"{_describe(node)} is not allowed in an {self._what}")

    def _operand(self, node: ast.expr, fail: Callable[[ast.AST, str], ParseError]) -> Any:
        value = self._visit(node, fail)
        if isinstance(value, list):
            try:
                return np.asarray(value, np.float32)
            except (ValueError, TypeError):
                raise fail(node, "a list in arithmetic must be of numbers") from None
        if isinstance(value, (bool, str, tuple)) or value is None:
            raise fail(node, f"{value!r} is not allowed in arithmetic")
        return value

    def _function(
        self, node: ast.expr, fail: Callable[[ast.AST, str], ParseError]
    ) -> Callable[..., Any]:
        if isinstance(node, ast.Name):
            found = self._names.get(node.id)
            if found is None:
                raise fail(node, self._unknown(node.id))
            return found
        if isinstance(node, ast.Attribute) and node.attr in self._methods:
            value = self._visit(node.value, fail)
            method = getattr(type(value), node.attr, None)
            if method is None or isinstance(value, (int, float, str, list, tuple, np.ndarray)):
                raise fail(node, f".{node.attr}() needs an {self._what} before it")
            return method.__get__(value)
        if isinstance(node, ast.Attribute):
            known = ", ".join(f".{m}()" for m in self._methods) or "none"
            raise fail(node, f".{node.attr} is not allowed in an {self._what}; allowed: {known}")
        raise fail(node, f"calling {_describe(node)} is not allowed in an {self._what}")

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._names, n=3, cutoff=0.5)
        hint = f"; nearest: {', '.join(near)}" if near else f"; known: {', '.join(sorted(self._names))}"
        return f"unknown {self._what} {name!r}{hint}"

    def _attempt(
        self, node: ast.expr, fail: Callable[[ast.AST, str], ParseError], call: Callable[[], Any]
    ) -> Any:
        try:
            return call()
        except ParseError:
            raise
        except Exception as error:
            # What is called is whitelisted; what it says of its arguments is for the user.
            raise fail(node, str(error) or type(error).__name__) from error


def _describe(node: ast.AST) -> str:
    names = {
        ast.Lambda: "a lambda",
        ast.Subscript: "indexing with [ ]",
        ast.Attribute: "an attribute",
        ast.Compare: "a comparison",
        ast.BoolOp: "and/or",
        ast.IfExp: "a conditional",
        ast.Starred: "*",
        ast.JoinedStr: "an f-string",
        ast.NamedExpr: ":=",
        ast.Dict: "a dictionary",
        ast.Set: "a set",
        ast.BinOp: "this operator",
        ast.UnaryOp: "this operator",
    }
    return names.get(type(node), type(node).__name__)
