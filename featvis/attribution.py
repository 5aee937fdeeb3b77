"""Attribution: which pixels of an image a score depends on."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from featvis import kernels, models
from featvis.models import Model
from featvis.synthesis import as_objective
from featvis.targets import as_images
from objectives import Activations, Objective


def saliency(model: Model | str, objective: Objective | str, images: ArrayLike) -> np.ndarray:
    """Image-specific saliency: the largest |d score / d image| over the colours of each pixel.

    Simonyan et al. 2013, "Deep Inside Convolutional Networks", section 3, where the score is a
    class's (`Logit`); here it is whatever the objective says. Of an objective that compares the
    images of a batch (`Diversity`) it is the derivative of the sum of their scores.

    Args:
        model: a model, or the name of one.
        objective: the score, an objective or its text (`"logits:285"`); one index an image
            (`Logit([285, 504])`) gives each image its own class.
        images: (n, h, w, c) or one (h, w, c), in [0, 1].

    Returns:
        (n, h, w), 0 or more, in units of the score by units of the image; n is 1 for one image.

    Raises:
        InputError: images of another shape or range, or no objective.
        UnknownModel: no model of that name.
        ObjectiveError: an objective that does not fit the model or the number of images.
    """
    model = models.load(model) if isinstance(model, str) else model
    objective = as_objective(objective, model)
    batch = as_images(images, model)
    shape = jax.ShapeDtypeStruct(batch.shape, jnp.float32)
    objective.check(jax.eval_shape(model.apply, model.params, shape), batch.shape)
    return np.asarray(_saliency(model.apply, model.params, objective, batch))


@functools.partial(kernels.compiled, static=("apply",))
def _saliency(apply: Any, weights: Any, objective: Objective, images: jax.Array) -> jax.Array:
    """The map of each image, (n, h, w)."""

    def total(images: jax.Array) -> jax.Array:
        return jnp.sum(objective(Activations(apply(weights, images)), images))

    return jnp.max(jnp.abs(jax.grad(total)(images)), axis=-1)
