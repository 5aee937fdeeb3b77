"""Attribution to the segments of an image: LIME and KernelSHAP, and the segments themselves."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import limits
from featvis.attribution.baselines import Baseline
from featvis.attribution.masking import scored
from featvis.attribution.method import Probed, method
from featvis.attribution.options import Range
from featvis.errors import FeatvisError, InputError


@method("lime", black_box=True)
def lime(
    given: Probed,
    *,
    samples: Annotated[int, Range(2)] = 1000,
    segments: Annotated[int, Range(2)] = 50,
    labels: np.ndarray | None = None,
    width: Annotated[float, Range(1e-3)] = 0.25,
    penalty: Annotated[float, Range(0)] = 1.0,
    baseline: Baseline = "mean",
) -> np.ndarray:
    """The coefficient of each segment in a linear model of the score of what segments are seen.

    Ribeiro et al. 2016, "Why Should I Trust You?", as in the authors' code for images: each segment
    is seen or not by the toss of a coin, the first sample is the whole image, samples weigh by
    √exp(−d²/width²) for d the cosine distance to it, and the regression is scikit-learn's ridge.

    Args:
        given: the image and its score.
        samples: images that are scored.
        segments: about how many scikit-image's SLIC makes.
        labels: segments of one's own in their place, (h, w) of integers.
        width: of the weighting of samples.
        penalty: of the ridge regression.
        baseline: what is seen in place of a segment.

    Raises:
        FeatvisError: scikit-image or scikit-learn is not installed.
        InputError: labels of another shape or kind.
    """
    linear = _regressions()
    numbers = _numbers(given, segments, labels)
    _require("lime", samples, int(numbers.max()) + 1)
    seen = given.random.integers(0, 2, (samples, numbers.max() + 1))
    seen[0] = 1
    scores = _scores(given, baseline, seen, numbers)
    distance = 1 - np.sqrt(seen.mean(axis=1))
    weights = np.sqrt(np.exp(-(distance**2) / width**2))
    model = linear.Ridge(alpha=penalty).fit(seen, scores, sample_weight=weights)
    return np.asarray(model.coef_, np.float32)[numbers]


@method("kernel_shap", black_box=True)
def kernel_shap(
    given: Probed,
    *,
    samples: Annotated[int, Range(2)] = 1000,
    segments: Annotated[int, Range(2)] = 50,
    labels: np.ndarray | None = None,
    baseline: Baseline = "mean",
) -> np.ndarray:
    """The Shapley value of each segment: its mean share in the score over all orders of appearing.

    Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions", theorem 2: the
    values are a weighted least-squares fit of the score by the segments seen, whose sum is the
    score of the image less that of the baseline. Samples are drawn by the Shapley kernel, each with
    its complement (Covert & Lee 2021), and fitted by scikit-learn. Exact for a score that is
    additive in the segments.

    Args:
        given: the image and its score.
        samples: images that are scored, at least one a segment.
        segments: about how many scikit-image's SLIC makes.
        labels: segments of one's own in their place, (h, w) of integers.
        baseline: what is seen in place of a segment.

    Returns:
        The value of each pixel's segment, not divided by its area.

    Raises:
        FeatvisError: scikit-image or scikit-learn is not installed.
        InputError: labels of another shape or kind, or fewer samples than segments.
    """
    linear = _regressions()
    numbers = _numbers(given, segments, labels)
    count = int(numbers.max()) + 1
    if samples < count:
        raise InputError(
            f"kernel_shap: {samples} samples cannot tell {count} segments apart; samples is an "
            f"integer of at least {count}"
        )
    _require("kernel_shap", samples, count)
    ends = _scores(given, baseline, np.array([[0] * count, [1] * count]), numbers)
    if count == 1:
        return np.full(numbers.shape, ends[1] - ends[0], np.float32)
    seen = _coalitions(given.random, samples, count)
    scores = _scores(given, baseline, seen, numbers)
    # The last value is what the others leave of the whole difference.
    rest = seen[:, -1:]
    model = linear.LinearRegression(fit_intercept=False).fit(
        seen[:, :-1] - rest, scores - ends[0] - rest[:, 0] * (ends[1] - ends[0])
    )
    values = np.append(model.coef_, (ends[1] - ends[0]) - model.coef_.sum())
    return np.asarray(values, np.float32)[numbers]


def _require(method: str, samples: int, count: int) -> None:
    """Refuses samples that fit no memory: the regression has all of them at once."""
    limits.require(4 * 8 * samples * count, f"{method}: {samples} samples of {count} segments")


def segments_of(image: np.ndarray, count: int) -> np.ndarray:
    """The segment of each pixel, (h, w) from 0, by scikit-image's SLIC.

    Args:
        image: (h, w, c) in [0, 1].
        count: of segments, about.

    Raises:
        FeatvisError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise FeatvisError("segments need scikit-image: pip install scikit-image") from error
    found = slic(image, n_segments=count, sigma=1, start_label=0, channel_axis=-1)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def _numbers(given: Probed, count: int, labels: np.ndarray | None) -> np.ndarray:
    """The segment of each pixel, from 0 and without gaps."""
    if labels is None:
        return segments_of(given.image, count)
    if labels.shape != given.image.shape[:2] or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels are {given.image.shape[:2]} integers, one a pixel; got an array "
            f"{labels.shape} of {labels.dtype}"
        )
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def _scores(given: Probed, baseline: Any, seen: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The scores of the image with the segments seen of each row, (m,) of float64."""

    def masks(rows: jax.Array) -> jax.Array:
        # By NumPy: the number of segments is another in each image.
        return jnp.asarray(np.asarray(rows)[:, numbers], jnp.float32)

    parts = [scores for scores, _ in scored(given, baseline, seen, masks)]
    return np.concatenate(parts).astype(np.float64)


def _coalitions(random: np.random.Generator, samples: int, count: int) -> np.ndarray:
    """Which segments are seen, (samples, count), by the Shapley kernel, complements together."""
    sizes = np.arange(1, count)
    kernel = 1 / (sizes * (count - sizes))
    drawn = random.choice(sizes, -(-samples // 2), p=kernel / kernel.sum())
    # The least `size` of random numbers are a set of that size.
    order = random.random((len(drawn), count)).argsort(axis=1).argsort(axis=1)
    half = (order < drawn[:, None]).astype(np.int64)
    return np.stack([half, 1 - half], axis=1).reshape(-1, count)[:samples]


def _regressions() -> Any:
    try:
        from sklearn import linear_model
    except ImportError as error:
        raise FeatvisError("the regression needs scikit-learn: pip install scikit-learn") from error
    return linear_model
