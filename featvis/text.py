"""Parameterizations, transforms and optimizers by name or as text, as command lines write them."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import optax

from featvis import generators, optimizers, transforms
from featvis.errors import InputError, printable
from featvis.generators.finding import known as known_generator
from featvis.parameterizations import CodePrior, Generator, Latent, Parameterization
from featvis.transforms import Schedule, Transform
from objectives import ParseError
from objectives.expressions import Evaluator, required_arguments


def _classes(base: type) -> dict[str, Callable[..., Any]]:
    """Every class under `base` by its name, those of the user too.

    A name of two classes gives a function that says so: whoever calls it means either.
    """
    found: dict[str, list[type]] = {}
    rest: list[type] = base.__subclasses__()
    while rest:
        cls = rest.pop(0)
        rest += cls.__subclasses__()
        if cls.__name__.startswith("_") or inspect.isabstract(cls):
            continue
        # A class that a notebook defines again has the place of the earlier.
        others = [c for c in found.get(cls.__name__, []) if _place(c) != _place(cls)]
        found[cls.__name__] = [*others, cls]
    return {
        name: classes[0] if len(classes) == 1 else functools.partial(_ambiguous, name, classes)
        for name, classes in found.items()
    }


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _ambiguous(name: str, classes: Sequence[type], /, *args: Any, **options: Any) -> NoReturn:
    places = " and ".join(map(_place, classes))
    raise InputError(f"{name} is the name of {places}: rename one, or pass the object itself")


class NotHeld(InputError):
    """Nobody who reads a text has the data that it names."""


def _generator(data: Callable[[str], Any] | None) -> Callable[..., Generator]:
    """What a text calls `generator(...)`: one that is held, or one by its name or place."""

    def generator(
        place: str,
        weights: str | None = None,
        encoder: str | None = None,
        *,
        sha256: str | None = None,
    ) -> Generator:
        missing = None
        if data is not None and sha256 is not None:
            try:
                held: Generator = data(sha256)
                return held
            except NotHeld as error:
                missing = error
        made = (
            known_generator(place)
            if weights is None and encoder is None
            else generators.load(place, weights, encoder)
        )
        if sha256 is not None and made.digest != sha256:
            raise InputError(
                f"the weights of {place} that are here have the digest {made.digest[:12]}, and "
                f"{sha256[:12]} are asked for: put those there, or pass parameterization= with them"
            ) from missing
        return made

    return generator


def _read(text: str, names: dict[str, Any], what: str, bare: Any = None) -> Any:
    try:
        return Evaluator(names, what, bare=bare).evaluate(text)
    except ParseError as error:
        raise InputError(str(error)) from error


def parameterization(
    text: str,
    size: tuple[int, int],
    channels: int = 3,
    *,
    fixed_size: bool = False,
    data: Callable[[str], Any] | None = None,
) -> Parameterization:
    """A parameterization from its name (`fourier`) or a call (`Fourier(decay=1.5)`).

    `latent:NAME` is the code of a generator by name or place, as `Latent.usual` has it, and
    `latent:NAME=FILE` with a file or folder of its weights.

    Args:
        text: any case; what it leaves out of size and channels is filled in.
        size: (height, width) in pixels.
        channels: number of channels.
        fixed_size: whether the user asked for `size`, so that the text may not name another.
        data: gives the data that the text names by their digests; None where there are none.

    Raises:
        InputError: no such parameterization, arguments that it does not take, or two sizes.
    """
    short = re.fullmatch(r"\s*latent:([^=]+?)(?:=(.+?))?\s*", text, re.IGNORECASE | re.DOTALL)
    if short is None and re.match(r"\s*latent:", text, re.IGNORECASE):
        shown = printable(repr(text), 80)
        raise InputError(f"latent: is followed by a generator's name, as latent:taef2; got {shown}")
    if short is not None:
        return Latent.usual(_generator(None)(short[1], short[2]), size)
    classes = _classes(Parameterization)
    known = {
        name: _sized(cls, size, channels)
        for key, cls in classes.items()
        for name in (key, key.lower())
    }

    def held(digest: str) -> Any:
        if data is None:
            raise InputError("data have no text: pass the parameterization itself, from Python")
        return data(digest)

    def bare(name: str) -> Parameterization:
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
            raise InputError(
                f"unknown parameterization {name!r}"
                + (f"; nearest: {near[0]}" if near else f"; known: {', '.join(sorted(classes))}")
            )
        return known[name.lower()]()

    named = {**known, **_classes(CodePrior), "generator": _generator(data), "sha256": held}
    value = _read(text, named, "parameterization", bare)
    if not isinstance(value, Parameterization):
        raise InputError(f"{text!r} is not a parameterization such as fourier or Pixels(sd=0.1)")
    if fixed_size and value.size != tuple(size):
        raise InputError(f"{text!r} has the size {value.size}, and {tuple(size)} is asked for too")
    return value


def _sized(cls: Callable[..., Any], size: tuple[int, int], channels: int) -> Callable[..., Any]:
    """`cls` with a default for its size and its channels."""
    defaults = {"size": size, "channels": channels}
    signature = inspect.signature(cls)

    def make(*args: Any, **options: Any) -> Any:
        given = signature.bind_partial(*args, **options).arguments
        left = {name: value for name, value in defaults.items() if name not in given}
        return cls(*args, **options, **left)

    # What a call is checked against, and what its messages list.
    make.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            p.replace(default=defaults.get(p.name, p.default))
            for p in signature.parameters.values()
        ]
    )
    return make


def transform(value: Transform | str, size: tuple[int, int]) -> Transform:
    """A transform from itself, a preset's name or a call (`Compose((Pad(12), Jitter(8)))`).

    Args:
        value: what is asked for.
        size: (height, width) of the images, which a preset is in proportion to.

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
        return transforms.PRESETS[name](size)

    known = {**_classes(Schedule), **_classes(Transform)}
    found = _read(value, known, "transform", bare)
    if not isinstance(found, Transform):
        raise InputError(f"{value!r} is not a transform such as standard or Jitter(8)")
    return found


