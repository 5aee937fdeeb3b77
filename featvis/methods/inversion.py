"""Natural pre-images: what else a layer sees as it sees an image.

Published constants are in levels of 0 to 255 about a mean; here images are in [0, 1] about
mid-grey, so that a prior of power α has its weight times 255^α. Where the papers' images are free,
ours are kept in [0, 1].
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from featvis.errors import InputError
from featvis.evidence import metrics
from featvis.images import Images
from featvis.methods.recipe import (
    Recipe,
    Setting,
    Stage,
    aim_of,
    chosen,
    class_kept,
    given_images,
    preset,
    rounded,
    run_recipe,
    setting_of,
    with_measures,
)
from featvis.models import Model
from featvis.parameterizations import (
    BoundedPixels,
    Fourier,
    Framed,
    Parameterization,
    Upsampled,
)
from featvis.results import Result
from featvis.transforms import ColorShift, Compose, Jitter, Pad, Roll, Transform
from objectives import AlphaNorm, FeatureMatch, Objective, TotalVariation


def invert(
    model: Model | str,
    layer: str | Sequence[str] | Mapping[str, float],
    images: Images,
    *,
    preset: str = "modern",
    mask: ArrayLike | None = None,
    seed: int | Sequence[int] = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> Result:
    """Invert a layer: find a picture for each image that the layer sees as it sees the image.

    Mahendran & Vedaldi, CVPR 2015 and IJCV 2016: maximises C times the likeness of the layer's
    activations less the preset's prior, from noise.

    Args:
        model: a network, or the name of one.
        layer: a layer of it; or several, each of the same weight, or with their weights by name:
            what is maximised is then the weighted mean of their likenesses, and the preset's
            constants are those of the deepest.
        images: arrays (n, h, w, c) or (h, w, c) in [0, 1] or of uint8, at their own size; or
            picture files or Pillow pictures, scaled and cropped to `size`.
        preset: a paper's recipe by name: `featvis.methods.presets("inversion")` has them.
        mask: weights in [0, 1] over the layer's positions, (1, h, w) or (n, h, w): invert those
            alone, as the paper's figures of receptive fields do with the central 5 x 5. It takes
            one layer.
        seed: as for `synthesize`.
        size: of files, (height, width); by default the model's own.
        **options: `steps`, in proportion by stage; `parameterization`, `optimizer`, `transform`,
            `draws`, in place of every stage's; `init`, `patience`, `snapshots`, `progress` as for
            `synthesize`; and what the preset has arguments of its own for.

    Returns:
        The pre-images. In `evidence`: `relative_error` √(‖y−y₀‖²/‖y₀‖²), `psnr` to the original in
        dB, `spearman` and `signal_to_noise` (dB) of the activations, `naturalness` of the gradient
        histogram, where the network has logits `same_class` (1 where the top class is still the
        same), and for different images `pairwise_error` (CVPR 2015). See `featvis.metrics`. Of
        several layers each has its own, `relative_error:block4`.

    Raises:
        InputError: no such preset, or one of a single layer for several; an option that neither it
            nor `synthesize` has; images that the network does not take; no layer, or a weight that
            is no number above 0; or what `synthesize` raises of its arguments.
        UnknownLayer: no such layer.
    """
    rule = chosen("invert", "inversion", preset, options)
    model, images = given_images(model, images, size)
    weights = _layer_weights(layer)
    aims = {
        name: aim_of(model, name, images, f"target{place or ''}")
        for place, name in enumerate(weights)
    }
    order = list(model.layers(images.shape[1:3]))
    deepest = max(weights, key=order.index)
    at = setting_of(model, deepest, images.shape[1:3], options.pop("steps", None))
    recipe = rule(at)
    if len(weights) > 1 and (mask is not None or recipe.unrectified):
        what = "a mask" if mask is not None else f"the preset {preset}"
        raise InputError(f"{what} is of one layer; got {', '.join(weights)}")
    if mask is not None and not (np.min(mask) >= 0 and np.max(mask) <= 1):
        raise InputError(f"mask is of weights in [0, 1]; got {np.min(mask)} to {np.max(mask)}")
    whole = sum(weights.values())
    likenesses: list[Objective] = [
        recipe.weight * weight / whole * FeatureMatch(name, aims[name], mask, recipe.metric)
        for name, weight in weights.items()
    ]
    objective = functools.reduce(operator.add, likenesses)
    result = run_recipe(model, objective, recipe, deepest, seed=seed, batch=len(images), **options)
    return with_measures(result, lambda: _inverted(result, model, [*weights], images, mask))


def _layer_weights(layer: str | Sequence[str] | Mapping[str, float]) -> Mapping[str, float]:
    """The weights of layers by their names.

    Raises:
        InputError: no layer, one twice, or a weight that is no number above 0.
    """
    if isinstance(layer, Mapping):
        weights = dict(layer)
    elif not isinstance(layer, Iterable):
        raise InputError(f"layer is a name, several, or weights by name; got {layer!r}")
    else:
        names = [layer] if isinstance(layer, str) else list(layer)
        weights = dict.fromkeys(names, 1.0)
        if len(weights) < len(names):
            raise InputError(f"a layer is inverted once; got {', '.join(map(str, names))}")
    if not weights:
        raise InputError("invert takes at least one layer; got none")
    for name, weight in weights.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not (number and 0 < weight < math.inf):
            raise InputError(f"the weight of layer {name!r} must be above 0; got {weight!r}")
    return weights


def _inverted(
    result: Result,
    model: Model,
    layers: Sequence[str],
    images: np.ndarray,
    mask: ArrayLike | None,
) -> Mapping[str, Any]:
    """What an inversion's pictures are like, its activations where the mask has them."""
    found, original = model(result.images), model(images)
    errors: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for layer in layers:
        y, y0 = np.asarray(found[layer]), np.asarray(original[layer])
        if mask is not None:
            y, y0 = (a * np.asarray(mask, np.float32)[..., None] for a in (y, y0))
        which = f":{layer}" if len(layers) > 1 else ""
        errors[f"relative_error{which}"] = metrics.relative_error(y, y0)
        others[f"spearman{which}"] = metrics.spearman(y, y0)
        others[f"signal_to_noise{which}"] = metrics.signal_to_noise(y, y0)
        # Of several pre-images of one image there is none.
        if np.any(y0 != y0[0]):
            others[f"pairwise_error{which}"] = metrics.pairwise_error(y, y0)
    others |= class_kept(found, original)
    if images.shape[-1] in (1, 3):
        others["naturalness"] = metrics.naturalness(result.images, images)
    return {**errors, "psnr": metrics.psnr(result.images, images), **others}


