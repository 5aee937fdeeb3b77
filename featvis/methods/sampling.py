"""Samples of a generator that a network takes for what is asked: Plug & Play."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks, loading
from featvis.errors import InputError, printable
from featvis.evidence.similarity import diversity
from featvis.generators import finding, load
from featvis.images import image_array, of_files
from featvis.methods.conditions import Condition, captioner_of, condition_of
from featvis.methods.plug_and_play import with_prior
from featvis.methods.recipe import (
    Recipe,
    Setting,
    Stage,
    chosen,
    run_recipe,
    setting_of,
)
from featvis.methods.samples import Samples
from featvis.models import Captioner, Model
from featvis.parameterizations import Generator, Parameterization, Region
from featvis.results import Result
from featvis.results.format import LARGEST
from featvis.results.run import as_parameterization, check_positive
from featvis.synthesis import memory
from featvis.transforms import Compose, Transform

#: How often a sample is seen through the preset's transform before it is kept or not.
_WAYS = 16


def sample(
    generator: Generator | str,
    n: int = 16,
    *,
    classes: int | str | Sequence[int | str] | None = None,
    unit: str | None = None,
    words: str | None = None,
    model: Model | Captioner | str | None = None,
    judge: Model | str | None = None,
    inpaint: Any = None,
    mask: Any = None,
    preset: str = "modern",
    accept: float | None = None,
    keep: str = "last",
    seed: int = 0,
    **options: Any,
) -> Samples:
    """Draw samples of a generator that a network takes for what is asked.

    Plug & Play Generative Networks (Nguyen et al. 2017): a chain of codes for each sample, all in
    one compiled loop, each with noise of its own. One of `classes`, `unit` and `words` is asked.

    Args:
        generator: a generator, or the name of one (`featvis.generators.load`).
        n: samples of each set.
        classes: by number or name; several are a set each, and "3+5" is a set of pictures that are
            both at once.
        unit: a unit of the network, as "conv2:5".
        words: a sentence that a captioner is to say of the picture.
        model: the network that says what a picture is, or its name, or a `Captioner`; by default
            the one that belongs to the generator.
        judge: another network, which had no part in the samples, or its name: features of its last
            vector before the scores give the distance of diversity, and its top class is compared.
            By default the one that belongs to the generator.
        inpaint: an image, of which a hole is filled: an array or a file.
        mask: of the hole, (height, width) of the generator's images, 1 in it and 0 elsewhere: an
            array or a picture file, which nothing scales.
        preset: a recipe by name: `featvis.methods.presets("sampling")` has them.
        accept: the least probability of a sample that is kept, from 0 to 1; for a unit the share of
            unconditioned pictures whose activation is below a sample's. By default 0.5, for units
            0.98.
        keep: "last", the end of each chain, or "best", where it scored highest.
        seed: of all chains; each has noise and a start of its own.
        **options: as for `invert`, and the preset's own.

    Raises:
        InputError: none of `classes`, `unit` and `words` or several, a class that there is not, a
            mask that is empty or not binary, a network that does not see such images, a judge that
            had a part, a parameterization of another generator, no such preset, more samples than a
            run may have.
        TooLargeError: the samples do not fit the memory; says how many would.
        UnknownModel: no generator or network of that name.
    """
    of_hole = "context" in options and inpaint is None and mask is None
    rule = chosen("sample", "sampling", preset, options)
    if of_hole:
        raise InputError("context is of an image with a hole: it needs inpaint and mask")
    check_positive("n", n)
    seed = checks.integer("sample", "seed", seed, 0, LARGEST["seed"])
    if keep not in ("last", "best"):
        raise InputError(f"keep is 'last' or 'best'; got {keep!r}")
    networks: tuple[str, ...] = ()
    if isinstance(generator, str):
        networks = () if loading.is_place(generator) else finding.entry(generator).networks
        generator = load(generator)
    elif not isinstance(generator, Generator):
        shown = printable(repr(generator), 80)
        raise InputError(f"generator is a featvis.Generator, or the name of one; got {shown}")
    elif generator.place is not None and not loading.is_place(generator.place):
        networks = finding.entry(generator.place).networks
    if model is None and words is not None and classes is unit is None:
        raise InputError(
            f"words are said by a Captioner, and {generator!r} has none: give one as model, itself "
            "or by package.module:factory"
        )
    if model is None:
        if not networks:
            raise InputError(f"{generator!r} has no network of its own: say which, as model=")
        model = networks[0]
    if judge is None and len(networks) > 1:
        judge = networks[1]
    if isinstance(model, str) and words is not None:
        model = captioner_of(model)
    elif not isinstance(model, Captioner):
        model = loading.as_model(model)
    judge = None if judge is None else loading.as_model(judge, "judge")
    if isinstance(judge, Model) and isinstance(model, Model) and _same(judge, model):
        raise InputError(
            f"the judge is {model.name} itself, which its own samples please: name another network"
        )
    shape = generator.image_for(generator.code_for(model.input.size))
    for network in (model, judge):
        if isinstance(network, Model):
            network.check_image_shape(*shape)
    condition = condition_of(model, generator, classes, unit, words, shape)
    if accept is not None:
        condition = condition._replace(accept=checks.number("sample", "accept", accept, 0, 1))
    if options.get("parameterization") is not None:
        options["parameterization"] = _written(options["parameterization"], generator, shape)
    hole = _hole(inpaint, mask, shape)
    for name in ("init", "parameterization"):
        if hole is not None and options.get(name) is not None:
            raise InputError(f"{name} is the inpainted image's own: leave it out beside inpaint")
    task = condition.task if hole is None else "inpainting"
    if task == "class" and options.get("init") is not None:
        task = "image"
    at = setting_of(condition.model, condition.layer, shape[:2], options.pop("steps", None))
    at = dataclasses.replace(
        at, generator=generator, task=task, mask=None if hole is None else hole[1]
    )
    recipe = rule(at)
    if keep == "best":
        recipe = dataclasses.replace(recipe, stages=tuple(map(_keeping, recipe.stages)))
    result = _chains(condition, recipe, at, n, hole, seed, options)
    return _measured(result, condition, judge, n)


def _same(one: Model, other: Model) -> bool:
    return all(getattr(one, of) == getattr(other, of) for of in ("name", "digest", "apply"))


def _written(given: Any, generator: Generator, shape: tuple[int, int, int]) -> Parameterization:
    """How codes of the generator are written.

    Raises:
        InputError: what is none, is of another shape, or makes no pictures of this generator.
    """
    written = as_parameterization(given, shape[:2], shape[2], exact=True)
    part: Any = written
    while (own := getattr(part, "generator", None)) is None and hasattr(part, "of"):
        part = part.of
    if own is None or own.digest != generator.digest:
        said = "no generator" if own is None else f"another, {own!r}"
        raise InputError(
            f"samples are of {generator!r}, and the parameterization is of {said}: give one of "
            "this, as Latent(generator=...)"
        )
    return written


def _keeping(stage: Stage) -> Stage:
    """A stage that ends where its score was highest."""
    rule = f"keep_best({stage.options['optimizer']}, {stage.steps})"
    return Stage(stage.parameterization, stage.steps, **{**stage.options, "optimizer": rule})


def _chains(
    condition: Condition,
    recipe: Recipe,
    at: Setting,
    n: int,
    hole: tuple[np.ndarray, np.ndarray] | None,
    seed: int,
    options: dict[str, Any],
) -> Result:
    """All chains, those of a reset after those before it."""
    batch = n * len(condition.names)
    if batch > LARGEST["batch"]:
        sets = len(condition.names)
        of_sets = f" of each of {sets} sets" if sets > 1 else ""
        raise InputError(f"n is at most {LARGEST['batch'] // sets}{of_sets}; got {n}")
    for stage in recipe.stages:
        # Before the classes of all of them, or their starts, are made.
        memory.check_pictures(stage.parameterization, batch * recipe.resets, steps=stage.steps)
    objective = recipe.weight * condition.objective(recipe, n)
    draw, found = np.random.default_rng(seed), []
    for number in range(recipe.resets):
        stages = recipe.stages
        if recipe.redrawn is not None:
            weight = float(draw.uniform(*recipe.redrawn))
            stages = tuple(
                Stage(with_prior(one.parameterization, weight), one.steps, **one.options)
                for one in stages
            )
        own = (seed + number) % 2**32
        if hole is not None:
            options = {**options, "init": _starts(stages[0].parameterization, hole[0], batch, own)}
        result = run_recipe(
            condition.model, objective, dataclasses.replace(recipe, stages=stages),
            condition.layer, seed=own, batch=batch, **options,
        )  # fmt: skip
        found.append(result.or_raise())
        if "interrupt" in result.stopped:
            break
    return Result.join(found) if len(found) > 1 else found[0]


def _starts(written: Any, image: np.ndarray, batch: int, seed: int) -> Any:
    """Parameters to begin with: drawn as for any sample, around the context of an image."""
    assert isinstance(written, Region)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(batch))
    params = jax.jit(jax.vmap(written.init))(keys)
    rest = np.broadcast_to(image, (batch, *image.shape))
    return {name: np.asarray(a) for name, a in {**params, "rest": rest}.items()}


def _measured(result: Result, condition: Condition, judge: Model | None, n: int) -> Samples:
    """The samples with what is measured on them."""
    once = np.repeat(np.arange(len(condition.names)), n)
    sets = np.tile(once, len(result) // len(once))
    probability = _probability(result, condition, sets)
    accepted = probability >= condition.accept
    evidence = {"probability": probability, "accepted": accepted.astype(np.float32)}
    features = None
    if judge is not None:
        seen = judge(result.images)
        features = np.asarray(seen[_last_vector(judge, result.images.shape[1:3])])
        if condition.classes is not None and judge.labels == condition.model.labels:
            said = np.asarray(seen["logits"]).argmax(1)
            evidence["judged"] = (said == np.array(condition.classes)[sets]).astype(np.float32)
    apart = []
    for number in range(len(condition.names)):
        own = accepted & (sets == number)
        some = None if features is None else features[own]
        apart.append(diversity(result.images[own], some) if own.sum() > 1 else None)
    return Samples(result.with_evidence(**evidence), condition.names, sets, tuple(apart))


def _probability(result: Result, condition: Condition, sets: np.ndarray) -> np.ndarray:
    """How far each sample is what was asked: the mean over ways that the last step may show it."""
    last = result.joined[-1] if result.joined else result
    transform, step = last.run.parts.transform, jnp.int32(last.run.steps - 1)
    if transform == Compose(()):
        return condition.measure(condition.model(result.images), sets)
    ways = [
        _shown(transform, step, jax.random.split(key, len(sets)), result.images)
        for key in jax.random.split(jax.random.key(0), _WAYS)
    ]
    # Noise may leave what a network takes as an image.
    seen = [np.clip(np.asarray(one), 0, 1) for one in ways]
    found = [condition.measure(condition.model(one), sets) for one in seen]
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


@functools.partial(jax.jit, static_argnums=0)
def _shown(transform: Transform, step: jax.Array, keys: jax.Array, images: jax.Array) -> jax.Array:
    return jax.vmap(transform.at(step))(keys, images)


def _last_vector(model: Model, size: tuple[int, int]) -> str:
    """The last layer before the class scores that has no positions; else the last."""
    shapes = model.layers(size)
    vectors = [name for name, shape in shapes.items() if len(shape) == 1 and name != "logits"]
    return vectors[-1] if vectors else list(shapes)[-1]


# ---- the hole


def _hole(
    inpaint: Any, mask: Any, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The image with a hole, and the mask, 1 in the hole."""
    if (inpaint is None) != (mask is None):
        lacking = "mask" if mask is None else "inpaint"
        raise InputError(f"a hole is filled with an image and its mask: {lacking} is missing")
    if inpaint is None:
        return None
    image = image_array(inpaint, shape[2], shape[:2], what="inpaint")
    if image.shape[0] == 1 and image.ndim == 4:
        image = image[0]
    given = image_array(mask, 1, what="mask") if of_files(mask) else mask
    hole = np.squeeze(checks.real_array("a mask", given))
    if image.shape != shape or hole.shape != shape[:2]:
        raise InputError(
            f"the generator makes images {shape}; the image to fill is {image.shape}, its mask "
            f"{np.shape(given)}"
        )
    levels = np.unique(hole)
    if not np.isin(levels, (0, 1)).all():
        other = levels[~np.isin(levels, (0, 1))][0]
        mend = ": divide it by 255" if other == 255 else ""
        raise InputError(f"a mask is 1 in the hole and 0 elsewhere; got {other:.3g} in it{mend}")
    if len(levels) < 2:
        what = "all hole: there is no context" if levels[0] else "empty: there is nothing to fill"
        raise InputError(f"the mask is {what}")
    # What is in the hole is nobody's to see.
    return np.where(hole[..., None] == 1, np.float32(0.5), image), hole
