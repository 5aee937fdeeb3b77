"""Diverse optima: images of a unit that differ as much as its activation lets them.

Cadena, Weis, Gatys, Bethge & Ecker 2018, "Diverse feature visualizations reveal invariances in
early layers of deep neural networks"; their code is github.com/sacadena/diverse_feature_vis.

Two numbers say how such a set is. The activation of an image is its share of the best that was
found, counted from what the unit gives for plain grey. The distance of two images is that of their
offsets from grey over the norm that all of them have: √2 of orthogonal images, at most 2.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from featvis import checks, loading
from featvis.errors import InputError
from featvis.evidence.responses import central_unit, responses
from featvis.gradients.silence import SilenceWarning
from featvis.methods.recipe import (
    OF_STAGES,
    Recipe,
    Setting,
    Stage,
    altered,
    chosen,
    preset,
    rounded,
    run_recipe,
    setting_of,
    with_measures,
)
from featvis.models import Model, unrectified
from featvis.natural.receptive import Field, receptive_field
from featvis.parameterizations import FixedNorm, Fourier
from featvis.results import Result
from featvis.results.run import as_objective
from objectives import (
    Activations,
    AtLeast,
    Diversity,
    MinDistance,
    Objective,
    check_number,
)

#: Side of the images in pixels, where the network takes any.
_SIDE = 96
#: Deviation of what is added to the best images, over their own: half of it.
NOISE = 0.5
#: Of the best activation, from which on a start is one of the best.
_GOOD = 0.9
#: Of a unit's activations, below which a gain over plain grey is rounding.
_DEAD = 1e-5


class Aim(NamedTuple):
    """A unit, and what is known of it before its images are to differ.

    Attributes:
        model: the network; the unit's own rectifier passes the gradient as if it was none.
        unit: one unit at one place.
        layer: the last that it reads.
        field: where it looks.
        blank: what it gives for plain grey.
        best: the images (n, h, w, c) of the highest activation from n starts, the best first.
        activations: theirs, (n,).
    """

    model: Model
    unit: Objective
    layer: str
    field: Field
    blank: float
    best: np.ndarray
    activations: np.ndarray

    @property
    def gain(self) -> float:
        """How far the best activation is above that of plain grey."""
        return float(self.activations[0]) - self.blank

    def share(self, images: np.ndarray) -> np.ndarray:
        """The activation of images over the best, (n,); 0 is that of plain grey."""
        return (responses(self.model, self.unit, images) - self.blank) / self.gain

    @property
    def shared(self) -> Objective:
        """The same as an objective."""
        return (self.unit - rounded(self.blank, 8)) * rounded(1 / self.gain, 8)

    def distance(self, layer: str | None) -> Objective:
        """The smallest distance over the norm of the images, or that of a layer's activations."""
        if layer is None:
            size = float(np.sqrt(np.mean((self.best[0] - 0.5) ** 2)))
            return MinDistance() / rounded(size, 8)
        seen, grey = self.model(self.best[:1])[layer], self.model(_grey(self.best.shape))[layer]
        size = float(np.sqrt(np.mean((np.asarray(seen) - np.asarray(grey)) ** 2)))
        if not size > 0:
            raise InputError(f"{layer} gives the same for the best image as for grey: no distance")
        return MinDistance(layer) / rounded(size, 8)


