"""Caricatures: images with what a layer sees in them exaggerated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from featvis.errors import InputError
from featvis.evidence import metrics
from featvis.images import Images
from featvis.methods.inversion import ijcv2016
from featvis.methods.recipe import (
    Recipe,
    Setting,
    Stage,
    aim_of,
    chosen,
    class_kept,
    given_images,
    preset,
    run_recipe,
    setting_of,
    with_measures,
)
from featvis.models import Model
from featvis.parameterizations import Fourier
from featvis.results import Result
from featvis.transforms import Compose
from objectives import L2, Caricature, Change, NamedArray, Objective, Tone, TotalVariation


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
    """Caricature images: exaggerate what a layer sees in them.

    Mahendran & Vedaldi 2016, section 6, and Olah et al. 2018: from the original, the picture goes
    where its activations agree with the original's, and more so. The colours and the contrast stay.

    Args:
        model: a network, or the name of one.
        layer: a layer of it.
        images: as for `invert`.
        strength: how much to exaggerate, at least 0, which returns the original. It is what a gain
            in agreement may cost in change: the more, the higher the agreement, and the further
            from the original. For eight photographs at `block6` of EfficientNet-Lite0, 96 x 96,
            agreement 1.28, 1.34, 1.37 and 33, 29, 25 dB at 0.25, 1 and 4, each of the eight in this
            order (experiments/changed_photographs.py).
            With "ijcv2016" it is the paper's C, 1 in the authors' code, against a prior that is
            best at grey and not at the original: less is no nearer to it.
        preset: a recipe by name: `featvis.methods.presets("caricature")` has them.
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
    rule = chosen("caricature", "caricature", preset, options)
    model, images = given_images(model, images, size)
    aim = aim_of(model, layer, images)
    at = setting_of(model, layer, images.shape[1:3], options.pop("steps", None))
    recipe = rule(at)
    wanted = Caricature(layer, aim, recipe.power, recipe.positive)
    objective = strength * recipe.weight * wanted
    if recipe.held is not None:
        # Nothing is exaggerated at 0: what holds the picture is all there is.
        held = recipe.held(images)
        objective = objective - held if strength else -held
    options = {"init": images, **options}
    result = run_recipe(model, objective, recipe, layer, seed=seed, batch=len(images), **options)

    def measure() -> Mapping[str, Any]:
        found = model(result.images)
        cosine = metrics.cosine(found[layer], aim)
        projection = metrics.projection(found[layer], aim)
        return {
            "agreement": projection * cosine,
            "projection": projection,
            "cosine": cosine,
            "psnr": metrics.psnr(result.images, images),
            **class_kept(found, model(images)),
        }

    return with_measures(result, measure)


@preset("ijcv2016", "caricature")
def ijcv2016_caricature(at: Setting) -> Recipe:
    """Mahendran & Vedaldi, IJCV 2016, section 6: as their inversion, for the plain inner product.

    ⟨Φ, max(Φ₀, 0)⟩/‖max(Φ₀, 0)‖² with the weight C = 1, 300 steps with jitter from the original.
    """
    (steps,) = at.shares(300)
    recipe = ijcv2016(replace(at, steps=None))
    first = recipe.stages[0]
    moving = Stage(first.parameterization, steps, **first.options)
    return replace(recipe, stages=(moving,), weight=1.0, positive=True, power=0.0)


@preset("modern", "caricature")
def exaggeration(at: Setting) -> Recipe:
    """Agreement against change: Fourier coefficients of the original, and Adam.

    Ours: strength · agreement − ½ · mean (x−x₀)² − 50 · mean |∇(x−x₀)|² − 5000 · `Tone`. What is
    best of such a sum agrees more and has changed more, the greater the strength; the roughness of
    the change is what keeps it to shapes that can be seen, and the last term holds the colours and
    the contrast. Transforms make less of it: on EfficientNet-Lite0 an agreement of 1.03 to 1.13
    where there is 1.19 to 1.31 without, at the same distance.
    """
    (steps,) = at.shares(200)
    image = Fourier(at.size, at.channels, decay=1.1)
    rule = f"adam(cosine_decay_schedule(0.05, {steps}))"
    stage = Stage(image, steps, optimizer=rule, transform=Compose())
    return Recipe((stage,), held=_likeness)


def _likeness(images: np.ndarray) -> Objective:
    original = NamedArray(images, "original")
    change = 0.5 * Change(L2(0.0), original) + 50.0 * Change(TotalVariation(), original)
    return change + 5000.0 * Tone(images.mean(axis=(1, 2)), images.std(axis=(1, 2)))
