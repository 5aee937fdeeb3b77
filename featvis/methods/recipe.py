"""Recipes of the papers: stages of a run, each going on from the one before."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from featvis import loading
from featvis import text as components
from featvis.errors import InputError, NonFiniteError
from featvis.evidence import metrics
from featvis.gradients.differentiability import check_gradient
from featvis.images import Images, of_files
from featvis.models import Model, Target, leaky, target, unrectified
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.synthesis.arguments import check_positive, snapshot_steps
from featvis.synthesis.run import attempt
from featvis.transforms import Transform
from objectives import Activations, Layer, Objective


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


def setting_of(model: Model, layer: str, size: tuple[int, int], steps: int | None) -> Setting:
    """The scene of a layer of a model.

    Raises:
        InputError: a size that the model does not take, or a number of steps below 1.
        UnknownLayer: no such layer.
    """
    if steps is not None:
        check_positive("steps", steps)
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
        at_size=at_size,
    )


Presets = Mapping[str, Callable[[Setting], Recipe]]
"""Recipes by the names that drivers take."""


def preset_of(name: str, among: Presets) -> Callable[[Setting], Recipe]:
    """A recipe's function by its name.

    Raises:
        InputError: none of that name; says the nearest and all there are.
    """
    if name not in among:
        near = difflib.get_close_matches(str(name), among, n=1, cutoff=0.3)
        hint = f"nearest: {near[0]}; " if near else ""
        raise InputError(f"unknown preset {name!r}; {hint}known: {', '.join(among)}")
    return among[name]


#: Options that take the place of every stage's.
OF_STAGES = ("parameterization", "optimizer", "transform", "draws")


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
    own = written_as(recipe.stages[-1], model)
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


def written_as(stage: Stage, model: Model) -> Parameterization:
    """How a stage's images are written."""
    text: Any = stage.parameterization
    if isinstance(text, Parameterization):
        return text
    return components.parameterization(text, model.input.size, model.input.channels)


def run_recipe(
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
    first, last = (written_as(recipe.stages[place], model) for place in (0, -1))
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


def given_images(
    model: Model | str, images: Images, size: tuple[int, int] | None
) -> tuple[Model, np.ndarray]:
    """The network, and the images (n, h, w, c) in [0, 1] that it is to see."""
    model = loading.load(model) if isinstance(model, str) else model
    if size is not None and not of_files(images):
        raise InputError(f"size is of picture files; arrays have their own: got size={size}")
    return model, model.as_images(images, size)


def aim_of(model: Model, layer: str, images: np.ndarray) -> Target:
    """What the layer gives for the images, once it is known that it has a gradient."""
    _ = Activations(model.layers(images.shape[1:3]))[layer]  # an unknown one says the nearest
    check_gradient(model.apply, model.params, Layer(layer), images.shape)
    return target(model, layer, images)


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
