"""Values as text and back: a whitelist over `ast`, shared by everything that has a text form.

Numbers, strings, None, True, False, lists, tuples, arithmetic on numbers, arrays and calls of named
things; nothing else, and never `eval`.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from objectives.errors import ParseError

# What is nested deeper is no text that anybody wrote.
_DEEPEST = 100

#: Parts of a text at most, so that reading one takes no more than seconds.
MOST_PARTS = 20_000


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

#: A string on one line, as Python writes it; a pattern for `re.VERBOSE`.
STRING = r"""(?: '(?:[^'\\\r\n]|\\[^\r\n])*' | "(?:[^"\\\r\n]|\\[^\r\n])*" )"""

#: What Python takes for the name of the module in its warnings about a text.
_SOURCE = "<a text of featvis>"

_PIECE = re.compile(rf"{STRING} | .", re.VERBOSE | re.DOTALL)


def mark(text: str, message: str, column: int) -> ParseError:
    """A ParseError that shows the text around a column, with a mark under the place."""
    column = max(0, min(column, len(text)))
    start = max(0, column - 50)
    shown = "".join(c if c.isprintable() else " " for c in text[start : column + 50])
    lead = "…" if start else ""
    return ParseError(f"{message}\n  {lead}{shown}\n  {' ' * (len(lead) + column - start)}^")


class Evaluator:
    """Evaluates a whitelisted expression over given names.

    Args:
        names: what may be called or named.
        what: what the text describes, for messages ("objective", "transform").
        methods: the methods that may be called on a value.
        bare: the value of a name that is not called; None where a name must be called.
        refused: (operator, left, right) to what is wrong with it; None where nothing is.
    """

    def __init__(
        self,
        names: Mapping[str, Any],
        what: str,
        *,
        methods: tuple[str, ...] = (),
        bare: Callable[[str], Any] | None = None,
        refused: Callable[[type[ast.operator], Any, Any], str | None] | None = None,
    ) -> None:
        self.names, self.what, self.methods, self.bare = names, what, methods, bare
        self.refused = refused

    def evaluate(self, text: str, read: Mapping[tuple[int, int], Any] | None = None) -> Any:
        """The value of `text`.

        Args:
            text: what the user wrote.
            read: the values of the parts (start, stop) of it that have been read already.

        Raises:
            ParseError: anything but a whitelisted expression; the message marks the place.
        """
        if not text.strip():
            raise mark(text, f"an empty text is no {self.what}", 0)
        try:
            # What overflows becomes infinite here, and is refused where it is used.
            with np.errstate(all="ignore"):
                return _Reading(self, text, read or {}).value()
        except (RecursionError, MemoryError):
            raise mark(text, f"malformed {self.what}: nested too deeply", 0) from None


