"""Priors on a code: what draws it to where codes of a generator usually are."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from featvis import checks
from featvis.digests import digest_of_tree
from featvis.dry_runs import once_a_kind, tried
from featvis.errors import InputError
from featvis.parameterizations.component import (
    Component,
    check_finite,
    check_static,
    numbers_of,
)
from featvis.parameterizations.generator import Generator
from objectives import leaf


class CodePrior(Component):
    """What is added to the gradient of the score by a code: the gradient of a log-probability.

    It has no part in the scores, which stay those of the network. Its weight is data: a sweep of it
    compiles nothing. Under an optimizer that normalises, weights are ratios to the gradient.

    Args:
        weight: what it is multiplied by, at least 0.
    """

    weight: float = leaf(default=1.0)

    def __post_init__(self) -> None:
        """Check the weight."""
        super().__post_init__()
        if isinstance(self.weight, (bool, int, float)):
            checks.set_fields(self, weight=checks.number(self, "weight", self.weight, 0))

    @abstractmethod
    def pull(self, generator: Generator, code: jax.Array) -> jax.Array:
        """The direction in which a code is drawn.

        Args:
            generator: of the code.
            code: one, (n,) or (h, w, c); the direction has its shape.
        """

    def check(self, generator: Generator, shape: tuple[int, ...]) -> None:
        """Tries the prior on shapes.

        Args:
            generator: of the code.
            shape: of a code.

        Raises:
            InputError: it cannot be called on such a code, or gives no direction of its shape.
        """
        check_static(self)
        _check_pull((self, generator), shape)


@once_a_kind
def _check_pull(given: tuple[CodePrior, Generator], shape: tuple[int, ...]) -> None:
    """Tries a prior and a generator on codes of a shape."""
    prior, generator = given
    name = type(prior).__name__
    found = tried(
        f"{name}: it cannot draw a code {shape} of {generator!r}",
        lambda given, code: given[0].pull(given[1], code),
        (prior, generator),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )
    made = getattr(found, "shape", type(found).__name__)
    if made != shape:
        raise InputError(f"{name}: it draws codes {shape} of {generator!r} by {made}, not {shape}")


class NormalPrior(CodePrior):
    """L2: codes are normal, each number by itself: `weight · (mean − code) / sd²`.

    Args:
        weight: what it is multiplied by; with the defaults, of `−|code|² / 2`.
        mean: one number, or an array that broadcasts with codes.
        sd: likewise, above 0.
    """

    mean: ArrayLike = leaf(default=0.0)
    sd: ArrayLike = leaf(default=1.0)

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        check_finite(self, "mean", "sd")
        sd = numbers_of(self.sd)
        if sd is not None and not np.all(sd > 0):
            raise checks.error(self, "sd", "above 0", float(sd.min()))

    def pull(self, generator: Generator, code: jax.Array) -> jax.Array:
        """Towards the mean."""
        mean, sd = (
            jnp.broadcast_to(jnp.asarray(one, code.dtype), code.shape)
            for one in (self.mean, self.sd)
        )
        return self.weight * (mean - code) / sd**2


class Consistency(CodePrior):
    """A code is what the encoder makes of its image: `weight · (E(G(code)) − code)`.

    The prior step of Plug & Play Generative Networks (Nguyen et al., CVPR 2017, equations 5 and 11:
    ε1 is the weight), which is nobody's gradient: neither E nor G is differentiated.
    """

    def pull(self, generator: Generator, code: jax.Array) -> jax.Array:
        """Towards the code of its own image."""
        again = generator.encode(generator.decode(code))
        return self.weight * (jax.lax.stop_gradient(again) - code)


class Reconstruction(CodePrior):
    """A code is what an autoencoder of codes makes of it: `weight · (R(code) − code)`.

    Of a denoising autoencoder that is, to a factor, the gradient of the log-probability of codes
    (Alain & Bengio 2014), as PPGN-h has it.

    Args:
        weight: what it is multiplied by.
        reconstruct: `(params, code) -> code`, pure and hashable.
        params: its weights, a pytree of arrays.
    """

    reconstruct: Callable[[Any, jax.Array], jax.Array] | None = None
    params: Any = leaf(default=None)

    def __post_init__(self) -> None:
        """Check the function."""
        super().__post_init__()
        if not callable(self.reconstruct):
            raise checks.error(
                self, "reconstruct", "a function (params, code), a code to a code", self.reconstruct
            )

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of its data: a function has no text."""
        return digest_of_tree((self.weight, self.params))

    def pull(self, generator: Generator, code: jax.Array) -> jax.Array:
        """Towards its reconstruction."""
        assert self.reconstruct is not None  # checked at construction
        again = self.reconstruct(self.params, code)
        return self.weight * (jax.lax.stop_gradient(again) - code)
