"""Weights of every kind, batches of several objectives, and classes of the user's own."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import objectives as ob
from objectives import fields
from objectives import objective as core

pytestmark = pytest.mark.usefixtures("quick_to_compile")
A, B = ob.Channel("late", 3), ob.TotalVariation()
ACTS = ob.Activations(late=jnp.arange(3 * 4 * 5 * 8.0).reshape(3, 4, 5, 8) / 100)
IMAGE = jnp.linspace(0, 1, 3 * 4 * 5 * 3).reshape(3, 4, 5, 3)


@pytest.mark.parametrize(
    "two",
    [
        *(2, 2.0, np.float16(2), np.float32(2), np.float64(2), np.int8(2), np.uint64(2)),
        *(np.array(2), np.array(2.0), jnp.array(2), jnp.float16(2), jnp.bfloat16(2)),
    ],
    ids=lambda two: f"{type(two).__name__} {getattr(two, 'dtype', '')}",
)
def test_numbers_of_every_type(two) -> None:
    for objective in (two * A, A * two, A / (1 / two)):
        assert objective == 2.0 * A
        assert hash(objective) == hash(2.0 * A)
        assert str(objective) == "2.0*late:3"
        assert isinstance(objective.weight, float)
    assert two + A == 2.0 + A
    assert A - two == A - 2.0
    assert two - A == 2.0 - A


@pytest.mark.parametrize(
    "weights",
    [
        *([1, 2, 3], (1, 2.0, 3), np.array([1, 2, 3]), np.array([1, 2, 3], np.float16)),
        *(jnp.array([1, 2, 3]), jnp.array([1, 2, 3], jnp.bfloat16), np.array([1, 2, 3], np.uint8)),
    ],
    ids=lambda w: f"{type(w).__name__} {getattr(w, 'dtype', '')}",
)
@pytest.mark.usefixtures("usual_promotions")
def test_one_weight_an_image_of_every_type(weights) -> None:
    for objective in (weights * A, A * weights):
        assert isinstance(objective, ob.Scaled)
        assert objective == [1.0, 2.0, 3.0] * A
        assert objective.batch_size == 3
        assert str(objective) == "[1.0, 2.0, 3.0]*late:3"
    np.testing.assert_allclose((weights + A)(ACTS, IMAGE), A(ACTS, IMAGE) + np.array([1, 2, 3]))


def test_the_arrays_of_an_objective_do_not_change() -> None:
    for given in (np.ones(8, np.float32), np.ones(8), np.ones(8, bool)):
        objective = ob.Direction("late", given)
        given[0] = 0
        assert objective == ob.Direction("late", np.ones(8))
        with pytest.raises(ValueError, match="read-only"):
            objective.vector[0] = 0
    with pytest.raises(ob.ObjectiveError, match="finite"):
        ob.Direction("late", jnp.array([jnp.nan, 1]))


def test_mask_of_images() -> None:
    assert np.array([True, False, True]) * A == [1, 0, 1] * A


@pytest.mark.thorough
def test_weights_may_be_traced() -> None:
    values = np.asarray(A(ACTS, IMAGE))

    def total(w: jax.Array) -> jax.Array:
        return (w * A + (1 - w) * (3 * A) - A / (1 + w) + w)(ACTS, IMAGE).sum()

    w = jnp.array([0.0, 0.5, 1.0])
    slope = -2 * values + values / (1 + w) ** 2 + 1
    np.testing.assert_allclose(jax.grad(total)(w), slope, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(w), slope, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(total)(0.5), slope_at(values, 0.5), rtol=1e-5)
    each = jax.vmap(total)(w)
    np.testing.assert_allclose(each, [total(x) for x in w], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(total))(w), each, rtol=1e-5)


def slope_at(values: np.ndarray, w: float) -> np.ndarray:
    return (-2 * values + values / (1 + w) ** 2 + 1).sum()


def test_traced_leaves_are_printable() -> None:
    seen = []

    @jax.jit
    def run(w: jax.Array, i: jax.Array) -> jax.Array:
        seen.append(repr(w * ob.Channel("late", i)))
        return (w * ob.Channel("late", i))(ACTS, IMAGE)

    run(jnp.ones(3), jnp.int32(2))
    assert seen == ["<float32[3]>*Channel('late', <int32[]>)"]


def test_printing() -> None:
    assert str(A - 0.1 * B) == "late:3 - 0.1*total_variation()"
    assert str(-(A + B)) == "-(late:3 + total_variation())"
    assert str(0.1 * (3 * A)) == "0.3*late:3"
    assert repr(A - 0.1 * B) == "Channel('late', 3) - 0.1*TotalVariation()"
    assert repr(ob.Direction("late", np.ones(100))) == "Direction('late', <float32[100]>)"
    assert str(ob.Neuron("late", 3, (1, 2))) == "late:3@1,2"
    assert str(ob.Neuron("late", 3)) == "late:3@center"
    assert str(ob.Logit([1, 2])) == "logits:[1, 2]"
    assert str(ob.Channel("a layer", 3)) == "'a layer':3"


def test_sums_are_flat_and_know_their_terms() -> None:
    assert (A + (B + A)).terms == ((A + B) + A).terms == (A, B, A)
    assert A.terms == (A,)
    assert [type(node).__name__ for node in (2 * (A + B)).walk()] == [
        "Scaled",
        "Sum",
        "Channel",
        "TotalVariation",
    ]


def test_batch_size() -> None:
    assert A.batch_size is None
    assert ob.Channel("late", [1, 2]).batch_size == 2
    assert ob.Caricature("late", np.ones((1, 2))).batch_size is None
    assert ob.Caricature("late", np.ones((4, 2))).batch_size == 4
    assert (ob.Channel("late", [1, 2]).on([4, 0]) + ob.Logit([1, 2, 3])).batch_size == 3
    with pytest.raises(ob.ObjectiveError, match=r"Channel\.index has 2 and Logit\.index has 3"):
        _ = (ob.Channel("late", [1, 2]) + ob.Logit([1, 2, 3])).batch_size


def test_equality_is_by_value_and_type() -> None:
    assert (
        ob.Channel("late", 3) == ob.Channel("late", np.int64(3)) == ob.Channel("late", jnp.int32(3))
    )
    assert ob.Channel("late", 3) != ob.Channel("late", [3])
    assert ob.Channel("logits", 3) != ob.Logit(3)
    assert ob.Neuron("late", 3) != ob.Channel("late", 3)
    assert np.float32(0.1) * A == 0.1 * A
    assert 0.0 * A == -0.0 * A
    assert hash(0.0 * A) == hash(-0.0 * A)
    assert A + B != B + A
    assert A.__eq__("late:3") is NotImplemented


# ---- several in one batch


def test_stack() -> None:
    some = [ob.Channel("late", 3), ob.Channel("late", 7), ob.Channel("late", [1, 2])]
    assert ob.stack(some) == ob.Channel("late", [3, 7, 1, 2])
    assert ob.stack(some[:1]) is some[0]
    target = np.arange(1.0, 7).reshape(2, 3)
    assert ob.stack(
        [ob.Caricature("a", target[:1]), ob.Caricature("a", target[1:])]
    ) == ob.Caricature("a", target)
    regularized = [o - w * B for o, w in zip(some, (0.5, 1, 2), strict=True)]
    assert ob.stack(regularized) == ob.stack(some) - np.array([0.5, 1, 2, 2]) * B
    assert ob.stack([B, B]) == B
    vectors = [ob.Direction("a", [1.0, 2]), ob.Direction("a", [[3.0, 4], [5, 6]])]
    assert ob.stack(vectors) == ob.Direction("a", [[1, 2], [3, 4], [5, 6]])
    neurons = [ob.Neuron("a", 1, (0, 1)), ob.Neuron("a", [2, 3], (4, 5))]
    assert ob.stack(neurons) == ob.Neuron("a", [1, 2, 3], [[0, 1], [4, 5], [4, 5]])


def test_a_stack_scores_like_its_members() -> None:
    some = [ob.Channel("late", k) - 0.1 * k * B + k for k in range(3)]
    alone = [float(o(ACTS, IMAGE)[i]) for i, o in enumerate(some)]
    np.testing.assert_allclose(ob.stack(some)(ACTS, IMAGE), alone, rtol=1e-5)


def test_what_stacks_has_one_key() -> None:
    assert ob.stack_key(ob.Channel("late", 3)) == ob.stack_key(ob.Channel("late", [7, 1]))
    different = [
        ob.Channel("late", 3),
        ob.Channel("early", 3),
        ob.Logit(3),
        ob.Neuron("late", 3),
        ob.Neuron("late", 3, (1, 1)),
        A + B,
        A + 2 * B,
        ob.Caricature("a", np.ones((1, 2))),
        ob.Caricature("a", np.ones((1, 3))),
        ob.Caricature("a", np.ones((1, 3)), power=2.0),
        ob.Diversity("late"),
        ob.Diversity("late"),
        A.on(0),
    ]
    assert len({ob.stack_key(o) for o in different}) == len(different)
    with pytest.raises(ob.ObjectiveError, match="of one kind"):
        ob.stack(different[:2])
    with pytest.raises(ob.ObjectiveError, match="looks at the whole batch"):
        ob.stack([ob.Diversity("late"), ob.Diversity("late")])
    with pytest.raises(ob.ObjectiveError, match="at least one"):
        ob.stack([])


def test_activations_are_a_pytree_in_forward_order() -> None:
    acts = ob.Activations(z=jnp.ones(2), a=jnp.zeros(2))
    out = jax.jit(lambda acts: acts)(acts)
    assert type(out) is ob.Activations
    assert list(out) == ["z", "a"]
    assert jax.tree.map(lambda x: x + 1, acts)["a"].tolist() == [1, 1]


# ---- the user's own classes


def test_the_example_of_the_documentation() -> None:
    indented = re.search(r"takes::\n\n(.*?)\n\n?It prints", core.__doc__ or "", re.DOTALL)
    assert indented is not None
    lines = [line[4:] for line in indented[1].splitlines()]
    scope = {"jnp": jnp, "__name__": "example", **vars(core), **vars(fields)}
    exec("\n".join(lines), scope)  # our own documentation
    own = scope["Projection"]
    vectors = np.arange(24.0).reshape(3, 8)
    for vector in (vectors[0], vectors):
        objective = own("late", vector)
        assert ob.parse(str(objective)) == objective
        assert ob.parse(f"2*{objective} - 0.1*tv") == 2 * objective - 0.1 * B
        assert str(objective).startswith("projection('late', [")
        expected = ob.Direction("late", vector)
        objective.check(ACTS, IMAGE.shape)
        np.testing.assert_allclose(objective(ACTS, IMAGE), expected(ACTS, IMAGE), rtol=1e-5)


class Loudest(ob.Objective):
    """The largest of several objectives, an image at a time."""

    choices: tuple[ob.Objective, ...]
    sharpness: float = ob.static(default=1.0)
    aliases = ("loud",)

    def __call__(self, acts, image):
        return jnp.max(jnp.stack([o(acts, image) for o in self.choices]), axis=0)


def test_an_objective_of_objectives() -> None:
    own = Loudest([ob.Channel("late", 1), ob.Channel("late", [1, 5, 2])], sharpness=2.0)
    assert isinstance(own.choices, tuple)
    assert own.batch_size == 3
    assert len(list(own.walk())) == 3
    assert ob.parse(str(own)) == own
    assert ob.parse("loud([late:1, late:2])") == Loudest(
        (ob.Channel("late", 1), ob.Channel("late", 2))
    )
    own.check(ACTS, IMAGE.shape)
    np.testing.assert_allclose(own(ACTS, IMAGE), ob.Channel("late", [1, 5, 2])(ACTS, IMAGE))
    assert dataclasses.replace(own, sharpness=1.0) != own
    assert ob.stack([Loudest((A, A)), Loudest((A, A))]) == Loudest(
        (ob.Channel("late", [3, 3]), ob.Channel("late", [3, 3]))
    )


def test_two_classes_of_one_name_are_ambiguous_in_text() -> None:
    def make(module: str, name: str) -> type[ob.Objective]:
        def call(self, acts, image):
            return image.mean((1, 2, 3))

        return type(name, (ob.Objective,), {"__call__": call, "__module__": module})

    old, new = make("notebook", "Twice"), make("notebook", "Twice")
    assert type(ob.parse("twice()")) is new is not old
    other = make("elsewhere", "Twice")
    for text in ("twice()", "twice"):
        with pytest.raises(ob.ParseError, match=r"two objectives, notebook\.Twice and elsewhere"):
            ob.parse(text)
    assert str(other()) == "twice()"


def test_one_image_of_a_batch_has_the_objective_that_was_stacked() -> None:
    # `stack` undone: what each one was before, written as it was.
    units = [ob.Channel("late", i) - 0.1 * w * B for i, w in ((3, 1.0), (7, 2.5), (0, 4.0))]
    joint = ob.stack(units)
    for place, unit in enumerate(units):
        assert ob.alone(joint, place) == unit
        assert str(ob.alone(joint, place)) == str(unit)
    vectors = np.arange(24, dtype=np.float32).reshape(3, 8)
    directions = ob.Direction("late", vectors)
    assert ob.alone(directions, 1) == ob.Direction("late", vectors[1])
    neurons = ob.Neuron("late", [1, 2], [[0, 1], [2, 3]])
    assert ob.alone(neurons, 1) == ob.Neuron("late", 2, [2, 3])
    assert ob.alone(A, 0) == A
