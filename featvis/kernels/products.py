"""Matrix products of few rows by the rows of a matrix, as gradients of dense layers are.

Milliseconds of both processors together, with jax 0.10.2 on two cores with AVX2, on a busy machine:

    rows, matrix        XLA, Eigen   XLA, YNNPACK   one after the other
    4, 4096 x 4096      181          8.7            12
    16, 4096 x 4096     75           13             49
    4, 1280 x 1000      2.0          1.0            0.12

With 25088 x 4096 and 4 rows, quiet: 753, 24 and 37 ms. Eigen is what our programs have, as it is
faster elsewhere (`compiling`).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

#: Rows up to which one after the other is faster.
_MOST_ROWS = 16


def by_rows(x: Array, matrix: Array) -> Array:
    """(n, d) by the rows of (c, d), one after the other: (n, c).

    The product that XLA's programs of ours have packs all of the matrix, against the order in which
    it lies, however few the rows are.
    """
    return jnp.stack([matrix @ row for row in x])


def few_rows(eqn: Any, repeated: bool) -> Any:
    """`by_rows` for a traced product of few rows by the rows of a matrix; None for others.

    Args:
        eqn: an equation of a traced program.
        repeated: whether it is run many times; what is run once stays XLA's.
    """
    x, matrix = (v.aval for v in eqn.invars)
    ours = (
        repeated
        and eqn.params["dimension_numbers"] == (((1,), (1,)), ((), ()))
        and x.ndim == matrix.ndim == 2
        and eqn.params["precision"] in (None, (lax.Precision.DEFAULT,) * 2)
        and {x.dtype, matrix.dtype, eqn.outvars[0].aval.dtype} == {np.dtype("float32")}
        and 0 < x.shape[0] <= _MOST_ROWS <= min(matrix.shape)
    )
    return by_rows if ours else None
