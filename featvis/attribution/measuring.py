"""What an explanation is worth: measures of faithfulness among its metrics, beside controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from featvis.attribution import faithfulness
from featvis.attribution.explain import explain, prober
from featvis.attribution.explanation import Explanation
from featvis.attribution.localisation import Box
from featvis.attribution.method import Probed
from featvis.attribution.sanity import SanityCurve, Way, sanity
from featvis.errors import InputError, printable
from featvis.models import Model
from objectives import Logit, Objective, Probability


def measured(
    found: Explanation, boxes: Sequence[Sequence[Box]] | None = None, *, steps: int = 32
) -> Explanation:
    """An explanation with what its maps are worth among its metrics.

    `deletion` and `insertion` are the areas of RISE, in units of the score; of a class's score
    (`Logit`) they are those of its probability, as in the paper. With boxes there are `pointing`,
    `box_iou` and `mass_inside`, as in `featvis.attribution.faithfulness`. Each has beside it the
    same of a map of noise and of one that is bright in the middle, `deletion_random` and
    `deletion_centre`.

    Args:
        found: the explanation.
        boxes: for each image, boxes of what is explained, in its pixels.
        steps: of deletion and insertion.

    Returns:
        The same with more metrics.

    Raises:
        InputError: what is no explanation, no step, or boxes of another number of images or
            outside of one.
        NonFiniteError: a NaN or an infinity in a map.
    """
    _check("measured", found)
    if boxes is not None:
        several = isinstance(boxes, (list, tuple, np.ndarray))
        if not several or len(boxes) != len(found):
            got = len(boxes) if several else printable(repr(boxes), 80)
            raise InputError(f"boxes are one list an image, {len(found)}; got {got}")
    size = found.maps.shape[1:]
    judged = _as_probability(found.objective)
    rows: list[dict[str, float]] = []
    for place, (image, own) in enumerate(zip(found.images, found.maps, strict=True)):
        score, batch = prober(found.model, judged, found.images, place)
        given = Probed(image, score, batch, jax.random.key(np.uint32(found.seed)))
        inside = None if boxes is None else faithfulness.inside_boxes(boxes[place], size)
        random = faithfulness.random_map(size, found.seed + place)
        maps = {"": own, "_random": random, "_centre": faithfulness.centre_map(size)}
        row = {}
        for ending, values in maps.items():
            lost = faithfulness.deletion(given, values, steps=steps)
            gained = faithfulness.insertion(given, values, steps=steps)
            row[f"deletion{ending}"] = float(faithfulness.area(lost))
            row[f"insertion{ending}"] = float(faithfulness.area(gained))
            if inside is not None:
                row[f"pointing{ending}"] = faithfulness.pointing(values, inside)
                row[f"box_iou{ending}"] = faithfulness.rank_iou(values, inside)
                row[f"mass_inside{ending}"] = faithfulness.mass_inside(values, inside)
        rows.append(row)
    return found.with_metrics(**{name: np.array([row[name] for row in rows]) for name in rows[0]})


def sanity_check(
    found: Explanation, *, way: Way = "cascading", steps: int = 8, seed: int = 0
) -> SanityCurve:
    """How like an explanation's maps stay while the network's weights become random.

    Args:
        found: the explanation, of a network; it is made again with its own method and options.
        way: as of `sanity`.
        steps: of the curve.
        seed: of the weights.

    Raises:
        InputError: an explanation of a function, whose weights nobody knows; or as `sanity`.
    """
    _check("sanity_check", found)
    network, objective = found.model, found.objective
    if not isinstance(network, Model) or not isinstance(objective, Objective):
        raise InputError("sanity checks need a network's weights; this explains a function")
    height, width = found.images.shape[1:3]

    def again(model: Model) -> np.ndarray:
        return _again(found, model, found.images)

    return sanity(again, network, objective, (height, width), way=way, steps=steps, seed=seed)


def sensitivity(
    found: Explanation, *, radius: float = 0.02, samples: int = 10, seed: int = 0
) -> np.ndarray:
    """The largest change of an explanation's maps, in proportion, under noise that nobody sees.

    Args:
        found: the explanation; it is made again with its own method, options and seed.
        radius: of the noise, as of `faithfulness.max_sensitivity`.
        samples: draws.
        seed: of the noise.

    Returns:
        (n,).

    Raises:
        InputError: what is no explanation; or as `faithfulness.max_sensitivity`.
    """
    _check("sensitivity", found)
    return faithfulness.max_sensitivity(
        lambda images: _again(found, found.model, images),
        found.images,
        radius=radius,
        samples=samples,
        seed=seed,
    )


def _check(owner: str, found: Any) -> None:
    """Checks that it is an explanation, with a map an image.

    Raises:
        InputError: it is not.
    """
    if not isinstance(found, Explanation):
        raise InputError(f"{owner} takes what explain gives; got {printable(repr(found), 80)}")
    if found.maps.shape != found.images.shape[:3]:
        raise InputError(
            f"{owner}: maps of these images are {found.images.shape[:3]}; got {found.maps.shape}"
        )


def _again(found: Explanation, model: Any, images: np.ndarray) -> np.ndarray:
    """The maps of a network or of images in the place of an explanation's own."""
    again = explain(
        model, found.objective, images, found.method, seed=found.seed, **dict(found.options)
    )
    return again.maps


def _as_probability(objective: Any) -> Any:
    """A class's score as its probability; all else as it is."""
    if isinstance(objective, Logit):
        return Probability(objective.index, objective.layer)
    return objective
