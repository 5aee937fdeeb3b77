"""Files of the Hugging Face hub: their addresses, and how they are found and recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeGuard
from urllib.parse import urljoin, urlsplit

from featvis.errors import FetchError, InputError
from featvis.weights.sources import LONGEST_NAME, SHA256, Source, weights_folder

HUB_SCHEME = "hf://"

_COMMIT = re.compile(r"[0-9a-f]{40}")


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
        if len(name.encode()) <= LONGEST_NAME:
            return name
        # More than file systems take.
        digest = hashlib.sha256(name.encode()).hexdigest()
        return f"{name.encode()[:80].decode(errors='ignore')}%{digest}{Path(self.path).suffix[:20]}"

    @property
    def origin(self) -> str:
        """The repository, the revision and the path."""
        return f"{HUB_SCHEME}{self.repository}@{self.revision}/{self.path}"

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
            sound = _COMMIT.fullmatch(record.commit) and SHA256.fullmatch(record.sha256)
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return record if sound else None

    def text(self) -> str:
        """The record as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def is_hub(text: object) -> TypeGuard[str]:
    """Whether it names a file of the Hugging Face hub, as `parse_hub` reads it."""
    return isinstance(text, str) and text.startswith(HUB_SCHEME)


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
        rf"{HUB_SCHEME}(?:models/)?(?P<repository>[\w.-]+/[\w.-]+)"
        r"(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[\w.-]+))?/(?P<path>[^\\]+)",
        text,
        re.ASCII,
    )
    form = f"{HUB_SCHEME}owner/repository[@revision]/path"
    if match is None or not text.isprintable():
        raise InputError(f"{text!r} names no file of the Hugging Face hub; expected {form}")
    repository, revision, path = match.group("repository", "revision", "path")
    if not {"", ".", ".."}.isdisjoint([*path.split("/"), *repository.split("/"), revision]):
        raise InputError(f"{text!r}: an empty name, . or .. within it; expected {form}")
    kind = repository.partition("/")[0]
    if kind in {"datasets", "spaces", "kernels", "buckets"}:
        raise InputError(f"{text!r} is of {kind}; weights come from a repository of a model")
    return Hub(repository, path, revision or "main", licence="not known")


@dataclass(frozen=True)
class HubFile:
    """A file of the hub at one commit.

    Attributes:
        commit: 40 hexadecimal digits.
        sha256: Of the file, as the hub states it; None where it does not.
        url: Where its bytes are; empty where the hub cannot be reached and `local` is there.
        headers: To send with a request for them.
        local: The file where the hub's own library has downloaded it before.
    """

    commit: str
    sha256: str | None
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    local: Path | None = None


def hugging_face(source: Hub) -> HubFile:
    """Asks the Hugging Face hub, through `huggingface_hub`, for a file.

    The login (`hf auth login`, HF_TOKEN), HF_ENDPOINT, HF_HUB_OFFLINE and the cache of that package
    are heeded.

    Raises:
        FetchError: The package is not installed, there is no such repository, revision or file,
            or the hub cannot be reached and the file is not in its cache.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
        from huggingface_hub.utils import build_hf_headers
    except ImportError as error:
        raise FetchError(
            "the package huggingface_hub is not installed (pip install huggingface_hub)"
        ) from error
    name, path, revision = source.repository, source.path, source.revision
    try:
        address = hub.hf_hub_url(name, path, revision=revision)
        found = hub.get_hf_file_metadata(address)
    except errors.GatedRepoError as error:
        raise FetchError(
            f"accept its terms at https://huggingface.co/{name}, then `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FetchError(
            f"there is no repository {name}, or it is private (then `hf auth login`)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FetchError(f"{name} has no revision {revision}") from error
    except errors.EntryNotFoundError as error:
        raise FetchError(f"{name} has no file {path} at revision {revision}") from error
    # The HTTP library beneath, and its errors, are others in each version of huggingface_hub.
    except Exception as error:
        if (kept := _in_hub_cache(hub, source, revision)) is not None:
            return kept
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FetchError(f"the Hugging Face hub cannot be reached ({reason})") from error
    if found.commit_hash is None:
        raise FetchError(f"{address} does not say of which commit it is")
    here = _in_hub_cache(hub, source, found.commit_hash)
    url = urljoin(address, found.location)
    # The token is for the hub, not for the host that it keeps large files on.
    own = urlsplit(url)[:2] == urlsplit(address)[:2]
    secret = {k: v for k, v in build_hf_headers().items() if k.lower() == "authorization"}
    return HubFile(
        commit=found.commit_hash,
        sha256=found.etag if SHA256.fullmatch(found.etag or "") else None,
        url=url,
        headers=secret if own else {},
        local=None if here is None else here.local,
    )


def _in_hub_cache(hub: Any, source: Hub, revision: str) -> HubFile | None:
    found = hub.try_to_load_from_cache(source.repository, source.path, revision=revision)
    if not isinstance(found, str):  # None, or a mark that there is no such file
        return None
    local = Path(found)
    # snapshots/<commit>/<path>, a link to blobs/<SHA-256>
    commit = local.parents[len(PurePosixPath(source.path).parts) - 1].name
    blob = local.resolve().name
    return HubFile(commit, blob if SHA256.fullmatch(blob) else None, "", local=local)
