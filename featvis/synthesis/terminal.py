"""A progress bar, and Ctrl-C between two chunks of steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def progress_bar(steps: int, progress: bool) -> Any:
    from tqdm import tqdm

    # None: shown on a terminal only.
    return tqdm(total=steps, disable=None if progress else True, leave=False, unit="step")


@contextmanager
def interruptible() -> Iterator[Any]:
    """Makes the first Ctrl-C a flag that is read between chunks; the second one raises."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # Somebody else handles interrupts (a notebook, a server); they know better.
        yield pressed.is_set
        return

    def press(number: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
