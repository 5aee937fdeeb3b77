"""The parts of a file of weights, and which of them is meant."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from featvis.errors import CheckpointError


class Arrays(Mapping[str, np.ndarray]):
    """Arrays by name, each made when it is asked for.

    Raises:
        CheckpointError: On asking, the file is damaged there.
    """

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> np.ndarray:
        make = self._makers[name]
        try:
            return make()
        except CheckpointError as error:
            raise CheckpointError(f"{name!r:.80}: {error}") from error.__cause__
        # A damaged archive, or a view that numpy refuses after all.
        except Exception as error:
            raise CheckpointError(f"{name!r:.80}: {type(error).__name__}: {error}") from error

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@dataclass(frozen=True)
class Part:
    """Tensors of a file that stand together: a state dict.

    Attributes:
        key: Where it is in the file, the keys of its dictionaries with slashes between; "" where
            the file is nothing else.
        arrays: By name, in the file's order, read-only. One of PyTorch is read when it is asked
            for, which raises a CheckpointError where it reaches outside its storage.
        others: What stands among them and cannot be read, by name: what it is.
    """

    key: str
    arrays: Mapping[str, np.ndarray]
    others: Mapping[str, str] = field(default_factory=dict)


# Bool is read as bytes and compared with zero: a numpy bool that is neither 0 nor 1 misbehaves.
RAW_TYPES = {"bf16": "u2", "bool": "u1"}


def values_of(raw: bytes | memoryview, code: str, byteorder: Literal["<", ">"] = "<") -> np.ndarray:
    """Elements as a flat, read-only array; bfloat16 widened to float32."""
    kind = np.dtype(RAW_TYPES.get(code, code)).newbyteorder(byteorder)
    values = np.frombuffer(raw, kind)
    if code == "bf16":
        # The upper half of a float32.
        values = (values.astype(np.uint32) << 16).view(np.float32)
    elif code == "bool":
        values = values != 0
    else:
        values = values.astype(kind.newbyteorder("="), copy=False)
    values.flags.writeable = False
    return values


_KEYS_SHOWN = 10

_LONGEST_SHOWN = 200


def shown_key(text: object) -> str:
    """Text that a file may have made up, as part of a message of one line."""
    shown = str(text)
    shown = shown if shown.isprintable() else ascii(shown)[1:-1]
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"


def listed_keys(keys: Iterable[str]) -> str:
    """Keys as a message lists them."""
    shown = [shown_key(key) if key else "the file itself" for key in keys]
    more = f" and {len(shown) - _KEYS_SHOWN} more" if shown[_KEYS_SHOWN:] else ""
    return ", ".join(shown[:_KEYS_SHOWN]) + more


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights as it was read.

    Attributes:
        path: Of the file.
        digest: The SHA-256 of the bytes that were read; of several files that an index names, of
            the index and their digests.
        parts: Its state dicts, at least one.
        asked: The part that a user named; "" where none was named.
    """

    path: Path
    digest: str
    parts: tuple[Part, ...]
    asked: str = ""

    def meant(self) -> tuple[Part, ...]:
        """The parts that may be meant: all, or what a user named.

        Raises:
            CheckpointError: The file has no such part; the message says what it has.
        """
        return asked_part(self.path, self.parts, self.asked)

    def __str__(self) -> str:
        return f"{self.path}#{self.asked}" if self.asked else str(self.path)


@contextlib.contextmanager
def named_file(file: WeightsFile) -> Iterator[None]:
    """Says in which file something is wrong."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{shown_key(file)}: {error}") from error.__cause__


#: Keys under which training scripts keep the network; of several others the user names one.
_USUAL = frozenset(
    "state_dict model_state_dict model net network module params weights".split()  # noqa: SIM905
)

_AVERAGED = re.compile(r"(?:^|[^a-z])ema(?:$|[^a-z])", re.IGNORECASE)

OF_TRAINING = re.compile(r"optim|sched|scaler", re.IGNORECASE)

_Found = TypeVar("_Found")


def asked_part(path: Path, parts: Sequence[Part], asked: str) -> tuple[Part, ...]:
    """Those parts that a user named: of that key, within it, or whose names begin so."""
    if not asked:
        return tuple(parts)
    if exact := [part for part in parts if part.key == asked]:
        return tuple(exact)
    if within := [part for part in parts if part.key.startswith(f"{asked}/")]:
        return tuple(within)
    for part in sorted(parts, key=lambda part: -len(part.key)):
        if part.key and not asked.startswith(f"{part.key}/"):
            continue
        start = asked[len(part.key) + 1 :] if part.key else asked
        for separator in "./":
            if names := [name for name in part.arrays if name.startswith(start + separator)]:
                cut = len(start) + 1
                return (Part(asked, renamed(part.arrays, {name[cut:]: name for name in names})),)
    raise CheckpointError(
        f"{shown_key(path)}: has no part {shown_key(asked)}; "
        f"it has: {listed_keys(part.key for part in parts)}"
    )


def renamed(arrays: Mapping[str, np.ndarray], names: Mapping[str, str]) -> Arrays:
    """Arrays under other names, given the name that each has by the one that it gets."""
    return Arrays({new: functools.partial(arrays.__getitem__, old) for new, old in names.items()})


def choose_part(file: WeightsFile, found: Mapping[str, _Found]) -> _Found:
    """The one that is meant, of several by the keys of their parts."""
    left = dict(found)
    if not file.asked:
        for aside in (OF_TRAINING, _AVERAGED):
            left = {key: one for key, one in left.items() if not aside.search(key)} or left
    usual = [key for key in left if key and _USUAL.issuperset(re.split(r"[/.]", key))]
    if not usual and "" in left:
        usual = [""]
    for keys in (usual, list(left)):
        if len(keys) == 1:
            return left[keys[0]]
    example = next(key for key in left if key)
    raise CheckpointError(
        f"{shown_key(file)}: several parts of it could be meant: {listed_keys(left)}; name one, as "
        f"{shown_key(file.path.name)}#{shown_key(example)}"
    )
