"""Recipes of the papers: how an image is written, moved and kept natural, stage by stage.

A preset is a function of the run's size to a `Recipe`; what is maximised is the business of the
drivers (`featvis.drivers`). Published constants are in levels of 0 to 255 about a mean; here
images are in [0, 1] about mid-grey, so that a prior of power α has its weight times 255^α. Where
the papers' images are free, ours are kept in [0, 1].
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from featvis.errors import InputError
from featvis.models import Model
from featvis.synthesis import DEFAULT_OPTIMIZER, DEFAULT_TRANSFORM, _positive
from objectives import (
    L2,
    Activations,
    AlphaNorm,
    Change,
    NamedArray,
    Objective,
    Tone,
    TotalVariation,
)

#: The texts of parts are written with these.
_LEVELS = 255
#: Of the sum of normal noise of 0.02 and uniform noise of the width 0.02.
_ACCENTUATED_NOISE = 0.02 * math.sqrt(1 + 1 / 12)


@dataclass(frozen=True)
class Stage:
    """One run of `synthesize`, in its arguments' text forms."""

    parameterization: str
    optimizer: str
    transform: str
    steps: int
    draws: int = 1


@dataclass(frozen=True)
class Recipe:
    """Stages, each going on from the one before, and what keeps the image natural.

    Attributes:
        stages: at least one.
        metric: of the likeness that an inversion maximises, as `FeatureMatch` has it.
        weight: C, of what is wanted against the prior.
        prior: what is subtracted; None for none.
        held: of the originals (n, h, w, c), what holds the pictures to them, subtracted too; None
            for nothing.
        leaky: whether rectifiers pass a part of the gradient where they are closed.
        unrectified: whether the layer's own rectifier passes all of it.
        of: what of a class is maximised, "score", "probability" or "log_probability".
        positive: whether a caricature is of the positive activations alone.
        power: of the cosine that a caricature is weighted with; 0 for the plain inner product.
    """

    stages: tuple[Stage, ...]
    metric: str = "l2"
    weight: float = 1.0
    prior: Objective | None = None
    held: Callable[[np.ndarray], Objective] | None = None
    leaky: bool = False
    unrectified: bool = False
    of: str = "score"
    positive: bool = False
    power: float = 1.0


@dataclass(frozen=True)
class Scene:
    """What a recipe depends on.

    Attributes:
        size: (height, width) of the images in pixels.
        channels: their number.
        stride: pixels from one position of the layer to the next.
        depth: of the layer, from 0 at the image to 1 at the last of the network's layers.
        learned: whether the network has weights, as HOG has none.
        steps: how many are asked for in all; None: the recipe's own number.
        at_size: whether the network takes images of another (height, width), and the layer, if one
            is asked about, is of the same shape then, as logits are.
    """

    size: tuple[int, int]
    channels: int
    stride: float
    depth: float
    learned: bool
    steps: int | None
    at_size: Callable[[tuple[int, int]], bool] = field(default=lambda size: False, compare=False)

    @property
    def numbers(self) -> int:
        """Pixels times channels."""
        return math.prod(self.size) * self.channels

    def shares(self, *counts: int) -> list[int]:
        """A recipe's steps by stage; in proportion, and 1 at least, where others are asked for."""
        if self.steps is None:
            return list(counts)
        if self.steps < len(counts):
            raise InputError(
                f"the preset has {len(counts)} stages and needs a step for each; got {self.steps}"
            )
        left, found = self.steps, []
        for place, count in enumerate(counts):
            later = len(counts) - 1 - place
            found.append(max(1, min(round(left * count / sum(counts[place:])), left - later)))
            left -= found[-1]
        return found