def diverse(
    model: Model | str,
    unit: Objective | str,
    n: int = 6,
    *,
    preset: str = "constrained",
    layer: str | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> Result:
    """Drive a unit with different images: what it ignores is where they differ.

    First the best image is looked for, from `n` starts; activations are then counted as shares of
    its own. A channel of a map is taken at the map's centre, and outside its receptive field images
    are grey (but those of the preset "gram").

    Args:
        model: a network, or the name of one.
        unit: what is driven, or its text (`"block4:3"`).
        n: images, at least 2.
        preset: a recipe by name, `featvis.methods.presets("diversity")` has them: "constrained",
            the most different images of at least `keep=0.85` of the best activation; "cadena2018",
            the paper's activation + `weight=0.1` · smallest distance; "gram", lucid's difference in
            style, with a `weight` too. The first two have a `contrast=0.125`, the root mean square
            of the offsets from grey in the receptive field.
        layer: where images are to differ, the unit's own layer or one before it; by default in
            their pixels, and for the preset "gram" in the unit's own layer.
        seed: as for `synthesize`.
        size: (height, width); by default 96 pixels a side where the network takes that.
        **options: as for `invert`, and the preset's own.

    Returns:
        The images. In `evidence`: `activation`, each one's share of the best; `nearest`, its
        distance from the nearest of the others, over the norm of the images; `best`, the best
        activation that was found, and `blank`, that for plain grey.

    Raises:
        InputError: no such preset, fewer than 2 images, a unit that is dead or reads nothing, or a
            layer after the unit's own.
        UnknownLayer: no such layer.
    """
    check_several(n)
    rule = chosen("diverse", "diversity", preset, options)
    aim, recipe = prepared(model, unit, rule, n, layer, seed, size, options)
    assert recipe.apart is not None
    wanted = recipe.apart(aim.shared, aim.distance(layer), layer or aim.layer)
    if recipe.noise is not None:
        options = {"init": beside(aim, n, recipe.noise, seed), **options}
    result = run_recipe(aim.model, wanted, recipe, aim.layer, seed=seed, batch=n, **options)
    return with_measures(result, lambda: measures(aim, result.images))


# ---- presets


@preset("constrained", "diversity")
def constrained(at: Setting, *, keep: float = 0.85, contrast: float = 0.125) -> Recipe:
    """The most different images of at least `keep` of the best activation.

    As the most exciting and diverse inputs of neuroscience (Ding et al. 2023), with the smallest
    distance of all pairs in place of their mean. The bound is an exact penalty: its weight is above
    what the distance gains by breaking it, which for a linear unit is 1.6 · keep / √(1 − keep²).
    Images start beside the best ones, for from noise alone some end at maxima below the bound
    (2 of 6 at `block2:5` of EfficientNet-Lite0).

    Args:
        at: what it depends on.
        keep: the share of the best activation that every image keeps.
        contrast: the root mean square of the offsets from grey in the receptive field.
    """
    check_number("keep", keep, above=0, at_most=1)
    hold = hold_for(keep)

    def apart(share: Objective, distance: Objective, layer: str) -> Objective:
        return distance + hold * AtLeast(share, keep)

    (steps,) = at.shares(400)
    return Recipe((stimulus(at, contrast, steps),), apart=apart, noise=NOISE)


def hold_for(keep: float) -> float:
    """The weight of a bound on the share of the activation, against a distance."""
    return rounded(float(np.clip(6 / math.sqrt(max(1 - keep**2, 1e-12)), 20, 1000)))


def stimulus(at: Setting, contrast: float, steps: int) -> Stage:
    """Images of a fixed norm where the unit looks, by Adam on values whose spectrum is as 1/f.

    On plain pixels, diverse images of `block4` of EfficientNet-Lite0 differ in fine noise.
    """
    written = FixedNorm(at.size, at.channels, contrast, at.window, decay=1.0)
    rule = f"adam(cosine_decay_schedule(0.3, {steps}))"
    return Stage(written, steps, optimizer=rule, transform="none")


@preset("cadena2018", "diversity")
def cadena2018(at: Setting, *, weight: float = 0.1, contrast: float = 0.125) -> Recipe:
    """Cadena et al. 2018: activation + weight · smallest distance, at a fixed norm.

    Adam of the rate 1 on images that start as standard normal noise, whitened gradients, at most
    2000 steps, fewer where the moving average of an image's score has not risen for 100. In the
    paper activation and distance have units of their own, and a weight (0.01 for VGG-19) is one
    network's; here both are relative, and `weight` is theirs times norm over best activation.

    Args:
        at: what it depends on.
        weight: what a difference counts against the activation.
        contrast: as for `constrained`.
    """
    check_number("weight", weight, at_least=0)

    def apart(share: Objective, distance: Objective, layer: str) -> Objective:
        return share + weight * distance

    (steps,) = at.shares(2000)
    written = FixedNorm(at.size, at.channels, contrast, at.window)
    rule = "chain(whiten_gradient(), adam(1.0))"
    stage = Stage(written, steps, optimizer=rule, transform="none", patience=100)
    return Recipe((stage,), apart=apart)


@preset("gram", "diversity")
def gram_diversity(at: Setting, *, weight: float = 1.0) -> Recipe:
    """Olah et al. 2017, as lucid has it: Fourier coefficients, and a difference in style.

    activation − weight · mean cosine of the Gram matrices of a layer; lucid's weight of 100 is of
    a mean activation in the network's units and of a sum over the other images.

    Args:
        at: what it depends on.
        weight: as for `cadena2018`.
    """
    check_number("weight", weight, at_least=0)

    def apart(share: Objective, distance: Objective, layer: str) -> Objective:
        return share + weight * Diversity(layer)

    (steps,) = at.shares(512)
    return Recipe((Stage(Fourier(at.size, at.channels), steps),), apart=apart)


# ---- a unit and its best images


def check_several(n: Any) -> None:
    """Refuses fewer than 2 images, which have no distance."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 2:
        raise InputError(f"diverse images are 2 or more, which have a distance; got n={n!r}")


def located(
    model: Model, unit: Objective | str, size: tuple[int, int] | None
) -> tuple[Objective, tuple[int, int], str]:
    """One unit at one place, the size of its images, and the last layer that it reads.

    Raises:
        InputError: no unit, or a size that the network does not take.
    """
    size = default_size(model) if size is None else checks.image_size("a picture", "size", size)
    found = central_unit(model, as_objective(unit, model), size)
    order = list(model.layers(size))
    read = [getattr(node, "layer", None) for node in found.walk()]
    return found, size, order[max(order.index(name) for name in read if name is not None)]


def default_size(model: Model) -> tuple[int, int]:
    """96 pixels a side at most, or else what the network takes."""
    height, width = (min(side, _SIDE) for side in model.input.size)
    try:
        model.layers((height, width))
    except (InputError, TypeError, ValueError):
        return model.input.size
    return height, width


def prepared(
    model: Model | str,
    unit: Objective | str,
    rule: Callable[[Setting], Recipe],
    n: int,
    layer: str | None,
    seed: int,
    size: tuple[int, int] | None,
    options: dict[str, Any],
) -> tuple[Aim, Recipe]:
    """A unit with its best images, and the recipe of different ones.

    What the options have of a recipe's stages is taken out of them.
    """
    model = loading.as_model(model)
    found, size, own = located(model, unit, size)
    check_layer(model, layer, own, size)
    seeing = unrectified(model, own)
    field = receptive_field(seeing, found, size)
    at = setting_of(model, own, size, options.pop("steps", None))
    recipe = rule(replace(at, window=field.window))
    recipe = altered(recipe, **{name: options.pop(name, None) for name in OF_STAGES})
    more = {name: options[name] for name in ("progress", "patience") if name in options}
    return best_of(seeing, found, own, field, recipe, n, seed, **more), recipe


def best_of(
    model: Model,
    unit: Objective,
    layer: str,
    field: Field,
    recipe: Recipe,
    n: int,
    seed: int | Sequence[int],
    **options: Any,
) -> Aim:
    """The images that drive a unit most, from `n` starts.

    Raises:
        InputError: the unit is dead.
        KeyboardInterrupt: Ctrl-C; there is nothing yet to keep.
    """
    if seed is None:  # it would be another one each time
        raise InputError("seed must be an integer from 0 to 2^32 - 1, or several; got None")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SilenceWarning)  # what is dead is said below
        result = run_recipe(model, unit, recipe, layer, seed=seed, batch=n, **options).or_raise()
    if "interrupt" in result.stopped:
        raise KeyboardInterrupt
    found = responses(model, unit, result.images)
    blank = float(responses(model, unit, _grey(result.images.shape))[0])
    order = np.argsort(-found, kind="stable")
    check_alive(unit, blank, found)
    return Aim(model, unit, layer, field, blank, result.images[order], found[order])


def beside(aim: Aim, n: int, noise: float, seed: int) -> np.ndarray:
    """Images (n, h, w, c) to start from: the best ones in turn, with noise where the unit looks."""
    top, left, height, width = aim.field.window
    good = aim.best[aim.activations - aim.blank >= _GOOD * aim.gain]
    images = good[np.arange(n) % len(good)].copy()
    inside = images[:, top : top + height, left : left + width]
    size = float(np.sqrt(np.mean((inside - 0.5) ** 2)))
    inside += np.random.default_rng(seed).normal(scale=noise * size, size=inside.shape)
    return np.clip(images, 0, 1)


def check_alive(unit: Objective, blank: float, activations: np.ndarray) -> None:
    """Refuses a unit that nothing drives above what it gives for plain grey."""
    best = float(np.max(activations))
    if not is_alive(blank, activations):
        raise InputError(
            f"{unit} is dead: from {len(activations)} starts its activation is {best:.4g} at most, "
            f"and {blank:.4g} for plain grey"
        )


def is_alive(blank: float, activations: np.ndarray) -> bool:
    """Whether a unit's best activation is above that of plain grey."""
    best = float(np.max(activations))
    return best - blank > _DEAD * max(abs(best), abs(blank))


def check_layer(model: Model, layer: str | None, own: str, size: tuple[int, int]) -> None:
    """Refuses a distance at a layer after the unit's own."""
    if layer is None:
        return
    shapes = model.layers(size)
    _ = Activations(shapes)[layer]  # an unknown one says the nearest
    order = list(shapes)
    place = order.index(own)
    if order.index(layer) > place:
        near = ", ".join(order[max(0, place - 2) : place + 1])
        raise InputError(
            f"the distance is taken at the pixels, the unit's own layer or one before it, and "
            f"{layer} comes after {own}; nearest: {near}"
        )


def distances(images: np.ndarray) -> np.ndarray:
    """Distances of every two images over the root of the product of their norms, (n, n)."""
    flat = np.asarray(images, np.float64).reshape(len(images), -1) - 0.5
    norms = np.linalg.norm(flat, axis=1)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    return apart / np.sqrt(np.maximum(np.outer(norms, norms), 1e-30))


def _grey(shape: Sequence[int]) -> np.ndarray:
    return np.full((1, *shape[1:]), 0.5, np.float32)


def measures(aim: Aim, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """What `diverse` says of a set of images."""
    apart = distances(images) + np.where(np.eye(len(images)), np.inf, 0)
    return {
        "activation": aim.share(images),
        "nearest": apart.min(axis=1),
        "best": np.full(len(images), aim.activations[0], np.float32),
        "blank": np.full(len(images), aim.blank, np.float32),
    }
