"""Options of attribution methods: what their annotations say that they may be.

| annotation | what is taken |
|---|---|
| `int`, `float`, `bool`, `str` | that, and numbers of NumPy |
| `Annotated[int, Range(1)]` | a number of at least 1; `Range(0, 1)` also has an upper end |
| `Literal["black", "white"]` | one of these texts |
| `Images` | an image for all, (h, w, c), or one each, (n, h, w, c), as `as_images` reads them |
| `Annotated[Images, Named("black", "blur")]` | the same, or texts of these joined by + |
| `Annotated[Images, SET]` | any number of images, (k, h, w, c), for all; or a folder of them |
| `np.ndarray` | an array, as it is |

Each may also be `| None`.
"""

from __future__ import annotations

import inspect
import math
import numbers
import os
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import jax.numpy as jnp
import numpy as np

from featvis.checks import LARGEST, as_float
from featvis.digests import digest_of
from featvis.errors import InputError, printable
from featvis.images import Images, as_images
from featvis.own_pictures import natural_files

#: The largest integer that a program counts to.
_LARGEST = 2**31 - 1
_TYPES = {bool: "switch", int: "integer", float: "number", str: "text", np.ndarray: "array"}


@dataclass(frozen=True)
class Range:
    """The numbers that an option may be.

    Attributes:
        low: the lowest.
        high: the highest.
    """

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, init=False)
class Named:
    """Texts that stand for images.

    Attributes:
        names: of which one or several, joined by +, can be asked for.
    """

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


#: Marks images whose number is not that of the images explained.
SET = "set"


@dataclass(frozen=True)
class Option:
    """What an option of a method is.

    Attributes:
        name: of the argument.
        kind: "integer", "number", "switch", "text", "choice", "images", "set" or "array".
        default: its value where none is given.
        none: whether it may be None.
        range: of a number.
        names: texts of a choice, or that stand for images.
        told: what the method's docstring says of it.
    """

    name: str
    kind: str
    default: Any
    none: bool
    range: Range
    names: tuple[str, ...]
    told: str

    def check(self, method: str, value: Any, images: np.ndarray) -> Any:
        """The value in one form: a plain one of Python, or an array of NumPy.

        Args:
            method: whose option it is, for messages.
            value: as it was given.
            images: (n, h, w, c), those that are explained.

        Raises:
            InputError: another kind or range than it has, or images of another shape.
        """
        if value is None and self.none:
            return None
        made: Any = None
        if self.kind == "switch" and isinstance(value, (bool, np.bool_)):
            made = bool(value)
        elif self.kind in ("integer", "number"):
            made = self._number(value)
        elif self.kind == "array" and hasattr(value, "shape"):
            made = np.asarray(value)
        elif isinstance(value, str) and self._is_text(value):
            made = value
        elif self.kind in ("images", "set") and value is not None:
            return self._images(method, value, images)
        most = _LARGEST if self.kind == "integer" else LARGEST
        open_ended = self.range.high == math.inf and isinstance(value, numbers.Real)
        if made is None and open_ended and as_float(value) > most:
            got = printable(value, 40)
            raise InputError(f"{method}: {self.name} is at most {most:.10g}; got {got}")
        if made is None:
            raise InputError(
                f"{method}: {self.name} is {self.expected}, not {printable(repr(value), 80)}"
            )
        return made

    def read(self, method: str, text: str) -> Any:
        """The value that a text of a command line means, unchecked.

        Args:
            method: whose option it is, for messages.
            text: as it was written.

        Raises:
            InputError: no number, where one is expected.
        """
        if self.none and text.lower() == "none":
            return None
        if self.kind == "switch" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        try:
            if self.kind == "integer":
                return int(text)
            if self.kind == "number":
                return float(text)
        except ValueError as error:
            shown = printable(repr(text), 80)
            raise InputError(f"{method}: {self.name} is {self.expected}, not {shown}") from error
        return text

    @property
    def expected(self) -> str:
        """What it may be, in words."""
        low, high = self.range.low, self.range.high
        bounds = ""
        if math.isfinite(low) or math.isfinite(high):
            bounds = f" of at least {low:g}" if high == math.inf else f" from {low:g} to {high:g}"
        named = ", ".join(self.names)
        said = {
            "switch": "True or False",
            "integer": f"an integer{bounds}",
            "number": f"a number{bounds}",
            "text": "a text",
            "choice": f"one of {named}",
            "images": "an image (h, w, c) or one each (n, h, w, c)",
            "set": "images (k, h, w, c), or a folder of them",
            "array": "an array",
        }[self.kind]
        if self.kind == "images" and self.names:
            said = f"of {named} (several joined by +), or {said}"
        return f"{said}, or None" if self.none else said

    def _number(self, value: Any) -> int | float | None:
        kind = numbers.Integral if self.kind == "integer" else numbers.Real
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
            return None
        made = int(value) if self.kind == "integer" else as_float(value)  # type: ignore[call-overload]
        # Beyond its 32 bits a number is infinite to a program.
        high = min(self.range.high, _LARGEST if kind is numbers.Integral else LARGEST)
        fits = self.range.low <= made <= high and made >= -LARGEST
        return made if fits else None

    def _is_text(self, value: str) -> bool:
        if self.kind == "images":
            return bool(self.names) and all(one in self.names for one in value.split("+"))
        return self.kind == "text" or (self.kind == "choice" and value in self.names)

    def _images(self, method: str, value: Any, images: np.ndarray) -> np.ndarray:
        """Images as float32, (n, h, w, c), or (k, h, w, c) of a set."""
        what = f"{method}: {self.name}"
        if isinstance(value, str) and self.names and not os.path.exists(value):
            raise InputError(f"{what} is {self.expected}, not {printable(repr(value), 80)}")
        if self.kind == "set" and isinstance(value, (str, os.PathLike)) and os.path.isdir(value):
            value = natural_files(os.fspath(value))
        count, *size, channels = images.shape
        made = as_images(value, channels, (size[0], size[1]), what=what)
        fits = made.shape[1:] == images.shape[1:]
        if not fits or (self.kind == "images" and len(made) not in (1, count)):
            raise InputError(
                f"{what} is {self.expected}, where the images are {images.shape}; got {made.shape}"
            )
        if self.kind == "images":
            made = np.broadcast_to(made, images.shape)
        return made


