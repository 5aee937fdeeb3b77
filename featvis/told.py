"""What the command line tells of what was made, in words and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Told(NamedTuple):
    """What is said of something; each kind of result has a method `told` that gives it.

    Attributes:
        records: for programs, plain data, a line of JSON each.
        lines: for people.
    """

    records: Sequence[Mapping[str, Any]]
    lines: Sequence[str]
