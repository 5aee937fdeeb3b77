"""Downloads of weights: resumed after an interruption, and verified before a file gets its name.

A download grows in `<file>.part`, with `<file>.part.json` beside it to say what it is a part of. A
later run goes on where an earlier one stopped (HTTP Range, RFC 9110 §14.2) as long as the server
still has the same file; whatever is wrong with a part, the SHA-256 of the whole decides. One
process at a time downloads a file, the others wait for it. A server that never ends, or hardly goes
on, is left: see `Limits`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from featvis.errors import FetchError, OutputError
from featvis.weights.files import file_digest
from featvis.weights.http import HTTPS, Response, Transport
from featvis.weights.hub import Hub, HubFile, HubRecord, hugging_face
from featvis.weights.sources import Download, Source, weights_folder
from featvis.weights.watch import (
    Limits,
    TooSlow,
    Watch,
    answer_within,
    check_space,
    pulled,
    writing,
)

#: Of one download: each but the last was broken off after it had brought something.
_MOST_CONNECTIONS = 50

_LOCK_POLL_SECONDS = 0.1

_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(
    model: str,
    sources: Sequence[Source],
    *,
    transport: Transport = HTTPS,
    hub: Callable[[Hub], HubFile] = hugging_face,
    limits: Limits | None = None,
    progress: bool = True,
) -> Path:
    """Gets the weights of a model, from its first source that has them.

    Weights that are here and have the SHA-256 expected of them are not downloaded again.

    Args:
        model: Name of the model, whose folder they go into.
        sources: Where they may come from, the first that has them being taken.
        transport: Makes the requests.
        hub: Finds a file of the Hugging Face hub.
        limits: Where a download ends; by default those of `Limits`.
        progress: Show a progress bar on a terminal.

    Returns:
        The file.

    Raises:
        FetchError: No source can be downloaded; says which file to put where.
        OutputError: The cache folder cannot be written, or its disk is full.
    """
    for source in sources:
        if (path := _good(source, source.find(model))) is not None:
            return path
    failures: list[FetchError] = []
    for source in sources:
        if isinstance(source, Download | Hub):
            try:
                return fetch_source(
                    source,
                    model,
                    transport=transport,
                    hub=hub,
                    limits=limits,
                    progress=progress,
                )
            except FetchError as error:
                failures.append(error)
    if failures:
        raise FetchError("; ".join(map(str, failures))) from failures[-1].__cause__
    ways = "; or ".join(source.by_hand(model) for source in sources)
    raise FetchError(f"the weights of {model} are not to be downloaded: {ways}")


def fetch_source(
    source: Download | Hub,
    model: str,
    *,
    transport: Transport = HTTPS,
    hub: Callable[[Hub], HubFile] = hugging_face,
    limits: Limits | None = None,
    progress: bool = True,
) -> Path:
    """Gets one file of weights into the folder of a model.

    Args:
        source: Of the file.
        model: Name of the model.
        transport: See `fetch`.
        hub: See `fetch`.
        limits: Where a download ends; by default those of `Limits`.
        progress: See `fetch`.

    Returns:
        The file, in `weights_folder(model)`.

    Raises:
        FetchError: It cannot be downloaded, or it is not the file that was expected.
        OutputError: The folder cannot be written, or its disk is full.
    """
    path = weights_folder(model) / source.file
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    # One process at a time: the others wait here, and then find the file.
    place = path.with_name(path.name + ".lock")
    with writing(place):
        held = FileLock(place).acquire(poll_interval=_LOCK_POLL_SECONDS)
    with held:
        if _good(source, source.find(model)) is not None:
            return path
        try:
            remote = _remote(source, hub)
            part = _Part(path)
            watch = Watch(limits or Limits(), path.parent)
            digest = _obtain(remote, part, transport, watch, progress)
        except OutputError:
            raise
        except (FetchError, OSError) as error:
            raise FetchError(
                f"cannot fetch {source}: {reason_of(error)}; try again, or {source.by_hand(model)}"
            ) from error
        if isinstance(source, Hub):
            record = HubRecord(
                source.repository, source.path, source.revision, remote.commit, digest
            )
            _write(HubRecord.place(path), record.text())
        with writing(path):
            part.path.replace(path)
            part.discard()
        return path


def _good(source: Source, path: Path | None) -> Path | None:
    """The file, where it is there and what it must be."""
    if path is None:
        return None
    expected = source.at(path).sha256
    try:
        return path if _fits(file_digest(path), expected) else None
    except OSError:
        return None


def _fits(digest: str, expected: str | None) -> bool:
    return expected is None or digest.startswith(expected)


@dataclass(frozen=True)
class _Remote:
    """A file to download.

    Attributes:
        identity: What it is, for a later run: unlike an address it holds no secret.
        url: Its address.
        headers: To send.
        sha256: That it must have, or the first digits of it; None: not known.
        commit: Of the hub.
        local: A copy of it on this machine.
    """

    identity: str
    url: str
    headers: Mapping[str, str]
    sha256: str | None
    commit: str = ""
    local: Path | None = None


def _remote(source: Download | Hub, hub: Callable[[Hub], HubFile]) -> _Remote:
    if isinstance(source, Download):
        return _Remote(source.url, source.url, {}, source.sha256)
    file = hub(source)
    if file.sha256 is not None and not _fits(file.sha256, source.sha256):
        raise FetchError(f"the hub has another file, {file.sha256}; expected {source.sha256}")
    return _Remote(
        identity=f"hf://{source.repository}@{file.commit}/{source.path}",
        url=file.url,
        headers=file.headers,
        sha256=file.sha256 or source.sha256,
        commit=file.commit,
        local=file.local,
    )


def _obtain(
    remote: _Remote, part: _Part, transport: Transport, watch: Watch, progress: bool
) -> str:
    """Fills a part, verifies it and returns its SHA-256."""
    doubtful = part.size_of(remote.identity) > 0
    if remote.local is not None:
        doubtful = bool(remote.url)
        part.begin({"of": remote.identity})
        size = remote.local.stat().st_size
        watch.check(size, 0)
        check_space(part.path.parent, size)
        with writing(part.path):
            shutil.copyfile(remote.local, part.path)
    else:
        _download(remote, part, transport, watch, progress)
    digest = file_digest(part.path)
    if doubtful and not _fits(digest, remote.sha256):
        # The damage may be in what an earlier run left, or in the hub's cache.
        part.discard()
        _download(remote, part, transport, watch, progress)
        digest = file_digest(part.path)
    if not _fits(digest, remote.sha256):
        part.discard()
        raise FetchError(
            f"another file, or damaged: its SHA-256 is {digest[: len(remote.sha256 or '')]}, "
            f"expected {remote.sha256}"
        )
    return digest


def _download(
    remote: _Remote, part: _Part, transport: Transport, watch: Watch, progress: bool
) -> None:
    for _ in range(_MOST_CONNECTIONS):
        before = part.size_of(remote.identity)
        if part.whole(remote.identity):
            return
        try:
            if _receive(remote, part, before, transport, watch, progress):
                return
        except OutputError:
            raise
        except OSError:
            if part.size_of(remote.identity) <= before:
                raise
    raise FetchError(f"the connection broke {_MOST_CONNECTIONS} times")


def _receive(
    remote: _Remote,
    part: _Part,
    offset: int,
    transport: Transport,
    watch: Watch,
    progress: bool,
) -> bool:
    """One request; returns whether it brought what was missing, or it is to begin again."""
    headers = {"Accept-Encoding": "identity", **remote.headers}
    limits = watch.limits
    if offset and (validator := part.validator()):
        headers["If-Range"] = validator
    response = answer_within(
        limits.silence,
        lambda: transport(remote.url, headers, offset),
        lambda late: late.close(),
    )
    try:
        if offset and response.status == 200:
            offset = 0  # it does not know Range, or has another file now
        elif offset and response.status in (206, 416) and not part.continued(response, offset):
            part.discard()
            return False
        if response.status != (206 if offset else 200):
            raise FetchError(f"the server answers {response.status}")
        if not offset:
            part.begin({"of": remote.identity, **_facts(response)})
        length = part.length()
        watch.begin()
        try:
            watch.check(max(offset, length or 0), 0)
            check_space(part.path.parent, (length or 0) - offset)
            chunks = pulled(response.chunks, limits.silence)
            size = _append(chunks, part.path, offset, length, watch, progress)
        except TooSlow:
            raise
        except FetchError:  # too large
            part.discard()
            raise
    finally:
        response.close()
    if length is not None and size > length:
        part.discard()
        raise FetchError(f"the server sent more than the {length} bytes that it announced")
    if length is not None and size < length:
        raise ConnectionError(f"the connection ended after {size} of {length} bytes")
    return True


def _append(
    chunks: Iterator[bytes],
    path: Path,
    offset: int,
    length: int | None,
    watch: Watch,
    progress: bool,
) -> int:
    """Writes chunks behind what is there and returns the size of the file."""
    from tqdm import tqdm

    size = offset
    with writing(path):
        file = path.open("ab", buffering=0)
    with (
        file,
        tqdm(
            desc=path.stem,
            total=length,
            initial=offset,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=None if progress else True,
        ) as bar,
    ):
        try:
            for chunk in chunks:
                watch.check(size + len(chunk), len(chunk))
                rest = memoryview(chunk)
                with writing(path):
                    while rest:  # the last write on a full disk may be a short one
                        rest = rest[file.write(rest) :]
                size += len(chunk)
                bar.update(len(chunk))
                if length is not None and size > length:
                    break
        finally:
            with writing(path):
                os.fsync(file.fileno())
    return size


def _facts(response: Response) -> dict[str, Any]:
    """What tells one version of a file on a server from another."""
    headers = response.headers
    if response.status == 206:
        length = headers.get("content-range", "").rpartition("/")[2]
    else:
        length = headers.get("content-length", "")
    return {
        "etag": headers.get("etag"),
        "modified": headers.get("last-modified"),
        "length": int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None,
    }


class _Part:
    """A file as far as it is downloaded, and what is known of the whole."""

    def __init__(self, path: Path):
        self.path = path.with_name(path.name + ".part")
        self._about = path.with_name(path.name + ".part.json")

    def _known(self) -> dict[str, Any]:
        try:
            known = json.loads(self._about.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def size_of(self, identity: str) -> int:
        """Bytes that are here of a file; 0 where the part is one of another file."""
        if self._known().get("of") != identity:
            return 0
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def length(self) -> int | None:
        """Bytes of the whole file, where the server said."""
        length = self._known().get("length")
        return length if isinstance(length, int) else None

    def whole(self, identity: str) -> bool:
        """Whether nothing is missing."""
        return 0 < self.size_of(identity) == self.length()

    def validator(self) -> str | None:
        """For `If-Range`: a strong entity tag, or a date (RFC 9110 §13.1.5)."""
        known = self._known()
        etag, modified = known.get("etag"), known.get("modified")
        if isinstance(etag, str) and etag.startswith('"'):
            return etag
        return modified if isinstance(modified, str) else None

    def continued(self, response: Response, offset: int) -> bool:
        """Whether a response is the rest of this file from an offset on."""
        start = re.match(r"bytes ([0-9]+)-", response.headers.get("content-range", ""))
        known = self._known()
        return (
            response.status == 206
            and start is not None
            and int(start[1]) == offset
            # A 206 need not repeat what If-Range has settled already.
            and all(now in (None, known.get(key)) for key, now in _facts(response).items())
        )

    def begin(self, known: Mapping[str, Any]) -> None:
        """Starts again from nothing."""
        self.discard()
        _write(self._about, json.dumps(known))

    def discard(self) -> None:
        """Removes it."""
        with writing(self.path):
            self.path.unlink(missing_ok=True)
            self._about.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """Writes a small file, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    with writing(path):
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)


def reason_of(error: Exception) -> str:
    """What went wrong, in a line."""
    cause = getattr(error, "reason", None) or error  # urllib wraps what the system said
    text = str(getattr(cause, "strerror", None) or cause).partition("\n")[0]
    if isinstance(error, FetchError):
        return text
    return f"no connection ({text or type(cause).__name__})"
