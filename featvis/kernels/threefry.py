"""JAX's random numbers, the same to the bit, in one pass over memory in place of ten.

JAX writes Threefry (Salmon et al. 2011), for a CPU, as a loop of five rounds over whole arrays,
which XLA unrolls into ten programs, each of which reads and writes all of them. Written out, all
rounds of a number are made in registers, and one small program is compiled.

Milliseconds of a processor for 6 x 224 x 224 x 3 numbers, and seconds to compile that, jax 0.10.2
on two cores with AVX2, other work beside:

              JAX         ours
    bits      18; 1.4     3.5; 0.15
    uniform   18; 1.5     3.0; 0.17
    normal    20; 1.6     6.8; 0.22
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from featvis.kernels.keeping import kept

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
#: Numbers from which on it is worth it: of few, XLA merges those that keys are made of into one
#: program that makes each many times.
_LEAST = 1024


def threefry(keys: tuple[Array, Array], high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 of twenty rounds; all arrays are uint32 and broadcast.

    Args:
        keys: the two words of keys.
        high: the first words of what is encrypted.
        low: the second ones.
    """
    words = (*keys, keys[0] ^ keys[1] ^ np.uint32(_PARITY))
    high, low = high + words[0], low + words[1]
    for four in range(5):
        for by in _ROTATIONS[four % 2]:
            high = high + low
            low = high ^ ((low << np.uint32(by)) | (low >> np.uint32(32 - by)))
        high = high + words[(four + 1) % 3]
        low = low + words[(four + 2) % 3] + np.uint32(four + 1)
    return high, low


def bits(eqn: Any, repeated: bool) -> Callable[[Array], Array] | None:
    """A kernel for `random_bits`; None for few of them, and of other kinds.

    Args:
        eqn: an equation of a traced program.
        repeated: whether it is run many times.
    """
    shape = eqn.params["shape"]
    count = math.prod(shape)
    ours = (
        eqn.params["bit_width"] == 32
        and eqn.invars[0].aval.dtype == _kind_of_keys()
        # Each number is made by its place, which one word counts.
        and jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
        and count < 2**32
        and eqn.outvars[0].aval.size >= _LEAST
    )
    if not ours:
        return None

    def kernel(keys: Array) -> Array:
        words = jax.random.key_data(keys)
        first, second = (jnp.expand_dims(words[..., i], range(-len(shape), 0)) for i in (0, 1))
        places = lax.iota(np.uint32, count).reshape((1,) * (words.ndim - 1) + shape)
        high, low = threefry((first, second), jnp.zeros_like(places), places)
        # What reads them, as the inverse of the error function, would make them again and again.
        return kept(high ^ low)

    return kernel


@functools.cache
def _kind_of_keys() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")).dtype
