"""Where the weights of a network come from, and where they lie on this machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from featvis.cache import cache_folder

__all__ = ["Download", "Hub", "Local", "Package", "Source", "weights_folder"]


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

    def find(self, model: str) -> Path | None:
        """The file, where it is on this machine."""
        path = weights_folder(model) / self.file
        return path if path.is_file() else None

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
    def advice(self, model: str) -> str:
        """How a user gets the file, as the rest of a sentence that begins with an infinitive."""


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

    def advice(self, model: str) -> str:
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

    def advice(self, model: str) -> str:
        """How to fetch it, or where to put it."""
        return f"featvis fetch {model}, or put {self.url} into {weights_folder(model)}"

    def __str__(self) -> str:
        return self.url.removeprefix("https://")


@dataclass(frozen=True)
class Hub(Source):
    """A file of a repository of the Hugging Face hub.

    Attributes:
        repository: As `timm/resnet18.tv_in1k`.
        path: Of the file within the repository.
        revision: Commit, 40 hexadecimal digits.
        digest: See `Source.sha256`; None: what the hub says of the file at this revision.
    """

    repository: str
    path: str = "model.safetensors"
    revision: str = "main"
    digest: str | None = None

    @property
    def file(self) -> str:
        """Name of the file: the repository's and the path, so that two never share one."""
        return f"{self.repository}/{self.path}".replace("/", "--")

    @property
    def origin(self) -> str:
        """The repository, the revision and the path."""
        return f"hf://{self.repository}@{self.revision}/{self.path}"

    @property
    def sha256(self) -> str | None:
        """SHA-256 that the file must have."""
        return self.digest

    def advice(self, model: str) -> str:
        """How to fetch it, or where to put it."""
        address = f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{self.path}"
        return (
            f"featvis fetch {model}, or put {address} into {weights_folder(model)} "
            f"as {self.file}"
        )

    def __str__(self) -> str:
        return f"hf.co/{self.repository}"


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

    def advice(self, model: str) -> str:
        """Where to put it."""
        return f"put {self.name} ({self.made}) into {weights_folder(model)}"

    def __str__(self) -> str:
        return self.made
