"""Parameterizations, transforms and optimizers by name or as text, as command lines write them."""

from __future__ import annotations

import difflib
import functools
from typing import Any, TypeVar

import optax

from featvis import transforms
from featvis.errors import InputError
from featvis.parameterizations import Parameterization
from featvis.transforms import Transform
from objectives import ParseError
from objectives.literals import Evaluator

_T = TypeVar("_T")


def _classes(base: type[_T]) -> dict[str, type[_T]]:
    """Every class under `base` by its name, those of the user too."""
    found: dict[str, type[_T]] = {}
    for cls in base.__subclasses__():
        if not cls.__name__.startswith("_"):
            found[cls.__name__] = cls
        found |= _classes(cls)
    return found


def _read(text: str, names: dict[str, Any], what: str, bare: Any = None) -> Any:
    try:
        return Evaluator(names, what, bare=bare).evaluate(text)
    except ParseError as error:
        raise InputError(str(error)) from error


def parameterization(text: str, size: tuple[int, int], channels: int = 3) -> Parameterization:
    """A parameterization from its name (`fourier`) or a call (`Fourier(decay=1.5)`).

    Args:
        text: any case; what it leaves out of size and channels is filled in.
        size: (height, width) in pixels.
        channels: number of channels.

    Raises:
        InputError: no such parameterization, or arguments that it does not take.
    """
    classes = _classes(Parameterization)  # type: ignore[type-abstract]
    known = {
        name: functools.partial(_sized, cls, size, channels)
        for key, cls in classes.items()
        for name in (key, key.lower())
    }

    def bare(name: str) -> Parameterization:
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
            raise InputError(
                f"unknown parameterization {name!r}"
                + (f"; nearest: {near[0]}" if near else f"; known: {', '.join(sorted(classes))}")
            )
        return known[name.lower()]()

    value = _read(text, known, "parameterization", bare)
    if not isinstance(value, Parameterization):
        raise InputError(f"{text!r} is not a parameterization such as fourier or Pixels(sd=0.1)")
    return value


def _sized(cls: Any, size: tuple[int, int], channels: int, /, **options: Any) -> Parameterization:
    # Positional only: the options may have the same names and come first.
    return cls(**{"size": size, "channels": channels, **options})


def transform(value: Transform | str) -> Transform:
    """A transform from itself, a preset's name or a call (`Compose((Pad(12), Jitter(8)))`).

    Raises:
        InputError: no such transform, or arguments that it does not take.
    """
    if isinstance(value, Transform):
        return value
    if not isinstance(value, str):
        raise InputError(
            f"transform must be a Transform or the name of one; got {value!r}; a sequence of "
            f"transforms is Compose((first, second))"
        )

    def bare(name: str) -> Transform:
        if name not in transforms.PRESETS:
            near = difflib.get_close_matches(name, transforms.PRESETS, n=1, cutoff=0.3)
            hint = (
                f"nearest: {near[0]}" if near else f"known: {', '.join(sorted(transforms.PRESETS))}"
            )
            raise InputError(f"unknown transform {name!r}; {hint}")
        return transforms.PRESETS[name]

    classes: dict[str, Any] = {**_classes(Transform)}
    found = _read(value, classes, "transform", bare)
    if not isinstance(found, Transform):
        raise InputError(f"{value!r} is not a transform such as standard or Jitter(8)")
    return found


@functools.cache
def _optimizer_from_text(text: str) -> optax.GradientTransformation:
    names = {
        name: value
        for name, value in vars(optax).items()
        if callable(value) and not name.startswith("_") and not isinstance(value, type)
    }
    value = _read(text, names, "optimizer")
    if not isinstance(value, optax.GradientTransformation):
        raise InputError(f"{text!r} is not an optax transformation such as adam(0.05)")
    return value


def optimizer(value: str | optax.GradientTransformation) -> optax.GradientTransformation:
    """An optax transformation from itself or its text (`chain(clip(1.0), adam(0.05))`).

    Raises:
        InputError: no such transformation, or arguments that it does not take.
    """
    if isinstance(value, str):
        return _optimizer_from_text(value)
    if not isinstance(value, optax.GradientTransformation):
        raise InputError(f"optimizer must be an optax transformation or its text; got {value!r}")
    return value
