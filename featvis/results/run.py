"""The record of a run: its options, each written once.

`synthesize` takes what `Run` takes; a stage of a recipe is a part of one; the manifest writes its
fields and replay reads them; the command line has its options from them. An option of the loop is
one field here, and what the loop does with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
import optax

from featvis import loading
from featvis import text as texts
from featvis.errors import InputError, printable
from featvis.models import Model
from featvis.parameterizations import Fourier, Parameterization
from featvis.parameterizations.component import check_static
from featvis.results.format import LARGEST, is_text, is_whole
from featvis.transforms import Transform
from objectives import Objective, parse
from objectives.functions import Function

#: Transform and optimizer of a unit that has positions: the picture's size is kept, without a
#: frame; on EfficientNet-Lite0 clean scores are above those of lucid's preset, with less haze. With
#: half of Adam's usual momentum a score takes two thirds of the steps
#: (`experiments/time_to_quality.py`); at a higher rate fewer still, but the colours saturate.
OF_MAPS = ("affine", "nadam(0.05, b1=0.5)")
#: Of one that has none, as class scores: other networks recognise what it shows, the more so at a
#: smaller rate and with less momentum, and the contrast is nearer to photographs'.
OF_VECTORS = ("views", "nadam(0.02, b1=0.5)")

P = ParamSpec("P")
R = TypeVar("R")
Kept = tuple[str, Callable[[Any], bool]]
"""What the manifest holds of an option, in words, and whether a value is that."""


def _option(default: Any, help: str, kept: Kept | None = None, typed: type | None = None) -> Any:
    """An option of a run.

    Args:
        default: its value where none is given.
        help: what the command line says of it.
        kept: what the manifest holds of it; None where it has no part in the picture.
        typed: what it is on every command line; None where it is on none, or on some.
    """
    metadata = {"help": help, "kept": kept, "typed": typed}
    return dataclasses.field(default=default, metadata=metadata)


def _whole(name: str, low: int = 1) -> Kept:
    high = LARGEST[name]
    return f"a whole number from {low} to {high}", lambda value: is_whole(value, low, high)


def _or_none(kept: Kept) -> Kept:
    return kept[0], lambda value: value is None or kept[1](value)


def _are_seeds(value: Any) -> bool:
    seeds = value if isinstance(value, list) else [value]
    return 1 <= len(seeds) <= LARGEST["batch"] and all(
        is_whole(seed, 0, LARGEST["seed"]) for seed in seeds
    )


def _are_steps(value: Any) -> bool:
    return isinstance(value, list) and all(is_whole(s, 1, LARGEST["steps"]) for s in value)


class Parts(NamedTuple):
    """What a run is about, as objects."""

    model: Model
    objective: Objective
    parameterization: Parameterization
    transform: Transform


@dataclass(frozen=True, eq=False)
class Run:
    """All that a run is made of.

    Args:
        model: a model, or the name of one (`featvis.loading.available()`).
        objective: what to maximise, an objective, its text (`"block8:3"`), or a function of
            (activations, images) that gives one score an image.
        parameterization: how images are written, or its text (`"pixels"`, at the model's own
            size); by default `Fourier` at the model's own size.
        seed: an integer from 0 to 2^32 - 1; or one an image, and then image i is the first image
            of a run with seed i's number alone.
        batch: number of images; by default what the objective or the seeds ask for, or 1.
        steps: optimisation steps, at least 1.
        optimizer: any optax transformation, or its text (`"chain(clip(1.0), adam(0.05))"`), which
            the manifest can keep. Each image has its own state, so that nothing in it mixes images
            (but `normalize_over_batch`, and what else asks for the axis `optimizers.IMAGES`).
            Its update gets the score as `value`, the gradient as `grad`, and as `key` a key of
            this image and step, for what it draws; optax's own noise is that of its own seed. None:
            "nadam(0.05, b1=0.5)", and where the objective reads vectors alone
            "nadam(0.02, b1=0.5)".
        transform: what an image goes through before the model at each step, drawn anew for each
            image and step; a name of `featvis.transforms.PRESETS`, or a transform. Schedules in
            it run over the steps of this run, unless they have their own. None: "affine" where
            the objective reads a layer that has positions, and "views" where it reads vectors
            alone, as class scores (`OF_MAPS`, `OF_VECTORS`).
        draws: of the transform at each step, over which an image's score is averaged.
        init: what to start from: one image (h, w, c) in [0, 1] for all or (n, h, w, c); the
            parameters of an earlier result (`result.params`); uint8 and picture files mean the
            same, as everywhere; or an earlier result, to go on
            from, of any size or parameterization: its scores, steps, snapshots and seconds then
            come first, and the manifest makes both. None: drawn from the seed.
        patience: an image stops when for this many steps it has not raised the moving average
            (0.9) of its score (Cadena et al. 2018). None: never.
        snapshots: steps after which to keep the images, or a number of them, evenly spread.
        progress: show a progress bar, on a terminal or in a notebook; or a function that is called
            with each `Progress` (step, steps, scores, images) in place of one.

    Raises:
        InputError: an argument out of range or of the wrong kind.
        UnknownModel: no model of that name.
        ParseError: a text that describes no objective.
    """

    model: Model | str
    objective: Objective | str | Callable[[Any, Any], Any]
    parameterization: Parameterization | str | None = None
    _: KW_ONLY
    seed: int | Sequence[int] = _option(
        0,
        "The number that drives everything random.",
        (f"whole numbers from 0 to {LARGEST['seed']}", _are_seeds),
        int,
    )
    batch: int | None = _option(None, "Images an objective, as diversity needs.", _whole("batch"))
    steps: int = _option(256, "Optimisation steps in all.", _whole("steps", 0), int)
    optimizer: str | optax.GradientTransformation | None = _option(
        None,
        "The update rule, an optax transformation, as 'adam(0.05)'; by default "
        "'nadam(0.05, b1=0.5)', and 'nadam(0.02, b1=0.5)' for class scores.",
        _or_none(("a text", is_text)),
        str,
    )
    transform: Transform | str | None = _option(
        None,
        "What the image goes through at each step: a preset or a call, as 'Jitter(8)'; by default "
        "'affine', and 'views' for class scores.",
        ("a text", is_text),
        str,
    )
    draws: int = _option(
        1,
        "Draws of the transform a step, over which scores are averaged.",
        _whole("draws"),
        int,
    )
    init: Any = _option(None, "What to start from.")
    patience: int | None = _option(
        None,
        "Stop an image after so many steps without a gain.",
        _or_none(_whole("patience")),
        int,
    )
    snapshots: int | Sequence[int] = _option(
        (), "Images kept on the way.", ("a list of steps", _are_steps)
    )
    progress: bool | Callable[[Any], object] = _option(True, "Show a progress bar.")

    def __post_init__(self) -> None:
        """Check the options, and put objects in the place of their names and texts."""
        model = loading.load(self.model) if isinstance(self.model, str) else self.model
        objective = as_objective(self.objective, model)
        seen = model.input
        parameterization = as_parameterization(self.parameterization, seen.size, seen.channels)
        given, rule = self.transform, self.optimizer
        if given is None or rule is None:
            usual = defaults(model, objective, parameterization.size)
            given, rule = (
                own if one is None else one for one, own in zip((given, rule), usual, strict=True)
            )
        transform = texts.transform(given, parameterization.size)
        object.__setattr__(self, "optimizer", rule)
        for name in ("steps", "draws"):
            check_positive(name, getattr(self, name))
        for name in ("batch", "patience"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        made = Parts(model, objective, parameterization, transform.over(int(self.steps)))
        for name, value in made._asdict().items():
            object.__setattr__(self, name, value)

    @property
    def parts(self) -> Parts:
        """The network, the objective, the parameterization and the transform."""
        return Parts(*(cast(Any, getattr(self, name)) for name in Parts._fields))


def options_of_runs() -> dict[str, dataclasses.Field[Any]]:
    """The options of a run by name: all fields but the network, what it makes, and how."""
    return {field.name: field for field in dataclasses.fields(Run) if field.kw_only}


def recorded(run: Run) -> dict[str, Any]:
    """The options that the manifest keeps, as plain data.

    What has no text form (an optax transformation that was not given as text) is None, and
    `replay` asks for it.
    """
    return {
        name: _plain(getattr(run, name))
        for name, field in options_of_runs().items()
        if field.metadata["kept"] is not None
    }


def _plain(value: Any) -> Any:
    if isinstance(value, optax.GradientTransformation):
        return None
    if isinstance(value, Transform):
        return repr(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return [_plain(one) for one in value]
    return value


def check_options(caller: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuses an option that there is not.

    Args:
        caller: the function that it was given to.
        given: names of options.
        known: those that there are.

    Raises:
        InputError: an unknown one; says the nearest, and all there are.
    """
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"nearest: {near[0]}; " if near else ""
            raise InputError(
                f"{caller} has no option {name!r}; {hint}it has: {', '.join(known) or 'none'}"
            )


