"""Class models, and the recipes of single units."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featvis import loading
from featvis.errors import InputError
from featvis.evidence.recognition import standing
from featvis.methods.inversion import ijcv2016
from featvis.methods.recipe import (
    Recipe,
    Setting,
    Stage,
    chosen,
    preset,
    run_recipe,
    setting_of,
    with_measures,
)
from featvis.models import Model
from featvis.models.classes import several_classes
from featvis.natural import Index, as_index
from featvis.parameterizations import BoundedPixels, Fourier, MaCo, Parameterization, Upsampled
from featvis.results import Result
from featvis.results.run import OF_VECTORS
from featvis.transforms import Compose, LinearSchedule, Noise, NormalCrop
from featvis.transforms.presets import small_views
from objectives import L2, Channel, Logit, LogProbability, Objective, Probability

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
    """Make class models: what a network takes for the most of a class, a picture a class.

    Simonyan et al. 2013, section 2: maximises the class's score, not its posterior, less a prior.

    Args:
        model: a network with a layer `logits`, or the name of one.
        classes: numbers or names of classes (`Model.class_index`).
        of: what to maximise, "score", "probability" (Nguyen et al. 2015) or "log_probability"; by
            default what the preset's paper maximises.
        preset: a recipe by name: `featvis.methods.presets("class model")` has them.
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
    rule = chosen("class_model", "class model", preset, options)
    model = loading.as_model(model)
    wanted = np.array([model.class_index(one) for one in several_classes(classes)])
    if not len(wanted):
        raise InputError("class_model takes at least one class; got none")
    model.check_scores()
    at = setting_of(model, "logits", size or model.input.size, options.pop("steps", None))
    recipe = rule(dataclasses.replace(at, units=tuple(wanted.tolist())))
    of = of or recipe.of
    if of not in CLASS_OBJECTIVES:
        raise InputError(f"of must be one of {', '.join(CLASS_OBJECTIVES)}; got {of!r}")
    objective = recipe.weight * CLASS_OBJECTIVES[of](wanted if len(wanted) > 1 else wanted[0])
    result = run_recipe(model, objective, recipe, "logits", seed=seed, batch=len(wanted), **options)

    def measure() -> Mapping[str, Any]:
        return standing(np.asarray(model(result.images)["logits"]), wanted)._asdict()

    return with_measures(result, measure)


@preset("modern", "class model", "visualization")
def visualization(at: Setting) -> Recipe:
    """The defaults of `synthesize`: Fourier coefficients, NAdam, views of the picture.

    Of units that have positions, scale, rotation and shifts in place of views.
    """
    (steps,) = at.shares(256)
    return Recipe((Stage(Fourier(at.size, at.channels), steps),))


