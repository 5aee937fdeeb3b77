"""Typed errors of featvis: each message is one line and names what was given and expected."""

from typing import Any


class FeatvisError(Exception):
    """Base class: catching it catches every error that featvis raises on purpose."""


class InputError(FeatvisError, ValueError):
    """An argument out of its range, of the wrong shape or of the wrong kind."""


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
