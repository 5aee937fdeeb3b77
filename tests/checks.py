"""The checks that JAX can make of numbers, all at once."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def everything_checked(wide: bool = True) -> Iterator[None]:
    """Under strict types and ranks, and an error at every NaN and infinity.

    Args:
        wide: whether numbers of 64 bits are on.
    """
    with (
        jax.enable_x64(wide),
        jax.debug_nans(True),
        jax.debug_infs(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        yield