def scene(model: Model, layer: str, size: tuple[int, int], steps: int | None) -> Scene:
    """The scene of a layer of a model.

    Raises:
        InputError: a size that the model does not take, or a number of steps below 1.
        UnknownLayer: no such layer.
    """
    if steps is not None:
        _positive("steps", steps)
    shapes = Activations(model.layers(size))
    _ = shapes[layer]  # an unknown one says the nearest
    place = list(shapes).index(layer)
    until = list(shapes.values())[: place + 1]
    # A vector or a map of one position has the stride of what it is made from.
    rows = [shape[0] for shape in until if len(shape) == 3 and shape[0] > 1]
    stride = size[0] / rows[-1] if rows else 1.0

    def at_size(other: tuple[int, int]) -> bool:
        try:
            return bool(model.layers(other)[layer] == shapes[layer])
        except (InputError, TypeError, ValueError):
            # Of a network that declares no size and yet has one, it is JAX or Flax that says so.
            return False

    return Scene(
        size=size,
        channels=model.input.channels,
        stride=stride,
        depth=(place + 1) / len(shapes),
        learned=bool(jax.tree.leaves(model.params)),
        steps=steps,
        at_size=at_size,
    )


Presets = Mapping[str, Callable[[Scene], Recipe]]
"""Recipes by the names that drivers take."""


# ---- Mahendran & Vedaldi -------------------------------------------------------------------

#: σ of CVPR 2015, one for every size of image, in [0, 1].
_SIGMA = 27098.1 / _LEVELS
#: B of IJCV 2016, the usual norm of a pixel's colours about the mean, in [0, 1].
_PIXEL_NORM = 80 / _LEVELS


def cvpr2015(at: Scene) -> Recipe:
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
                f"BoundedPixels({at.size}, {at.channels}, sd={_SIGMA / math.sqrt(at.numbers):.4g})",
                f"preimage_momentum({rates}, {_SIGMA:.6g})",
                "none",
                sum(steps),
            ),
        ),
        prior=alpha * AlphaNorm(6.0, joint=False)
        + variation * share * at.numbers * TotalVariation(2.0),
    )


def ijcv2016(at: Scene) -> Recipe:
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
    image = (
        f"BoundedPixels({at.size}, {at.channels}, ball='pixel', radius={2 * _PIXEL_NORM:.6g}, "
        f"sd={sd:.4g}, noise='uniform')"
    )

    def stage(rate: float, transform: str, steps: int) -> Stage:
        return Stage(image, f"preimage_adagrad({rate:.6g})", transform, steps)

    if at.learned:
        moving, still = at.shares(300, 50)
        stages = [stage(rate, _jitter(at.stride), moving), stage(0.1 * rate, "none", still)]
    else:
        stages = [stage(rate, "none", *at.shares(300))]
    return Recipe(tuple(stages), weight=100.0, prior=_ijcv_prior(at.channels))


def _jitter(stride: float) -> str:
    """Shifts over a quarter of the stride, that many places on each axis, about the middle."""
    shift = max(round(stride / 4), 1) - 1
    before, after = shift // 2, shift - shift // 2
    return f"Compose((Pad(({before}, {after}), 'edge'), Jitter({shift})))" if shift else "none"


def _ijcv_prior(channels: int) -> Objective:
    # Their variation is summed over colours, ours is a mean.
    variation = (6.5 / 80) ** 2 * _LEVELS**2 * channels
    return _PIXEL_NORM**-6 * AlphaNorm(6.0) + variation * TotalVariation(2.0)


# ---- others --------------------------------------------------------------------------------


def modern(at: Scene) -> Recipe:
    """Fourier coefficients, Adam in one cycle, the logarithm of the error, leaky rectifiers.

    From next to grey, so that each seed has a pre-image of its own, and with a little total
    variation. Ours: what measured best.
    """
    (steps,) = at.shares(400)
    # Adam moves all coefficients alike, those too that the layer hardly sees, of fine detail and of
    # colours above all: they drift. What is added to the root of its mean squares keeps them. A
    # coefficient's gradient is as 1 / pixels, and a layer of a larger stride leaves more open.
    floor = min(128, 4 * at.stride**1.5) / math.prod(at.size)
    return Recipe(
        (
            Stage(
                f"Fourier({at.size}, {at.channels}, decay=1.1, sd=0.0002)",
                f"adam(cosine_onecycle_schedule({steps}, 0.2), eps={min(floor, 0.02):.3g})",
                "none",
                steps,
            ),
        ),
        metric="log",
        # However small an error, its logarithm outweighs the prior: that decides what is left open.
        prior=20.0 * TotalVariation(2.0),
        # The rectifiers of HOG and SIFT share gradients out between directions.
        leaky=at.learned,
    )


