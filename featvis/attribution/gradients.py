"""Attribution: which pixels of an image a score depends on."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import kernels, loading
from featvis.errors import NonFiniteError
from featvis.gradients.differentiability import check_gradient
from featvis.gradients.silence import asked, reasons, warn_of_silence
from featvis.images import Images
from featvis.jaxprs.liveness import pruned
from featvis.models import Model
from featvis.results.run import as_objective
from objectives import Activations, Objective


def saliency(model: Model | str, objective: Objective | str, images: Images) -> np.ndarray:
    """Image-specific saliency: the largest |d score / d image| over the colours of each pixel.

    Simonyan et al. 2013, "Deep Inside Convolutional Networks", section 3, where the score is a
    class's (`Logit`); here it is whatever the objective says. Of an objective that compares the
    images of a batch (`Diversity`) it is the derivative of the sum of their scores.

    Args:
        model: a model, or the name of one.
        objective: the score, an objective or its text (`"logits:285"`); one index an image
            (`Logit([285, 504])`) gives each image its own class.
        images: (n, h, w, c) or one (h, w, c), in [0, 1] or of uint8; or picture files, which are
            scaled and cropped to the model's own size.

    Returns:
        (n, h, w), 0 or more, in units of the score by units of the image; n is 1 for one image.

    Raises:
        InputError: images of another shape or range, or no objective.
        GradientError: a score that JAX cannot differentiate; says what is in the way.
        NonFiniteError: a NaN or an infinity in the gradient; names the image.
        UnknownModel: no model of that name.
        ObjectiveError: an objective that does not fit the model or the number of images.

    Warns:
        SilenceWarning: the unit gives an image no gradient, and why; its map is the priors' alone.
    """
    model = loading.load(model) if isinstance(model, str) else model
    objective = as_objective(objective, model)
    batch = model.as_images(images)
    shape = jax.ShapeDtypeStruct(batch.shape, jnp.float32)
    objective.check(jax.eval_shape(model.apply, model.params, shape), batch.shape)
    prune = check_gradient(model.apply, model.params, objective, batch.shape)
    found, living = _saliency(model.apply, prune, model.params, objective, batch)
    finite = np.isfinite(found).all(axis=(1, 2))
    if not finite.all():
        raise NonFiniteError(
            f"NaN or infinity in the gradient of {objective!r} by image {int(finite.argmin())}"
        )
    silent = ~np.asarray(living) & asked(objective, len(batch))
    if silent.any():
        whys = reasons(model.apply, model.params, objective, batch, silent)
        warn_of_silence(whys, str(objective))
    return np.asarray(found)


@functools.partial(kernels.compiled, static=("apply", "prune"))
def _saliency(
    apply: Any, prune: bool, weights: Any, objective: Objective, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The map of each image, (n, h, w), and whether the network gave it a gradient, (n,)."""

    def total(seen: jax.Array, images: jax.Array) -> jax.Array:
        return jnp.sum(objective(Activations(apply(weights, seen)), images))

    whole = pruned(total) if prune else total
    # By way of the network and directly, to tell a dead unit under a living prior.
    by_network, by_prior = jax.grad(whole, (0, 1))(images, images)
    living = jnp.any(by_network != 0, axis=(1, 2, 3))
    return jnp.max(jnp.abs(by_network + by_prior), axis=-1), living
