"""Downloads of weights: resumed after an interruption, and verified before a file gets its name.

A download grows in `<file>.part`, with `<file>.part.json` beside it to say what it is a part of. A
later run goes on where an earlier one stopped (HTTP Range, RFC 9110 §14.2) as long as the server
still has the same file; whatever is wrong with a part, the SHA-256 of the whole decides. One
process at a time downloads a file, the others wait for it. A server that never ends, or hardly goes
on, is left: see `Limits`.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import os
import queue
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

from filelock import FileLock

from featvis.checkpoints import file_digest
from featvis.errors import FetchError, OutputError
from featvis.sources import Download, Hub, HubRecord, Source, weights_folder

if TYPE_CHECKING:
    from featvis.zoo.entry import ModelEntry

__all__ = [
    "HTTPS",
    "HubFile",
    "Limits",
    "Response",
    "Transport",
    "UrlTransport",
    "fetch",
    "fetch_source",
    "hugging_face",
]

_CHUNK = 2**18
#: Of one download: each but the last was broken off after it had brought something.
_MOST_CONNECTIONS = 50
_LOCK_POLL_SECONDS = 0.1
#: Left free on the disk, and how often that is looked at.
_KEPT_FREE = 2**26
_BETWEEN_LOOKS = 2**24
_SHA256 = re.compile(r"[0-9a-f]{64}")


# ---- what a download needs of HTTP ---------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """What a server answered.

    Attributes:
        status: HTTP status code.
        headers: By name in lower case.
        chunks: The body, piece by piece; an OSError where the connection breaks.
        close: Ends the connection.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    close: Callable[[], object] = lambda: None


