"""Objectives as text: `"block8:3"` a channel, `"block8:3@7,7"` a neuron, `"logits:285"` a class.

Whole expressions too: `"block8:3 - 0.1*tv"`, `"2*channel('block8', 3) + layer('stem')"`,
`"block8:0-1.on([0, 1])"`. What is not on the whitelist raises with its place marked.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from objectives import expressions, literals
from objectives.errors import ObjectiveError, ParseError
from objectives.fields import NamedArray
from objectives.objective import Objective, text_name
from objectives.units import Channel, Layer, Logit, Neuron

# In a scan from left to right a colon outside a string can only be that of a unit.
_TOKEN = re.compile(
    rf"""
      (?P<quoted> {expressions.STRING} ) (?P<colon1> \s* : )
    | {expressions.STRING}
    | (?P<open> ['"] )
    | (?P<layer> (?= \d* [A-Za-z_] ) \w+ (?: [./]\w+ )* ) (?P<colon2> \s* : )
    | (?P<path> [A-Za-z_]\w* (?: / \w+ | \.\d+ )+ ) (?! \s*\( | \w )
    | \.\s*\w+ | \w+
    | (?P<stray> : )
    """,
    re.VERBOSE | re.ASCII,
)
# What `/` may divide by at the end of what reads as a layer's name.
_DIVISION = re.compile(
    r"(.+) / ((?: \d[\d_]* (?: [eE]\d+ )? [jJ]? | 0[xXoObB]\w* ) (\.\d+)? )",
    re.VERBOSE | re.ASCII,
)
#: A class's name: a word, or in quotes.
_NAME = rf"[A-Za-z]\w* | {expressions.STRING}"
_INDEX = re.compile(
    rf"""
    \s* (?: (?P<list> \[ (?: [-\w\s,] | {expressions.STRING} )* \] )
           | (?P<all> \* ) (?! [*(\['"] ) | (?P<range> \d{{1,18}} - \d{{1,18}} )
           | (?P<one> -?\d{{1,18}} ) | (?P<name> {_NAME} ) ) (?! \w | \.\d )
    """,
    re.VERBOSE | re.ASCII,
)
_ITEM = re.compile(
    rf"\s* (?: (\d+) - (\d+) | -?\d+ | (?P<name> {_NAME} ) ) \s*", re.VERBOSE | re.ASCII
)
_STRING_OR_CHARACTER = re.compile(rf"{expressions.STRING} | .", re.VERBOSE | re.DOTALL)
# A class's name that is written without the quotes that it needs.
_GOES_ON = re.compile(r"(?: (?: - | [ ]+ ) [A-Za-z]\w* )+", re.VERBOSE | re.ASCII)
# A number that is none of a unit as it is written.
_NEARLY = re.compile(r"\s* \+? (\d[\d_]* (?: \.\d* )? (?: [eE]\+?\d{1,2} )? ) (?! \w )", re.VERBOSE)
_OTHER_RANGE = re.compile(
    r"\s* (?: [\u2010-\u2015\u2212\ufe58\ufe63\uff0d~\u2026:] | \.{2,} ) \s* (\d{1,18})", re.VERBOSE
)
_TIMES = re.compile(r"\s* [*/] ", re.VERBOSE)
_AT = re.compile(r"\s* @", re.VERBOSE | re.ASCII)
_POSITION = re.compile(
    r"""
    \s* (?: center | (\d{1,18}) (?: \s* , \s* (\d{1,18}) | (?! \s*,\s*[-.\d] ) ) ) (?! \w | \.\d )
    """,
    re.VERBOSE | re.ASCII,
)
#: Units that a range names at most: each of them is an image.
_LONGEST_RANGE = 4096

Layers = Callable[[], Mapping[str, Sequence[int]]]
"""Gives the shapes of one image's activations by layer, as `Model.layers` does."""


Classes = Callable[[str], int]
"""Gives the number of a class by its name, as `Model.class_index` does, or raises."""


def parse(
    text: str,
    layers: Layers | None = None,
    classes: Classes | None = None,
    /,
    **arrays: ArrayLike,
) -> Objective:
    """Return the objective that a text describes; `parse(str(objective)) == objective`.

    A unit is `layer:index`, its neuron `layer:index@y,x`, `layer:index@center`, of tokens
    `layer:index@token`, and a class `logits:class`, by its number or, where the network is known,
    its name: `logits:tabby`, `logits:"tiger cat"`. Several units give each image its own: a list
    `layer:[0, 3]`, a range `layer:0-3` with both ends and without spaces (in a list too), and all
    of them `layer:*` where the network is known. A name alone is a layer (DeepDream on it), a path
    `block7/expand` too; one that needs quotes has them, `'+sa':1` or `layer('+sa')`. Expressions
    are of units, objectives called by their names in lower case (`direction('block8', [...])`),
    numbers and `+ - * /`, where a number alone is a weight and no term: `constant(3)` is one.

    Args:
        text: what to read.
        layers: of the network that it is about, asked only where the text depends on it.
        classes: the number of a class of that network by its name.
        **arrays: what the text writes by name (`NamedArray`). A name that is not called is the
            array's, whatever objective or layer has the same.

    Raises:
        ParseError: anything else, and what could mean two things; the message marks the place and
            says what was probably meant.
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
        needed = expressions.required_arguments(names[name])
        if needed:
            raise ObjectiveError(
                f"{name} needs {', '.join(needed)}; a layer of that name is layer({name!r})"
            )
        return names[name]()

    evaluator = expressions.Evaluator(
        names, "objective", methods=("on",), bare=bare, refused=_bare_number
    )
    value = evaluator.evaluate(text, _units(text, {*names, *named}, layers, classes))
    if not isinstance(value, Objective):
        kind = type(value).__name__
        meant = "name a unit such as block8:3"
        if isinstance(value, (tuple, list)):
            meant = "several units are a list, block8:[0, 3], and several terms sum([...])"
        raise expressions.mark(text, f"{kind} is not an objective; {meant}", 0)
    return value


def _named(name: str, values: ArrayLike) -> NamedArray:
    if isinstance(values, NamedArray) and values.name == name:
        return values
    return NamedArray(values, name)


def _bare_number(operator: type[ast.operator], left: Any, right: Any) -> str | None:
    """What is wrong with a sum of an objective and a number; None for anything else."""
    terms = [term for term in (left, right) if isinstance(term, Objective)]
    if operator not in (ast.Add, ast.Sub) or len(terms) != 1:
        return None
    number = right if terms[0] is left else left
    meant = f"a constant is constant({literals.format_literal(number)})"
    if isinstance(left, (Channel, Logit)) and operator is ast.Sub and type(right) is int:
        if np.ndim(left.index) == 0:
            meant = (
                f"a range of units is {left.layer}:{left.index}-{right}, without spaces; {meant}"
            )
    elif isinstance(left, Layer) and type(right) is int:
        meant = f"a unit of the layer is {left.layer}:{right}; {meant}"
    return f"a number alone is no term, as it changes no picture; {meant}"


def _units(
    text: str, called: set[str], layers: Layers | None, classes: Classes | None
) -> dict[tuple[int, int], Objective]:
    """The units and the layers with a slash, by their places (start, stop) in the text.

    Args:
        text: what the user wrote.
        called: the names of objectives and arrays.
        layers: of the network, if it is known.
        classes: the number of a class of it by its name.
    """
    found: dict[tuple[int, int], Objective] = {}
    stop = 0
    while token := _TOKEN.search(text, stop):
        start, stop = token.span()
        if len(found) > expressions.MOST_PARTS:
            raise expressions.mark(
                text, f"the objective has more than {expressions.MOST_PARTS} parts", start
            )
        if token["open"] is not None:
            break  # a string without an end, which the evaluator refuses
        if token["path"] is not None:
            path, stop = _path(text, token, called, layers)
            if path is not None:
                found[start, stop] = Layer(path)
        elif token["colon1"] is not None or token["colon2"] is not None:
            unit, stop = _unit(text, token, layers, classes)
            found[start, stop] = unit
        elif token["stray"] is not None:
            raise expressions.mark(
                text, "a colon follows a layer's name: block8:3 is a unit of block8", start
            )
    return found


def _path(
    text: str, token: re.Match[str], called: set[str], layers: Layers | None
) -> tuple[str | None, int]:
    """The layer that a name with slashes or dots is, None for none, and where it ends."""
    path, start = token["path"], token.start()
    division = _DIVISION.fullmatch(path)
    if division is None:
        return path, token.end()
    head, number = division[1], division[2]
    if division[3] or head in called:
        # Of a name without a slash, which is no path, the evaluator knows what it is.
        return head if re.search(r"[./]", head) else None, start + len(head)
    known = list(layers()) if layers is not None else []
    if path in known:
        return path, token.end()
    near = difflib.get_close_matches(path, known, n=3)
    raise expressions.mark(
        text,
        f"{path} could be the layer {path!r} or {head} divided by {number}: write "
        f"layer({path!r}), or {head} / {number} with spaces"
        + (f"; the network has no such layer, nearest: {', '.join(near)}" if near else ""),
        start,
    )


def _unit(
    text: str, token: re.Match[str], layers: Layers | None, classes: Classes | None
) -> tuple[Objective, int]:
    """The unit that begins with a layer's name and a colon, and where it ends."""
    layer, stop = token["layer"], token.end()
    if token["quoted"] is not None:
        try:
            layer = ast.literal_eval(token["quoted"])
        except (SyntaxError, ValueError) as error:
            raise expressions.mark(
                text, f"malformed name of a layer: {error}", token.start()
            ) from None
    index_text = _INDEX.match(text, stop)
    if index_text is None:
        raise expressions.mark(
            text,
            "a unit's index is a whole number, a range of them such as 0-3, a list such as [0, 3], "
            f"or *{_nearly(text, stop, layer)}",
            stop,
        )
    begun, stop = stop, index_text.end()
    _check_what_follows(text, layer, index_text)
    places: list[str] = []
    at = _AT.match(text, stop)
    if at is not None:
        position_text = _POSITION.match(text, at.end())
        if position_text is None:
            raise expressions.mark(
                text,
                "a position is y,x or a token, whole numbers of 0 or more, or center",
                at.end(),
            )
        stop = position_text.end()
        if position_text[1] is not None:
            places = [part for part in position_text.groups() if part is not None]
    try:
        index = _indices(layer, index_text, layers, classes)
        if at is not None:
            position = np.array([_whole(place) for place in places]) if places else None
            return Neuron(layer, index, position), stop
        return (Logit(index) if _holds_classes(layer, layers) else Channel(layer, index)), stop
    except ParseError as error:
        raise expressions.mark(text, str(error), begun) from None
    except ObjectiveError as error:
        raise expressions.mark(text, str(error), token.start()) from error


def _holds_classes(layer: str, layers: Layers | None) -> bool:
    """Whether a layer is that of class scores: a vector, as far as it is known."""
    if layer != "logits" or layers is None:
        return layer == "logits"
    return len(layers().get(layer, (0,))) == 1


def _check_what_follows(text: str, layer: str, index: re.Match[str]) -> None:
    """Refuses what makes a unit's index look like something else than it is."""
    stop = index.end()
    name = index["name"]
    if name is not None and name[0] not in "'\"":
        more = _GOES_ON.match(text, stop)
        if more is not None:
            whole = f"{name}{more[0]}"
            raise expressions.mark(
                text,
                f"a name of several words has quotes: {layer}:{whole!r}, and a difference spaces",
                stop,
            )
    if index["one"] is not None:
        other = _OTHER_RANGE.match(text, stop)
        if other is not None:
            raise expressions.mark(
                text,
                f"a range of units has a plain hyphen, and both of its ends are in it: "
                f"{layer}:{index['one']}-{other[1]}",
                stop,
            )
    if index["range"] is not None and _TIMES.match(text, stop):
        first, last = index["range"].split("-")
        raise expressions.mark(
            text,
            f"{index['range']} is a range of units; a difference has spaces: "
            f"{layer}:{first} - {last}*..., and a range its weight in front",
            index.start("range"),
        )


def _class(layer: str, name: str, layers: Layers | None, classes: Classes | None) -> int:
    """The number of a class by its name, which may be in quotes."""
    if not _holds_classes(layer, layers):
        raise ParseError(
            "a unit's index is a whole number, a range of them such as 0-3, a list such as "
            f"[0, 3], or *; names are of classes, as logits:tabby: {layer}:{name}"
        )
    if classes is None:
        raise ParseError(
            f"which class {name} is, is the network's to say: give its number, or say which "
            "network: parse(text, model.layers, model.class_index)"
        )
    plain = ast.literal_eval(name) if name[0] in "'\"" else name
    try:
        return classes(plain)
    except ParseError:
        raise
    # Whatever says which names there are.
    except Exception as error:
        raise ParseError(" ".join(str(error).split())) from error


def _nearly(text: str, start: int, layer: str) -> str:
    """What was meant by a number that is not written as a unit's."""
    number = _NEARLY.match(text, start)
    if number is None or number[1].startswith("_") or not _is_number(number[1]):
        return ""
    value = float(number[1])
    return f": {layer}:{int(value)}?" if value.is_integer() and value < 2**31 else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _indices(
    layer: str, index: re.Match[str], layers: Layers | None, classes: Classes | None
) -> Any:
    """The number of a unit, or those of several."""
    if index["all"] is not None:
        if layers is None:
            raise ParseError(
                f"how many units {layer} has is the network's to say: name a range, as "
                f"{layer}:0-3, or say which network: parse(text, model.layers)"
            )
        shapes = layers()
        if layer not in shapes:
            near = difflib.get_close_matches(layer, shapes, n=3, cutoff=0.4)
            raise ParseError(f"unknown layer {layer!r}; nearest: {', '.join(near or shapes)}")
        return _range(0, int(shapes[layer][-1]) - 1)
    if index["range"] is not None:
        return _range(*map(_whole, index["range"].split("-")))
    if index["one"] is not None:
        return _whole(index["one"])
    if index["name"] is not None:
        return _class(layer, index["name"], layers, classes)
    numbers: list[int] = []
    parts = [""]
    for piece in _STRING_OR_CHARACTER.findall(index["list"][1:-1]):
        parts[-1:] = [parts[-1], ""] if piece == "," else [parts[-1] + piece]
    for part in parts:
        item = _ITEM.fullmatch(part)
        if item is None:
            raise ObjectiveError(
                "a list of units is of whole numbers and ranges of them: block8:[0, 3, 5-7]"
            )
        if item["name"] is not None:
            numbers.append(_class(layer, item["name"], layers, classes))
        elif item[1] is None:
            numbers.append(_whole(part))
        else:
            numbers += _range(_whole(item[1]), _whole(item[2]))
    return numbers


def _whole(text: str) -> int:
    digits = text.strip()
    if len(digits) > 1 and digits.startswith("0"):
        raise ParseError(f"a whole number has no zeros in front: {int(digits)}, not {digits}")
    return int(digits)


def _range(first: int, last: int) -> list[int]:
    if last < first:
        raise ParseError(f"a range goes up, from its first unit to its last: {last}-{first}")
    if last - first >= _LONGEST_RANGE:
        raise ParseError(
            f"{first}-{last} are {last - first + 1} units, an image each; at most {_LONGEST_RANGE}"
        )
    return list(range(first, last + 1))


def _sum(terms: Any) -> Any:
    if not isinstance(terms, (list, tuple)):
        raise ObjectiveError("sum takes a list of objectives")
    for first, second in itertools.pairwise(terms):
        problem = _bare_number(ast.Add, first, second)
        if problem is not None:
            raise ObjectiveError(problem)
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
_WRITTEN_AS_OPERATORS = {"sum", "scaled", "product", "on_images"}
