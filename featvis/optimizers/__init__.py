"""Update rules that optax does not have, with a text form."""

from featvis.optimizers.denoising import denoised_ascent
from featvis.optimizers.image import IMAGES, normalize_over_batch, whiten_gradient
from featvis.optimizers.preimage import (
    PreimageState,
    preimage_adagrad,
    preimage_momentum,
    stepwise_schedule,
)
from featvis.optimizers.sampling import (
    KeepBestState,
    NoiseState,
    gaussian_noise,
    keep_best,
    normalize_by_mean_abs,
)

__all__ = [
    "IMAGES",
    "KeepBestState",
    "NoiseState",
    "PreimageState",
    "denoised_ascent",
    "gaussian_noise",
    "keep_best",
    "normalize_by_mean_abs",
    "normalize_over_batch",
    "preimage_adagrad",
    "preimage_momentum",
    "stepwise_schedule",
    "whiten_gradient",
]