_ARGUMENTS = "Args: those of `Run`."


def takes(make: Callable[P, Run]) -> Callable[[Callable[[Run], R]], Callable[P, R]]:
    """Gives a function of a run the arguments that make one.

    In its docstring "Args: those of `Run`." becomes them.
    """
    signature = inspect.signature(make)

    def decorate(function: Callable[[Run], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> R:
            check_options(function.__name__, options, signature.parameters)
            try:
                signature.bind(*args, **options)
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            return function(make(*args, **options))

        result = inspect.signature(function, eval_str=False).return_annotation
        call.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]
        arguments = re.search(r"Args:\n.*?\n(?=\n)", inspect.getdoc(Run) or "", re.DOTALL)
        assert arguments is not None
        text = inspect.getdoc(function) or ""
        call.__doc__ = text.replace(f"{_ARGUMENTS}\n", arguments[0])
        return call

    return decorate


def defaults(model: Model, objective: Objective, size: tuple[int, int]) -> tuple[str, str]:
    """The transform and the optimizer that a run has where none are given, as texts.

    What shows a class is chosen by whether other networks recognise it, and what shows a channel or
    a neuron by its clean score, as its texture must not be spread over several scales: in parts of
    up to twice the size channels of EfficientNet-Lite0 lose 14 to 21 % of it, and gain nothing that
    was measured.

    Args:
        model: whose layers the objective reads.
        objective: what is maximised.
        size: (height, width) of the images.
    """
    read = {layer for node in objective.walk() if (layer := getattr(node, "layer", None))}
    try:
        shapes = model.layers(size)
    except (InputError, TypeError, ValueError):
        return OF_MAPS  # whoever checks the size says so
    found = [shapes[layer] for layer in read if layer in shapes]
    return OF_VECTORS if found and all(len(one) == 1 for one in found) else OF_MAPS


# ---- arguments in one form -----------------------------------------------------------------


def as_objective(objective: Any, model: Model | None = None) -> Objective:
    """An objective from itself, its text, which may be about a model (`"block8:*"`), or a function.

    Raises:
        InputError: neither.
        ParseError: a text that describes none.
    """
    if isinstance(objective, str):
        return (
            parse(objective) if model is None else parse(objective, model.layers, model.class_index)
        )
    if isinstance(objective, Objective):
        return objective
    if not callable(objective) or isinstance(objective, type):
        whole = isinstance(objective, (int, np.integer)) and not isinstance(objective, bool)
        hint = f": the class of this number is 'logits:{objective}'" if whole else ""
        raise InputError(
            "objective must be an Objective, its text or a function; got "
            f"{printable(repr(objective), 200)}{hint}"
        )
    return Function(objective)


def as_parameterization(
    value: Any, size: tuple[int, int], channels: int, *, exact: bool = False
) -> Parameterization:
    """A parameterization from itself, its text, or None: the default.

    Args:
        value: one of these.
        size: (height, width) of the default, and of a text that names none.
        channels: likewise.
        exact: whether pictures are of this size and no other.

    Raises:
        InputError: what is none, or of another size where it is exact.
    """
    if value is None:
        return Fourier(size=size, channels=channels)
    if isinstance(value, str):
        return texts.parameterization(value, size, channels, fixed_size=exact)
    if not isinstance(value, Parameterization):
        shown = printable(repr(value), 80)
        raise InputError(f"parameterization must be one, or its text, as 'fourier'; got {shown}")
    check_static(value)
    if exact and value.shape != (*size, channels):
        raise InputError(
            f"the pictures are {(*size, channels)}; {type(value).__name__} makes {value.shape}"
        )
    return value


def check_positive(name: str, value: Any) -> None:
    """Checks an integer of at least 1, and at most what a manifest may hold."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1; got {value!r}")
    if value > LARGEST.get(name, 2**31 - 1):
        raise InputError(f"{name} must be at most {LARGEST.get(name, 2**31 - 1)}; got {value}")