def options_of_function(function: Callable[..., Any]) -> dict[str, Option]:
    """The options of a method's function: its keyword-only arguments.

    Raises:
        InputError: one without a default, or of a kind that cannot be checked.
    """
    found = {}
    for one in inspect.signature(function, eval_str=True).parameters.values():
        if one.kind is one.KEYWORD_ONLY:
            if one.default is one.empty:
                raise InputError(f"{function.__name__}: the option {one.name!r} needs a default")
            kind, none, range_of, names = _read_annotation(function, one.name, one.annotation)
            told = _told(function, one.name)
            found[one.name] = Option(one.name, kind, one.default, none, range_of, names, told)
    return found


def _read_annotation(
    function: Callable[..., Any], name: str, annotation: Any
) -> tuple[str, bool, Range, tuple[str, ...]]:
    """The kind that an annotation says, whether it may be None, its range and its names."""
    none, range_of, kind = False, Range(), None
    names: tuple[str, ...] = ()
    if get_origin(annotation) in (Union, types.UnionType) and annotation != Images:
        members = get_args(annotation)
        none = type(None) in members
        rest = [one for one in members if one is not type(None)]
        # `Images | None` is one flat union.
        annotation = rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007
    marks: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *marks = get_args(annotation)  # type: ignore[assignment]
    if annotation == Images:
        kind = "set" if SET in marks else "images"
    elif get_origin(annotation) is Literal:
        kind, names = "choice", get_args(annotation)
    elif isinstance(annotation, type):
        kind = _TYPES.get(annotation)
    for mark in marks:
        if isinstance(mark, Range):
            range_of = mark
        elif isinstance(mark, Named):
            names = mark.names
    if kind is None:
        raise InputError(f"{function.__name__}: nothing is known of {name}: {annotation!r}")
    return kind, none, range_of, names


def _told(function: Callable[..., Any], name: str) -> str:
    """What a docstring says of an argument, up to the next one."""
    said = re.search(
        rf"^ +{name}: (.*?)(?=^ +\w+: |^\s*$|\Z)",
        function.__doc__ or "",
        re.DOTALL | re.MULTILINE,
    )
    return " ".join(said[1].split()) if said else ""


def split_data(options: Mapping[str, Any]) -> tuple[tuple[tuple[str, Any], ...], dict[str, Any]]:
    """Options as a part of a program, hashable, and as its data: numbers with a point, arrays."""
    data = {
        name: jnp.asarray(value, jnp.float32) if isinstance(value, float) else jnp.asarray(value)
        for name, value in options.items()
        if isinstance(value, (float, np.ndarray))
    }
    fixed = tuple((name, value) for name, value in options.items() if name not in data)
    return fixed, data


def plain(value: Any) -> Any:
    """An option's value as a manifest has it: an array by its digest."""
    return f"array {digest_of(value)}" if isinstance(value, np.ndarray) else value
