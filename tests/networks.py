"""Small networks whose answers are known in closed form."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis.models import Input, Model
from featvis.parameterizations import Pixels
from featvis.results.manifest import Done
from featvis.results.run import Run


@dataclass(frozen=True)
class _Toy:
    """Linear units of all pixels, a convolution with a ReLU, and units that are off at first."""

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        x = image - 0.5
        out = {}
        # Of the trained size only, as any layer of all pixels.
        if image.shape[1:] == params["linear"].shape[:3]:
            out["linear"] = jnp.einsum("nhwc,hwck->nk", x, params["linear"])
        out["conv"] = jax.lax.conv_general_dilated(
            x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        out["relu"] = jax.nn.relu(out["conv"])
        out["dead"] = jax.nn.relu(out["conv"] - 2.5)
        out["logits"] = out["relu"].mean((1, 2)) @ params["logits"]
        return out


TOY_SIZE = (12, 16)


def done(objective: Any, images: int = 1) -> tuple[Done, ...]:
    """What a result says of how it was made, without having been made."""
    run = Run(toy(), objective, Pixels(TOY_SIZE))
    return (Done(run, images, 1, (), None, {"featvis": "0"}),)


def toy() -> Model:
    """A network for images of 12 x 16, of three channels."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {
        "linear": normal(*TOY_SIZE, 3, 4),
        "conv": normal(3, 3, 3, 6),
        "logits": normal(6, 5),
    }
    labels = tuple("abcde")
    return Model("toy", _Toy(), params, labels, "0" * 64, Input(size=TOY_SIZE, min_size=8))
