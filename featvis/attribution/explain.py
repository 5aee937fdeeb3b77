"""`explain`: a map of an image by any method, of any unit or objective of any network.

A method (`featvis.attribution.method`) is one function and its formula. Here is what all have in
common: the network is loaded, what was asked for is checked before anything is compiled, images go
through in batches that fit the caches or the memory, a program is compiled once for a method and a
network, and what gave no map is said.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis import checks, kernels, limits, loading
from featvis.attribution.explanation import Explanation
from featvis.attribution.method import Explained, Method, Probed, find_method, methods
from featvis.attribution.options import split_data
from featvis.dry_runs import shapes_of
from featvis.errors import InputError, NonFiniteError
from featvis.gradients.differentiability import check_gradient
from featvis.gradients.silence import SilenceWarning, asked, reasons, warn_of_silence
from featvis.images import Images, as_images, of_files
from featvis.jaxprs.liveness import pruned
from featvis.models import Model
from featvis.models.faults import said_of
from featvis.results.format import LARGEST, is_whole
from featvis.results.run import as_objective, check_options
from featvis.synthesis.batching import images_at_a_time, probes_at_a_time
from objectives import Activations, Objective, alone, separable, slice_images, units_of

#: Images that a function of one's own is asked about at once.
_PROBES = 32


def explain(
    model: Model | str | Callable[[np.ndarray], Any],
    unit: Objective | str | int | None,
    images: Images,
    method: str = "integrated_gradients",
    *,
    seed: int = 0,
    faithfulness: bool = False,
    **options: Any,
) -> Explanation:
    """Map which parts of each image made a unit's score what it is.

    Args:
        model: a network, or the name of one; or for a method that needs scores alone any function
            of images (m, h, w, c) in [0, 1] to scores (m,), or (m, k).
        unit: what is explained: an objective or its text (`"logits:285"`, `"block8:3"`), one for
            all images or one index an image (`Logit([285, 504])`). Of a function: None, or the
            number of one of its k scores.
        images: (n, h, w, c) or one (h, w, c), in [0, 1] or of uint8; or picture files, which are
            scaled and cropped to the network's own size.
        method: the name of a method: `featvis.attribution.methods()` has all of them, with their
            options and where they are from.
        seed: of all that the method draws, from 0 to 2^32 - 1. A map depends on it, on its image
            and on the image's place alone.
        faithfulness: measure deletion and insertion too, beside those of two controls: `measured`
            says how.
        **options: of the method, its keyword-only arguments.

    Returns:
        The maps (n, h, w), what the method measured, and how they were made.

    Raises:
        InputError: an unknown method or option (says the nearest), images or options of another
            shape, range or kind, a method that needs more of a network than a function gives, or
            a function that raises, or gives no score an image.
        GradientError: a score without a gradient, for a method that needs one.
        NonFiniteError: a NaN or an infinity in a map; names the image.
        UnknownModel: no model of that name.
        ObjectiveError: an objective that does not fit the model or the number of images.

    Warns:
        SilenceWarning: the unit gives an image no gradient, and why; its map is the priors' alone.
            Or a map is 0 everywhere for another reason.
    """
    chosen = find_method(method)
    seed = int(seed) if isinstance(seed, np.integer) else seed
    if not is_whole(seed, 0, LARGEST["seed"]):
        raise InputError(f"seed is an integer from 0 to {LARGEST['seed']}, not {seed!r}")
    faithfulness = checks.switch("explain", "faithfulness", faithfulness)
    check_options(f"the method {method}", options, chosen.options)
    key = jax.random.key(np.uint32(seed))
    network = loading.as_model(model) if isinstance(model, (str, nnx.Module)) else model
    score: Objective | int | None
    if isinstance(network, Model):
        batch = network.as_images(images)
        score = as_objective(unit, network)
        _check_fit(network, score, batch)
    elif callable(network):
        score, batch = _number_of_score(unit, chosen), _images_for(images)
    else:
        raise InputError(f"model is a Model, its name or a function; got {network!r}")
    values = {
        name: option.check(method, options.get(name, option.default), batch)
        for name, option in chosen.options.items()
    }
    started = time.perf_counter()
    counts = ", ".join(f"{n}={v}" for n, v in values.items() if type(v) is int)
    what = f"{method}({counts}) of {len(batch)} images {batch.shape[1]}x{batch.shape[2]}"
    with limits.explained(what):
        if not chosen.black_box:
            assert isinstance(network, Model)
            maps, metrics, silent = _by_program(chosen, network, score, batch, key, values)
        else:
            maps, metrics = _by_probing(chosen, network, score, batch, key, values)
            silent = (None,) * len(batch)
    _check_finite(method, maps)
    found = Explanation(
        maps=maps,
        metrics=metrics,
        images=batch,
        model=network,
        objective=score,
        method=method,
        options=values,
        seed=seed,
        silent=silent,
        seconds=time.perf_counter() - started,
    )
    warn_of_silence(silent, str(score))
    _warn_of_zeros(found)
    if faithfulness:
        # It explains again what it measures.
        from featvis.attribution.measuring import measured

        return measured(found)
    return found


def scores_of(
    model: Model | Callable[[np.ndarray], Any],
    objective: Objective | int | None,
    images: np.ndarray,
) -> np.ndarray:
    """The scores (n,) of images (n, h, w, c), each with its own objective.

    Args:
        model: a network or a function of images.
        objective: of a network; of a function None or the number of a score.
        images: (n, h, w, c) in [0, 1].
    """
    if not isinstance(model, Model):
        return _scores_of_function(model, objective, images)
    assert isinstance(objective, Objective)
    parts = _parts(model, objective, images)
    return np.concatenate(
        [np.asarray(_scores(model.apply, model.params, own, part)) for own, part, _ in parts]
    )


# ---- methods in a program ------------------------------------------------------------------


def _by_program(
    method: Method, model: Model, objective: Any, images: np.ndarray, key: jax.Array, options: Any
) -> tuple[np.ndarray, dict[str, np.ndarray], tuple[str | None, ...]]:
    """Maps, metrics, and why an image has no gradient, of a method that needs a network."""
    prune = check_gradient(model.apply, model.params, objective, images.shape)
    fixed, data = split_data(options)
    each = {name for name, value in options.items() if _is_each(method, name, value)}
    found = []
    for own, part, start in _parts(model, objective, images):
        chosen = slice(start, start + len(part))
        values = {name: v[chosen] if name in each else v for name, v in data.items()}
        made = _explained(
            method.function, fixed, model.apply, prune, model.params, own, part, key, start, values
        )
        found.append(jax.device_get(made))
    maps = np.concatenate([maps for maps, _ in found])
    metrics = {
        name: np.concatenate([measured[name] for _, measured in found]) for name in found[0][1]
    }
    return maps, metrics, _silence(model, objective, images, maps, prune)


@functools.partial(kernels.compiled, static=("function", "fixed", "apply", "prune"))
def _explained(
    function: Callable[..., Any],
    fixed: tuple[tuple[str, Any], ...],
    apply: Any,
    prune: bool,
    params: Any,
    objective: Objective,
    images: jax.Array,
    key: jax.Array,
    start: jax.Array,
    data: dict[str, Any],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The maps (n, h, w) of a part of the images, and what the method measured, each (n,)."""
    places = start + jnp.arange(len(images))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    given = Explained(images, keys, apply, params, objective, prune)
    return _with_metrics(function(given, **dict(fixed), **data))


