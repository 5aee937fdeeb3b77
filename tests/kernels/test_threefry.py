"""Random numbers by our kernel, against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import everything_checked

from featvis import kernels
from featvis.kernels.threefry import threefry

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def test_what_the_authors_say_it_gives():
    """Known answers of Random123, the authors' library, for twenty rounds."""
    known = {
        (0x00000000, 0x00000000, 0x00000000, 0x00000000): (0x6B200159, 0x99BA4EFE),
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF): (0x1CB996FC, 0xBB002BE7),
        (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3): (0xC4923A9C, 0x483DF7A0),
    }
    given = np.array([*known], np.uint32).T
    found = threefry((given[0], given[1]), given[2], given[3])
    np.testing.assert_array_equal(found, np.array([*known.values()], np.uint32).T)


def draws(key: jax.Array) -> dict[str, jax.Array]:
    """Large ones and small, of several types, of one key and of several, in a loop and not."""
    keys = jax.random.split(key, 3)

    def step(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        return total + jax.random.normal(key, (7, 151), jnp.float32), None

    return {
        "bits": jax.random.bits(key, (2, 3, 5, 41), jnp.uint32),
        "bytes": jax.random.bits(key, (2000,), jnp.uint8),
        "few": jax.random.bits(key, (4,), jnp.uint32),
        "uniform": jax.random.uniform(key, (1025,), jnp.float32),
        "integers": jax.random.randint(key, (33, 37), -3, 9, jnp.int32),
        "each": jax.vmap(lambda one: jax.random.uniform(one, (600,), jnp.float32))(keys),
        "loop": jax.lax.scan(step, jnp.zeros((7, 151), jnp.float32), keys)[0],
    }


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_numbers_are_those_of_jax_to_the_bit(kind):
    key = jax.random.key(5, impl=kind)
    with everything_checked(wide=False):
        found, expected = kernels.compiled(draws)(key), jax.jit(draws)(key)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def many(key: jax.Array) -> jax.Array:
    return jax.random.uniform(key, (2048,), jnp.float32)


def test_its_rounds_are_written_out():
    key = jax.random.key(0)
    ours, theirs = (
        program.lower(key).as_text().count("shift_left")
        for program in (kernels.compiled(many), jax.jit(many))
    )
    assert ours == 20 > theirs


def test_numbers_in_the_other_order_are_left_to_jax():
    with jax.threefry_partitionable(False):
        key = jax.random.key(0)
        np.testing.assert_array_equal(kernels.compiled(many)(key), jax.jit(many)(key))
