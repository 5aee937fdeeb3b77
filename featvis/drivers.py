"""Inversion, caricature, class models and accentuation: a few lines each over `synthesize`.

Each takes images or classes in one batch, follows a preset of `featvis.presets` stage by stage, and
returns a `Result` with what was measured on its pictures in `evidence`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from featvis import components, metrics, models
from featvis.errors import InputError, NonFiniteError
from featvis.gradients import check_gradient
from featvis.images import Images, of_files
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.presets import (
    CARICATURES,
    CLASS_MODELS,
    INVERSIONS,
    Recipe,
    Stage,
    accentuation,
    preset_of,
    scene,
)
from featvis.redirect import leaky, unrectified
from featvis.result import Result
from featvis.synthesis import as_objective, attempt, gradient_sizes, snapshot_steps
from featvis.targets import Target, target
from featvis.transforms import Transform
from objectives import (
    Activations,
    Caricature,
    FeatureMatch,
    Layer,
    Logit,
    LogProbability,
    NamedArray,
    Objective,
    Probability,
    check_number,
)


def invert(
    model: Model | str,
    layer: str,
    images: Images,
    *,
    preset: str = "modern",
    mask: ArrayLike | None = None,
    seed: int | Sequence[int] = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> Result:
    """Natural pre-images: what else a layer sees as it sees the images, one for each.

    Mahendran & Vedaldi, CVPR 2015 and IJCV 2016: maximises C times the likeness of the layer's
    activations less the preset's prior, from noise.

    Args:
        model: a network, or the name of one.
        layer: a layer of it.
        images: arrays (n, h, w, c) or (h, w, c) in [0, 1] or of uint8, at their own size; or
            picture files or Pillow pictures, scaled and cropped to `size`.
        preset: of `featvis.presets.INVERSIONS`: "modern", "ijcv2016", "cvpr2015", "plug_in",
            "metamer".
        mask: weights in [0, 1] over the layer's positions, (1, h, w) or (n, h, w): invert those
            alone, as the paper's figures of receptive fields do with the central 5 x 5.
        seed: as for `synthesize`.
        size: of files, (height, width); by default the model's own.
        **options: `steps`, in proportion by stage; `parameterization`, `optimizer`, `transform`,
            `draws`, in place of every stage's; `init`, `patience`, `snapshots`, `progress` as for
            `synthesize`.

    Returns:
        The pre-images. In `evidence`: `relative_error` √(‖y−y₀‖²/‖y₀‖²), `psnr` to the original in
        dB, `spearman` and `signal_to_noise` (dB) of the activations, `naturalness` of the gradient
        histogram, where the network has logits `same_class` (1 where the top class is still the
        same), and for different images `pairwise_error` (CVPR 2015). See `featvis.metrics`.

    Raises:
        InputError: no such preset, images that the network does not take, or what `synthesize`
            raises of its arguments.
        UnknownLayer: no such layer.
    """
    model, images = _given(model, images, size)
    aim = _aim(model, layer, images)
    at = scene(model, layer, images.shape[1:3], options.pop("steps", None))
    recipe = preset_of(preset, INVERSIONS)(at)
    if mask is not None and not (np.min(mask) >= 0 and np.max(mask) <= 1):
        raise InputError(f"mask is of weights in [0, 1]; got {np.min(mask)} to {np.max(mask)}")
    objective = recipe.weight * FeatureMatch(layer, aim, mask, recipe.metric)
    result = follow(model, objective, recipe, layer, seed=seed, batch=len(images), **options)
    return _measured(result, lambda: _inverted(result, model, layer, images, mask))


def caricature(
    model: Model | str,
    layer: str,
    images: Images,
    *,
    strength: float = 1.0,
    preset: str = "modern",
    seed: int | Sequence[int] = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> Result:
    """Caricatures: the images, with what a layer sees in them exaggerated.

    Mahendran & Vedaldi 2016, section 6, and Olah et al. 2018: from the original, the picture goes
    where its activations agree with the original's, and more so. The colours and the contrast stay.

    Args:
        model: a network, or the name of one.
        layer: a layer of it.
        images: as for `invert`.
        strength: how much is exaggerated, at least 0: what a gain in agreement may cost in change.
            0 returns the original; the more, the higher the agreement, and the further from the
            original. For eight photographs at `block6` of EfficientNet-Lite0, 96 x 96, agreement
            1.28, 1.34, 1.37 and 33, 29, 25 dB at 0.25, 1 and 4, each of the eight in this order
            (experiments/changed_photographs.py).
            With "ijcv2016" it is the paper's C, 1 in the authors' code, against a prior that is
            best at grey and not at the original: less is no nearer to it.
        preset: "modern" or "ijcv2016".
        seed: as for `synthesize`.
        size: of files, (height, width).
        **options: as for `invert`.

    Returns:
        The caricatures. In `evidence`: `agreement`, the projection on the original's activations,
        as many times theirs, times the true cosine; `projection` and `cosine` apart; `psnr`, and
        `same_class`.

    Raises:
        InputError: no such preset, or a strength that is not a number of at least 0.
        UnknownLayer: no such layer.
    """
    number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
    if not (number and 0 <= strength < math.inf):
        raise InputError(f"strength must be a number of at least 0; got {strength!r}")
    model, images = _given(model, images, size)
    aim = _aim(model, layer, images)
    at = scene(model, layer, images.shape[1:3], options.pop("steps", None))
    recipe = preset_of(preset, CARICATURES)(at)
    wanted = Caricature(layer, aim, recipe.power, recipe.positive)
    objective = strength * recipe.weight * wanted
    if recipe.held is not None:
        # Nothing is exaggerated at 0: what holds the picture is all there is.
        held = recipe.held(images)
        objective = objective - held if strength else -held
    options = {"init": images, **options}
    result = follow(model, objective, recipe, layer, seed=seed, batch=len(images), **options)

    def measure() -> Mapping[str, Any]:
        found = model(result.images)
        cosine = metrics.cosine(found[layer], aim)
        projection = metrics.projection(found[layer], aim)
        return {
            "agreement": projection * cosine,
            "projection": projection,
            "cosine": cosine,
            "psnr": metrics.psnr(result.images, images),
            **_same_class(found, model(images)),
        }

    return _measured(result, measure)


#: What a class model can maximise, by name.
CLASS_OBJECTIVES: Mapping[str, Callable[..., Objective]] = {
    "score": Logit,
    "probability": Probability,
    "log_probability": LogProbability,
}


def class_model(
    model: Model | str,
    classes: int | str | Sequence[int | str],
    *,
    of: str | None = None,
    preset: str = "modern",
    seed: int | Sequence[int] = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> Result:
    """Class models: what the network takes for the most of a class, one picture a class.

    Simonyan et al. 2013, section 2: maximises the class's score, not its posterior, less a prior.

    Args:
        model: a network with a layer `logits`, or the name of one.
        classes: numbers or names of classes (`Model.class_index`).
        of: "score", "probability" (Nguyen et al. 2015) or "log_probability"; by default what the
            preset's paper maximises.
        preset: "modern" (Fourier, the defaults of `synthesize`), "simonyan2013" (pixels from the
            zero image less λ‖I‖²) or "plug_in".
        seed: as for `synthesize`.
        size: of the pictures, (height, width); by default the model's own.
        **options: as for `invert`.

    Returns:
        The pictures. In `evidence`: `logit`, `probability`, and `rank` of the class on the clean
        picture, 1 where it is the top one.

    Raises:
        InputError: no such class, several of that name (it lists them), no such preset, or a model
            without class scores.
    """
    model = models.load(model) if isinstance(model, str) else model
    several = [classes] if isinstance(classes, (int, np.integer, str)) else classes
    wanted = np.array([model.class_index(one) for one in several])
    if not len(wanted):
        raise InputError("class_model takes at least one class; got none")
    model.check_scores()
    at = scene(model, "logits", size or model.input.size, options.pop("steps", None))
    recipe = preset_of(preset, CLASS_MODELS)(at)
    of = of or recipe.of
    if of not in CLASS_OBJECTIVES:
        raise InputError(f"of must be one of {', '.join(CLASS_OBJECTIVES)}; got {of!r}")
    objective = recipe.weight * CLASS_OBJECTIVES[of](wanted if len(wanted) > 1 else wanted[0])
    result = follow(model, objective, recipe, "logits", seed=seed, batch=len(wanted), **options)

    def measure() -> Mapping[str, Any]:
        logits = np.asarray(model(result.images)["logits"])
        scores = logits[np.arange(len(wanted)), wanted]
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return {
            "logit": scores,
            "probability": shifted[np.arange(len(wanted)), wanted] / shifted.sum(axis=1),
            "rank": 1 + np.sum(logits > scores[:, None], axis=1),
        }

    return _measured(result, measure)


def accentuate(
    model: Model | str,
    objective: Objective | str,
    images: Images,
    *,
    layer: str,
    weight: float = 1.0,
    seed: int | Sequence[int] = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> Result:
    """Feature accentuation: the images, changed towards what a unit looks for.

    Hamblin et al. 2024: from the image's own Fourier coefficients, maximises
    f − weight · balance · r, where r is the distance from the image at a layer, the mean over
    positions of the norm over channels, and the balance is Σ|∇f|/Σ|∇r|, measured once, before the
    first step. Picture and image go through the same crops. The norm's gradient does not fade near
    the image, where there is none: the balance is measured beside it, after noise of 0.02. In the
    authors' code it is that of rounding there, up to twice as much (0.77 against 0.36 and 0.57
    after noise of 0.002 and 0.02, for a photograph at `block8` of EfficientNet-Lite0).

    Args:
        model: a network, or the name of one.
        objective: what is accentuated, or its text (`"logits:285"`).
        images: as for `invert`.
        layer: where the picture is to stay like the image.
        weight: of staying against changing, at least 0. At 1, the authors', both pull alike at
            first; from some 1 to 3 on the image is the best, and a large weight returns it.
        seed: as for `synthesize`.
        size: of files, (height, width).
        **options: as for `invert`.

    Returns:
        The pictures; their scores are of the objective less the distance. In `evidence`: `score`,
        that of the objective alone, `original_score`, that of the images, `balance`, `distance`,
        the relative error at the layer, `psnr`, and `same_class`.

    Raises:
        InputError: images that the network does not take.
        ObjectiveError: a weight below 0, or an objective that does not fit the network.
        UnknownLayer: no such layer.
    """
    check_number("weight", weight, at_least=0)
    model, images = _given(model, images, size)
    wanted = as_objective(objective, model)
    aim = _aim(model, layer, images)
    at = scene(model, layer, images.shape[1:3], options.pop("steps", None))
    own = {name: options.pop(name, None) for name in _OF_STAGES}
    recipe = altered(accentuation(at, weight), model, **own)
    kept = FeatureMatch(layer, aim, metric="norm", images=NamedArray(images, "original"))
    ratio = _balance(model, wanted, kept, recipe, images, seed)
    # Without it, the original need not be seen at every step.
    whole = wanted + weight * ratio * kept if weight else wanted
    options = {"init": images, **options}
    result = follow(model, whole, recipe, layer, seed=seed, batch=len(images), **options)

    def measure() -> Mapping[str, Any]:
        before, after = model(images), model(result.images)
        return {
            "score": np.asarray(wanted(after, result.images)),
            "original_score": np.asarray(wanted(before, images)),
            "balance": ratio,
            "distance": metrics.relative_error(after[layer], aim),
            "psnr": metrics.psnr(result.images, images),
            **_same_class(after, before),
        }

    return _measured(result, measure)


#: Deviation of the noise that the images are moved by before the distance's gradient is measured.
_NUDGE = 0.02


def _balance(
    model: Model,
    wanted: Objective,
    kept: Objective,
    recipe: Recipe,
    images: np.ndarray,
    seed: int | Sequence[int],
) -> np.ndarray:
    """Σ|∇f| / Σ|∇r| of each image, (n,); 0 where either has no gradient, or none that is finite."""
    first = recipe.stages[0]
    pull, hold = (
        gradient_sizes(
            model, part, first.parameterization, images,
            transform=first.transform, draws=first.draws, seed=seed, noise=_NUDGE,
        )
        for part in (wanted, kept)
    )  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = pull / hold
    return np.where(np.isfinite(ratio), ratio, 0).astype(np.float32)


# ---- what they share -----------------------------------------------------------------------

#: Options that take the place of every stage's.
_OF_STAGES = ("parameterization", "optimizer", "transform", "draws")


def altered(
    recipe: Recipe,
    model: Model,
    *,
    parameterization: Parameterization | str | None = None,
    optimizer: str | optax.GradientTransformation | None = None,
    transform: Transform | str | None = None,
    draws: int | None = None,
) -> Recipe:
    """The recipe with what is given in place of all its stages'.

    Args:
        recipe: the stages.
        model: the network.
        parameterization: of the recipe's size, or its text.
        optimizer: any, or its text.
        transform: any, or its text.
        draws: of the transform at each step.

    Raises:
        InputError: a parameterization of another shape.
    """
    own = _written(recipe.stages[-1], model)
    if isinstance(parameterization, str):
        # At the recipe's size, which is not always the one that the network was trained at.
        parameterization = components.parameterization(
            parameterization, own.size, own.channels, fixed_size=True
        )
    elif isinstance(parameterization, Parameterization) and parameterization.shape != own.shape:
        raise InputError(f"the pictures are {own.shape}; {parameterization} is of another shape")
    instead: dict[str, Any] = {
        "parameterization": parameterization,
        "optimizer": optimizer,
        "transform": transform,
        "draws": draws,
    }
    instead = {name: value for name, value in instead.items() if value is not None}
    stages = tuple(dataclasses.replace(stage, **instead) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages)


def _written(stage: Stage, model: Model) -> Parameterization:
    """How a stage's images are written."""
    text: Any = stage.parameterization
    if isinstance(text, Parameterization):
        return text
    return components.parameterization(text, model.input.size, model.input.channels)


