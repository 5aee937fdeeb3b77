"""The identity as a generator, under the compiler's usual optimizations."""

import jax
import numpy as np
import pytest
from networks import TOY_SIZE

import featvis as fv


@pytest.mark.thorough
def test_the_identity_is_pixels_to_the_bit(toy):
    # With a code of the image's shape. A flat one, through a matrix, is so under sgd alone: loops
    # over another shape are compiled otherwise, and a root of NAdam may differ in its last bit.
    shape = (*TOY_SIZE, 3)
    identity = fv.Generator(lambda params, code: jax.nn.sigmoid(code), shape, params=())
    ways = (fv.Latent(generator=identity, sd=0.01), fv.Pixels(TOY_SIZE))
    options = {"seed": [4, 9], "steps": 5, "transform": "none", "progress": False}
    through, plain = (
        fv.synthesize(toy, "conv:1", w, optimizer="nadam(0.05)", **options) for w in ways
    )
    for name in ("images", "scores", "clean_scores", "sensitivity"):
        np.testing.assert_array_equal(getattr(through, name), getattr(plain, name))
    assert np.any(through.images[0] != through.images[1])
