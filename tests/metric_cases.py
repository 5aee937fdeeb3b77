"""One list of metrics, each with what it is asked about, sent through the laws by the tests."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from featvis.evidence import metrics

_rng = np.random.default_rng(0)
#: Of six images: activations of found and target, rectified; and pictures.
FOUND, TARGET = (np.maximum(_rng.normal(size=(6, 3, 4, 2)), 0).astype(np.float32) for _ in "ab")
LOGITS, OTHERS = (_rng.normal(size=(6, 5)).astype(np.float32) for _ in "ab")
PICTURES, ORIGINALS = (_rng.uniform(size=(6, 20, 24, 3)).astype(np.float32) for _ in "ab")
NULL = _rng.normal(size=40)


@dataclasses.dataclass(frozen=True)
class Case:
    """A metric and its arguments.

    Attributes:
        metric: the function.
        given: arrays, the images' axis first in all that are `of_images`.
        of_images: how many of the arrays are of the images, whose order is the figures' order.
        figures: whether it gives one figure an image, (n,).
        same: its value where found and target are one; None where that says nothing.
    """

    metric: Callable[..., Any]
    given: tuple[np.ndarray, ...]
    of_images: int = 2
    figures: bool = True
    same: float | None = None


CASES = [
    Case(metrics.relative_error, (FOUND, TARGET), same=0),
    Case(metrics.pairwise_error, (FOUND, TARGET), same=0),
    Case(metrics.spearman, (FOUND, TARGET), same=1),
    Case(metrics.cosine, (FOUND, TARGET), same=1),
    Case(metrics.projection, (FOUND, TARGET), same=1),
    Case(metrics.signal_to_noise, (FOUND, TARGET), same=np.inf),
    Case(metrics.same_class, (LOGITS, OTHERS), same=1),
    Case(metrics.psnr, (PICTURES, ORIGINALS), same=np.inf),
    Case(metrics.checkerboard, (PICTURES, ORIGINALS)),
    Case(metrics.naturalness, (PICTURES, ORIGINALS)),
    Case(metrics.gradient_histogram, (PICTURES,), of_images=1, figures=False),
    Case(metrics.centred_ranks, (TARGET.reshape(6, -1),), of_images=1, figures=False),
    Case(metrics.mean_interval, (NULL,), of_images=0, figures=False),
    Case(metrics.null_pairs, (TARGET,), of_images=0, figures=False),
    Case(metrics.null_p_value, (NULL[:6], NULL), of_images=1),
]