def follow(
    model: Model,
    objective: Objective,
    recipe: Recipe,
    layer: str,
    *,
    seed: int | Sequence[int],
    batch: int,
    init: Any = None,
    parameterization: Parameterization | str | None = None,
    optimizer: str | optax.GradientTransformation | None = None,
    transform: Transform | str | None = None,
    draws: int | None = None,
    patience: int | None = None,
    snapshots: int | Sequence[int] = 0,
    progress: bool = True,
) -> Result:
    """Synthesizes along a recipe, each stage going on from the one before.

    Args:
        model: the network.
        objective: what is wanted, without the recipe's prior.
        recipe: the stages, with what the rest of the arguments put in place of all of theirs.
        layer: the last one that the objective reads.
        seed: as for `synthesize`.
        batch: number of images.
        init: what the first stage starts from.
        parameterization: in place of every stage's.
        optimizer: in place of every stage's.
        transform: in place of every stage's.
        draws: in place of every stage's.
        patience: of each stage.
        snapshots: steps of all stages together after which to keep the images, or their number.
        progress: show a progress bar on a terminal.

    Returns:
        The result of the last stage, with the way there; after an interrupt, what there is. A NaN
        or an infinity is in its `failures`.

    Raises:
        InputError: what `synthesize` raises of its arguments.

    Warns:
        SilenceWarning: as `synthesize`, of all stages together.
    """
    first, last = (_written(recipe.stages[place], model) for place in (0, -1))
    if parameterization is None and np.shape(init)[-3:] == last.shape != first.shape:
        # A recipe that starts small starts from a small one of what is given.
        shape = (*np.shape(init)[:-3], *first.shape)
        init = np.clip(jax.image.resize(jnp.asarray(init), shape, "cubic"), 0, 1)
    own = {
        "parameterization": parameterization,
        "optimizer": optimizer,
        "transform": transform,
        "draws": draws,
    }
    stages = altered(recipe, model, **own).stages  # type: ignore[arg-type]
    if recipe.prior is not None:
        objective = objective - recipe.prior
    network = leaky(model, layer) if recipe.leaky else model
    network = unrectified(model, layer) if recipe.unrectified else network
    total = sum(stage.steps for stage in stages)
    marks, begun = snapshot_steps(snapshots, total), 0
    result = None
    for stage in stages:
        result = attempt(
            network,
            objective,
            stage.parameterization,
            seed=seed,
            batch=batch,
            steps=stage.steps,
            optimizer=stage.optimizer,
            transform=stage.transform,
            draws=stage.draws,
            init=init if result is None else result,
            patience=patience,
            snapshots=[m - begun for m in marks if begun < m <= begun + stage.steps],
            progress=progress,
        )
        begun += stage.steps
        # An image that failed keeps what it was before; the others go on.
        if "interrupt" in result.stopped or all(result.failures):
            break
    assert result is not None
    return result.or_warn()


