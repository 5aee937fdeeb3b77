"""Whether another network puts a class picture into the class that it is of.

A score says how much the network explained likes its own picture, and that can be speckle. A judge
is a network that had no part in the synthesis: what it sees too is in the picture.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from featvis import loading
from featvis.errors import InputError
from featvis.models import Model
from featvis.models.classes import identifiers, several_classes, synonyms
from featvis.results import Result
from featvis.results.joining import as_result
from objectives import Channel, Logit, LogProbability, Objective, Probability, Scaled, Sum

#: Pictures that a judge sees at a time.
_BATCH = 16


def recognition(
    result: Result,
    judges: Model | str | Sequence[Model | str],
    classes: int | str | Sequence[int | str] | None = None,
) -> Result:
    """Ask other networks what they take the pictures for.

    A judge sees each picture at its own size: scaled so that it covers that, and cut in the middle.
    Classes are matched by their names, any of several synonyms, or WordNet ids.

    Args:
        result: of `synthesize`, `class_model` or `replay`; of class scores, or with `classes`.
        judges: one network or several, or their names (`featvis.loading.available()`).
        classes: numbers or names of the network explained, one for all pictures or one each; by
            default those whose scores the objective maximises.

    Returns:
        The result with, in `evidence`, for each judge and picture: `rank_by_JUDGE` (1: the judge's
        top class), `top1_by_JUDGE` and `top5_by_JUDGE` (1 or 0; their means are shares), and
        `probability_by_JUDGE`.

    Raises:
        InputError: an objective of no class or of several, a judge that is the network explained
            or is joined of it, that has no class scores or names, or no class of that name, or that
            takes images of another number of channels; a number of classes that is not that of the
            pictures; what is no result or no judge.
        UnknownModel: no model of a judge's name.
        CheckpointError: a judge without weights.
    """
    result = as_result(result)
    each: list[Any] = [None] if classes is None else several_classes(classes)
    if classes is None or isinstance(classes, (int, str, np.integer)):
        each = each * len(result)
    if len(each) != len(result):
        raise InputError(f"{len(result)} pictures have one class each; got {len(each)} classes")
    if result.joined:
        pairs = zip(result, each, strict=True)
        return Result.join([recognition(one, judges, own) for one, own in pairs])
    model = result.run.parts.model
    if classes is None:
        wanted = classes_of(result.objective, len(result))
    else:
        wanted = np.array([model.class_index(one) for one in each])
    several = list(judges) if isinstance(judges, (list, tuple)) else [judges]
    if not several:
        raise InputError("recognition takes at least one judge; got none")
    networks = [loading.as_model(one, "a judge") for one in several]
    # All are checked before the first has seen a picture.
    places = [places_of(model, judge, wanted) for judge in networks]
    found: dict[str, np.ndarray] = {}
    for judge, own in zip(networks, places, strict=True):
        name = judge.name
        if f"rank_by_{name}" in found:
            name = f"{name}_{judge.digest[:8]}"
        found_of = standing(judged(judge, result.images), own)
        found[f"rank_by_{name}"] = found_of.rank
        for top in (1, 5):
            found[f"top{top}_by_{name}"] = (found_of.rank <= top).astype(np.float32)
        found[f"probability_by_{name}"] = found_of.probability
    return result.with_evidence(**found)


class Standing(NamedTuple):
    """How a class stands among all classes, for each of some images.

    Attributes:
        logit: its score, (n,).
        probability: its posterior, the softmax of the scores, (n,).
        rank: 1 where it is the top class, (n,).
    """

    logit: np.ndarray
    probability: np.ndarray
    rank: np.ndarray


def standing(logits: np.ndarray, classes: np.ndarray) -> Standing:
    """How each image's class stands among all.

    Args:
        logits: class scores, (n, classes).
        classes: the class of each image, (n,).
    """
    scores = np.take_along_axis(logits, classes[:, None], axis=1)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    own = np.take_along_axis(shifted, classes[:, None], axis=1)[:, 0]
    return Standing(scores[:, 0], own / shifted.sum(axis=1), 1 + np.sum(logits > scores, axis=1))


def judged(judge: Model, images: np.ndarray) -> np.ndarray:
    """A network's class scores (n, classes) of images (n, h, w, c) in [0, 1], at its own size."""
    seen = covering(images, judge.input.size)
    parts = range(0, len(seen), _BATCH)
    return np.concatenate([np.asarray(judge(seen[i : i + _BATCH])["logits"]) for i in parts])


