"""Objectives as text: `"block8:3"` a channel, `"block8:3@7,7"` a neuron, `"logits:285"` a class.

Whole expressions too: `"block8:3 - 0.1*tv"`, `"2*channel('block8', 3) + layer('stem')"`,
`"block8:[0, 1].on([0, 1])"`. What is not on the whitelist raises with its place marked.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from objectives import literals
from objectives.core import NamedArray, Objective, text_name
from objectives.errors import ObjectiveError, ParseError
from objectives.units import Channel, Layer, Logit, Neuron

# What `/` divides by, where it is no part of a layer's name.
_NUMBER = r"(?: \d[\d_]* (?: [eE]\d+ )? [jJ]? | 0[xXoObB]\w* )"
# In a scan from left to right a colon outside a string can only be that of a unit.
_TOKEN = re.compile(
    rf"""
      {literals.STRING}
    | (?P<layer> [A-Za-z_]\w* (?: [./]\w+ )* ) (?P<colon> \s* : )
    | (?P<path> [A-Za-z_]\w* (?: / (?! {_NUMBER} (?! \w ) ) \w+ | \.\d+ )+ ) (?! \s*\( | \w )
    | \.\s*\w+ | \w+
    | (?P<stray> : )
    """,
    re.VERBOSE | re.ASCII,
)
_INDEX = re.compile(r"\s* ( -?\d{1,18} | \[ [-\d\s,]* \] ) (?! \w | \.\d )", re.VERBOSE | re.ASCII)
_AT = re.compile(r"\s* @", re.VERBOSE | re.ASCII)
_POSITION = re.compile(
    r"""
    \s* (?: center | (\d{1,18}) (?: \s* , \s* (\d{1,18}) | (?! \s*,\s*[-.\d] ) ) ) (?! \w | \.\d )
    """,
    re.VERBOSE | re.ASCII,
)


def parse(text: str, /, **arrays: ArrayLike) -> Objective:
    """The objective that a text describes; `parse(str(objective)) == objective`.

    Args:
        text: a unit (`layer:index`, `layer:index@y,x`, `layer:index@center`, of tokens
            `layer:index@token`, `logits:class`; a list of indices, `layer:[0, 3]`, gives each image
            its own), a layer's name (DeepDream on it), or an expression of units, objectives called
            by their names in lower case (`direction('block8', [...])`), numbers and `+ - * /`.
        **arrays: what the text writes by name (`NamedArray`). A name that is not called is the
            array's, whatever objective or layer has the same.

    Raises:
        ParseError: anything else; the message marks the place.
        ObjectiveError: an array that a `NamedArray` cannot be.
    """
    if not isinstance(text, str):
        raise ParseError(f"an objective's text must be a string; got {type(text).__name__}")
    names = {**_vocabulary(), "sum": _sum, "array": literals.array}
    named = {name: _named(name, values) for name, values in arrays.items()}

    def bare(name: str) -> Any:
        if name in named:
            return named[name]
        if name not in names:
            return Layer(name)
        needed = literals.required_arguments(names[name])
        if needed:
            raise ObjectiveError(
                f"{name} needs {', '.join(needed)}; a layer of that name is layer({name!r})"
            )
        return names[name]()

    evaluator = literals.Evaluator(names, "objective", methods=("on",), bare=bare)
    value = evaluator.evaluate(text, _units(text))
    if not isinstance(value, Objective):
        kind = type(value).__name__
        raise literals.mark(text, f"{kind} is not an objective; name a unit such as block8:3", 0)
    return value


def _named(name: str, values: ArrayLike) -> NamedArray:
    if isinstance(values, NamedArray) and values.name == name:
        return values
    return NamedArray(values, name)


def _units(text: str) -> dict[tuple[int, int], Objective]:
    """The units and the layers with a slash, by their places (start, stop) in the text."""
    found: dict[tuple[int, int], Objective] = {}
    stop = 0
    while token := _TOKEN.search(text, stop):
        start, stop = token.span()
        if token["path"] is not None:
            found[start, stop] = Layer(token["path"])
        elif token["colon"] is not None:
            unit, stop = _unit(text, token)
            found[start, stop] = unit
        elif token["stray"] is not None:
            raise literals.mark(
                text, "a colon follows a layer's name: block8:3 is a unit of block8", start
            )
    return found


def _unit(text: str, token: re.Match[str]) -> tuple[Objective, int]:
    """The unit that begins with a layer's name and a colon, and where it ends."""
    layer, stop = token["layer"], token.end()
    index_text = _INDEX.match(text, stop)
    if index_text is None:
        raise literals.mark(
            text, "a unit's index is a whole number, or a list of them such as [0, 3]", stop
        )
    stop = index_text.end()
    position: list[int] | None = None
    at = _AT.match(text, stop)
    if at is not None:
        position_text = _POSITION.match(text, at.end())
        if position_text is None:
            raise literals.mark(
                text,
                "a position is y,x or a token, whole numbers of 0 or more, or center",
                at.end(),
            )
        stop = position_text.end()
        if position_text[1] is not None:
            position = [int(part) for part in position_text.groups() if part is not None]
    try:
        index = _whole_numbers(index_text[1])
        if at is not None:
            return Neuron(layer, index, None if position is None else np.array(position)), stop
        return (Logit(index) if layer == "logits" else Channel(layer, index)), stop
    except ObjectiveError as error:
        raise literals.mark(text, str(error), token.start()) from error


def _whole_numbers(text: str) -> Any:
    if not text.startswith("["):
        return int(text)
    try:
        return [int(part) for part in text[1:-1].split(",")]
    except ValueError:
        raise ObjectiveError("a list of units is of whole numbers: block8:[0, 3, 5]") from None


def _sum(terms: Any) -> Any:
    if not isinstance(terms, (list, tuple)):
        raise ObjectiveError("sum takes a list of objectives")
    return sum(terms)


def _vocabulary() -> dict[str, Any]:
    """Every concrete objective class by its names in the text, those of the user too."""
    found: dict[str, Any] = {}
    pending: list[Any] = Objective.__subclasses__()
    while pending:
        cls = pending.pop(0)
        pending.extend(cls.__subclasses__())
        if cls.__abstractmethods__ or text_name(cls) in _WRITTEN_AS_OPERATORS:
            continue
        for name in (text_name(cls), *cls.aliases):
            other = found.get(name, cls)
            same = (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__)
            # A class defined again, as a notebook's cell does, takes the place of its older self.
            found[name] = cls if same else _ambiguous(name, other, cls)
    return found


def _ambiguous(name: str, *classes: Any) -> Any:
    said = " and ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in classes)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ObjectiveError(f"{name!r} is the name of two objectives, {said}; rename one")

    refuse.__module__, refuse.__qualname__ = "", said
    return refuse


#: The algebra's nodes are written + and *, never called.
_WRITTEN_AS_OPERATORS = {"sum", "scaled", "on_images"}
