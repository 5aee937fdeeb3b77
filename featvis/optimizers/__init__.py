"""Update rules that optax does not have, with a text form."""

from featvis.optimizers.preimage import (
    PreimageState,
    preimage_adagrad,
    preimage_momentum,
    stepwise_schedule,
)

__all__ = ["PreimageState", "preimage_adagrad", "preimage_momentum", "stepwise_schedule"]