def _with_metrics(made: Any) -> Any:
    return made if isinstance(made, tuple) else (made, {})


def _silence(
    model: Model, objective: Objective, images: np.ndarray, maps: np.ndarray, prune: bool
) -> tuple[str | None, ...]:
    """Why the unit gives each image no gradient; None where it does.

    Looked for where a map shows nothing, or could be that of priors alone.
    """
    suspect = ~maps.any(axis=(1, 2)) | (units_of(objective) != objective)
    suspect &= asked(objective, len(images))
    if not suspect.any():
        return (None,) * len(images)
    living = np.concatenate(
        [
            np.asarray(_living(model.apply, prune, model.params, own, part))
            for own, part, _ in _parts(model, objective, images)
        ]
    )
    return reasons(model.apply, model.params, objective, images, suspect & ~living)


@functools.partial(kernels.compiled, static=("apply", "prune"))
def _living(
    apply: Any, prune: bool, params: Any, objective: Objective, images: jax.Array
) -> jax.Array:
    """Whether the network, and not only a prior, gives each image a gradient, (n,)."""

    def total(seen: jax.Array) -> jax.Array:
        return jnp.sum(objective(Activations(apply(params, seen)), images))

    gradient = jax.grad(pruned(total) if prune else total)(images)
    return jnp.any(gradient != 0, axis=(1, 2, 3))


# ---- methods that ask for scores -----------------------------------------------------------


