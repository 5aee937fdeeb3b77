"""Laws that every objective obeys, on the one list of cases."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_cases import (
    CASES,
    COUNT,
    SHAPE,
    Case,
    images,
    network,
)

import objectives as ob

pytestmark = pytest.mark.usefixtures("quick_to_compile")
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
IMAGES = images(1)
ACTS = jax.jit(network)(IMAGES)


# The network is compiled once; what is compiled for each case is the objective alone.
forward = jax.jit(network)
backward = jax.jit(lambda x, cotangents: jax.vjp(network, x)[1](cotangents)[0])
traces = 0


@jax.jit
def scores_and_pullback(
    objective: ob.Objective, acts: ob.Activations, x: jax.Array, weights: jax.Array
) -> tuple[jax.Array, tuple[ob.Activations, jax.Array]]:
    global traces
    traces += 1
    scores, pullback = jax.vjp(objective, acts, x)
    return scores, pullback(weights)


def jitted(objective: ob.Objective, x: jax.Array) -> jax.Array:
    return scores_and_pullback(objective, forward(x), x, jnp.ones(COUNT))[0]


def weighted_gradient(x: jax.Array, objective: ob.Objective, weights: jax.Array) -> jax.Array:
    _, (through_network, direct) = scores_and_pullback(objective, forward(x), x, weights)
    return direct + backward(x, through_network)


@jax.jit
@jax.vmap
def vmapped(objective: ob.Objective, acts: ob.Activations, x: jax.Array) -> jax.Array:
    return objective(acts, x)


def gradient(x: jax.Array, objective: ob.Objective) -> jax.Array:
    return weighted_gradient(x, objective, jnp.ones(COUNT))


def test_every_class_has_a_case() -> None:
    classes = {
        value
        for value in vars(ob).values()
        if isinstance(value, type)
        and issubclass(value, ob.Objective)
        and not inspect.isabstract(value)
    }
    assert classes == {type(node) for case in CASES for node in case.objective.walk()}


@each
def test_scores_are_one_finite_float_an_image(case: Case) -> None:
    scores = case.objective(ACTS, IMAGES)
    assert scores.shape == (COUNT,)
    assert scores.dtype == jnp.float32
    assert np.isfinite(scores).all()
    case.objective.check(ACTS, SHAPE)
    case.objective.check(jax.eval_shape(network, IMAGES), SHAPE)


@each
def test_linearity(case: Case) -> None:
    a, b, c = case.objective, ob.Channel("late", 1), ob.L2()
    va, vb, vc = (np.asarray(o(ACTS, IMAGES)) for o in (a, b, c))
    w = np.array([0.5, -1.0, 2.0])
    for combined, expected in [
        (2 * a + 3 * b - c / 4, 2 * va + 3 * vb - vc / 4),
        (-(a - b), vb - va),
        (1 - a, 1 - va),
        (a - 1.5, va - 1.5),
        (2 * (3 * a), 6 * va),
        (a / 3, va / 3),
        (w * a + (1 - w) * b, w * va + (1 - w) * vb),
        (a * w / [1, 2, 4], va * w / [1, 2, 4]),
        (a + w, va + w),
        (sum([a, b, c]), va + vb + vc),
        (np.array([1, 0, 1], bool) * a, [1, 0, 1] * va),
    ]:
        np.testing.assert_allclose(combined(ACTS, IMAGES), expected, rtol=1e-5, atol=1e-6)


@each
def test_operands_are_never_changed(case: Case) -> None:
    a, b = case.objective, ob.Channel("late", 1)
    before = (copy.deepcopy(a), str(a), hash(a), [np.array(v) for v in jax.tree.leaves(a)])
    for _ in (2 * a, a * 2, -a, a - b, b - a, a / 2, a + b, a + 1, 1 - a, a.on, sum([a, a])):
        assert (a, str(a), hash(a)) == before[:3]
    for value, was in zip(jax.tree.leaves(a), before[3], strict=True):
        np.testing.assert_array_equal(value, was)
    for field in dataclasses.fields(a):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(a, field.name, None)


@each
def test_an_image_does_not_depend_on_its_neighbours(case: Case) -> None:
    if case.couples:
        assert not np.allclose(gradient(IMAGES, case.objective), 0)
        return
    for member in range(COUNT):
        others = images(2).at[member].set(IMAGES[member])
        np.testing.assert_allclose(
            jitted(case.objective, others)[member],
            jitted(case.objective, IMAGES)[member],
            rtol=1e-5,
            atol=1e-6,
        )
    for member, alone in enumerate(jnp.eye(COUNT)):
        g = weighted_gradient(IMAGES, case.objective, alone)
        assert not np.any(np.delete(np.asarray(g), member, axis=0))


@each
def test_three_adam_steps_raise_the_score(case: Case) -> None:
    if not case.climbs:
        pytest.skip("has no gradient")
    # lr 0.05 overshoots the narrow maxima of a prior; an ascent at any rate has the same sign.
    x, m, v = IMAGES, 0.0, 0.0
    for step in range(1, 4):
        g = gradient(x, case.objective)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        update = (m / (1 - 0.9**step)) / (jnp.sqrt(v / (1 - 0.999**step)) + 1e-8)
        x = x + 0.05 * update
    assert jitted(case.objective, x).sum() > jitted(case.objective, IMAGES).sum()


@each
def test_gradient_agrees_with_finite_differences(case: Case) -> None:
    if isinstance(case.objective, ob.DoubtedLogit):
        pytest.skip("has another gradient than its score's: see test_units")
    g = np.asarray(gradient(IMAGES, case.objective))
    size = np.linalg.norm(g)
    if not case.climbs:
        assert size == 0
        return
    rng = np.random.default_rng(3)
    directions = [g / size]
    for _ in range(2):
        d = rng.normal(size=SHAPE) + 10 * g / size
        directions.append(d / np.linalg.norm(d))
    for d in directions:
        step = 0.02 * d
        up, down = (jitted(case.objective, IMAGES + s).sum() for s in (step, -step))
        # float32 sums of scores carry about 1e-6 of their size.
        noise = 3e-6 * float(np.abs(jitted(case.objective, IMAGES)).sum()) / 0.04
        assert float(up - down) / 0.04 == pytest.approx((g * d).sum(), rel=0.01, abs=noise)


@each
def test_same_under_jit_and_vmap(case: Case) -> None:
    plain = case.objective(ACTS, IMAGES)
    np.testing.assert_allclose(jitted(case.objective, IMAGES), plain, rtol=2e-5, atol=1e-6)
    both = [IMAGES, images(2)]
    twice, acts, x = jax.tree.map(
        lambda *rows: jnp.stack(rows),
        *((case.objective, forward(image), image) for image in both),
    )
    scores = vmapped(twice, acts, x)
    for row, image in zip(scores, both, strict=True):
        np.testing.assert_allclose(row, jitted(case.objective, image), rtol=2e-5, atol=1e-6)


@each
def test_equality_hash_copies_and_pytree(case: Case) -> None:
    a = case.objective
    leaves, treedef = jax.tree.flatten(a)
    as_arrays = jax.tree.map(jnp.asarray, a)
    for other in (
        copy.copy(a),
        copy.deepcopy(a),
        pickle.loads(pickle.dumps(a)),
        jax.tree.unflatten(treedef, leaves),
        as_arrays,
    ):
        assert other == a
        assert hash(other) == hash(a)
        assert {a: 1}[other] == 1
        assert repr(other)
    assert [case.name for case in CASES if case.objective == a] == [case.name]
    assert a != "text"
    assert a is not None
    keyed, _ = jax.tree_util.tree_flatten_with_path(a)
    assert all(jax.tree_util.keystr(path) for path, _ in keyed)
    for i, value in enumerate(leaves):
        changed = jax.tree.unflatten(treedef, [*leaves[:i], value + 1, *leaves[i + 1 :]])
        assert changed != a


@each
def test_text_round_trip(case: Case) -> None:
    for objective in (case.objective, jax.tree.map(jnp.asarray, case.objective)):
        leaves = jax.tree.leaves(objective)
        named = {leaf.name: leaf for leaf in leaves if isinstance(leaf, ob.NamedArray)}
        again = ob.parse(str(objective), **named)
        assert again == objective
        assert hash(again) == hash(objective)
        assert type(again) is type(objective)
        assert str(again) == str(objective)
    assert "\n" not in repr(case.objective)
    assert len(repr(case.objective)) < 200


@each
def test_another_index_does_not_retrace(case: Case) -> None:
    jitted(case.objective, IMAGES)
    before = traces
    for step in range(1, 3):
        changed = jax.tree.map(lambda value, step=step: value + step, case.objective)
        scores = jitted(changed, IMAGES)
        assert not jax.tree.leaves(changed) or np.any(scores != jitted(case.objective, IMAGES))
    assert traces == before


def test_another_layer_or_option_retraces() -> None:
    structures = {
        jax.tree.structure(o)
        for o in (
            ob.Channel("a", 1),
            ob.Channel("b", 1),
            ob.Neuron("a", 1),
            ob.Neuron("a", 1, (0, 0)),
            ob.Direction("a", [1.0]),
            ob.Direction("a", [1.0], power=2.0),
        )
    }
    assert len(structures) == 6


@pytest.mark.thorough
def test_vmap_over_an_index_is_the_list_of_indices() -> None:
    one = jax.vmap(lambda i, a: ob.Channel("late", i)({"late": a[None]}, None)[0])(
        jnp.arange(COUNT), ACTS["late"]
    )
    many = ob.Channel("late", jnp.arange(COUNT))(ACTS, IMAGES)
    np.testing.assert_allclose(one, many, rtol=1e-6)