class Transport(Protocol):
    """Makes HTTP requests."""

    def __call__(self, url: str, headers: Mapping[str, str], offset: int) -> Response:
        """Asks for a file.

        Args:
            url: Its address.
            headers: To send.
            offset: Of the first byte that is wanted; above 0 it is asked for with `Range`.

        Raises:
            OSError: There is no connection.
        """
        ...


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the schemes that are allowed, and no other."""

    def __init__(self, schemes: tuple[str, ...]):
        self.schemes = schemes

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _check_scheme(newurl, self.schemes)
        except OSError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    if urlsplit(url).scheme not in schemes:
        raise ConnectionError(f"{url} is refused: only {' and '.join(schemes)} is allowed")


@dataclass(frozen=True)
class UrlTransport:
    """Requests by `urllib`, with the system's certificates and the environment's proxies.

    Attributes:
        timeout: Seconds to wait for the connection, and for each piece of the body.
        schemes: That addresses and redirects may have.
    """

    timeout: float = 30.0
    schemes: tuple[str, ...] = ("https",)

    def __call__(self, url: str, headers: Mapping[str, str], offset: int) -> Response:
        """See `Transport`."""
        _check_scheme(url, self.schemes)
        request = urllib.request.Request(url)
        request.add_header("User-Agent", f"featvis/{importlib.metadata.version('featvis')}")
        for name, value in headers.items():
            # Credentials are for this host and do not follow a redirect to another.
            secret = name.lower() == "authorization"
            (request.add_unredirected_header if secret else request.add_header)(name, value)
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        answer: Any
        try:
            opener = urllib.request.build_opener(_Redirects(self.schemes))
            answer = opener.open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            answer = error
        except http.client.HTTPException as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        found = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status, found, _chunks(answer), answer.close)


#: How weights are fetched where nothing else is said.
HTTPS = UrlTransport()


def _chunks(answer: IO[bytes]) -> Iterator[bytes]:
    try:
        # What is there, and not until a chunk is full.
        while chunk := answer.read1(_CHUNK):  # type: ignore[attr-defined]
            yield chunk
    except http.client.HTTPException as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


# ---- what a server may not do --------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """Where a download ends that a server would not end.

    Attributes:
        size: Bytes that a file may have. `fetch` takes 16 a parameter and 16 MiB, four times what
            float32 needs.
        seconds: That a download may take in all.
        silence: Seconds without an answer, or without another byte.
        slowest: Bytes a second that have to come, on average over `window` seconds.
        window: See `slowest`.
    """

    size: int = 2**32
    seconds: float = 12 * 3600.0
    silence: float = 60.0
    slowest: float = 1000.0
    window: float = 60.0


_Made = TypeVar("_Made")


class _TooSlow(FetchError):
    """It is not to be tried again at once, as after a connection that broke."""


def _within(seconds: float, make: Callable[[], _Made], undo: Callable[[_Made], object]) -> _Made:
    """What a function returns or raises; what comes too late is undone.

    The time limit of a socket is for each of its pieces, and a server can send one byte of a header
    at a time.
    """
    done: queue.SimpleQueue[tuple[_Made | None, BaseException | None]] = queue.SimpleQueue()
    late = threading.Event()

    def run() -> None:
        try:
            made = make()
        except BaseException as error:
            done.put((None, error))
            return
        done.put((made, None))
        if late.is_set():
            undo(made)

    threading.Thread(target=run, daemon=True).start()
    try:
        made, error = done.get(timeout=seconds)
    except queue.Empty:
        late.set()
        raise _TooSlow(f"the server did not answer within {seconds:g} s") from None
    except BaseException:  # Ctrl-C
        late.set()
        raise
    if error is not None:
        raise error
    return made  # type: ignore[return-value]


def _pulled(chunks: Iterator[bytes], silence: float) -> Iterator[bytes]:
    """The same chunks, read by a thread so that one that does not come can be given up."""
    waiting: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=4)
    left = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def pull() -> None:
        try:
            for chunk in chunks:
                put(chunk)
                if left.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=pull, daemon=True).start()
    try:
        while True:
            try:
                item = waiting.get(timeout=silence)
            except queue.Empty:
                raise _TooSlow(f"nothing came for {silence:g} s") from None
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()


@dataclass
class _Watch:
    """Looks whether a download keeps to its limits."""

    limits: Limits
    folder: Path
    started: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)
    received: int = 0
    unlooked: int = 0

    def begin(self) -> None:
        """A connection begins."""
        self.since, self.received = time.monotonic(), 0

    def check(self, size: int, more: int) -> None:
        """After so many bytes more a file has a size."""
        limits, now = self.limits, time.monotonic()
        self.received += more
        self.unlooked += more
        if size > limits.size:
            raise FetchError(f"it is larger than the {limits.size / 1e6:.0f} MB that are expected")
        if now - self.started > limits.seconds:
            raise _TooSlow(f"it took more than {limits.seconds:g} s")
        if now - self.since >= limits.window:
            if self.received < limits.slowest * (now - self.since):
                raise _TooSlow(f"slower than {limits.slowest:g} bytes a second")
            self.since, self.received = now, 0
        if self.unlooked >= _BETWEEN_LOOKS:
            self.unlooked = 0
            _check_space(self.folder, 0)


# ---- the Hugging Face hub ------------------------------------------------------------------


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
            "the package huggingface_hub is not installed (pip install 'featvis[hub]')"
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
        sha256=found.etag if _SHA256.fullmatch(found.etag or "") else None,
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
    return HubFile(commit, blob if _SHA256.fullmatch(blob) else None, "", local=local)


# ---- one file ------------------------------------------------------------------------------


def fetch(
    entry: ModelEntry,
    *,
    transport: Transport = HTTPS,
    hub: Callable[[Hub], HubFile] = hugging_face,
    limits: Limits | None = None,
    progress: bool = True,
) -> Path:
    """Gets the weights of a model, from its first source that has them.

    Weights that are here and have the SHA-256 expected of them are not downloaded again.

    Args:
        entry: The model.
        transport: Makes the requests.
        hub: Finds a file of the Hugging Face hub.
        limits: Where a download ends; by default those of `Limits`, and the size by the model's.
        progress: Show a progress bar on a terminal.

    Returns:
        The file.

    Raises:
        FetchError: No source can be downloaded; says which file to put where.
        OutputError: The cache folder cannot be written, or its disk is full.
    """
    for source in entry.sources:
        if (path := _good(source, source.find(entry.name))) is not None:
            return path
    failures: list[FetchError] = []
    limits = limits or Limits(size=16 * entry.parameters + 2**24)
    for source in entry.sources:
        if isinstance(source, Download | Hub):
            try:
                return fetch_source(
                    source,
                    entry.name,
                    transport=transport,
                    hub=hub,
                    limits=limits,
                    progress=progress,
                )
            except FetchError as error:
                failures.append(error)
    if failures:
        raise FetchError("; ".join(map(str, failures))) from failures[-1].__cause__
    ways = "; or ".join(source.by_hand(entry.name) for source in entry.sources)
    raise FetchError(f"the weights of {entry.name} are not to be downloaded: {ways}")


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
    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    # One process at a time: the others wait here, and then find the file.
    place = path.with_name(path.name + ".lock")
    with _writing(place):
        held = FileLock(place).acquire(poll_interval=_LOCK_POLL_SECONDS)
    with held:
        if _good(source, source.find(model)) is not None:
            return path
        try:
            remote = _remote(source, hub)
            part = _Part(path)
            watch = _Watch(limits or Limits(), path.parent)
            digest = _obtain(remote, part, transport, watch, progress)
        except OutputError:
            raise
        except (FetchError, OSError) as error:
            raise FetchError(
                f"cannot fetch {source}: {_reason(error)}; try again, or {source.by_hand(model)}"
            ) from error
        if isinstance(source, Hub):
            record = HubRecord(
                source.repository, source.path, source.revision, remote.commit, digest
            )
            _write(HubRecord.place(path), record.text())
        with _writing(path):
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
    remote: _Remote, part: _Part, transport: Transport, watch: _Watch, progress: bool
) -> str:
    """Fills a part, verifies it and returns its SHA-256."""
    doubtful = part.size_of(remote.identity) > 0
    if remote.local is not None:
        doubtful = bool(remote.url)
        part.begin({"of": remote.identity})
        size = remote.local.stat().st_size
        watch.check(size, 0)
        _check_space(part.path.parent, size)
        with _writing(part.path):
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
    remote: _Remote, part: _Part, transport: Transport, watch: _Watch, progress: bool
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
    watch: _Watch,
    progress: bool,
) -> bool:
    """One request; returns whether it brought what was missing, or it is to begin again."""
    headers = {"Accept-Encoding": "identity", **remote.headers}
    limits = watch.limits
    if offset and (validator := part.validator()):
        headers["If-Range"] = validator
    response = _within(
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
            _check_space(part.path.parent, (length or 0) - offset)
            chunks = _pulled(response.chunks, limits.silence)
            size = _append(chunks, part.path, offset, length, watch, progress)
        except _TooSlow:
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
    watch: _Watch,
    progress: bool,
) -> int:
    """Writes chunks behind what is there and returns the size of the file."""
    from tqdm import tqdm

    size = offset
    with _writing(path):
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
                with _writing(path):
                    while rest:  # the last write on a full disk may be a short one
                        rest = rest[file.write(rest) :]
                size += len(chunk)
                bar.update(len(chunk))
                if length is not None and size > length:
                    break
        finally:
            with _writing(path):
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
        with _writing(self.path):
            self.path.unlink(missing_ok=True)
            self._about.unlink(missing_ok=True)


# ---- the disk ------------------------------------------------------------------------------


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    """Writes a small file, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    with _writing(path):
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)


def _check_space(folder: Path, needed: int) -> None:
    with _writing(folder):
        free = shutil.disk_usage(folder).free
    if needed > free - _KEPT_FREE:
        raise OutputError(
            f"{folder}: its disk is full: {needed / 1e6:.0f} MB are to come, {free / 1e6:.0f} MB "
            f"are free, of which {_KEPT_FREE / 1e6:.0f} MB are left so"
        )


def _reason(error: Exception) -> str:
    """What went wrong, in a line."""
    cause = getattr(error, "reason", None) or error  # urllib wraps what the system said
    text = str(getattr(cause, "strerror", None) or cause).partition("\n")[0]
    if isinstance(error, FetchError):
        return text
    return f"no connection ({text or type(cause).__name__})"
