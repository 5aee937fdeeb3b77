"""What is known of a generator's codes of natural images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from featvis import checks
from featvis.parameterizations.component import Component, check_finite, numbers_of
from objectives import leaf


class Codes(Component):
    """Where codes of natural images are, number by number, and an autoencoder of them.

    Args:
        mean: of each number of a code, an array of its shape.
        sd: standard deviation, likewise.
        factor: a square root of the covariance of flat codes, (n, n); None: it is not known.
        reconstruct: `(params, code) -> code`, an autoencoder of one code that was trained on noisy
            ones, the prior of PPGN-h; None: there is none.
        params: its weights.
    """

    mean: ArrayLike = leaf()
    sd: ArrayLike = leaf()
    factor: ArrayLike | None = leaf(default=None)
    reconstruct: Callable[[Any, jax.Array], jax.Array] | None = None
    params: Any = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the numbers and the function."""
        super().__post_init__()
        check_finite(self, "mean", "sd", "factor")
        sd = numbers_of(self.sd)
        if sd is not None and np.any(sd < 0):
            raise checks.error(self, "sd", "at least 0", float(sd.min()))
        if self.reconstruct is not None and not callable(self.reconstruct):
            expected = "a function (params, code), a code to a code, or None"
            raise checks.error(self, "reconstruct", expected, self.reconstruct)
