"""Parts of images, resized: against Pillow's filter, with gradients that are its transpose."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from featvis.kernels.resampling import _fewest_terms, apply_separable, box, box_weights

#: Sides of images and of outputs, and the sides of boxes: (shortest, longest, taken).
CASES = {
    "larger": ((40, 31), (46, 60), (0.3, 0.9, 0.5)),
    "smaller": ((64, 70), (20, 13), (0.5, 1.0, 0.93)),
    "much larger": ((50, 50), (31, 17), (0.07, 0.1, 0.085)),
    "the shortest": ((48, 48), (48, 48), (0.25, 0.75, 0.25)),
    "the longest": ((48, 48), (24, 48), (0.25, 0.75, 0.75)),
    "all of it": ((33, 20), (33, 20), (1.0, 1.0, 1.0)),
    "one pixel": ((1, 1), (9, 3), (0.4, 1.0, 0.6)),
    "of few": ((2, 3), (7, 8), (0.3, 1.0, 0.8)),
    "to one": ((30, 30), (1, 1), (0.4, 1.0, 0.6)),
    "of many terms": ((30, 30), (40, 40), (0.001, 1.0, 0.5)),
    "of sides that are not known": ((30, 34), (40, 20), (None, None, 0.5)),
}


def of_pillow(image, start, side, size):
    """The part, by Pillow's triangle filter, which is as wide as the reduction."""
    height, width = image.shape[:2]
    top, left = (float(s) * n for s, n in zip(start, (height, width), strict=True))
    # Rounded, a box that ends where the image does may reach out of it.
    below = min(top + side * height, height)
    beyond = min(left + side * width, width)
    planes = [
        Image.fromarray(plane).resize(
            size[::-1], Image.Resampling.BILINEAR, box=(left, top, beyond, below)
        )
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def with_gradient(function, image, gradient, *args):
    """What a function gives for an image, and its gradient from that by what it gives."""

    @jax.jit
    def both(image, gradient, *args):
        found, pull_back = jax.vjp(lambda image: function(image, *args), image)
        return found, pull_back(gradient)[0]

    return both(image, gradient, *args)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("corner", [(0.0, 1.0), (0.4, 0.27)], ids=["border", "inside"])
def test_a_box_is_what_pillow_makes_of_it(case, corner):
    shape, size, (shortest, longest, side) = CASES[case]
    sides = None if shortest is None else (shortest, longest)
    start = np.float32(corner) * np.float32(1 - side)
    image = np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)

    gradient = np.random.default_rng(1).normal(size=(*size, 3)).astype(np.float32)
    part = functools.partial(box, size=size, sides=sides)
    found, by_image = with_gradient(part, image, gradient, start, np.float32(side))
    np.testing.assert_allclose(found, of_pillow(image, start, side, size), atol=2e-5)
    # What is linear has its transpose for a gradient; each pixel of an axis is a plane here.
    rows, columns = (
        of_pillow(np.eye(n, dtype=np.float32)[:, None], (s, 0), side, (o, 1))[:, 0].astype(float)
        for s, o, n in zip(start, size, shape, strict=True)
    )
    transposed = np.einsum("ab,cd,acx->bdx", rows, columns, gradient.astype(np.float64))
    np.testing.assert_allclose(by_image, transposed, atol=1e-4)


@pytest.mark.thorough
def test_boxes_of_many_images_are_those_of_each():
    images = jax.random.normal(jax.random.key(0), (5, 24, 30, 3))
    starts, sides = jnp.linspace(0, 0.4, 10).reshape(5, 2), jnp.linspace(0.3, 0.6, 5)

    def part(image, start, side):
        return box(image, start, side, (16, 40), (0.3, 0.6))

    def gradient(image, start, side):
        return jax.grad(lambda image: jnp.sum(part(image, start, side) ** 2))(image)

    for function in (part, gradient):
        together = jax.jit(jax.vmap(function))(images, starts, sides)
        one_alone = jax.jit(function)
        alone = [one_alone(*one) for one in zip(images, starts, sides, strict=True)]
        np.testing.assert_allclose(together, jnp.stack(alone), atol=1e-4)
        # One image in many boxes: its rows are not those of others.
        shared = jax.jit(jax.vmap(function, (None, 0, 0)))(images[0], starts, sides)
        each = [one_alone(images[0], *one) for one in zip(starts, sides, strict=True)]
        np.testing.assert_allclose(shared, jnp.stack(each), atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(16))
def test_any_box_is_a_product_of_two_matrices(seed):
    draw = np.random.default_rng(seed)
    shape, size = (tuple(int(n) for n in draw.integers(1, 60, 2)) for _ in range(2))
    shortest = draw.uniform(0.03, 1)
    longest = draw.uniform(shortest, 1)
    side = np.float32(draw.choice([shortest, longest, draw.uniform(shortest, longest)]))
    start = jnp.clip(jnp.asarray(draw.uniform(-0.2, 1.2, 2), jnp.float32), 0, 1 - side)
    image, gradient = (draw.normal(size=(*one, 2)).astype(np.float32) for one in (shape, size))
    part = functools.partial(box, size=size, sides=(shortest, longest))

    def product(image, start, side):
        weights = [box_weights(s, side, o, n) for s, o, n in zip(start, size, shape, strict=True)]
        return apply_separable(*weights, image)

    found, ours = with_gradient(part, image, gradient, start, side)
    wanted, plain = with_gradient(product, image, gradient, start, side)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    # A place of 60 is known to 4e-6.
    np.testing.assert_allclose(ours, plain, atol=1e-4)


def test_boxes_of_many_terms_are_matrix_products():
    assert _fewest_terms((0.25, 0.3), 224, 512) == (2, 5)
    assert _fewest_terms((0.05, 1.0), 224, 512) == (5, 19)
    assert _fewest_terms((0.01, 1.0), 224, 512) is None
    assert _fewest_terms(None, 224, 512) is None
