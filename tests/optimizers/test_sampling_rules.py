"""The rules of samplers, against arithmetic by hand and the traps of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from featvis import text
from featvis.errors import InputError
from featvis.optimizers import gaussian_noise, keep_best, normalize_by_mean_abs

pytestmark = pytest.mark.usefixtures("quick_to_compile")

_KEY = jax.random.key(3)
_D = jnp.float32([0.5, -1.5, 0, 4])


def _step(rule, updates, params=None, value=0.0, state=None):
    rule = text.optimizer(rule)
    params = jax.tree.map(jnp.zeros_like, updates) if params is None else params
    state = rule.init(params) if state is None else state
    return rule.update(updates, state, params, value=jnp.float32(value), grad=updates, key=_KEY)


def test_mean_abs_is_one_and_the_direction_stays():
    for size in (1.0, 1e-37, 1e37):
        found, _ = _step("normalize_by_mean_abs()", jnp.float32(size) * _D)
        np.testing.assert_allclose(found, np.float32([0.5, -1.5, 0, 4]) / 1.5, rtol=0.02)


def test_where_nothing_pulls_nothing_moves_and_nothing_is_nan():
    nothing = jnp.zeros(4)
    assert np.isnan(nothing / jnp.mean(jnp.abs(nothing))).all()  # the authors' order
    found, _ = _step("chain(normalize_by_mean_abs(), sgd(1.0))", nothing)
    np.testing.assert_array_equal(found, 0)
    both, _ = _step(normalize_by_mean_abs(), {"code": _D, "rest": nothing})
    np.testing.assert_allclose(both["code"], _D / 1.5)


def test_weights_before_the_normalisation_are_ratios():
    rule = "chain(gaussian_noise(0.0), normalize_by_mean_abs(), sgd(1.0))"
    prior = jnp.float32([1, 2, -1, 0.5])
    one, _ = _step(rule, 1e-5 * prior + _D)
    ten, _ = _step(rule, 10 * (1e-5 * prior + _D))
    np.testing.assert_allclose(one, ten, rtol=1e-6)
    other, _ = _step(rule, 1e-4 * prior + _D)
    assert np.abs(one - other).max() > 1e-6


def test_noise_of_1e_17_is_off_until_nothing_else_pulls():
    quiet, _ = _step("gaussian_noise(1e-17)", _D.at[2].set(1e-8))
    np.testing.assert_array_equal(quiet, _D.at[2].set(1e-8))
    # And then the normalisation makes it a step of the full size.
    alone, _ = _step("chain(gaussian_noise(1e-17), normalize_by_mean_abs())", jnp.zeros(4))
    np.testing.assert_allclose(jnp.mean(jnp.abs(alone)), 1, rtol=1e-5)
    loud, _ = _step(gaussian_noise(0.1), _D)
    assert np.abs(loud - _D).min() > 1e-4


def test_the_best_is_kept_and_the_last_is_not():
    """A walk along x whose values are known: after 4 steps it is back at the best of them."""
    rule = keep_best(optax.sgd(1.0), 4)
    values = [5.0, 2.0, 3.0, 4.0, 9.0, 8.0, 10.0, 11.0]
    params, state, path = jnp.zeros(2), None, []
    for value in values:
        updates, state = _step(rule, -jnp.ones(2), params, value, state)
        params = params + updates
        path.append(float(params[0]))
    # The best of the first four was at 1; from there on it counts anew, and 2 is the best.
    assert path == [1, 2, 3, 1, 2, 3, 4, 2]


def test_it_has_a_text():
    found, _ = _step("keep_best(chain(gaussian_noise(0.0), sgd(0.5)), 3)", _D)
    np.testing.assert_allclose(found, -0.5 * _D)


@pytest.mark.parametrize("bad", ["sgd(1.0), 0", "sgd(1.0), 1.5", "3, 3"])
def test_what_is_out_of_range_is_said(bad):
    bad = f"keep_best({bad})"
    with pytest.raises(InputError, match=r"keep_best|steps must"):
        text.optimizer(bad)
