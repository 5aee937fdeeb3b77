"""Whoever watches a run at a terminal: a bar of its steps, and Ctrl-C between two chunks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def progress_bar(steps: int, shown: bool) -> Any:
    """A bar of steps: on a terminal, and in a notebook as its own kind of bar.

    Args:
        steps: how many there are.
        shown: whether it is wanted.
    """
    from tqdm.auto import tqdm

    # None: on a terminal only, which a notebook's output is not.
    on_page = any(cls.__module__ == "tqdm.notebook" for cls in tqdm.__mro__)
    disable = None if shown and not on_page else not shown
    return tqdm(total=steps, disable=disable, leave=False, unit="step")


def watched(loop: Any, progress: bool | Callable[[Any], object]) -> bool:
    """Runs a loop to its end, or to a Ctrl-C.

    Args:
        loop: gives its progress, and knows its number of `steps`.
        progress: whether a bar is wanted; or who is told of each progress in place of one.

    Returns:
        Whether it was interrupted.
    """
    with progress_bar(loop.steps, progress is True) as bar, interruptible() as interrupted:
        for reached in loop:
            bar.update(reached.step - bar.n)
            if callable(progress):
                progress(reached)
            if interrupted():
                break
        return interrupted()


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
