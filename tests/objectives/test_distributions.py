"""Distributions of activations: what is sorted, against assignments and closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
import objectives as ob

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RNG = np.random.default_rng(0)


def score(target, activations):
    acts = ob.Activations(map=jnp.asarray(activations, jnp.float32))
    return np.asarray(ob.SortMatch("map", target)(acts, jnp.zeros((len(activations), 1, 1, 3))))


def test_it_is_the_least_cost_of_an_assignment():
    found, wanted = RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2))
    least = [
        min(
            np.mean((found[list(order), channel] - wanted[:, channel]) ** 2)
            for order in itertools.permutations(range(5))
        )
        for channel in (0, 1)
    ]
    got = score(np.sort(wanted, axis=0), found.reshape(1, 5, 1, 2))
    np.testing.assert_allclose(got, [-np.mean(least)], rtol=1e-5)


def test_places_do_not_matter_and_only_equal_sets_match():
    values = RNG.normal(size=(1, 4, 3, 2))
    target = np.sort(values.reshape(-1, 2), axis=0)
    moved = values.reshape(1, 12, 2)[:, RNG.permutation(12)].reshape(values.shape)
    np.testing.assert_allclose(score(target, np.concatenate([values, moved])), 0, atol=1e-12)
    # Two channels exchanged are other sets.
    assert score(target, values[..., ::-1])[0] < -1e-3


def test_a_shift_costs_its_square():
    target = np.sort(RNG.normal(size=(20, 3)), axis=0)
    shifted = (target + np.array([0.5, 0, -1])).reshape(1, 20, 1, 3)
    np.testing.assert_allclose(score(target, shifted), [-(0.25 + 1) / 3], rtol=1e-5)


def test_other_numbers_of_positions_are_other_ranks_of_the_same():
    # The quantiles of a line are a line.
    middles = lambda count: ((np.arange(count) + 0.5) / count)[:, None]  # noqa: E731
    inner = score(middles(60), middles(20).reshape(1, 20, 1, 1))
    np.testing.assert_allclose(inner, 0, atol=1e-9)
    assert score(middles(5), middles(20).reshape(1, 20, 1, 1))[0] > -1e-3


def test_the_gradient_draws_each_activation_to_its_rank():
    target = np.array([[0.0], [1.0], [2.0]])
    values = jnp.array([2.5, 0.1, 0.7]).reshape(1, 3, 1, 1)

    def of(a):
        return ob.SortMatch("map", target)(ob.Activations(map=a), jnp.zeros((1, 1, 1, 3)))[0]

    pull = -2 / 3 * (np.array([2.5, 0.1, 0.7]) - np.array([2.0, 0.0, 1.0]))
    np.testing.assert_allclose(jax.grad(of)(values).ravel(), pull, rtol=1e-5)


def test_the_target_of_images_is_the_mean_of_their_sorted_activations(toy):
    images = RNG.uniform(size=(3, *toy.input.size, 3)).astype(np.float32)
    made = fv.sorted_activations(toy, "conv", images)
    each = np.sort(np.asarray(toy(images)["conv"]).reshape(3, -1, made.shape[-1]), axis=1)
    np.testing.assert_allclose(made, each.mean(0), rtol=1e-5, atol=1e-6)
    one = fv.sorted_activations(toy, "conv", images[0])
    own = fv.SortMatch("conv", one)(toy(images[:1]), images[:1])
    np.testing.assert_allclose(own, 0, atol=1e-10)


def test_natural_statistics_are_those_of_all_images_at_once(toy):
    images = RNG.uniform(size=(19, *toy.input.size, 3)).astype(np.float32)
    made = fv.natural_statistics(toy, "conv", images)
    layer = np.asarray(toy(images)["conv"], np.float64)
    np.testing.assert_allclose(made.mean, layer.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.variance, layer.var((0, 1, 2)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(made(toy(images), images), 0, atol=1e-4)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.array([[1.0], [0.0]]), "another order"),
        (np.zeros((0, 3)), "target has no numbers"),
        (np.zeros((4, 7)), "7 channels; early has 6"),
    ],
)
def test_targets_that_are_none(target, message):
    acts = ob.Activations(early=jnp.zeros((1, 2, 2, 6)))
    with pytest.raises(ob.ObjectiveError, match=message):
        ob.SortMatch("early", target).check(acts, (1, 8, 8, 3))


def test_what_is_no_model_is_said():
    for make in (fv.sorted_activations, fv.natural_statistics, fv.target):
        with pytest.raises(
            fv.InputError, match=r"model is a featvis.Model \(featvis.load .* 'toy'"
        ):
            make("toy", "conv", np.zeros((1, 12, 16, 3)))
