"""Standard output that stops no work: what it does not take is said at the end."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

#: How a shell reports a program that nobody listens to any more: 128 + SIGPIPE.
UNHEARD = 141


class Output(io.TextIOBase):
    """Text for a stream that may be closed, full, broken off or of few characters.

    Pictures are worth more than the lines about them: a write never raises. A character that the
    stream has no code for is escaped.

    Args:
        stream: None where there is none.

    Attributes:
        error: why text was lost; None where nothing was.
    """

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Write text, if the stream still takes any."""
        if not isinstance(text, str):
            raise TypeError(f"text is written here, not {type(text).__name__}")
        if self._stream is None and text:
            self.error = OSError(errno.EBADF, "it is closed")
        if self._stream is None or self.error is not None:
            return len(text)
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as unknown:
                coded = text.encode(unknown.encoding, "backslashreplace")
                self._stream.write(coded.decode(unknown.encoding))
        except (OSError, ValueError) as error:  # ValueError: a closed file
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what is waiting."""
        if self._stream is None or self.error is not None:
            return
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def writable(self) -> bool:
        """Return True, whatever becomes of the text."""
        return True

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def _lose(self, error: Exception) -> None:
        self.error = error
        if self._stream is sys.__stdout__:
            # What waits in its buffer would fail once more, loudly, when Python ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)

    def exit_code(self, code: int) -> int:
        """Return the exit code of a program that would have had `code`; say what was lost."""
        self.flush()
        if self.error is None or code:
            return code
        if isinstance(self.error, BrokenPipeError):
            return UNHEARD
        reason = getattr(self.error, "strerror", None) or self.error
        print(f"error: cannot write to the standard output: {reason}", file=sys.stderr)
        return 2
