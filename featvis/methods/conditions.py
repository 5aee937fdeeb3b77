"""What samples of a generator are to be: classes, a unit of a network, or words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from featvis import loading
from featvis.errors import InputError
from featvis.methods.plug_and_play import latent
from featvis.methods.recipe import Recipe, Setting
from featvis.models import Captioner, Model
from featvis.models.captions import SENTENCE, WORDS, sentence_probability
from featvis.models.classes import several_classes
from featvis.parameterizations import Generator
from featvis.results.run import as_objective
from objectives import (
    Activations,
    DoubtedLogit,
    Logit,
    LogProbability,
    Objective,
    Probability,
)

_OF_CLASSES: Mapping[str, Callable[..., Objective]] = {
    "score": Logit,
    "probability": Probability,
    "log_probability": LogProbability,
    "doubted_logit": DoubtedLogit,
}
_NOWHERE = Setting((1, 1), 1, 1.0, 1.0, True, None)
#: How far above 0 rounding may bring the logarithm of a probability.
_ROUNDED = 1e-3
#: Pictures of codes that nothing conditions, by which a unit's activations are judged.
_UNCONDITIONED = 256


class Condition(NamedTuple):
    """What samples are to be.

    Attributes:
        model: the network that says so.
        layer: the last one that it reads.
        names: of what is asked, one for each set of samples.
        objective: makes what is maximised of a recipe and the number of samples of a set.
        measure: from activations and the sets of samples to how far each is what is asked, in
            [0, 1], (n,).
        task: as `Setting` has it.
        accept: the least measure of a sample that is kept.
        classes: the class of each set; None where it is none, or several.
    """

    model: Model
    layer: str
    names: tuple[str, ...]
    objective: Callable[[Recipe, int], Objective]
    measure: Callable[[Activations, np.ndarray], np.ndarray]
    task: str
    accept: float
    classes: tuple[int, ...] | None = None


def condition_of(
    model: Any,
    generator: Generator,
    classes: Any,
    unit: Any,
    words: Any,
    shape: tuple[int, int, int],
) -> Condition:
    """What samples are to be, of what was asked.

    Args:
        model: a model, or a captioner where it is words.
        generator: of the samples.
        classes: as `sample` has them; None: it is another of the three.
        unit: likewise.
        words: likewise.
        shape: (height, width, channels) of the generator's images.

    Raises:
        InputError: none of them or several, or what the model does not have.
        UnknownLayer: no such layer.
    """
    given = {"classes": classes, "unit": unit, "words": words}
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) != 1:
        raise InputError(
            "samples are of one of classes, unit and words, as classes=7 (--class 7); got "
            f"{' and '.join(asked) or 'none'}"
        )
    if isinstance(model, Captioner) != (words is not None):
        raise InputError(
            "words are said by a Captioner, and classes and units are of a Model; got "
            f"{'words' if words is not None else asked[0]} and a {type(model).__name__}"
        )
    if words is not None:
        return _of_words(model, words)
    return _of_classes(model, classes) if unit is None else _of_unit(model, generator, unit, shape)


def _of_classes(model: Model, classes: Any) -> Condition:
    several = several_classes(classes)
    if not several:
        raise InputError("samples are of at least one class; got none")
    model.check_scores()
    sets: list[tuple[int, ...]] = []
    for one in several:
        # A name may have a plus of its own.
        try:
            own: tuple[int, ...] = (model.class_index(one),)
        except InputError:
            if not (isinstance(one, str) and "+" in one):
                raise
            own = tuple(model.class_index(part) for part in one.split("+"))
        if len(set(own)) < len(own):
            raise InputError(f"{one!r} has a class twice; classes at once are several, as 3+5")
        sets.append(own)
    members = [frozenset(own) for own in sets]
    twice = [one for one, own in zip(several, members, strict=True) if members.count(own) > 1]
    if twice:
        raise InputError(f"class {twice[0]!r} is asked for twice; n is how many samples it gets")
    most = max(map(len, sets))
    if any(most % len(one) for one in sets):
        raise InputError(f"sets of classes at once are of as many classes each; got {several!r}")
    # One class is the mean of as many times itself.
    parts = np.array([one * (most // len(one)) for one in sets])

    def objective(recipe: Recipe, n: int) -> Objective:
        made = [_OF_CLASSES[recipe.of](np.repeat(column, n)) for column in parts.T]
        total = made[0]
        for one in made[1:]:
            total = total + one
        return total if most == 1 else (1 / most) * total

    def measure(acts: Activations, numbers: np.ndarray) -> np.ndarray:
        scores = np.asarray(acts["logits"], np.float64)
        logarithms = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        own = np.take_along_axis(logarithms, parts[numbers], 1)
        # Of k classes at once 1 where each has 1/k.
        counts = np.array([len(set(one)) for one in sets])[numbers]
        found: np.ndarray = np.minimum(counts * np.exp(own.mean(1)), 1)
        return found

    labels = model.labels or ()

    def name(index: int) -> str:
        return labels[index] if labels else str(index)

    names = tuple("+".join(name(index) for index in one) for one in sets)
    single = tuple(one[0] for one in sets) if most == 1 else None
    return Condition(model, "logits", names, objective, measure, "class", 0.5, single)


def _of_unit(
    model: Model, generator: Generator, unit: str, shape: tuple[int, int, int]
) -> Condition:
    wanted = as_objective(unit, model)
    layer, index = (getattr(wanted, name, None) for name in ("layer", "index"))
    if not isinstance(layer, str) or index is None or np.ndim(index) != 0:
        raise InputError(f"a unit is one of a layer, as conv2:5; got {unit!r}")
    layers_of = model.layers(shape[:2])
    wanted.check({k: np.zeros((1, *v), np.float32) for k, v in layers_of.items()}, (1, *shape))
    free = latent(dataclasses.replace(_NOWHERE, generator=generator))
    keys = jax.random.split(jax.random.key(0), _UNCONDITIONED)
    images = jax.jit(jax.vmap(lambda key: free.decode(free.init(key))))(keys)

    def responses(acts: Activations) -> np.ndarray:
        some = next(iter(acts.values()))
        return np.asarray(wanted(acts, np.zeros((len(some), *shape), np.float32)))

    found = model(np.asarray(images))
    usual = np.sort(responses(found))
    spread = float(usual.std())
    if not spread > 0:
        values = np.asarray(found[layer])
        moving = np.flatnonzero(np.ptp(values.reshape(-1, values.shape[-1]), axis=0))
        near = sorted(moving.tolist(), key=lambda other: abs(other - int(index)))[:3]
        listed = ", ".join(f"{layer}:{other}" for other in near) or f"none of {layer}"
        raise InputError(
            f"{unit} is dead: {_UNCONDITIONED} pictures of the generator leave it at "
            f"{usual[0]:.3g}; nearest that are not: {listed}"
        )

    def objective(recipe: Recipe, n: int) -> Objective:
        if recipe.of == "doubted_logit":
            return DoubtedLogit(int(np.asarray(index)), layer)
        return (1 / spread) * wanted

    def measure(acts: Activations, numbers: np.ndarray) -> np.ndarray:
        return np.searchsorted(usual, responses(acts)) / len(usual)

    return Condition(model, layer, (str(wanted),), objective, measure, "unit", 0.98)


def captioner_of(place: str) -> Captioner:
    """A captioner by the place of a function that makes it.

    Raises:
        InputError: there is none, or it is something else.
    """
    made = loading.object_at(place, "a captioner")
    if not isinstance(made, Captioner):
        made = loading.call_factory(place, "a captioner", made, None)
    if not isinstance(made, Captioner):
        raise InputError(f"{place} must return a featvis.Captioner; got {type(made).__name__}")
    return made


def _of_words(captioner: Captioner, words: str) -> Condition:
    model = captioner.model(words)
    taken = captioner.input
    grey = np.full((1, *taken.size, taken.channels), 0.5, np.float32)
    said = np.asarray(model(grey)[WORDS])
    if said.max() > _ROUNDED:
        raise InputError(
            f"{captioner.name} gives {said.max():.3g} for a word of a grey image: expected the "
            "logarithm of its probability, which is at most 0, as of jax.nn.log_softmax"
        )

    def measure(acts: Activations, numbers: np.ndarray) -> np.ndarray:
        return sentence_probability(np.asarray(acts[WORDS], np.float64))

    def objective(recipe: Recipe, n: int) -> Objective:
        return Logit(0, SENTENCE)

    return Condition(model, SENTENCE, (words,), objective, measure, "words", 0.5)
