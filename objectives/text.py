"""Objectives as text: `"block8:3"` a channel, `"block8:3@7,7"` a neuron, `"logits:285"` a class.

Whole expressions too: `"block8:3 - 0.1*tv"`, `"2*channel('block8', 3) + layer('stem')"`,
`"block8:[0, 1].on([0, 1])"`. What is not on the whitelist raises with its place marked.
"""

from __future__ import annotations

import re
from typing import Any

from objectives import literals
from objectives.core import Objective, text_name
from objectives.errors import ObjectiveError, ParseError
from objectives.units import Channel, Layer, Logit, Neuron

_SEGMENT = r"[A-Za-z_]\w*"
#: A layer's name that may stand without quotes.
PLAIN_LAYER = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")

_TOKEN = re.compile(
    r"""
      (?P<string> '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" )
    | (?<![\w.'"/]) (?P<layer> [A-Za-z_]\w* (?: [./] \w+ )* ) \s* : \s*
      (?P<index> -?\d+ | \[ [\d\s,]* \] )
      (?: \s* @ \s* (?P<position> center | \d+ \s* , \s* \d+ ) )?
    | (?<![\w.'"/]) (?P<path> [A-Za-z_]\w* (?: / [A-Za-z_]\w* )+ ) (?! \s* [(:\w] )
    """,
    re.VERBOSE | re.ASCII,
)


def parse(text: str) -> Objective:
    """The objective that a text describes; `parse(str(objective)) == objective`.

    Args:
        text: a unit (`layer:index`, `layer:index@y,x`, `layer:index@center`, `logits:class`), a
            layer's name (DeepDream on it), or an expression of units, objectives called by their
            names in lower case (`direction('block8', [...])`), numbers and `+ - * /`.

    Raises:
        ParseError: anything else; the message marks the place.
    """
    if not isinstance(text, str):
        raise ParseError(f"an objective's text must be a string; got {type(text).__name__}")
    units: dict[str, Objective] = {}
    spans: list[tuple[int, int, int, int]] = []
    parts: list[str] = []
    last = length = 0
    for token in _TOKEN.finditer(text):
        if token["string"] is not None:
            continue
        name = f"ǂ{len(units)}"
        try:
            units[name] = _unit(token)
        except ObjectiveError as error:
            raise literals.Place(text, text, []).error(str(error), token.start()) from error
        parts += [text[last : token.start()], name]
        start = length + token.start() - last
        length = start + len(name)
        spans.append((start, length, token.start(), token.end()))
        last = token.end()
    parts.append(text[last:])
    names = {**_vocabulary(), "sum": _sum, "array": literals.array}

    def bare(name: str) -> Objective:
        if name in units:
            return units[name]
        found = names.get(name)
        if isinstance(found, type):
            return found()
        return Layer(name)

    evaluator = literals.Evaluator(names, "objective", methods=("on",), bare=bare)
    value = evaluator.evaluate(text, "".join(parts), spans)
    if not isinstance(value, Objective):
        raise literals.Place(text, text, []).error(
            f"{type(value).__name__} is not an objective; name a unit such as block8:3", 0
        )
    return value


def _unit(token: re.Match[str]) -> Objective:
    if token["path"] is not None:
        return Layer(token["path"])
    layer, digits, position = token["layer"], token["index"], token["position"]
    if digits.startswith("["):
        entries = digits[1:-1].split(",") if digits[1:-1].strip() else []
        if not entries or not all(entry.strip().isdigit() for entry in entries):
            raise ObjectiveError(f"{digits} is not a list of unit indices such as [0, 3, 5]")
        index: Any = [int(entry) for entry in entries]
    else:
        index = int(digits)
    if position == "center":
        return Neuron(layer, index)
    if position is not None:
        return Neuron(layer, index, [int(part) for part in position.split(",")])
    return Logit(index) if layer == "logits" else Channel(layer, index)


def _sum(terms: Any) -> Any:
    if not isinstance(terms, (list, tuple)):
        raise ObjectiveError("sum takes a list of objectives")
    return sum(terms)


def _vocabulary() -> dict[str, Any]:
    """Every concrete objective class by its name in the text, those of the user too."""
    found: dict[str, Any] = {}
    pending: list[type[Objective]] = [Objective]
    while pending:
        for cls in pending.pop(0).__subclasses__():
            pending.append(cls)
            if not cls.__abstractmethods__ and text_name(cls) not in _WRITTEN_AS_OPERATORS:
                for name in (text_name(cls), *cls.aliases):
                    found[name] = cls
    return found


#: The algebra's nodes are written + and *, never called.
_WRITTEN_AS_OPERATORS = {"sum", "scaled", "on_images"}
