"""Functions on shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import everything_checked

from featvis.dry_runs import kinds_of, shapes_of, tried

ONES = {
    "float": lambda: 2.0,
    "int": lambda: 2,
    "NumPy's scalar": lambda: np.float32(2),
    "NumPy's array": lambda: np.ones(3, np.float32),
    "bfloat16": lambda: jnp.ones((), jnp.bfloat16),
}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", ONES)
def test_kinds_stand_for_what_they_are_of(kind: str, wide: bool) -> None:
    """Under strict promotion too: a Python number is no array of its type."""

    def product(tree):
        one = tree["one"]
        return one * jnp.ones(3, jnp.bfloat16 if one.dtype == jnp.bfloat16 else jnp.float32)

    with everything_checked(wide):
        tree = {"one": ONES[kind]()}
        structure, kinds = kinds_of(tree)
        stands = jax.tree.unflatten(structure, [one.struct() for one in kinds])
        found = tried("it", product, stands)
        assert found == jax.eval_shape(product, tree)
        assert hash((structure, kinds)) == hash(kinds_of(tree))


def test_a_key_keeps_its_type() -> None:
    key = jax.random.key(3)
    _, (kind,) = kinds_of({"key": key})
    assert kind.struct() == jax.eval_shape(lambda one: one, key)


def test_shapes_are_found_once_for_each_kind() -> None:
    seen = []

    def product(tree, number):
        seen.append(tree["one"].shape)
        return {"product": tree["one"] @ tree["one"].T * number}

    for rows, number in ((2, 1.0), (2, 2.0), (4, 3.0), (2, 4.0)):
        found = shapes_of(product, {"one": np.full((rows, 3), number, np.float32)}, number)
        assert found == {"product": jax.ShapeDtypeStruct((rows, rows), jnp.float32)}
    assert seen == [(2, 3), (4, 3)]