def plug_in(at: Scene) -> Recipe:
    """Ghiasi et al. 2022, "Plug-In Inversion": no prior, but zoom, centring and an ensemble.

    Seven stages of 400 steps at 2/8 to 8/8 of the side, from uniform noise; each puts the picture
    before, enlarged, into the middle of new noise, 1/16 of the side wider and higher. Shifts of up
    to 32 pixels around a torus and colour shifts, 8 draws a step (theirs: as many as the memory
    holds); Adam of the rate 0.01. As theirs, a network of any size sees the small image, and one of
    fixed size, as a transformer, sees it magnified. Their method is of classes; an inversion of a
    map, which has its positions at the whole size, sees it magnified too.
    """
    sizes = [tuple(max(1, round(side * part / 8)) for side in at.size) for part in range(2, 9)]
    frame = tuple(round(side / 16) for side in at.size)
    small = all(at.at_size((height, width)) for height, width in sizes[:-1])
    moved = "Compose((Roll(32), ColorShift(1.0)))"
    stages: list[Stage] = []
    for size, steps in zip(sizes, at.shares(*[400] * 7), strict=True):
        # Uniform in [0, 1].
        image = f"BoundedPixels({size}, {at.channels}, sd={1 / math.sqrt(12):.6g}, noise='uniform')"
        if stages:
            image = f"Framed({size}, {at.channels}, of={image}, frame={frame})"
        if size != at.size and not small:
            image = f"Upsampled(of={image}, size={at.size}, channels={at.channels})"
        rate = f"cosine_decay_schedule(0.01, {steps})"
        stages.append(Stage(image, f"adam({rate}, b1=0.5, b2=0.99)", moved, steps, draws=8))
    return Recipe(tuple(stages), of="log_probability")


def metamer(at: Scene) -> Recipe:
    """Feather et al. 2023, "Model metamers": normalised steps, halved seven times, no prior.

    24,000 steps along the gradient, of the length 1 for 224 x 224 x 3 and in proportion to the
    norm of an image, halved every 3,000, from normal noise of 1/20 about mid-grey. As in their
    code, the rectifier whose output the layer is has the gradient of the identity
    (`featvis.redirect.unrectified`), and those before it have their true one.
    """
    (steps,) = at.shares(24_000)
    length = math.sqrt(at.numbers / (224 * 224 * 3))
    rate = f"exponential_decay({length:.4g}, {math.ceil(steps / 8)}, 0.5, staircase=True)"
    return Recipe(
        (
            Stage(
                f"BoundedPixels({at.size}, {at.channels}, sd=0.05)",
                f"chain(normalize_by_update_norm(eps=1e-12), sgd({rate}))",
                "none",
                steps,
            ),
        ),
        unrectified=True,
    )


# ---- class models, caricatures, accentuation -----------------------------------------------


def visualization(at: Scene) -> Recipe:
    """The defaults of `synthesize`: Fourier coefficients, NAdam, scale, rotation and shifts."""
    (steps,) = at.shares(512)
    image = f"Fourier({at.size}, {at.channels})"
    return Recipe((Stage(image, DEFAULT_OPTIMIZER, DEFAULT_TRANSFORM, steps),))


def maco(at: Scene) -> Recipe:
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
    size = f", size=({height}, {width})" if at.at_size((height, width)) else ""
    crop = f"NormalCrop(LinearSchedule(0.5, 0.05), centre_sd=0.3{size})"
    rate = f"polynomial_schedule(1.0, 0.0, 8, {steps})"
    return Recipe(
        (
            Stage(
                f"MaCo({at.size}, {at.channels})",
                f"nadam({rate})",
                f"Compose(({crop}, Noise(0.04)))",
                steps,
                draws=8,
            ),
        )
    )


def simonyan2013(at: Scene) -> Recipe:
    """Simonyan et al. 2013: pixels from the zero image (mid-grey), less λ‖I‖², no transform.

    The paper states neither λ nor the rate nor the steps: here λ‖I‖² is 1000 times the mean
    square, and 300 steps of momentum.
    """
    (steps,) = at.shares(300)
    image = f"BoundedPixels({at.size}, {at.channels}, sd=0.0)"
    rate = f"cosine_decay_schedule({1.3e-6 * at.numbers:.4g}, {steps})"
    return Recipe((Stage(image, f"sgd({rate}, momentum=0.9)", "none", steps),), prior=1000.0 * L2())