class _Reading:
    """One text under evaluation."""

    def __init__(
        self, evaluator: Evaluator, text: str, read: Mapping[tuple[int, int], Any]
    ) -> None:
        self._names, self._bare, self._methods = evaluator.names, evaluator.bare, evaluator.methods
        self._text, self._read, self._what = text, read, evaluator.what
        self._refused = evaluator.refused
        self._depth = 0
        self._in_what = f"in {'an' if evaluator.what[0] in 'aeiou' else 'a'} {evaluator.what}"
        line = self._masked()
        self._lead = len(line) - len(line.lstrip())
        self._line = line[self._lead :]

    def _masked(self) -> str:
        """The text on one line, ASCII but for its strings, each part read before as a name."""
        text, pieces, last = self._text, [], 0
        for start, stop in (*sorted(self._read), (len(text), len(text))):
            for match in _PIECE.finditer(text, last, start):
                piece, column = match[0], match.start()
                if piece in ("'", '"'):
                    raise mark(text, f"malformed {self._what}: this string has no end", column)
                if piece in ("''", '""') and text.startswith(piece[0], column + 2):
                    raise mark(text, f"triple quotes are not allowed {self._in_what}", column)
                if piece == "#":
                    raise mark(text, f"a comment is not allowed {self._in_what}", column)
                if piece.isspace():
                    piece = " "
                elif len(piece) == 1 and not (piece.isascii() and piece.isprintable()):
                    raise mark(text, f"{piece!r} is not allowed {self._in_what}", column)
                pieces.append(piece)
            pieces.append("_" * (stop - start))
            last = stop
        return "".join(pieces)

    def value(self) -> Any:
        try:
            # A doubtful literal ("\d", 1or) is a warning of Python's; here it is an error, and what
            # other threads warn of meanwhile is not.
            with warnings.catch_warnings():
                warnings.filterwarnings("error", module=_SOURCE)
                tree = ast.parse(self._line, _SOURCE, mode="eval")
        except SyntaxError as error:
            column, reason = self._lead + (error.offset or 0) - 1, error.msg
            if reason.startswith("Exceeds the limit"):
                reason = "a number has too many digits"
            end = len(self._text.rstrip())
            if not self._lead <= column < end:
                column = end
                reason = "it ends too early" if reason == "invalid syntax" else reason
            raise mark(self._text, f"malformed {self._what}: {reason}", column) from None
        except ValueError as error:
            raise mark(self._text, f"malformed {self._what}: {error}", 0) from None
        if sum(1 for _ in ast.walk(tree)) > MOST_PARTS:
            raise mark(self._text, f"the {self._what} has more than {MOST_PARTS} parts", 0)
        return self._visit(tree.body)

    def _column(self, node: ast.AST) -> int:
        # `ast` counts UTF-8 bytes.
        return self._lead + len(self._line.encode()[: node.col_offset].decode())  # type: ignore[attr-defined]

    def _error(self, node: ast.AST, message: str) -> ParseError:
        return mark(self._text, message, self._column(node))

    def _refusal(self, node: ast.AST, thing: str) -> ParseError:
        return self._error(node, f"{thing} is not allowed {self._in_what}")

    def _visit(self, node: ast.expr) -> Any:
        if self._depth == _DEEPEST:
            raise self._error(node, f"malformed {self._what}: nested too deeply")
        self._depth += 1
        try:
            return self._value(node)
        finally:
            self._depth -= 1

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return self._constant(node, value)
            case ast.Name(id=name):
                start = self._column(node)
                if (start, start + len(name)) in self._read:
                    return self._read[start, start + len(name)]
                bare = self._bare
                if bare is None:
                    raise self._error(node, self._unknown(name))
                return self._attempt(node, lambda: bare(name))
            case ast.List(elts=items):
                return [self._visit(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self._visit(item) for item in items)
            case ast.UnaryOp(op=op, operand=inner) if type(op) in _UNARY:
                operand = self._operand(inner)
                return self._attempt(node, lambda: _UNARY[type(op)](operand))
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Call():
                return self._call(node)
        raise self._refusal(node, _describe(node))

    def _constant(self, node: ast.expr, value: Any) -> Any:
        if isinstance(value, int) and abs(value) >= 2**63:
            raise self._refusal(node, "an integer of more than 63 bits")
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        raise self._refusal(node, repr(value))

    def _arithmetic(self, node: ast.expr) -> Any:
        # The tree of a long sum is as deep as the sum is long: its left side is walked in a loop.
        steps: list[ast.BinOp] = []
        while isinstance(node, ast.BinOp):
            steps.append(node)
            node = node.left
        left = self._operand(node)
        for step in reversed(steps):
            apply = _BINARY.get(type(step.op))
            if apply is None:
                thing = f"the operator {_describe(step.op)}"
                raise self._refusal(step.right, thing)
            right = self._operand(step.right)
            problem = self._refused and self._refused(type(step.op), left, right)
            if problem:
                raise self._error(step.right, problem)
            left = self._attempt(step.right, partial(apply, left, right))
        return left

    def _operand(self, node: ast.expr) -> Any:
        value = self._visit(node)
        if isinstance(value, list):
            try:
                return np.asarray(value, np.float32)
            except (ValueError, TypeError):
                raise self._error(node, "a list in arithmetic must be of numbers") from None
        if isinstance(value, (bool, str, tuple)) or value is None:
            raise self._error(node, f"{value!r} is not allowed in arithmetic")
        return value

    def _call(self, node: ast.Call) -> Any:
        name, function = self._function(node.func)
        values = [self._visit(argument) for argument in node.args]
        named = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self._refusal(keyword.value, "**")
            if keyword.arg in named:
                raise self._error(keyword, f"{name} is given {keyword.arg} twice")
            named[keyword.arg] = self._visit(keyword.value)
        problem = _misfit(name, function, values, named)
        if problem is not None:
            raise self._error(node, problem)
        return self._attempt(node, lambda: function(*values, **named))

    def _function(self, node: ast.expr) -> tuple[str, Callable[..., Any]]:
        match node:
            case ast.Name(id=name):
                if name not in self._names:
                    raise self._error(node, self._unknown(name))
                return name, self._names[name]
            case ast.Attribute(value=owner, attr=name) if name in self._methods:
                value = self._visit(owner)
                # A method is one of the class: nothing else can be reached.
                if not hasattr(type(value), name):
                    raise self._error(
                        node, f".{name}() follows what is {self._in_what[3:]}, not {value!r}"
                    )
                return name, getattr(value, name)
            case ast.Attribute(attr=name):
                known = ", ".join(f".{m}()" for m in self._methods)
                raise self._refusal(node, f".{name}" + (f" (only {known})" if known else ""))
        raise self._refusal(node, f"calling {_describe(node)}")

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._names, n=3, cutoff=0.5)
        if near:
            return f"unknown {self._what} {name!r}; nearest: {', '.join(near)}"
        return f"unknown {self._what} {name!r}; known: {', '.join(sorted(self._names))}"

    def _attempt(self, node: ast.AST, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (RecursionError, MemoryError, ParseError):
            raise
        except Exception as error:
            # What is called is whitelisted; what it says of its arguments is for the user.
            said = " ".join(str(error).split()) or type(error).__name__
            raise self._error(node, said) from error


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """The arguments that a function cannot be called without."""
    return [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _misfit(
    name: str, function: Callable[..., Any], values: Sequence[Any], named: Mapping[str, Any]
) -> str | None:
    """What is wrong with the arguments of a call; None where they fit."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some builtins have none
        return None
    try:
        signature.bind(*values, **named)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no arguments"
        for key in named:
            if key not in signature.parameters:
                return f"{name} has no argument {key!r}; it takes {takes}"
        if len(values) > len(signature.parameters):
            return f"{name} takes {takes}; got {len(values)} arguments"
        missing = [key for key in required_arguments(function)[len(values) :] if key not in named]
        if missing:
            return f"{name} needs {', '.join(missing)}; it takes {takes}"
        return f"{name}: {error}"
    return None


def _describe(node: ast.AST) -> str:
    names: dict[type[ast.AST], str] = {
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
        ast.Call: "a call",
        ast.Constant: "a value",
        ast.ListComp: "a comprehension",
        ast.SetComp: "a comprehension",
        ast.DictComp: "a comprehension",
        ast.GeneratorExp: "a comprehension",
        ast.UnaryOp: "this operator",
        ast.Pow: "**",
        ast.MatMult: "@",
        ast.Mod: "%",
        ast.FloorDiv: "//",
        ast.BitOr: "|",
        ast.BitAnd: "&",
        ast.BitXor: "^",
        ast.LShift: "<<",
        ast.RShift: ">>",
    }
    return names.get(type(node), type(node).__name__)
