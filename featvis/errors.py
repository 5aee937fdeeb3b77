"""Typed errors of featvis: each message is one line and names what was given and expected."""

from typing import Any


def printable(value: object, length: int = 400) -> str:
    """Text that came from a file, or a file's name, as a message or a terminal can show it.

    What is not printed as itself is escaped: control characters, so that nothing moves the cursor;
    line breaks, so that nothing looks like a line of ours; marks that turn the direction of
    writing; undecodable bytes of a file's name. What is longer is cut in its middle.

    Args:
        value: a text, a path or anything else by its text.
        length: characters at most, before anything is escaped.
    """
    try:
        text = str(value)
    except ValueError as error:  # an integer of thousands of digits
        text = f"<{error}>"
    if len(text) > length:
        half = (length - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """As Python writes it; an undecodable byte of a file's name as that byte."""
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(character)[1:-1]


class FeatvisError(Exception):
    """Base class: catching it catches every error that featvis raises on purpose."""


class InputError(FeatvisError, ValueError):
    """An argument out of its range, of the wrong shape or of the wrong kind."""


class TooLargeError(InputError):
    """A run that takes more memory than there is; the message says how much, and what would fit."""


class GradientError(InputError):
    """A score that has no gradient and cannot be optimised; the message says what is in the way."""


class UnknownModel(FeatvisError, KeyError):
    """A model name that is not known; the message gives the nearest names."""

    # KeyError prints the repr of its argument; a user wants the sentence.
    __str__ = Exception.__str__


class CheckpointError(FeatvisError):
    """A weights file that is unreadable, hostile, or of another architecture."""


class FetchError(FeatvisError):
    """Weights that cannot be downloaded; the message says which file to put where instead."""


class OutputError(FeatvisError, OSError):
    """A file that cannot be written where the user asked for it."""


class NonFiniteError(FeatvisError, ArithmeticError):
    """A NaN or infinity during the optimisation; says the step and the term.

    Attributes:
        result: the `Result` as it was before that step.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class NameTakenWarning(UserWarning):
    """A file got another name than was asked for, because there was one of that name."""