#: The texts of parts are written with these.
_LEVELS = 255


#: σ of CVPR 2015, one for every size of image, in [0, 1].
_SIGMA = 27098.1 / _LEVELS

#: B of IJCV 2016, the usual norm of a pixel's colours about the mean, in [0, 1].
_PIXEL_NORM = 80 / _LEVELS


@preset("cvpr2015", "inversion")
def cvpr2015(at: Setting) -> Recipe:
    """Mahendran & Vedaldi, CVPR 2015: α-norm, total variation, momentum that forgets at each rate.

    E = ‖Φ−Φ₀‖²/‖Φ₀‖² + (λ_TV/2 · Σ(dx²+dy²) + λ_α/2 · Σx⁶)/σ², λ_α = 8e-10, σ = 27098.1 for images
    of any size, from normal noise of the norm σ; rates 0.004, 0.0004, 0.00004 for 100, 200, 100
    steps. λ_TV is 1, 10 and 100 in CaffeNet's layers 1 to 6, 7 to 12 and 13 to 20: here in the
    first 30 %, 60 % and the rest of a network's layers. HOG and SIFT, without weights, have
    λ_TV = 1 and rates from 0.004 to 0.000004, 200 steps each.

    Their images are free, and ours kept in [0, 1]: it matters where noise of the norm σ is far
    beyond, in small images. HOG and HOGb of four squares at 96 x 96 are left with 24.7 and 6.2 %,
    free with 99 and 96 %; block6 of EfficientNet-Lite0 at 160 x 160, of two photographs, with 17.2
    and 16.9 %.
    """
    variation = 1.0 if at.depth <= 0.3 or not at.learned else 10.0 if at.depth <= 0.6 else 100.0
    steps = at.shares(100, 200, 100) if at.learned else at.shares(200, 200, 200, 200)
    falling = tuple(0.004 / 10**fall for fall in range(len(steps)))
    # Their sums are over pixels and colours. Our variation is a mean over both, and the α-norm a
    # mean over pixels.
    share = 1 / (2 * _SIGMA**2)
    alpha = 8e-10 * _LEVELS**4 * share * at.numbers / at.channels
    rates = f"stepwise_schedule({falling}, {tuple(steps)})"
    return Recipe(
        (
            Stage(
                BoundedPixels(at.size, at.channels, sd=rounded(_SIGMA / math.sqrt(at.numbers))),
                sum(steps),
                optimizer=f"preimage_momentum({rates}, {_SIGMA:.6g})",
                transform=Compose(),
            ),
        ),
        prior=alpha * AlphaNorm(6.0, joint=False)
        + variation * share * at.numbers * TotalVariation(2.0),
    )


