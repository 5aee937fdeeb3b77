"""What a server may not do: an endless body, a slow drip, a full disk."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from featvis.errors import FetchError, OutputError

#: Left free on the disk, and how often that is looked at.
_KEPT_FREE = 2**26

_BETWEEN_LOOKS = 2**24


@dataclass(frozen=True)
class Limits:
    """Where a download ends that a server would not end.

    Attributes:
        size: Bytes that a file may have.
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


class TooSlow(FetchError):
    """It is not to be tried again at once, as after a connection that broke."""


def answer_within(
    seconds: float, make: Callable[[], _Made], undo: Callable[[_Made], object]
) -> _Made:
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
        raise TooSlow(f"the server did not answer within {seconds:g} s") from None
    except BaseException:  # Ctrl-C
        late.set()
        raise
    if error is not None:
        raise error
    return made  # type: ignore[return-value]


def pulled(chunks: Iterator[bytes], silence: float) -> Iterator[bytes]:
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
                raise TooSlow(f"nothing came for {silence:g} s") from None
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()


@dataclass
class Watch:
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
            raise TooSlow(f"it took more than {limits.seconds:g} s")
        if now - self.since >= limits.window:
            if self.received < limits.slowest * (now - self.since):
                raise TooSlow(f"slower than {limits.slowest:g} bytes a second")
            self.since, self.received = now, 0
        if self.unlooked >= _BETWEEN_LOOKS:
            self.unlooked = 0
            check_space(self.folder, 0)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes what the system says of a path an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def check_space(folder: Path, needed: int) -> None:
    """Checks that the disk has room for so many bytes, and some more."""
    with writing(folder):
        free = shutil.disk_usage(folder).free
    if needed > free - _KEPT_FREE:
        raise OutputError(
            f"{folder}: its disk is full: {needed / 1e6:.0f} MB are to come, {free / 1e6:.0f} MB "
            f"are free, of which {_KEPT_FREE / 1e6:.0f} MB are left so"
        )