def _by_probing(
    method: Method, model: Any, objective: Any, images: np.ndarray, key: jax.Array, options: Any
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Maps and metrics of a method that needs scores alone, one image after the other."""
    maps, measured = [], []
    for place, image in enumerate(images):
        score, batch = prober(model, objective, images, place)
        own = {
            name: value[place] if _is_each(method, name, value) else value
            for name, value in options.items()
        }
        given = Probed(image, score, batch, jax.random.fold_in(key, place))
        one, metrics = _with_metrics(method.function(given, **own))
        maps.append(np.asarray(one, np.float32))
        measured.append(metrics)
    names = measured[0]
    return np.stack(maps), {n: np.array([one[n] for one in measured], np.float32) for n in names}


def prober(
    model: Any, objective: Any, images: np.ndarray, place: int
) -> tuple[Callable[[Any], np.ndarray], int]:
    """What scores any number of images as the one at a place, and how many go together best."""
    if not isinstance(model, Model):

        def ask(some: Any) -> np.ndarray:
            parts = [
                _scores_of_function(model, objective, np.asarray(some[i : i + _PROBES], np.float32))
                for i in range(0, len(some), _PROBES)
            ]
            return np.concatenate(parts)

        return ask, _PROBES
    own = alone(objective, place)
    batch = probes_at_a_time(model, own, images.shape[1:])

    def score(some: Any) -> np.ndarray:
        found = []
        for start in range(0, len(some), batch):
            part = some[start : start + batch]
            left = batch - len(part)
            if left:
                # Always as many, so that one program does.
                part = jnp.concatenate([part, jnp.zeros((left, *part.shape[1:]), part.dtype)])
            scores = _scores(model.apply, model.params, own, jnp.asarray(part, jnp.float32))
            found.append(np.asarray(scores)[: batch - left])
        return np.concatenate(found)

    return score, batch


@functools.partial(kernels.compiled, static=("apply",))
def _scores(apply: Any, params: Any, objective: Objective, images: jax.Array) -> jax.Array:
    """The scores (n,) of images."""
    return objective(Activations(apply(params, images)), images)


def _scores_of_function(function: Any, number: Any, images: np.ndarray) -> np.ndarray:
    try:
        # Its own copy: it may write into it.
        made = function(np.array(images))
    except Exception as error:
        raise InputError(
            f"the function cannot be called on images {images.shape}, float32 in [0, 1]: "
            f"{said_of(error)}"
        ) from error
    given = checks.real_array("what the function gives", made)
    if number is not None:
        if given.ndim != 2 or not 0 <= number < given.shape[1]:
            raise InputError(
                f"the function gives scores {given.shape} of {len(images)} images: there is no "
                f"score {number} among (m, k)"
            )
        given = given[:, number]
    if given.shape != (len(images),):
        raise InputError(
            f"the function must give a score an image, ({len(images)},); it gives {given.shape}"
            + ("; which of them is explained is said by the unit" if given.ndim == 2 else "")
        )
    if not np.isfinite(given).all():
        raise NonFiniteError(f"the function gives a NaN or an infinity of {len(images)} images")
    return given


# ---- what was asked for --------------------------------------------------------------------


def _images_for(images: Images) -> np.ndarray:
    """Images for a function of which nothing is known; pictures are of three channels."""
    shape: tuple[int, ...] = () if of_files(images) else np.shape(images)  # type: ignore[arg-type]
    return as_images(images, shape[-1] if len(shape) in (3, 4) else 3)


def _number_of_score(unit: Any, method: Method) -> int | None:
    """The number of a function's score.

    Raises:
        InputError: no such number, or a method that needs a network.
    """
    if not method.black_box:
        able = ", ".join(name for name, one in methods().items() if one.black_box)
        raise InputError(
            f"{method.name} needs a network, and got a function of images; methods that need its "
            f"scores alone: {able or 'none'}"
        )
    if unit is None or (isinstance(unit, (int, np.integer)) and not isinstance(unit, bool)):
        return None if unit is None else int(unit)
    raise InputError(f"the unit of a function is None or the number of a score; got {unit!r}")


def _check_fit(model: Model, objective: Objective, images: np.ndarray) -> None:
    shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
    objective.check(shapes_of(model.apply, model.params, shape), images.shape)


def _warn_of_zeros(found: Explanation) -> None:
    """Warns of maps that show nothing, where it was not said yet."""
    zero = [
        not one.any() and why is None for one, why in zip(found.maps, found.silent, strict=True)
    ]
    if any(zero):
        of = f" of image {zero.index(True)}" if len(zero) > 1 else ""
        more = f", and {sum(zero) - 1} more" if sum(zero) > 1 else ""
        warnings.warn(
            f"the map{of} by {found.method} is 0 everywhere{more}: it finds nothing for "
            f"{found.objective if found.objective is not None else 'the score'}",
            SilenceWarning,
            stacklevel=3,
        )


def _check_finite(method: str, maps: np.ndarray) -> None:
    finite = np.isfinite(maps).all(axis=(1, 2))
    if not finite.all():
        raise NonFiniteError(f"NaN or infinity in the map of {method} of image {finite.argmin()}")


def _parts(
    model: Model, objective: Objective, images: np.ndarray
) -> Iterator[tuple[Objective, np.ndarray, int]]:
    """The images in parts that go together, all of one size: objective, images, first place."""
    shape = images.shape
    count = images_at_a_time(model, objective, shape, shape, once=True) or len(images)
    if count == len(images):
        yield objective, images, 0
        return
    assert separable(objective)
    for start in range(0, len(images), count):
        yield slice_images(objective, start, count), images[start : start + count], start


def _is_each(method: Method, name: str, value: Any) -> bool:
    """Whether an option's value has a part for each image, which goes with it."""
    return method.options[name].kind == "images" and isinstance(value, np.ndarray)