@functools.cache
def _optimizer_parts() -> dict[str, Callable[..., Any]]:
    """What makes a transformation or a schedule, in optax and here, by its return annotation."""
    found = {}
    for name, value in {**vars(optax), **vars(optimizers)}.items():
        if name.startswith("_") or isinstance(value, type) or not callable(value):
            continue
        try:
            made = inspect.signature(value, eval_str=True).return_annotation
        except (ValueError, TypeError, NameError):  # it has none that can be read
            continue
        transformation = isinstance(made, type) and issubclass(made, optax.GradientTransformation)
        if transformation or made == optax.Schedule:
            found[name] = value
    return found


@functools.cache
def _optimizer_from_text(text: str) -> optax.GradientTransformationExtraArgs:
    known = _optimizer_parts()

    def bare(name: str) -> NoReturn:
        if name in known:
            needed = required_arguments(known[name])
            example = "0.05" if needed == ["learning_rate"] else ", ".join(needed)
            raise InputError(f"{name} needs its arguments, as {name}({example})")
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f"nearest: {near[0]}" if near else f"known: {', '.join(sorted(known))}"
        raise InputError(f"unknown optimizer {name!r}; {hint}")

    value = _read(text, known, "optimizer", bare)
    if not isinstance(value, optax.GradientTransformation):
        raise InputError(f"{text!r} is not an optax transformation such as adam(0.05)")
    return _as_optax_has_it(value)


def _as_optax_has_it(made: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """A transformation that takes any keyword arguments, under JAX's usual promotions.

    Optax relies on them (a float to the power of an int32), whatever the user's own code may do.
    """
    inner = optax.with_extra_args_support(made)

    def init(params: Any) -> Any:
        with _usual_promotions():
            return inner.init(params)

    def update(updates: Any, state: Any, params: Any = None, **more: Any) -> tuple[Any, Any]:
        with _usual_promotions():
            return inner.update(updates, state, params, **more)

    return optax.GradientTransformationExtraArgs(init, update)


@contextmanager
def _usual_promotions() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def optimizer(
    value: str | optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation from itself or its text (`chain(clip(1.0), adam(0.05))`).

    Its update takes any keyword arguments, `value`, `grad` and `key` for those that use them
    (`polyak_sgd`, `gaussian_noise`); a text gives the same object each time.

    Raises:
        InputError: no such transformation, or arguments that it does not take.
    """
    if isinstance(value, str):
        return _optimizer_from_text(value)
    if not isinstance(value, optax.GradientTransformation):
        raise InputError(f"optimizer must be an optax transformation or its text; got {value!r}")
    return _as_optax_has_it(value)


def choices() -> dict[str, list[str]]:
    """The names there are, by the option that takes them.

    Of optax, those that take a rate; whatever else it has can stand around them.
    """
    rules = _optimizer_parts().items()
    return {
        "parameterization": sorted(name.lower() for name in _classes(Parameterization)),
        "transform": [*transforms.PRESETS, *sorted(_classes(Transform))],
        "optimizer": sorted(n for n, rule in rules if "learning_rate" in _arguments(rule)),
    }


def _arguments(rule: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(rule).parameters)