@preset("ijcv2016", "inversion")
def ijcv2016(at: Setting) -> Recipe:
    """Mahendran & Vedaldi, IJCV 2016: C = 100, hard bound on a pixel's norm, jitter, AdaGrad.

    E = C·ℓ + λ_α · mean‖x‖⁶ + λ_β · mean(dx²+dy²), λ_α = B⁻⁶, λ_β = (6.5/B)², B = 80, each pixel's
    norm at most 2B, from uniform noise; 300 steps with jitter over T = stride/4 places, 50 at a
    tenth of the rate without. Theirs shifts a window on a larger canvas; here the picture is
    shifted and its edge goes on, so that it is a picture at every step: block6 and block10 of
    EfficientNet-Lite0 are left with 21.5 and 18.5 %, two photographs at 160 x 160, with a canvas
    with 20.7 and 19.7. As in their code, AdaGrad begins anew with the last 50 steps.

    HOG and SIFT, without weights, have the 300 steps alone, without jitter. Theirs see x about 0,
    of either sign, where they saw an image of 0 to 255: of both they see differences alone, so that
    mid-grey stands for 0 here. In four squares at 96 x 96 the error is 37.5, 9.8 and 4.0 % for HOG,
    HOGb and DSIFT of bins of 8, 38.4, 9.7 and 4.1 % with their free range of ±2B, and 40.9, 10.8
    and 4.7 % were black the 0.
    """
    pixels = math.prod(at.size)
    rate = pixels * 0.05 * 80**2 / 6
    # Uniform within ±a, whose 95th percentile 0.9 a is B/√3, has the standard deviation a/√3.
    sd = _PIXEL_NORM / 3 / 0.9
    image = BoundedPixels(
        at.size, at.channels, ball="pixel", radius=rounded(2 * _PIXEL_NORM, 6), sd=rounded(sd),
        noise="uniform",
    )  # fmt: skip

    def stage(rate: float, transform: Transform, steps: int) -> Stage:
        return Stage(image, steps, optimizer=f"preimage_adagrad({rate:.6g})", transform=transform)

    if at.learned:
        moving, still = at.shares(300, 50)
        stages = [stage(rate, _jitter(at.stride), moving), stage(0.1 * rate, Compose(), still)]
    else:
        stages = [stage(rate, Compose(), *at.shares(300))]
    return Recipe(tuple(stages), weight=100.0, prior=_ijcv_prior(at.channels))


def _jitter(stride: float) -> Transform:
    """Shifts over a quarter of the stride, that many places on each axis, about the middle."""
    shift = max(round(stride / 4), 1) - 1
    before, after = shift // 2, shift - shift // 2
    return Compose((Pad((before, after), "edge"), Jitter(shift)) if shift else ())


def _ijcv_prior(channels: int) -> Objective:
    # Their variation is summed over colours, ours is a mean.
    variation = (6.5 / 80) ** 2 * _LEVELS**2 * channels
    return _PIXEL_NORM**-6 * AlphaNorm(6.0) + variation * TotalVariation(2.0)