@preset("recognisable", "class model", "visualization")
def recognisable(at: Setting) -> Recipe:
    """Class pictures that other networks recognise: four small views a step, at twice the time.

    As `modern`, and the score is averaged over four parts of the picture a step, down to a quarter
    of its sides, each seen in two thirds of its sides in pixels; where the network does not take
    that, over two in its own. Of 64 classes of EfficientNet-Lite0 (192 x 192, 256 steps) Tiny
    Darknet puts 0.78 ± 0.05 first and 0.91 ± 0.04 among its five first, where `modern` has
    0.66 ± 0.06 and 0.88 ± 0.04; MobileNetV2 0.86 ± 0.04 and 0.94 ± 0.03, where it has 0.88 ± 0.04
    and 0.97 ± 0.02 (`experiments/recognition.py`).
    """
    (steps,) = at.shares(256)
    height, width = (-(-2 * side // 3) for side in at.size)
    size = (height, width) if at.at_size((height, width)) else None
    stage = Stage(
        Fourier(at.size, at.channels),
        steps,
        optimizer=OF_VECTORS[1],
        transform=small_views(at.size, size),
        draws=4 if size else 2,
    )
    return Recipe((stage,))


@preset("maco", "class model", "visualization")
def maco(at: Setting) -> Recipe:
    """Fel et al. 2023, MaCo: phases under the magnitudes of natural images, seen in crops.

    256 steps of NAdam from the rate 1, crops of 50 % to 5 % of the sides and noise as in the
    authors' code (xplique), which has 512 x 512 pixels and 32 crops a step; here 8. It differs in
    three ways, so that the whole picture shows the unit. The rate falls as (1 − t)⁸, where theirs
    falls as the phases grow, which it divides by their deviation, to a tenth. The centres spread by
    0.3 of the sides, not 0.15, which leaves clouds all around. And crops have half of the picture's
    sides in pixels, where the network takes that, so that the first are seen as they are. Channels
    3 and 20 of block8 of EfficientNet-Lite0 reach 70 and 63 % of what Fourier coefficients reach
    (160 x 160); with the spread of 0.15 it is 50 and 47 %, with the authors' rate 25 and 16 %. The
    same phases under the transform `affine` reach 95 and 90 %.
    """
    (steps,) = at.shares(256)
    height, width = (-(-side // 2) for side in at.size)
    size = (height, width) if at.at_size((height, width)) else None
    crop = NormalCrop(LinearSchedule(0.5, 0.05), centre_sd=0.3, size=size)
    stage = Stage(
        MaCo(at.size, at.channels),
        steps,
        optimizer=f"nadam(polynomial_schedule(1.0, 0.0, 8, {steps}))",
        transform=Compose((crop, Noise(0.04))),
        draws=8,
    )
    return Recipe((stage,))


@preset("octaves", "class model")
def octaves(at: Setting, *, number: int = 4, scale: float = 1.4) -> Recipe:
    """From coarse to fine: a small picture first, each larger one from it, as in DeepDream.

    Mordvintsev et al. 2015: sides in octaves of `scale`, `number` of them, the last of the whole
    size; Fourier coefficients and 512 steps in all, shared evenly. A network of any size sees the
    small picture, and one of a fixed size sees it magnified.

    Args:
        at: the setting.
        number: of sizes, at least 1.
        scale: from one size to the next, above 1.

    Raises:
        InputError: a number out of its range.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"number of octaves is a whole number of at least 1; got {number!r}")
    if not (isinstance(scale, (int, float)) and 1 < scale < math.inf):
        raise InputError(f"scale of octaves is a number above 1; got {scale!r}")
    stages = []
    for octave, steps in enumerate(at.shares(*[512 // number] * number)):
        by = scale ** (number - 1 - octave)
        height, width = (max(1, round(side / by)) for side in at.size)
        image: Parameterization = Fourier((height, width), at.channels)
        if image.size != at.size and not at.at_size(image.size):
            image = Upsampled(at.size, at.channels, of=image)
        stages.append(Stage(image, steps))
    return Recipe(tuple(stages))


@preset("simonyan2013", "class model")
def simonyan2013(at: Setting) -> Recipe:
    """Simonyan et al. 2013: pixels from the zero image (mid-grey), less λ‖I‖², no transform.

    The paper states neither λ nor the rate nor the steps: here λ‖I‖² is 1000 times the mean
    square, and 300 steps of momentum.
    """
    (steps,) = at.shares(300)
    rate = f"cosine_decay_schedule({1.3e-6 * at.numbers:.4g}, {steps})"
    stage = Stage(
        BoundedPixels(at.size, at.channels, sd=0.0),
        steps,
        optimizer=f"sgd({rate}, momentum=0.9)",
        transform=Compose(),
    )
    return Recipe((stage,), prior=1000.0 * L2())


@preset("exp_maximization", "class model", "visualization")
def exp_maximization(at: Setting, *, natural: Index | str | Path | None = None) -> Recipe:
    """Mahendran & Vedaldi, IJCV 2016, section 6: how much is wanted is told by natural images.

    The energy and AdaGrad of `ijcv2016`, 300 steps with its jitter, from its noise, with rectifiers
    that leak. The score has the weight 10⁴/rf² over the largest activation that a natural image
    gives, so that a natural response weighs as much as the prior of 100 x 100 natural pixels, and C
    is 1. Theirs is also divided by the number of filters that share a picture, here one. The
    receptive field rf², height times width, ends at the frame. Their slope of a closed rectifier is
    0.05, here that of `leaky`.

    Args:
        at: the setting, with the layer and its units.
        natural: an index of natural images with the unit's layer, or its folder (required).

    Raises:
        InputError: no index, one of another network, or a unit that no image excites.
        UnknownLayer: a layer that the index does not have.
    """
    if natural is None:
        raise InputError("exp_maximization takes natural=, an index of images: see featvis.index")
    if not at.units:
        raise InputError("exp_maximization is of channels, neurons and classes, as block8:3")
    index = as_index(natural)
    index.check_digest(at.digest)
    largest = np.array(
        [index.responses(Channel(at.layer, unit)).maximum.max() for unit in at.units], np.float32
    )
    if not np.all(largest > 0):
        dead = at.units[int(np.argmax(largest <= 0))]
        raise InputError(
            f"no image of the index excites {at.layer}:{dead}: its largest activation is "
            f"{largest.min():.3g}"
        )
    weight = 1e4 / math.prod(index.field(at.layer).sides) / largest
    inversion = ijcv2016(at)
    (steps,) = at.shares(300)
    first = inversion.stages[0]
    return dataclasses.replace(
        inversion,
        stages=(Stage(first.parameterization, steps, **first.options),),
        weight=weight if len(weight) > 1 else float(weight[0]),
        leaky=True,
    )
