"""The command `featvis`: obeys Ctrl-C from its first line on, and only then imports JAX.

A package of its own, as importing anything of featvis imports JAX, which takes seconds and loses a
`KeyboardInterrupt` that comes while its callbacks run.
"""

from __future__ import annotations

import _thread
import gc
import os
import signal
import sys
import time

TYPE_CHECKING = False  # a Ctrl-C while `typing` is imported would come before `main`
if TYPE_CHECKING:
    from typing import Any

#: How a shell reports a program ended by Ctrl-C.
INTERRUPTED = 130

#: Objects after which Python looks for garbage in cycles. What it does every 700 of them by default
#: takes a fifth of the time to a first picture: JAX makes and keeps objects by the million.
_OBJECTS = 100_000


def main() -> int:
    """Run the command line of this process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not with `nohup`
        signal.signal(signal.SIGINT, _leave)
    _keep_numbers()
    # Not at the top: until here Python ends with a traceback where Ctrl-C comes.
    from contextlib import redirect_stdout

    from featvis_command.console import Output
    from featvis_command.overview import overview

    output = Output(sys.stdout)
    answer = overview(sys.argv[1:])
    if answer is not None:
        text, code = answer
        output.write(text)
        return output.exit_code(code)
    gc.disable()
    from featvis import cli

    gc.freeze()  # What was imported stays.
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
    gc.enable()
    try:
        try:
            if signal.getsignal(signal.SIGINT) is _leave:
                sys.unraisablehook = _raise_again
                signal.signal(signal.SIGINT, signal.default_int_handler)
            with redirect_stdout(output):
                code = cli.main()
            return output.exit_code(code)
        finally:
            # All is written: what Python and JAX close now may be left as it is.
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:
        _leave()
    return INTERRUPTED


def _leave(*_: Any) -> None:
    """Ends the process at once: before the work there is nothing to keep, and nothing after it."""
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)


_swallowing = False


def _raise_again(unraisable: Any) -> None:
    """A Ctrl-C that came where nothing can be raised (a callback of JAX's) comes once more."""
    global _swallowing
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    import threading

    _swallowing = True
    threading.Thread(target=_press, daemon=True).start()
    _swallowing = False  # the last line: what is raised in here is lost as well


def _press() -> None:
    while _swallowing:
        time.sleep(0.005)
    if hasattr(signal, "pthread_kill"):
        import threading

        # A signal that is sent ends what the main thread waits for; one that is noted does not.
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGINT)
    else:  # Windows
        _thread.interrupt_main()


def _keep_numbers() -> None:
    """Opens what is closed of the standard streams, or the first files would have their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
