"""Where the weights of a network come from, and where they lie on this machine."""

from __future__ import annotations

import importlib.util
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from featvis.cache import cache_folder
from featvis.errors import InputError

SHA256 = re.compile(r"[0-9a-f]{64}")

#: Bytes of a name; what lies beside a file adds to it.
LONGEST_NAME = 200

SHA256_OR_PREFIX = re.compile(r"[0-9a-f]{8}|[0-9a-f]{64}")


def weights_folder(model: str) -> Path:
    """Where downloaded weights of a model lie, and where a user may put them by hand."""
    return cache_folder() / "weights" / model


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """One place where a file of weights comes from.

    Attributes:
        licence: Of the weights, its SPDX name where there is one.
    """

    licence: str

    def __post_init__(self) -> None:
        if self.sha256 is not None and not SHA256_OR_PREFIX.fullmatch(self.sha256):
            raise InputError(
                f"{self}: {self.sha256!r} is no SHA-256; expected its 64 hexadecimal digits, in "
                "lower case, or at least the first 8"
            )

    def find(self, model: str) -> Path | None:
        """The file, where it is on this machine."""
        path = weights_folder(model) / self.file
        return path if path.is_file() else None

    def at(self, path: Path) -> Self:
        """This source, with what was recorded when the file at `path` was fetched from it."""
        return self

    @property
    @abstractmethod
    def file(self) -> str:
        """Name of the file."""

    @property
    @abstractmethod
    def origin(self) -> str:
        """What a manifest says of it: enough to find the same file again."""

    @property
    @abstractmethod
    def sha256(self) -> str | None:
        """SHA-256 that the file must have, or its first 8 digits; None: not known."""

    @abstractmethod
    def by_hand(self, model: str) -> str:
        """How a user gets the file without `featvis fetch`, as an infinitive without its "to"."""


@dataclass(frozen=True)
class Package(Source):
    """A file inside an installed Python package.

    Attributes:
        package: As pip knows it.
        module: As Python imports it.
        path: Of the file within the module.
        digest: See `Source.sha256`.
    """

    package: str
    module: str
    path: str
    digest: str | None = None

    def find(self, model: str) -> Path | None:
        """The file, where the package is installed; its code is not run."""
        spec = importlib.util.find_spec(self.module)
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / self.path
            if path.is_file():
                return path
        return None

    @property
    def file(self) -> str:
        """Name of the file."""
        return Path(self.path).name

    @property
    def origin(self) -> str:
        """The package and its version."""
        return f"package {self.package} {importlib.metadata.version(self.package)}"

    @property
    def sha256(self) -> str | None:
        """SHA-256 that the file must have."""
        return self.digest

    def by_hand(self, model: str) -> str:
        """How to install it."""
        return f"pip install {self.package}"

    def __str__(self) -> str:
        return f"package {self.package}"


@dataclass(frozen=True)
class Download(Source):
    """A file behind an address.

    Attributes:
        url: Its address.
        digest: See `Source.sha256`.
    """

    url: str
    digest: str

    @property
    def file(self) -> str:
        """Name of the file, the last part of the address."""
        return self.url.rpartition("/")[2]

    @property
    def origin(self) -> str:
        """The address."""
        return self.url

    @property
    def sha256(self) -> str | None:
        """SHA-256 that the file must have."""
        return self.digest

    def by_hand(self, model: str) -> str:
        """Where to put it."""
        return f"put {self.url} into {weights_folder(model)}"

    def __str__(self) -> str:
        return self.url.removeprefix("https://")


def torchvision(file: str) -> Download:
    """A file of torchvision's, whose name ends in the first 8 digits of its SHA-256."""
    digest = file.rpartition("-")[2].partition(".")[0]
    url = f"https://download.pytorch.org/models/{file}"
    return Download(url, digest, licence="BSD-3-Clause")


@dataclass(frozen=True)
class Local(Source):
    """A file that is published nowhere as it is; the user has it.

    Attributes:
        name: Of the file.
        made: How it is made, or by whom.
    """

    name: str
    made: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.name

    @property
    def origin(self) -> str:
        """The file's name."""
        return f"file {self.name}"

    @property
    def sha256(self) -> str | None:
        """Not known."""
        return None

    def by_hand(self, model: str) -> str:
        """Where to put it."""
        return f"put {self.name} ({self.made}) into {weights_folder(model)}"

    def __str__(self) -> str:
        return self.made


@dataclass(frozen=True, kw_only=True)
class NoWeights(Source):
    """No file: the network is all in its definition.

    Attributes:
        version: Of the definition; raised whenever it gives other numbers.
    """

    version: int
    licence: str = "Apache-2.0"

    @property
    def file(self) -> str:
        """There is none."""
        return ""

    def find(self, model: str) -> None:
        """There is no file."""

    @property
    def origin(self) -> str:
        """That there are none."""
        return "no weights"

    @property
    def sha256(self) -> None:
        """There is no file."""

    def by_hand(self, model: str) -> str:
        """That there is nothing to get."""
        return "it has none"

    def __str__(self) -> str:
        return self.origin
