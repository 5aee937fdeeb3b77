"""Recipes of the papers: stages of a run, each going on from the one before."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks, loading
from featvis.errors import InputError, NonFiniteError
from featvis.evidence import metrics
from featvis.gradients.differentiability import check_gradient
from featvis.images import Images, of_files
from featvis.models import Model, Target, leaky, target, unrectified
from featvis.parameterizations import Generator, Parameterization
from featvis.results import Result
from featvis.results.run import (
    Run,
    as_parameterization,
    check_options,
    check_positive,
    options_of_runs,
)
from featvis.synthesis.arguments import snapshot_steps
from featvis.synthesis.run import attempt
from objectives import Activations, Layer, Objective


class Stage:
    """One run of a recipe.

    Attributes:
        parameterization: how its images are written.
        steps: how many.
        options: of the run, by name, as `synthesize` takes them; optimizers as text, which the
            manifest can keep.

    Raises:
        InputError: an option that runs do not have.
    """

    def __init__(self, parameterization: Parameterization, steps: int, **options: Any) -> None:
        check_options("a stage", options, options_of_runs())
        self.parameterization, self.steps, self.options = parameterization, steps, options


@dataclass(frozen=True)
class Recipe:
    """Stages, each going on from the one before, and what keeps the image natural.

    Attributes:
        stages: at least one.
        metric: of the likeness that an inversion maximises, as `FeatureMatch` has it.
        weight: C, of what is wanted against the prior; or one a picture, (n,).
        prior: what is subtracted; None for none.
        held: of the originals (n, h, w, c), what holds the pictures to them, subtracted too; None
            for nothing.
        leaky: whether rectifiers pass a part of the gradient where they are closed.
        unrectified: whether the layer's own rectifier passes all of it.
        of: what of a class is maximised, "score", "probability" or "log_probability"; of samplers
            also "doubted_logit".
        positive: whether a caricature is of the positive activations alone.
        power: of the cosine that a caricature is weighted with; 0 for the plain inner product.
        apart: what several different images of a unit maximise, of its share of the best
            activation, their smallest distance, and the layer at which they are compared.
        noise: what is added to a unit's best images to start from, over the size of their own
            offsets; None where several different images start from noise alone.
        pull: of facets, how much likeness to the centroid counts to one of the unit's score.
        resets: of samplers, how many chains there are after each other, each from a start anew.
        redrawn: between which numbers the prior's weight is drawn for each of these; None: as it
            is.
    """

    stages: tuple[Stage, ...]
    metric: str = "l2"
    weight: float | np.ndarray = 1.0
    prior: Objective | None = None
    held: Callable[[np.ndarray], Objective] | None = None
    leaky: bool = False
    unrectified: bool = False
    of: str = "score"
    positive: bool = False
    power: float = 1.0
    apart: Callable[[Objective, Objective, str], Objective] | None = None
    noise: float | None = None
    pull: float = 0.0
    resets: int = 1
    redrawn: tuple[float, float] | None = None


@dataclass(frozen=True)
class Setting:
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
        window: (top, left, height, width) in pixels of what the unit sees; None: all.
        layer: whose units are maximised.
        units: their numbers, of class models alone.
        digest: of the network's weights.
        generator: that samples are made by, of samplers alone.
        task: what of: "class", "unit", "words", "image" for a class from a real image, or
            "inpainting".
        mask: of an inpainted image, (height, width), 1 in the hole.
    """

    size: tuple[int, int]
    channels: int
    stride: float
    depth: float
    learned: bool
    steps: int | None
    at_size: Callable[[tuple[int, int]], bool] = field(default=lambda size: False, compare=False)
    window: tuple[int, int, int, int] | None = None
    layer: str = ""
    units: tuple[int, ...] = ()
    digest: str = ""
    generator: Generator | None = None
    task: str = "class"
    mask: np.ndarray | None = field(default=None, compare=False)

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


def setting_of(model: Model, layer: str, size: tuple[int, int], steps: int | None) -> Setting:
    """The setting of a layer of a model.

    Raises:
        InputError: a size that the model does not take, or a number of steps below 1.
        UnknownLayer: no such layer.
    """
    if steps is not None:
        check_positive("steps", steps)
    size = checks.image_size("the method", "size", size)
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

    return Setting(
        size=size,
        channels=model.input.channels,
        stride=stride,
        depth=(place + 1) / len(shapes),
        learned=bool(jax.tree.leaves(model.params)),
        steps=steps,
        layer=layer,
        digest=model.digest,
        at_size=at_size,
    )


Rule = Callable[..., Recipe]
"""A recipe for a `Setting`, and for arguments of its own, which are keyword-only."""

_PRESETS: dict[str, dict[str, Rule]] = {}


def preset(name: str, *kinds: str) -> Callable[[Rule], Rule]:
    """Marks a function that makes a recipe for a `Setting` as a preset.

    A driver finds it by the name, passes on what is given of its keyword-only arguments, and
    refuses all others; the command line lists it.

    Args:
        name: what drivers call it, as their `preset`.
        *kinds: what it is a recipe of: "inversion", "caricature", "class model", "visualization",
            "facets", "diversity" or "sampling".
    """

    def mark(rule: Rule) -> Rule:
        for kind in kinds:
            _PRESETS.setdefault(kind, {})[name] = rule
        return rule

    return mark


def presets(kind: str) -> Mapping[str, Rule]:
    """The presets of a kind by name, ours first."""
    found = _PRESETS[kind]
    ours = ("modern", "constrained")
    return {name: found[name] for name in sorted(found, key=lambda name: name not in ours)}


def of_drivers() -> list[str]:
    """The options that every driver takes for its runs; seed and images are its arguments."""
    return ["parameterization", *(one for one in options_of_runs() if one not in ("seed", "batch"))]


