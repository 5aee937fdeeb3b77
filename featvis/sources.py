"""Where the weights of a network come from, and where they lie on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeGuard

from featvis.cache import cache_folder
from featvis.errors import InputError

__all__ = [
    "Download",
    "Hub",
    "HubRecord",
    "Local",
    "NoWeights",
    "Package",
    "Source",
    "is_hub",
    "parse_hub",
    "split_hub",
    "torchvision",
    "weights_folder",
]

_HUB_SCHEME = "hf://"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Bytes of a name; what lies beside a file adds to it.
_LONGEST_NAME = 200
_SHA256_OR_PREFIX = re.compile(r"[0-9a-f]{8}|[0-9a-f]{64}")


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
        if self.sha256 is not None and not _SHA256_OR_PREFIX.fullmatch(self.sha256):
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
class Hub(Source):
    """A file of a repository of the Hugging Face hub.

    Attributes:
        repository: As `timm/resnet18.tv_in1k`.
        path: Of the file within the repository.
        revision: Commit, 40 hexadecimal digits. A branch or a tag is turned into the commit that
            it points to when the file is fetched, and `at` gives that.
        digest: See `Source.sha256`; None: what the hub says of the file at this revision.
    """

    repository: str
    path: str = "model.safetensors"
    revision: str = "main"
    digest: str | None = None

    def find(self, model: str) -> Path | None:
        """The file, where it is on this machine and no record says that it is another."""
        path = super().find(model)
        if path is None or (record := HubRecord.read(path)) is None:
            return path
        return path if record.is_of(self) else None

    def at(self, path: Path) -> Self:
        """This source, with the commit and the SHA-256 recorded when the file was fetched."""
        record = HubRecord.read(path)
        if record is None or not record.is_of(self):
            return self
        revision = self.revision if _COMMIT.fullmatch(self.revision) else record.commit
        return dataclasses.replace(self, revision=revision, digest=self.digest or record.sha256)

    @property
    def file(self) -> str:
        """Name of the file: of repository, revision and path, so that two never share one."""
        revision = self.revision.replace("%", "%25").replace("/", "%2F")
        parts = f"{self.repository}@{revision}/{self.path}".split("/")
        # Two hyphens stand for a slash; one that could be taken for half of these is written out.
        name = "--".join(
            re.sub(r"^-|-$|-(?=-)|(?<=-)-", "%2D", part.replace("%", "%25")) for part in parts
        )
        # Names of what lies beside a file of that name.
        name = re.sub(r"\.(?=(?:json|lock|part|new)$)", "%2E", name)
        if len(name.encode()) <= _LONGEST_NAME:
            return name
        # More than file systems take.
        digest = hashlib.sha256(name.encode()).hexdigest()
        return f"{name.encode()[:80].decode(errors='ignore')}%{digest}{Path(self.path).suffix[:20]}"

    @property
    def origin(self) -> str:
        """The repository, the revision and the path."""
        return f"{_HUB_SCHEME}{self.repository}@{self.revision}/{self.path}"

    @property
    def sha256(self) -> str | None:
        """SHA-256 that the file must have."""
        return self.digest

    def by_hand(self, model: str) -> str:
        """Where to put it, and under which name."""
        address = f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{self.path}"
        return f"put {address} into {weights_folder(model)} as {self.file}"

    def __str__(self) -> str:
        return f"hf.co/{self.repository}"


@dataclass(frozen=True)
class HubRecord:
    """What a file of the hub was when it was fetched, in `<file>.json` beside it.

    Attributes:
        repository: See `Hub`.
        path: See `Hub`.
        revision: As it was asked for: a commit, a branch or a tag.
        commit: The one that it was, 40 hexadecimal digits.
        sha256: Of the file.
    """

    repository: str
    path: str
    revision: str
    commit: str
    sha256: str

    def is_of(self, source: Hub) -> bool:
        """Whether it is the record of that file."""
        return (self.repository, self.path, self.revision) == (
            source.repository,
            source.path,
            source.revision,
        )

    @staticmethod
    def place(weights: Path) -> Path:
        """Where the record of a file of weights lies."""
        return weights.with_name(weights.name + ".json")

    @classmethod
    def read(cls, weights: Path) -> Self | None:
        """The record of a file of weights; None where there is none, or it is damaged."""
        try:
            record = cls(**json.loads(cls.place(weights).read_bytes()))
            sound = _COMMIT.fullmatch(record.commit) and _SHA256.fullmatch(record.sha256)
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return record if sound else None

    def text(self) -> str:
        """The record as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def is_hub(text: object) -> TypeGuard[str]:
    """Whether it names a file of the Hugging Face hub, as `parse_hub` reads it."""
    return isinstance(text, str) and text.startswith(_HUB_SCHEME)


def split_hub(text: str) -> tuple[str, str]:
    """A file of the hub, and the part of it that is named after a `#`; %23 is one of its name."""
    address, mark, part = text.partition("#")
    if mark and not part.strip("/"):
        raise InputError(f"{text!r} names no part after the #")
    return address.replace("%23", "#"), part.strip("/")


def parse_hub(text: str) -> Hub:
    """A file of the Hugging Face hub from `hf://owner/repository[@revision]/path`.

    The revision is a commit, a branch, a tag or `refs/pr/1`; without one it is `main`.

    Raises:
        InputError: It is not of that form.
    """
    match = re.fullmatch(
        rf"{_HUB_SCHEME}(?:models/)?(?P<repository>[\w.-]+/[\w.-]+)"
        r"(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[\w.-]+))?/(?P<path>[^\\]+)",
        text,
        re.ASCII,
    )
    form = f"{_HUB_SCHEME}owner/repository[@revision]/path"
    if match is None or not text.isprintable():
        raise InputError(f"{text!r} names no file of the Hugging Face hub; expected {form}")
    repository, revision, path = match.group("repository", "revision", "path")
    if not {"", ".", ".."}.isdisjoint([*path.split("/"), *repository.split("/"), revision]):
        raise InputError(f"{text!r}: an empty name, . or .. within it; expected {form}")
    kind = repository.partition("/")[0]
    if path.endswith(".index.json"):
        raise InputError(
            f"{text!r} names several files, which are not fetched together: download the "
            "repository, and give the place of its index"
        )
    if kind in {"datasets", "spaces", "kernels", "buckets"}:
        raise InputError(f"{text!r} is of {kind}; weights come from a repository of a model")
    return Hub(repository, path, revision or "main", licence="not known")


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
