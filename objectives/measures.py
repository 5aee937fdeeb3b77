"""Norms and cosines of activations, and powers of lengths, with gradients where nothing is."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def safe_norm(a: jax.Array) -> jax.Array:
    """Norm of the last axis; 1 for zeros, where the true norm has no gradient."""
    squares = jnp.sum(a * a, axis=-1)
    return jnp.sqrt(jnp.where(squares > 0, squares, 1))


def safe_cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """True cosine of the last axes; 0 where either is all zero."""
    return jnp.sum(a * b, axis=-1) / safe_norm(a) / safe_norm(b)


def safe_power(squares: jax.Array, exponent: float) -> jax.Array:
    """squares^exponent with gradient 0 at 0, where that of a power below 1 is infinite."""
    positive = squares > 0
    return jnp.where(positive, jnp.where(positive, squares, 1.0) ** exponent, 0.0)
