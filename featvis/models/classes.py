"""The names of a network's classes, and which class a name is of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Self

import numpy as np

from featvis.errors import InputError, printable

#: Classes that a message lists.
_LISTED = 12


class ClassNames(tuple[str, ...]):
    """Names of classes by index, and the identifiers that the classes have besides.

    Args:
        names: a name a class, its synonyms with commas between.
        ids: what else each is called, as WordNet's `n02123045`; none for none.
    """

    ids: tuple[str, ...]

    def __new__(cls, names: Iterable[str], ids: Iterable[str] = ()) -> Self:
        """Makes a tuple of the names, with the identifiers beside."""
        made = super().__new__(cls, names)
        made.ids = tuple(ids)
        return made


def identifiers(labels: Sequence[str]) -> tuple[str, ...]:
    """The identifier of each class; of names without any, an empty text each."""
    return getattr(labels, "ids", ()) or ("",) * len(labels)


def several_classes(given: Any) -> list[Any]:
    """Classes that are asked for, of one or of several of them.

    Args:
        given: a number or a name, or a sequence of them.

    Raises:
        InputError: a set or a dict, whose order says nothing.
    """
    if isinstance(given, (Mapping, Set)):
        shown = printable(repr(given), 60)
        raise InputError(f"classes are a number, a name, or a list of them; got {shown}")
    alone = isinstance(given, (str, bytes)) or not np.iterable(given)
    return [given] if alone else list(given)


def classes_called(labels: Sequence[str], text: str) -> list[int]:
    """Classes with this label or identifier to the letter; if there are none, by a synonym."""
    exact = [i for i, label in enumerate(labels) if label == text]
    exact = exact or [i for i, one in enumerate(identifiers(labels)) if one and one == text]
    return exact or [i for i, label in enumerate(labels) if text.casefold() in synonyms(label)]


def nearest_classes(labels: Sequence[str], text: str) -> list[int]:
    """Classes whose names or identifiers look like a text."""
    known = {name: i for i, label in enumerate(labels) for name in synonyms(label)}
    known |= {one: i for i, one in enumerate(identifiers(labels)) if one}
    near = difflib.get_close_matches(text.casefold(), known, n=4)
    return list(dict.fromkeys(known[name] for name in near))


def listed(labels: Sequence[str], places: Sequence[int]) -> str:
    """Some classes by number and name, as a message lists them."""
    shown = ", ".join(f"{i} {labels[i]!r}" for i in places[:_LISTED])
    more = len(places) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def synonyms(label: str) -> list[str]:
    """A class's whole name and those between its commas, in small letters."""
    return [label.casefold(), *(part.strip().casefold() for part in label.split(","))]
