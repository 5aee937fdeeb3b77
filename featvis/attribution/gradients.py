"""Attribution by gradients of the score by the image.

Maps of a pixel are sums over its colours where the method shares out the score, and the largest
size over its colours where it says how much the score depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from featvis.attribution.baselines import Baseline, baselines
from featvis.attribution.method import Explained, method
from featvis.attribution.options import SET, Range
from featvis.errors import InputError
from featvis.images import Images

#: Maps are scaled down by so much from one scale to the next, to so many pixels at least, and their
#: sizes are cut at this percentile, where noise is chosen by their total variation.
_DOWN, _LEAST, _CUT = 1.5, 30, 99.0

#: How often the steps of a path are divided in three at most.
_MOST_THIRDS = 4

Count = Annotated[int, Range(1)]
#: The places on a path are a table, and Gauss's of one are found together.
Steps = Annotated[int, Range(1, 100_000)]
_MOST_OF_GAUSS = 1000
Level = Annotated[float, Range(0)]
Rule = Literal["cubic", "midpoint", "gauss_legendre"]


@method("saliency")
def saliency(given: Explained) -> jax.Array:
    """The largest |d score / d image| over the colours of each pixel, 0 or more.

    Simonyan et al. 2013, "Deep Inside Convolutional Networks", section 3, where the score is a
    class's (`Logit`); here it is whatever the objective says. Of an objective that compares the
    images of a batch (`Diversity`) it is the derivative of the sum of their scores.
    """
    return _largest(given.gradient(given.images))


@method("gradient_times_input")
def gradient_times_input(given: Explained) -> jax.Array:
    """The gradient times the image, summed over colours; signed.

    Shrikumar et al. 2016, "Not Just a Black Box".
    """
    return jnp.sum(given.images * given.gradient(given.images), axis=-1)


@method("integrated_gradients")
def integrated_gradients(
    given: Explained,
    *,
    baseline: Baseline = "black",
    steps: Steps = 50,
    rule: Rule = "cubic",
    tolerance: Annotated[float, Range(0)] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The gradient's integral from a baseline to the image, times their difference; signed.

    Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks". The maps sum to the
    difference of the scores; the metric `completeness_error` is how far they are from it, as a
    share of it, which more steps make smaller; `steps` is how many there were.

    Args:
        given: what is explained.
        baseline: where the paths begin: images, or "black", "white", "grey", "mean", "blur" or
            "noise"; over several, joined by +, the maps are averaged.
        steps: of each path, one gradient each.
        rule: where they are. "cubic": at t³ for the middles t of equal steps, close together near
            the baseline, where a network's score gains most of all that it gains. "midpoint": at
            the middles of equal steps. "gauss_legendre": Gauss's, as of captum, at most 1,000.
        tolerance: the completeness error up to which steps are divided in three, at most four
            times; those taken before are kept, but by Gauss's rule, which then takes thirds of the
            path one by one. None: whatever the steps give.

    Raises:
        InputError: too many steps for Gauss's rule.
    """
    if rule == "gauss_legendre" and steps > _MOST_OF_GAUSS:
        raise InputError(
            f"integrated_gradients: steps is an integer from 1 to {_MOST_OF_GAUSS} for the rule "
            f"gauss_legendre, not {steps}; cubic and midpoint take up to 100000"
        )
    starts = baselines(given.images, given.keys, baseline)
    own = given.score(given.images)
    levels = [
        _nodes(rule, steps, level) for level in range(1 if tolerance is None else _MOST_THIRDS + 1)
    ]
    # One table of places and weights, of which a level reads its part.
    nodes_of_all = np.concatenate([nodes for nodes, _ in levels], axis=1)
    table = jnp.asarray(nodes_of_all, given.images.dtype)
    firsts = jnp.asarray(np.cumsum([0, *(nodes.shape[1] for nodes, _ in levels)]), jnp.int32)
    kept = jnp.asarray([share for _, share in levels], given.images.dtype)

    def along(start: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        away, gained = given.images - start, own - given.score(start)

        def refined(mean: jax.Array, level: jax.Array) -> jax.Array:
            """The mean gradient, with the places of a level."""

            def add(number: jax.Array, total: jax.Array) -> jax.Array:
                place, weight = table[:, number]
                return total + weight * given.gradient(start + place * away)

            return jax.lax.fori_loop(firsts[level], firsts[level + 1], add, kept[level] * mean)

        def error(mean: jax.Array) -> jax.Array:
            return jnp.abs(jnp.sum(away * mean, axis=(1, 2, 3)) - gained) / jnp.abs(gained)

        mean, level = refined(jnp.zeros_like(away), jnp.int32(0)), jnp.int32(0)
        if tolerance is not None:
            mean, level = jax.lax.while_loop(
                lambda s: jnp.any(error(s[0]) > tolerance) & (s[1] < _MOST_THIRDS),
                lambda s: (refined(s[0], s[1] + 1), s[1] + 1),
                (mean, level),
            )
        return away * mean, gained, level

    whole, gained, level = jax.lax.map(along, starts)
    maps, gained = jnp.sum(whole.mean(0), axis=-1), gained.mean(0)
    metrics = {"completeness_error": _missed(maps, gained)}
    taken = steps * 3.0 ** level.max().astype(jnp.float32)
    return maps, metrics | {"steps": jnp.full(len(maps), taken, jnp.float32)}


def _nodes(rule: str, steps: int, level: int) -> tuple[np.ndarray, float]:
    """Places on a path from 0 to 1 and weights, (2, count), where steps are divided once more.

    Args:
        rule: of `integrated_gradients`.
        steps: before any was divided.
        level: how often they are divided.

    Returns:
        What is new at this level, and the factor of the sum before it.
    """
    count = steps * 3**level
    if rule == "gauss_legendre":
        places, weights = np.polynomial.legendre.leggauss(steps)
        parts = 3**level
        starts = np.repeat(np.arange(parts), steps)
        return np.stack([(starts + np.tile((places + 1) / 2, parts)) / parts,
                         np.tile(weights / 2, parts) / parts]), 0.0  # fmt: skip
    middles = (np.arange(count) + 0.5) / count
    if level:
        # The middle of every second third was that of the whole.
        middles = middles[np.arange(count) % 3 != 1]
    if rule == "midpoint":
        return np.stack([middles, np.full(len(middles), 1 / count)]), 1 / 3

    def whole(count: int) -> float:
        """The sum of 3 t² over the middles of so many steps, by them, which is nearly 1."""
        return 1 - 1 / (4 * count**2)

    share = whole(count // 3) / whole(count) / 3 if level else 0.0
    return np.stack([middles**3, 3 * middles**2 / count / whole(count)]), share


@method("expected_gradients")
def expected_gradients(
    given: Explained,
    *,
    references: Annotated[Images, SET] | None = None,
    samples: Count = 200,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Integrated gradients from images drawn of a set, at places drawn of their paths; signed.

    Erion et al. 2021, "Improving performance of deep learning models with axiomatic attribution
    priors and expected gradients". The metric `completeness_error` is how far the maps' sums are
    from the score's difference to the mean score of the set, as a share of it.

    Args:
        given: what is explained.
        references: the set, any number of images or a folder of them.
        samples: each a reference and a place on its path.
    """
    if references is None:
        raise InputError(
            "expected_gradients: references are images that stand for what is usual: give some, "
            "or a folder of them"
        )
    pictures = jnp.asarray(references, jnp.float32)

    def sample(number: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number)))(given.keys)
        chosen = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(pictures), jnp.int32))(
            keys[:, 0]
        )
        share = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys[:, 1])
        share = share[:, None, None, None]
        away = given.images - pictures[chosen]
        return away * given.gradient(pictures[chosen] + share * away)

    maps = jnp.sum(_mean(sample, samples, given.images), axis=-1)

    def usual(reference: jax.Array) -> jax.Array:
        return given.score(jnp.broadcast_to(reference, given.images.shape))

    gained = given.score(given.images) - jax.lax.map(usual, pictures).mean(0)
    return maps, {"completeness_error": _missed(maps, gained)}


@method("smooth_grad")
def smooth_grad(given: Explained, *, samples: Count = 50, noise: Level = 0.15) -> jax.Array:
    """The largest size over colours of the mean gradient at noisy copies of the image, 0 or more.

    Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise".

    Args:
        given: what is explained.
        samples: of the noise.
        noise: its standard deviation, as a share of the image's range of values.
    """
    return _largest(_mean(_noisy_gradient(given, noise), samples, given.images))


@method("var_grad")
def var_grad(
    given: Explained, *, samples: Annotated[int, Range(2)] = 50, noise: Level = 0.15
) -> jax.Array:
    """The variance of the gradient at noisy copies of the image, summed over colours, 0 or more.

    Adebayo et al. 2018, "Local Explanation Methods for Deep Neural Networks Lack Sensitivity to
    Parameter Values".

    Args:
        given: what is explained.
        samples: of the noise; of one there is no variance.
        noise: its standard deviation, as a share of the image's range of values.
    """
    gradient = _noisy_gradient(given, noise)

    def step(carry: tuple[jax.Array, jax.Array], number: jax.Array) -> tuple[Any, None]:
        # Welford 1962: a difference of two means of squares would lose all digits.
        mean, total = carry
        one = gradient(number)
        moved = mean + (one - mean) / (number + 1).astype(jnp.float32)
        return (moved, total + (one - mean) * (one - moved)), None

    start = (jnp.zeros_like(given.images), jnp.zeros_like(given.images))
    (_, total), _ = jax.lax.scan(step, start, jnp.arange(samples, dtype=jnp.int32))
    return jnp.sum(total, axis=-1) / samples


@method("smooth_taylor")
def smooth_taylor(
    given: Explained,
    *,
    samples: Count = 150,
    noise: Level = 0.11,
    adaptive: bool = False,
    iterations: Count = 20,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """First Taylor terms of the score at roots around the image, their mean over roots; signed.

    Goh et al. 2020, "Understanding Integrated Gradients with SmoothTaylor": the mean of
    (x - z) · ∇f(z) over z = x + noise. Of a linear score its expectation is 0, and of any smooth
    one -noise² times the diagonal of the Hessian averaged over the noise: what the pixels
    contribute to the score's change by the noise, not to the score.

    Args:
        given: what is explained.
        samples: the number of roots.
        noise: the standard deviation of the roots, in units of the image. The paper's 0.5 is of
            images divided by their deviation over ImageNet, 0.226 on average: here 0.11.
        adaptive: whether each image's noise is searched for instead, from its mean on, for the
            map of least total variation over several scales (section 5); the metric `noise` says
            what was found.
        iterations: of the search at most; each takes two maps.
    """

    def mapped(level: jax.Array) -> jax.Array:
        def root(number: jax.Array) -> jax.Array:
            away = level[:, None, None, None] * given.noise(number)
            return -away * given.gradient(given.images + away)

        return jnp.sum(_mean(root, samples, given.images), axis=-1)

    count = len(given.images)
    if not adaptive:
        level = jnp.full(count, noise, jnp.float32)
        return mapped(level), {"noise": level}
    level = _least_variation(mapped, given.images.mean((1, 2, 3)), iterations)
    return mapped(level), {"noise": level}


def _least_variation(
    mapped: Callable[[jax.Array], jax.Array], start: jax.Array, iterations: int
) -> jax.Array:
    """The noise (n,) of the maps of least total variation, by the search of Goh et al. 2020.

    A step of 0.1 goes up where that lowers the variation, else down; after a step that did not
    lower it steps are a tenth shorter, and the fourth such one in a row is an image's last.
    """

    def area(level: jax.Array) -> jax.Array:
        return _variation(mapped(level))

    def going(state: Any) -> jax.Array:
        number, stopped = state[0], state[-1]
        return (number < iterations) & ~jnp.all(stopped)

    def step(state: Any) -> Any:
        number, level, here, best, least, rate, failed, stopped = state
        up, down = level + rate, jnp.abs(level - rate)
        at_up = area(up)
        worse = at_up > here
        moved = jnp.where(worse, down, up)
        there = jnp.where(worse, area(down), at_up)
        lost = there > here
        better = ~stopped & (there < least)
        best, least = jnp.where(better, moved, best), jnp.where(better, there, least)
        ending = lost & (failed >= 3)
        rate = jnp.where(lost, rate * 0.9, rate)
        failed = jnp.where(lost, failed + 1, 0)
        return number + 1, moved, there, best, least, rate, failed, stopped | ending

    first = area(start)
    none = jnp.zeros(len(start), jnp.int32)
    state = (0, start, first, start, first, jnp.full_like(start, 0.1), none, none > 0)
    found: jax.Array = jax.lax.while_loop(going, step, state)[3]
    return found


def _variation(maps: jax.Array) -> jax.Array:
    """The total variation of maps (n, h, w) by their pixels, its mean over scales, (n,)."""
    height, width = maps.shape[1:]
    found, scale = list[jax.Array](), 1.0
    while not found or min(height, width) / scale >= _LEAST:
        size = (len(maps), round(height / scale), round(width / scale))
        sizes = jnp.abs(jax.image.resize(maps, size, "linear"))
        low = sizes.min((1, 2), keepdims=True)
        high = jnp.percentile(sizes, _CUT, axis=(1, 2), keepdims=True)
        scaled = jnp.clip((sizes - low) / jnp.where(high > low, high - low, 1), 0, 1)
        across = jnp.abs(jnp.diff(scaled, axis=2)).sum((1, 2))
        down = jnp.abs(jnp.diff(scaled, axis=1)).sum((1, 2))
        found.append((across + down) / (size[1] * size[2]))
        scale *= _DOWN
    return jnp.stack(found).mean(0)


def _noisy_gradient(given: Explained, noise: float) -> Callable[[jax.Array], jax.Array]:
    """The gradient at the noisy copies of a number, with noise by the range of each image."""
    images = given.images
    spread = images.max((1, 2, 3), keepdims=True) - images.min((1, 2, 3), keepdims=True)

    def gradient(number: jax.Array) -> jax.Array:
        return given.gradient(images + noise * spread * given.noise(number))

    return gradient


def _mean(term: Callable[[jax.Array], jax.Array], count: int, like: jax.Array) -> jax.Array:
    """The mean of `term` of 0 to `count` - 1, one after the other: no memory for more than one."""

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        return total + term(number), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(like), jnp.arange(count, dtype=jnp.int32))
    return total / count


def _missed(maps: jax.Array, gained: jax.Array) -> jax.Array:
    """By how much sums of maps miss what was gained, in proportion, (n,): `completeness`."""
    miss = jnp.abs(maps.sum((1, 2)) - gained)
    return miss / jnp.where(miss == 0, 1, jnp.abs(gained))


def _largest(gradient: jax.Array) -> jax.Array:
    """The largest size over the colours of each pixel."""
    return jnp.max(jnp.abs(gradient), axis=-1)