def chosen(
    caller: str, kind: str, name: str, options: dict[str, Any]
) -> Callable[[Setting], Recipe]:
    """A preset with what `options` have of its own arguments, which are taken out of them.

    Args:
        caller: the driver.
        kind: of its presets.
        name: of one.
        options: what else the driver was given.

    Raises:
        InputError: no preset of that name, or an option that neither it nor a run has; says the
            nearest and all there are.
    """
    known = presets(kind)
    if not isinstance(name, str) or name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.3)
        hint = f"nearest: {near[0]}; " if near else ""
        raise InputError(f"unknown preset {name!r}; {hint}known: {', '.join(known)}")
    rule = known[name]
    own = [p.name for p in inspect.signature(rule).parameters.values() if p.kind is p.KEYWORD_ONLY]
    check_options(f"{caller} with the preset {name}", options, [*of_drivers(), *own])
    return functools.partial(rule, **{one: options.pop(one) for one in own if one in options})


def rounded(number: float, digits: int = 4) -> float:
    """A number of few significant digits, as manifests show it."""
    return float(f"{number:.{digits}g}")


#: Options that take the place of every stage's.
OF_STAGES = ("parameterization", "optimizer", "transform", "draws")


def altered(
    recipe: Recipe, *, parameterization: Parameterization | str | None = None, **options: Any
) -> Recipe:
    """The recipe with what is given in place of all its stages'.

    Args:
        recipe: the stages.
        parameterization: of the recipe's size, or its text.
        **options: of runs; None for those of the stages.

    Raises:
        InputError: a parameterization of another shape.
    """
    own = recipe.stages[-1].parameterization
    if parameterization is not None:
        # At the recipe's size, which is not always the one that the network was trained at.
        parameterization = as_parameterization(parameterization, own.size, own.channels, exact=True)
    given = {name: value for name, value in options.items() if value is not None}
    stages = tuple(
        Stage(parameterization or stage.parameterization, stage.steps, **{**stage.options, **given})
        for stage in recipe.stages
    )
    return dataclasses.replace(recipe, stages=stages)


def run_recipe(
    model: Model,
    objective: Objective,
    recipe: Recipe,
    layer: str,
    *,
    init: Any = None,
    parameterization: Parameterization | str | None = None,
    snapshots: int | Sequence[int] = 0,
    **options: Any,
) -> Result:
    """Synthesizes along a recipe, each stage going on from the one before.

    Args:
        model: the network.
        objective: what is wanted, without the recipe's prior.
        recipe: the stages, with what the rest of the arguments put in place of all of theirs.
        layer: the last one that the objective reads.
        init: what the first stage starts from.
        parameterization: in place of every stage's.
        snapshots: steps of all stages together after which to keep the images, or their number.
        **options: of `synthesize`, in place of every stage's.

    Returns:
        The result of the last stage, with the way there; after an interrupt, what there is. A NaN
        or an infinity is in its `failures`.

    Raises:
        InputError: what `synthesize` raises of its arguments.

    Warns:
        SilenceWarning: as `synthesize`, of all stages together.
    """
    first, last = (recipe.stages[place].parameterization for place in (0, -1))
    if parameterization is None and np.shape(init)[-3:] == last.shape != first.shape:
        # A recipe that starts small starts from a small one of what is given.
        shape = (*np.shape(init)[:-3], *first.shape)
        init = np.clip(jax.image.resize(jnp.asarray(init), shape, "cubic"), 0, 1)
    stages = altered(recipe, parameterization=parameterization, **options).stages
    network, objective = asked(model, objective, recipe, layer)
    total = sum(stage.steps for stage in stages)
    marks, begun = snapshot_steps(snapshots, total), 0
    result = None
    for stage in stages:
        run = Run(
            network,
            objective,
            stage.parameterization,
            steps=stage.steps,
            init=init if result is None else result,
            snapshots=[m - begun for m in marks if begun < m <= begun + stage.steps],
            **stage.options,
        )
        result = attempt(run)
        begun += stage.steps
        # An image that failed keeps what it was before; the others go on.
        if "interrupt" in result.stopped or all(result.failures):
            break
    assert result is not None
    return result.or_warn()


def asked(
    model: Model, objective: Objective, recipe: Recipe, layer: str
) -> tuple[Model, Objective]:
    """The network, with rectifiers as a recipe has them, and the objective less its prior."""
    network = leaky(model, layer) if recipe.leaky else model
    network = unrectified(model, layer) if recipe.unrectified else network
    return network, objective if recipe.prior is None else objective - recipe.prior


def given_images(
    model: Model | str, images: Images, size: tuple[int, int] | None
) -> tuple[Model, np.ndarray]:
    """The network, and the images (n, h, w, c) in [0, 1] that it is to see."""
    model = loading.as_model(model)
    if size is not None and not of_files(images):
        raise InputError(f"size is of picture files; arrays have their own: got size={size}")
    return model, model.as_images(images, size)


def aim_of(model: Model, layer: str, images: np.ndarray, name: str = "target") -> Target:
    """What the layer gives for the images, once it is known that it has a gradient."""
    _ = Activations(model.layers(images.shape[1:3]))[layer]  # an unknown one says the nearest
    check_gradient(model.apply, model.params, Layer(layer), images.shape)
    return target(model, layer, images, name)


def class_kept(found: Activations, original: Activations) -> dict[str, np.ndarray]:
    """Whether the top class is still the original's, of networks that have classes."""
    if "logits" not in found or np.ndim(found["logits"]) != 2:
        return {}
    same = metrics.same_class(found["logits"], original["logits"])
    return {"same_class": same.astype(np.float32)}


def with_measures(result: Result, measure: Callable[[], Mapping[str, Any]]) -> Result:
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
