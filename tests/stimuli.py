"""Units whose invariances are known: linear, of a quadrature pair, pooled over shifts or turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis.models import Input, Model

SIDE = 16
#: The units of the layer `units`, by their index.
LINEAR, ENERGY, POOLED_UNIT, TURNED_UNIT, PIXEL, DEAD, RANDOM = range(7)
#: Of the images in the tests: a Gabor patch of it stays within [0, 1].
CONTRAST = 0.08
#: The norm of an image's offsets then.
NORM = CONTRAST * SIDE
#: Of the rectified unit.
THRESHOLD = 0.5
#: Shifts that the pooled unit takes the maximum over, in x.
POOLED = 5
#: Turns that the turned unit takes the mean over.
TURNS = 16


def gabor(phase: float, angle: float = 0.0, period: float = 5.0) -> np.ndarray:
    """A Gabor patch (h, w) of norm 1 and mean 0 in the middle."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    along = np.cos(angle) * x + np.sin(angle) * y
    wave = np.exp(-(x**2 + y**2) / (2 * 2.5**2)) * np.cos(2 * np.pi * along / period + phase)
    wave -= wave.mean()
    return wave / np.linalg.norm(wave)


def spot(shift: int) -> np.ndarray:
    """One pixel, beside the middle by a number of pixels in x."""
    image = np.zeros((SIDE, SIDE))
    image[SIDE // 2, SIDE // 2 + shift] = 1
    return image


@dataclass(frozen=True)
class _Units:
    """Every layer is a vector; x are the offsets from grey."""

    def __call__(self, params: Any, image: jax.Array) -> dict[str, jax.Array]:
        x = (image - 0.5).reshape(len(image), -1)

        def of(name: str) -> jax.Array:
            return x @ params[name]

        linear = of("linear")[:, 0]
        turned = jnp.mean(of("turned").reshape(len(x), TURNS, 2) ** 2, axis=(1, 2))
        return {
            "early": 2 * x[:, ::2],
            # One layer: its units share their programs.
            "units": jnp.stack(
                [
                    linear,
                    jnp.sum(of("pair") ** 2, axis=1),
                    jnp.max(of("pooled"), axis=1),
                    turned,
                    x[:, SIDE * SIDE // 2 + SIDE // 2],
                    0 * linear + 0.25,
                    jax.nn.relu(of("random")) @ params["mixed"],
                ],
                axis=1,
            ),
            # Off for noise: its gradient has nowhere to begin.
            "rectified": jax.nn.relu(linear[:, None] - THRESHOLD),
            "late": 3 * linear[:, None],
        }


def units() -> Model:
    """A network for grey images of 16 x 16."""
    angles = np.pi * np.arange(TURNS) / TURNS
    columns = {
        "linear": [gabor(0.0)],
        "pair": [gabor(0.0), gabor(np.pi / 2)],
        "pooled": [spot(shift) for shift in range(-(POOLED // 2), POOLED // 2 + 1)],
        "turned": [gabor(phase, angle) for angle in angles for phase in (0.0, np.pi / 2)],
    }
    params = {
        name: jnp.asarray(np.stack(some).reshape(len(some), -1).T, jnp.float32)
        for name, some in columns.items()
    }
    rng = np.random.default_rng(0)
    params["random"] = jnp.asarray(rng.normal(size=(SIDE * SIDE, 64)) / SIDE, jnp.float32)
    params["mixed"] = jnp.asarray(rng.normal(size=64) / 8, jnp.float32)
    takes = Input(size=(SIDE, SIDE), channels=1, min_size=SIDE)
    return Model("units", _Units(), params, None, "1" * 64, takes)
