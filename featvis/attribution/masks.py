"""Attribution by masks that are optimised: what must be hidden, or seen, to change the score most.

The score of each method here is taken in proportion to how much more of it the image has than its
blur, so that what a mask costs means the same of a class's probability, for which the papers chose
their weights, and of a logit or a channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from featvis import text
from featvis.attribution.masking import blurred, composed, enlarge
from featvis.attribution.method import Explained, method
from featvis.attribution.options import Range
from featvis.errors import InputError

#: What all of the score is worth in `extremal`: about a class's logit, which the authors take.
_LOGIT = 10.0
#: The authors' noise is 0.2 in an image normalised by ImageNet's deviations, about 0.225.
_NOISE = 0.045


@method("igos")
def igos(
    given: Explained,
    *,
    iterations: Annotated[int, Range(1)] = 15,
    steps: Annotated[int, Range(1)] = 20,
    resolution: Annotated[int, Range(2)] = 28,
    l1: Annotated[float, Range(0)] = 1.0,
    tv: Annotated[float, Range(0)] = 20.0,
    noise: Annotated[float, Range(0)] = _NOISE,
) -> jax.Array:
    """The least that must be blurred to lower the score, by a descent along integrated gradients.

    Qi, Khorram & Fuxin 2020, "Visualizing Deep Networks by Optimizing with Integrated Gradients"
    (I-GOS), as in the authors' code: a mask m of 28², 1 at first, descends f(x·m + blur·(1 − m)) +
    l1·mean|1 − m| + tv·(mean squares of its differences down and across). The score's gradient is
    the mean over masks k/20·m with noise on the image. The step is 200·0.2ⁿ, the first for which
    the loss, without noise, falls by 1e-4·step·‖gradient‖², or below 1e-5. Where the score has
    hardly moved (by 0.001) half way, l1 is divided by 10, else at four fifths (by 0.01) by 5. The
    blur is a Gaussian of 50 pixels in a window of 51, both in proportion to 224.

    Args:
        given: images and their score.
        iterations: of the descent.
        steps: of the integral.
        resolution: rows and columns of the mask.
        l1: what a hidden image costs, in images' worth of the score.
        tv: what a rough mask costs.
        noise: standard deviation of the noise, in an image in [0, 1]. (The paper's 0.2 is of a
            normalised image. The authors' first code draws it for one colour alone and doubles it.)
    """
    images, extent = given.images, given.images.shape[1:3]
    blur = _in_proportion(images, 51, 50.0)
    relative, _ = _relative(given, blur)

    def prior(masks: jax.Array, weight: jax.Array) -> jax.Array:
        return weight * jnp.mean(1 - masks, axis=(1, 2)) + tv * _roughness(masks, 2.0, jnp.mean)

    def loss(masks: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        score = relative(composed(images, blur, enlarge(masks, extent)))
        return score + prior(masks, weight), score

    def gradient(masks: jax.Array, weight: jax.Array, iteration: jax.Array) -> jax.Array:
        def at(step: jax.Array, masks: jax.Array) -> jax.Array:
            share = (step + 1).astype(jnp.float32) / steps
            seen = composed(images, blur, enlarge(masks, extent) * share)
            return jnp.sum(relative(seen + noise * given.noise(iteration * steps + step))) / steps

        def add(total: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
            return total + jax.grad(at, 1)(step, masks), None

        of_prior = jax.grad(lambda masks: jnp.sum(prior(masks, weight)))(masks)
        return jax.lax.scan(add, of_prior, jnp.arange(steps, dtype=jnp.int32))[0]

    def descend(carry: tuple[jax.Array, ...], iteration: jax.Array) -> tuple[tuple, None]:
        masks, weight, first, before = carry
        before_step, score = loss(masks, weight)
        first = jnp.where(iteration == 0, score, first)
        before = jnp.where(iteration == 0, score, before)
        slope = gradient(masks, weight, iteration)
        masks = _searched(lambda masks: loss(masks, weight)[0], masks, before_step, slope)
        if iterations > 3:
            # The authors' curve holds its first value twice: it lags the iteration by one.
            moved = jnp.abs(first - before)
            weight = jnp.where(
                (iteration == iterations // 2) & (moved <= 1e-3), weight / 10, weight
            )
            late = iteration == int(iterations / 1.25)
            weight = jnp.where(late & (moved <= 1e-2), weight / 5, weight)
        return (masks, weight, first, score), None

    count = len(images)
    start = (
        jnp.ones((count, resolution, resolution), jnp.float32),
        jnp.full(count, l1, jnp.float32),
        jnp.zeros(count, jnp.float32),
        jnp.zeros(count, jnp.float32),
    )
    (masks, *_), _ = jax.lax.scan(descend, start, jnp.arange(iterations, dtype=jnp.int32))
    return 1 - enlarge(masks, extent)


@method("salient_mask")
def salient_mask(
    given: Explained,
    *,
    iterations: Annotated[int, Range(1)] = 300,
    resolution: Annotated[int, Range(2)] = 28,
    l1: Annotated[float, Range(0)] = 0.08,
    tv: Annotated[float, Range(0)] = 8.0,
    beta: Annotated[float, Range(1)] = 3.0,
    rate: Annotated[float, Range(1e-6)] = 0.1,
    jitter: Annotated[int, Range(0)] = 4,
) -> jax.Array:
    """The least that must be blurred to lower the score, by Adam: a meaningful perturbation.

    Fong & Vedaldi 2017, "Interpretable Explanations of Black Boxes by Meaningful Perturbation",
    section 4.2: a coarse mask of 28² minimises f(x·m + blur·(1 − m)) + λ₁·Σ|1 − m| + λ₂·Σ|∇m|^β
    for λ₁ = 1e-4, λ₂ = 1e-2, β = 3, over images moved by up to 4 pixels; the weights here are of
    means over the mask. It starts at 1 everywhere, where theirs is a disc found for each image. The
    blur is a Gaussian of 10 pixels, in proportion to 224.

    Args:
        given: images and their score.
        iterations: of Adam.
        resolution: rows and columns of the mask.
        l1: what a hidden image costs, in images' worth of the score.
        tv: what a rough mask costs.
        beta: power of the differences.
        rate: of Adam.
        jitter: pixels by which the image is moved at most, round its border; less than its sides.

    Raises:
        InputError: more jitter than there is image.
    """
    _check_pixels(given, "salient_mask", jitter=(jitter, min(given.images.shape[1:3]) - 1))
    images, extent = given.images, given.images.shape[1:3]
    blur = _in_proportion(images, 81, 10.0)
    relative, _ = _relative(given, blur)
    adam = text.optimizer(optax.adam(rate))

    def loss(masks: jax.Array, iteration: jax.Array) -> jax.Array:
        seen = composed(images, blur, enlarge(masks, extent))
        score = relative(_moved(given, seen, iteration, jitter))
        cost = l1 * jnp.mean(1 - masks, axis=(1, 2)) + tv * _roughness(masks, beta, jnp.mean)
        return jnp.sum(score + cost)

    def step(carry: tuple, iteration: jax.Array) -> tuple[tuple, None]:
        masks, state = carry
        change, state = adam.update(jax.grad(loss)(masks, iteration), state)
        return (jnp.clip(masks + change, 0, 1), state), None

    masks = jnp.ones((len(images), resolution, resolution), jnp.float32)
    (masks, _), _ = jax.lax.scan(
        step, (masks, adam.init(masks)), jnp.arange(iterations, dtype=jnp.int32)
    )
    return 1 - enlarge(masks, extent)


@method("extremal")
def extremal(
    given: Explained,
    *,
    iterations: Annotated[int, Range(1)] = 800,
    areas: str = "0.05+0.1+0.2+0.4",
    variant: Literal["preserve", "delete", "dual"] = "preserve",
    step: Annotated[int, Range(1)] = 7,
    sigma: Annotated[int, Range(1)] = 21,
    rate: Annotated[float, Range(1e-6)] = 0.01,
    weight: Annotated[float, Range(0)] = 300.0,
    mirror: bool = True,
) -> jax.Array:
    """Smooth masks of given areas that keep the score highest; their sum over areas.

    Fong, Patrick & Vedaldi 2019, "Understanding Deep Networks via Extremal Perturbations and Smooth
    Masks", as in the authors' code: a mask is the smooth maximum of bumps every 7 pixels; its
    sorted values are pulled to those of a mask of exactly that area, by a weight that grows by
    0.35 % an iteration; what it hides is blurred by up to 20 pixels, in proportion to 224.

    Args:
        given: images and their score.
        iterations: of gradient descent with momentum.
        areas: shares of the image, joined by +.
        variant: whether the mask keeps the score high, its complement low, or both.
        step: pixels between the mask's bumps.
        sigma: their reach in pixels.
        rate: of the descent.
        weight: of the area, at the first iteration.
        mirror: whether every other iteration sees the image mirrored; not for a unit of one place.

    Raises:
        InputError: an area that is no number above 0 and below 1, a step longer than the image, or
            a reach of more than twice that, beyond which a mask is one value.
    """
    shares = _areas(areas)
    side = max(given.images.shape[1:3])
    _check_pixels(given, "extremal", step=(step, side), sigma=(sigma, 2 * side))
    images = given.images
    levels = _levels(images, 8, 20.0)
    # Where nothing changes the score, the area alone would make the mask.
    relative, changes = _relative(given, levels[0])
    make = _smooth_masks(images.shape[1:3], step, sigma)
    shape = (len(images), *(math.ceil(side / step) for side in images.shape[1:3]))

    def energy(bumps: jax.Array, share: jax.Array, iteration: jax.Array) -> jax.Array:
        masks, whole = make(bumps)

        def score(masks: jax.Array) -> jax.Array:
            seen = _at_level(levels, masks)
            turned = mirror & (iteration % 2 == 0)
            return relative(jnp.where(turned, seen[:, :, ::-1], seen))

        reward = jnp.zeros(len(images), jnp.float32)
        if variant != "delete":
            reward += score(masks)
        if variant != "preserve":
            reward -= score(1 - masks)
        values = jnp.sort(whole.reshape(len(images), -1), axis=1)
        places = jnp.arange(values.shape[1], dtype=jnp.float32)
        wanted = (places >= jnp.floor(values.shape[1] * (1 - share))).astype(jnp.float32)
        miss = jnp.mean((values - wanted[None]) ** 2, axis=1)
        return jnp.sum(weight * 1.0035 ** iteration.astype(jnp.float32) * miss - _LOGIT * reward)

    def descend(carry: tuple, iteration: jax.Array) -> tuple[tuple, None]:
        bumps, speed, share = carry
        slope = jax.grad(energy)(bumps, share, iteration)
        # PyTorch's momentum of 0.9, whose first step is not damped.
        speed = jnp.where(iteration == 0, slope, 0.9 * speed + 0.1 * slope)
        return (jnp.clip(bumps - rate * speed, 0, 1), speed, share), None

    def of_area(share: jax.Array) -> jax.Array:
        start = jnp.ones(shape, jnp.float32), jnp.zeros(shape, jnp.float32), share
        (bumps, *_), _ = jax.lax.scan(descend, start, jnp.arange(iterations, dtype=jnp.int32))
        return jnp.where(changes[:, None, None], make(bumps)[0], 0)

    return jnp.sum(jax.lax.map(of_area, jnp.asarray(shares, jnp.float32)), axis=0)


# ---- what they share -----------------------------------------------------------------------


def _check_pixels(given: Explained, method: str, **lengths: tuple[int, int]) -> None:
    """Checks that lengths in pixels are at most what the images allow.

    Raises:
        InputError: one is more; says what it may be.
    """
    height, width = given.images.shape[1:3]
    for name, (length, most) in lengths.items():
        if length > most:
            raise InputError(
                f"{method}: {name} is at most {most} pixels for images of {height}x{width}; got "
                f"{length}"
            )


def _relative(
    given: Explained, least: jax.Array
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """The score in proportion: 0 for the images `least`, and 1 for those given where it is more.

    Where both have one score nothing can be lowered, and the score stays as it is.

    Returns:
        It, and whether both have other scores, (n,).
    """
    low, high = given.score(least), given.score(given.images)
    span = jnp.abs(high - low)
    span = jnp.where(span > 0, span, 1)
    return lambda images: (given.score(images) - low) / span, high != low


def _in_proportion(images: jax.Array, size: int, sigma: float) -> jax.Array:
    """Blurred by a window and a Gaussian that are meant for 224 pixels."""
    scale = max(images.shape[1:3]) / 224
    return blurred(images, 2 * math.ceil(scale * (size // 2)) + 1, scale * sigma)


def _roughness(masks: jax.Array, power: float, over: Callable[..., jax.Array]) -> jax.Array:
    """Differences of neighbours down and across to a power, summed up over masks (n, s, t)."""
    down, across = jnp.diff(masks, axis=1), jnp.diff(masks, axis=2)
    return over(_power(down, power), axis=(1, 2)) + over(_power(across, power), axis=(1, 2))


def _power(differences: jax.Array, power: float) -> jax.Array:
    # The derivative of |d|^β at 0 is 0, which JAX does not see for a traced β.
    size = jnp.abs(differences)
    return jnp.where(size > 0, jnp.where(size > 0, size, 1) ** power, 0)


def _searched(
    loss: Callable[[jax.Array], jax.Array], masks: jax.Array, before: jax.Array, slope: jax.Array
) -> jax.Array:
    """I-GOS's line search: the masks after the longest step that lowers each loss enough."""
    energy = jnp.sum(slope**2, axis=(1, 2))

    def after(length: jax.Array) -> jax.Array:
        return jnp.clip(masks - length[:, None, None] * slope, 0, 1)

    def falls_short(length: jax.Array) -> jax.Array:
        return loss(after(length)) > before - 1e-4 * length * energy

    def shorten(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        length, goes_on = carry
        length = jnp.where(goes_on, 0.2 * length, length)
        return length, goes_on & (length >= 1e-5) & falls_short(length)

    longest = jnp.full(len(masks), 200.0, jnp.float32)
    start = longest, falls_short(longest)
    length, _ = jax.lax.while_loop(lambda carry: carry[1].any(), shorten, start)
    return after(length)


def _moved(given: Explained, images: jax.Array, number: jax.Array, most: int) -> jax.Array:
    """The images, each rolled by up to so many pixels down and right, at random."""

    def move(key: jax.Array, image: jax.Array) -> jax.Array:
        shift = jax.random.randint(
            jax.random.fold_in(key, number), (2,), -most, most + 1, jnp.int32
        )
        return jnp.roll(image, shift, (0, 1))

    return jax.vmap(move)(given.keys, images)


def _areas(text: str) -> np.ndarray:
    """The shares that a text has, joined by +."""
    try:
        shares = np.array([float(one) for one in text.split("+")], np.float32)
    except ValueError:
        shares = np.zeros(1, np.float32)
    if not ((shares > 0) & (shares < 1)).all():
        raise InputError(
            f"extremal: areas are numbers above 0 and below 1 joined by +, as 0.1+0.2; got {text!r}"
        )
    return shares


def _levels(images: jax.Array, count: int, sigma: float) -> jax.Array:
    """The images from the most blurred to unchanged, (count, n, h, w, c)."""
    made = [
        _in_proportion(images, 2 * math.ceil(4 * one) + 1, one)
        for one in sigma * (1 - np.arange(count - 1) / (count - 1))
    ]
    return jnp.stack([*made, images])


def _at_level(levels: jax.Array, masks: jax.Array) -> jax.Array:
    """Images (n, h, w, c) at the level between the most blurred, 0, and unchanged, 1, of a mask."""
    place = masks[None, ..., None] * (len(levels) - 1)
    number = jnp.arange(len(levels), dtype=jnp.float32).reshape(-1, 1, 1, 1, 1)
    return jnp.sum(levels * jnp.maximum(0, 1 - jnp.abs(place - number)), axis=0)


def _smooth_masks(
    size: Sequence[int], step: int, sigma: int
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """From bumps (n, ⌈h/step⌉, ⌈w/step⌉) to masks (n, h, w), and the masks with a margin of sigma.

    The smooth maximum over the bumps about a pixel of bump · exp(−2·max(distance/sigma − ½, 0)²).
    """
    reach = 1 + math.ceil(sigma / step)
    # That of the authors, 1 + ⌈2·sigma/step⌉, ends before the image where bumps are far apart.
    padding = 2 * reach - 1
    few = [math.ceil(side / step) + 2 * padding - 2 * reach for side in size]
    many = [step * (count - 1) + 1 for count in few]
    # The first of the bumps about each pixel along an axis, and how far each of them is from it.
    firsts = [np.arange(side, dtype=np.int32) // step for side in many]
    near = np.arange(2 * reach + 1)
    apart = [
        np.arange(side)[:, None] - sigma - step * (first[:, None] + near - padding)
        for side, first in zip(many, firsts, strict=True)
    ]

    def make(bumps: jax.Array) -> tuple[jax.Array, jax.Array]:
        padded = jnp.pad(bumps, ((0, 0), (padding, padding), (padding, padding)))

        def add(sums: tuple[jax.Array, jax.Array], which: jax.Array) -> tuple[tuple, None]:
            down, right = which // len(near), which % len(near)
            distance = jnp.hypot(
                jnp.asarray(apart[0], jnp.float32)[:, down][:, None],
                jnp.asarray(apart[1], jnp.float32)[:, right][None],
            )
            bump = padded[:, (firsts[0] + down)[:, None], (firsts[1] + right)[None]]
            value = bump * jnp.exp(-2 * jnp.maximum(distance[None] / sigma - 0.5, 0) ** 2)
            # At most 1, so that no exponential overflows.
            share = jnp.exp(20 * (value - 1))
            return (sums[0] + share * value, sums[1] + share), None

        nothing = jnp.zeros((len(bumps), *many), jnp.float32)
        sums, _ = jax.lax.scan(
            jax.checkpoint(add), (nothing, nothing), jnp.arange(len(near) ** 2, dtype=jnp.int32)
        )
        whole = jnp.clip(sums[0] / sums[1], 0, 1)
        inner = whole[:, sigma : sigma + size[0], sigma : sigma + size[1]]
        return inner, whole

    return make