def ijcv2016_caricature(at: Scene) -> Recipe:
    """Mahendran & Vedaldi, IJCV 2016, section 6: as their inversion, for the plain inner product.

    ⟨Φ, max(Φ₀, 0)⟩/‖max(Φ₀, 0)‖² with the weight C = 1, 300 steps with jitter from the original.
    """
    (steps,) = at.shares(300)
    recipe = ijcv2016(replace(at, steps=None))
    moving = replace(recipe.stages[0], steps=steps)
    return replace(recipe, stages=(moving,), weight=1.0, positive=True, power=0.0)


def exaggeration(at: Scene) -> Recipe:
    """Agreement against change: Fourier coefficients of the original, and Adam.

    Ours: strength · agreement − ½ · mean (x−x₀)² − 50 · mean |∇(x−x₀)|² − 5000 · `Tone`. What is
    best of such a sum agrees more and has changed more, the greater the strength; the roughness of
    the change is what keeps it to shapes that can be seen, and the last term holds the colours and
    the contrast. Transforms make less of it: on EfficientNet-Lite0 an agreement of 1.03 to 1.13
    where there is 1.19 to 1.31 without, at the same distance.
    """
    (steps,) = at.shares(200)
    image = f"Fourier({at.size}, {at.channels}, decay=1.1)"
    rate = f"cosine_decay_schedule(0.05, {steps})"
    return Recipe((Stage(image, f"adam({rate})", "none", steps),), held=_likeness)


def _likeness(images: np.ndarray) -> Objective:
    original = NamedArray(images, "original")
    change = 0.5 * Change(L2(0.0), original) + 50.0 * Change(TotalVariation(), original)
    return change + 5000.0 * Tone(images.mean(axis=(1, 2)), images.std(axis=(1, 2)))


def accentuation(at: Scene, weight: float = 1.0) -> Recipe:
    """Hamblin et al. 2024, as their code has it: crops, noise, Adam of 0.05, 16 draws a step.

    Fourier coefficients of the image with the decay 1; boxes of 5 to 99 % of the sides, anywhere;
    noise of the deviation of theirs, normal of 0.02 and uniform of ±0.01; 100 steps. Two things
    differ. A box is resized to the picture's own size, for the network takes any. And above a
    weight of 1, where little is left to gain, the rate is 0.05 / weight: at their own rate the
    picture is shaken to 28 to 31 dB from the image, whatever the weight (3 or 10⁶).
    """
    (steps,) = at.shares(100)
    image = f"Fourier({at.size}, {at.channels}, decay=1.0)"
    rate = f"adam({0.05 / max(1.0, weight):.6g})"
    seen = f"Compose((RandomResizedCrop(0.05, 0.99, None), Noise({_ACCENTUATED_NOISE:.4g})))"
    return Recipe((Stage(image, rate, seen, steps, draws=16),))


INVERSIONS: Presets = {
    "modern": modern,
    "ijcv2016": ijcv2016,
    "cvpr2015": cvpr2015,
    "plug_in": plug_in,
    "metamer": metamer,
}
"""Recipes of `invert` by name."""

CARICATURES: Presets = {"modern": exaggeration, "ijcv2016": ijcv2016_caricature}
"""Recipes of `caricature` by name."""

VISUALIZATIONS: Presets = {"modern": visualization, "maco": maco}
"""Recipes of `featvis render` by name, of one stage and whatever the layer."""

CLASS_MODELS: Presets = {
    "modern": visualization,
    "maco": maco,
    "simonyan2013": simonyan2013,
    "plug_in": plug_in,
}
"""Recipes of `class_model` by name."""


def preset_of(name: str, among: Presets) -> Callable[[Scene], Recipe]:
    """A recipe's function by its name.

    Raises:
        InputError: none of that name; says the nearest and all there are.
    """
    if name not in among:
        near = difflib.get_close_matches(str(name), among, n=1, cutoff=0.3)
        hint = f"nearest: {near[0]}; " if near else ""
        raise InputError(f"unknown preset {name!r}; {hint}known: {', '.join(among)}")
    return among[name]