@preset("modern", "inversion")
def modern(at: Setting) -> Recipe:
    """Fourier coefficients, Adam in one cycle, the logarithm of the error, leaky rectifiers.

    From next to grey, so that each seed has a pre-image of its own, and with a little total
    variation. Ours: what measured best. On EfficientNet-Lite0 at 160 x 160, of sixteen photographs,
    the error is 5.7 % at block1, 5.9 at block2, 6.2 at block6 and block10 and 11.6
    at head, and the checkerboard of single pixels 0.46, 0.44, 0.33, 0.23 and 0.04 levels of 255.
    Were all coefficients moved alike, and without variation, they were 5.3 % and 7.6 levels at
    block1, 6.1 % at block10 and 10.7 % at head.
    """
    (steps,) = at.shares(400)
    # Adam moves all coefficients alike, those too that the layer hardly sees, of fine detail and of
    # colours above all: they drift. What is added to the root of its mean squares keeps them. A
    # coefficient's gradient is as 1 / pixels, and a layer of a larger stride leaves more open; the
    # bounds are where more costs the error, of small images above all.
    floor = min(min(128, 10 * at.stride) / math.prod(at.size), 0.01)
    return Recipe(
        (
            Stage(
                Fourier(at.size, at.channels, decay=1.1, sd=0.0002),
                steps,
                optimizer=f"adam(cosine_onecycle_schedule({steps}, 0.2), eps={floor:.3g})",
                transform=Compose(),
            ),
        ),
        metric="log",
        # However small an error, its logarithm outweighs the prior: that decides what is left open.
        prior=20.0 * TotalVariation(2.0),
        # The rectifiers of HOG and SIFT share gradients out between directions.
        leaky=at.learned,
    )


@preset("plug_in", "inversion", "class model")
def plug_in(at: Setting) -> Recipe:
    """Ghiasi et al. 2022, "Plug-In Inversion": no prior, but zoom, centring and an ensemble.

    Seven stages of 400 steps at 2/8 to 8/8 of the side, from uniform noise; each puts the picture
    before, enlarged, into the middle of new noise, 1/16 of the side wider and higher. Shifts of up
    to 32 pixels around a torus and colour shifts, 8 draws a step (theirs: as many as the memory
    holds); Adam of the rate 0.01. As theirs, a network of any size sees the small image, and one of
    fixed size, as a transformer, sees it magnified. Their method is of classes; an inversion of a
    map, which has its positions at the whole size, sees it magnified too.
    """
    (height, width), parts = at.size, range(2, 9)
    sizes = [(max(1, round(height * p / 8)), max(1, round(width * p / 8))) for p in parts]
    frame = round(height / 16), round(width / 16)
    small = all(at.at_size(size) for size in sizes[:-1])
    moved = Compose((Roll(32), ColorShift(1.0)))
    stages: list[Stage] = []
    for size, steps in zip(sizes, at.shares(*[400] * 7), strict=True):
        # Uniform in [0, 1].
        sd = rounded(1 / math.sqrt(12), 6)
        image: Parameterization = BoundedPixels(size, at.channels, sd=sd, noise="uniform")
        if stages:
            image = Framed(size, at.channels, of=image, frame=frame)
        if size != at.size and not small:
            image = Upsampled(at.size, at.channels, of=image)
        rule = f"adam(cosine_decay_schedule(0.01, {steps}), b1=0.5, b2=0.99)"
        stages.append(Stage(image, steps, optimizer=rule, transform=moved, draws=8))
    return Recipe(tuple(stages), of="log_probability")


@preset("metamer", "inversion")
def metamer(at: Setting) -> Recipe:
    """Feather et al. 2023, "Model metamers": normalised steps, halved seven times, no prior.

    24,000 steps of the length 1 along the gradient, halved every 3,000, from normal noise of 1/20
    about mid-grey. Their images are of 224 x 224; ours of any size have the same length, for one in
    proportion to an image's norm leaves more: 11.2 % where 1 leaves 7.4 (block6 of
    EfficientNet-Lite0, two photographs at 96 x 96, 3,000 steps). As in their code, the rectifier
    whose output the layer is has the gradient of the identity (`featvis.models.unrectified`), and
    those before it have their true one; at block6/expand, from noise, it hardly matters: 5.9 %, and
    5.8 with the true gradient there too.
    """
    (steps,) = at.shares(24_000)
    rate = f"exponential_decay(1.0, {math.ceil(steps / 8)}, 0.5, staircase=True)"
    return Recipe(
        (
            Stage(
                BoundedPixels(at.size, at.channels, sd=0.05),
                steps,
                optimizer=f"chain(normalize_by_update_norm(eps=1e-12), sgd({rate}))",
                transform=Compose(),
            ),
        ),
        unrectified=True,
    )
