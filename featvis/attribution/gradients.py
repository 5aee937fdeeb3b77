"""Attribution by gradients of the score by the image."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from featvis.attribution.method import Explained, method


@method("saliency")
def saliency(given: Explained) -> jax.Array:
    """The largest |d score / d image| over the colours of each pixel, 0 or more.

    Simonyan et al. 2013, "Deep Inside Convolutional Networks", section 3, where the score is a
    class's (`Logit`); here it is whatever the objective says. Of an objective that compares the
    images of a batch (`Diversity`) it is the derivative of the sum of their scores.
    """
    return jnp.max(jnp.abs(given.gradient(given.images)), axis=-1)


@method("gradient_times_input")
def gradient_times_input(given: Explained) -> jax.Array:
    """The gradient times the image, summed over colours; signed (Shrikumar et al. 2016)."""
    return jnp.sum(given.images * given.gradient(given.images), axis=-1)