def _given(
    model: Model | str, images: Images, size: tuple[int, int] | None
) -> tuple[Model, np.ndarray]:
    """The network, and the images (n, h, w, c) in [0, 1] that it is to see."""
    model = models.load(model) if isinstance(model, str) else model
    if size is not None and not of_files(images):
        raise InputError(f"size is of picture files; arrays have their own: got size={size}")
    return model, model.as_images(images, size)


def _aim(model: Model, layer: str, images: np.ndarray) -> Target:
    """What the layer gives for the images, once it is known that it has a gradient."""
    _ = Activations(model.layers(images.shape[1:3]))[layer]  # an unknown one says the nearest
    check_gradient(model.apply, model.params, Layer(layer), images.shape)
    return target(model, layer, images)


def _same_class(found: Activations, original: Activations) -> dict[str, np.ndarray]:
    """Whether the top class is still the original's, of networks that have classes."""
    if "logits" not in found or np.ndim(found["logits"]) != 2:
        return {}
    same = metrics.same_class(found["logits"], original["logits"])
    return {"same_class": same.astype(np.float32)}


def _measured(result: Result, measure: Callable[[], Mapping[str, Any]]) -> Result:
    """The result with what is measured on it; without after a Ctrl-C meanwhile.

    Raises:
        NonFiniteError: one image did not stay finite; the error holds the result.
    """
    try:
        result = result.with_evidence(**measure())
    except KeyboardInterrupt:
        result = dataclasses.replace(result, stopped=("interrupt",) * len(result))
    except (InputError, NonFiniteError):
        # Of a picture whose activations are not finite nothing is measured.
        result.or_raise()
        raise
    return result.or_raise()


def _inverted(
    result: Result, model: Model, layer: str, images: np.ndarray, mask: ArrayLike | None
) -> Mapping[str, Any]:
    """What an inversion's pictures are like, its activations where the mask has them."""
    found, original = model(result.images), model(images)
    y, y0 = np.asarray(found[layer]), np.asarray(original[layer])
    if mask is not None:
        y, y0 = (a * np.asarray(mask, np.float32)[..., None] for a in (y, y0))
    more = _same_class(found, original)
    # Of several pre-images of one image there is none.
    if np.any(y0 != y0[0]):
        more["pairwise_error"] = metrics.pairwise_error(y, y0)
    if images.shape[-1] in (1, 3):
        more["naturalness"] = metrics.naturalness(result.images, images)
    return {
        "relative_error": metrics.relative_error(y, y0),
        "psnr": metrics.psnr(result.images, images),
        "spearman": metrics.spearman(y, y0),
        "signal_to_noise": metrics.signal_to_noise(y, y0),
        **more,
    }