def covering(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images scaled (cubic, averaged where they shrink) to cover a size, and cut in the middle.

    Args:
        images: (n, h, w, c) in [0, 1].
        size: (height, width) in pixels.
    """
    count, *shape, channels = images.shape
    factor = max(wanted / given for wanted, given in zip(size, shape, strict=True))
    larger = [max(s, math.floor(n * factor + 0.5)) for n, s in zip(shape, size, strict=True)]
    scaled = jnp.asarray(images, jnp.float32)
    if tuple(larger) != tuple(shape):
        scaled = jax.image.resize(scaled, (count, *larger, channels), "cubic")
    top, left = ((have - want) // 2 for have, want in zip(larger, size, strict=True))
    cut = scaled[:, top : top + size[0], left : left + size[1]]
    return np.clip(np.asarray(cut), 0, 1)


def classes_of(objective: Objective, count: int) -> np.ndarray:
    """The class of each of `count` images whose score an objective maximises, (count,).

    A class whose score has a weight of 0 or less is not maximised.

    Raises:
        InputError: of none, or of several an image.
    """
    found: list[np.ndarray] = []
    for node in _maximised(objective):
        if isinstance(node, (Logit, Probability, LogProbability, Channel)):
            if isinstance(node, Channel) and node.layer != "logits":
                continue
            index = np.asarray(node.index)
            if index.ndim and len(index) != count:
                raise InputError(f"{node!r} is of {len(index)} images; the result has {count}")
            found.append(np.broadcast_to(index, (count,)))
    if not found:
        raise InputError(
            f"{objective!r} maximises no class score (as logits:285): say what class the pictures "
            "are of, with classes="
        )
    if any(np.any(one != found[0]) for one in found):
        raise InputError(
            f"{objective!r} is of several classes an image: say which one to look for, with "
            "classes="
        )
    return found[0]


def _maximised(objective: Objective) -> Iterator[Objective]:
    """The parts of an objective but those whose weight is nowhere above 0."""
    if isinstance(objective, Sum):
        for part in objective.objectives:
            yield from _maximised(part)
    elif not isinstance(objective, Scaled):
        yield from objective.walk()
    elif np.any(np.asarray(objective.weight) > 0):
        yield from _maximised(objective.objective)


def check_judge(model: Model, judge: Model) -> None:
    """Checks that a network can judge pictures of another.

    Raises:
        InputError: it is the network explained or one of them, or is joined of one, has no class
            scores or names, or takes images of another number of channels.
    """
    own = {(judge.name, judge.digest), *judge.joined}
    if own & {(model.name, model.digest), *model.joined}:
        part = "one of the networks" if model.joined else "the network"
        what = "is joined of" if judge.joined else "is"
        raise InputError(
            f"the judge {judge.name} {what} {part} explained, which its own picture pleases: name "
            "another"
        )
    judge.check_scores()
    channels = model.input.channels
    if judge.input.channels != channels:
        raise InputError(
            f"the judge {judge.name} takes images of {judge.input.channels} channels; the pictures "
            f"have {channels}"
        )
    if judge.labels is None or model.labels is None:
        nameless = judge.name if judge.labels is None else model.name
        raise InputError(
            f"classes of {model.name} and of the judge {judge.name} are matched by name, and "
            f"{nameless} has no class names"
        )


def places_of(model: Model, judge: Model, wanted: np.ndarray) -> np.ndarray:
    """The judge's own numbers of classes (n,) of the network explained.

    Raises:
        InputError: a judge that cannot judge, or lacks one of the classes.
    """
    check_judge(model, judge)
    match = _Classes(model, judge).match
    matched = {number: match(number) for number in np.unique(wanted).tolist()}
    return np.array([matched[number] for number in wanted.tolist()])


class _Classes:
    """The classes of a network explained and of its judge."""

    def __init__(self, model: Model, judge: Model) -> None:
        self.model, self.judge = model, judge
        self.ours, self.theirs = model.labels or (), judge.labels or ()
        self.our_ids, self.their_ids = identifiers(self.ours), identifiers(self.theirs)

    def match(self, number: int) -> int:
        """The judge's class that is a class of the network explained.

        Raises:
            InputError: none or several; says the nearest, or all.
        """
        label, own = self.ours[number], self._of(number)
        if len(own) == 1:
            return own[0]
        of = f"{label!r} (class {number} of {self.model.name})"
        if own:
            raise InputError(
                f"the judge {self.judge.name} has {len(own)} classes of the name of {of}: "
                f"{', '.join(map(str, own))}; which is meant is not known"
            )
        near = difflib.get_close_matches(label, self.theirs, n=3, cutoff=0.4)
        hint = "nearest" if near else "its first are"
        raise InputError(
            f"the judge {self.judge.name} has no class {of}: a judge is a network of the same "
            f"classes; {hint}: {', '.join(near or self.theirs[:3])}"
        )

    def _of(self, number: int) -> list[int]:
        """By identifier, else by the whole name, else by any name in common."""
        label, identifier = self.ours[number], self.our_ids[number]
        # A name may be of two classes (crane, the bird and the machine), an identifier is of one.
        own = [i for i, other in enumerate(self.their_ids) if other == identifier != ""]
        own = own or [i for i, other in enumerate(self.theirs) if other == label]
        names = {*synonyms(label), identifier} - {""}
        return own or [
            i
            for i, other in enumerate(self.theirs)
            if names & {*synonyms(other), self.their_ids[i]}
        ]
