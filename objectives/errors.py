"""Typed errors of the objective language: every one is a `ValueError`."""


class ObjectiveError(ValueError):
    """An objective that cannot be built or does not fit the network it is asked about."""


class UnknownLayer(ObjectiveError, KeyError):
    """A layer name that the network does not have; the message gives the nearest names."""

    # KeyError prints the repr of its argument; a user wants the sentence.
    __str__ = Exception.__str__


class ParseError(ObjectiveError):
    """Text that is not an objective; the message marks the place."""
