"""What is refused, when, and in which words."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import objectives as ob

A = ob.Channel("late", 3)
ROWS = np.ones((2, 3))
PICTURE = np.full((1, 4, 4, 3), 0.5)
ACTS = {
    "late": jax.ShapeDtypeStruct((2, 5, 7, 8), jnp.float32),
    "logits": jax.ShapeDtypeStruct((2, 10), jnp.float32),
    "tokens": jax.ShapeDtypeStruct((2, 36, 8), jnp.float32),
}
SHAPE = (2, 20, 28, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ob.Channel("late", -3), "whole number of 0 or more; got -3"),
        (lambda: ob.Channel("late", 1.5), "whole number of 0 or more; got 1.5"),
        (lambda: ob.Channel("late", np.float32(1)), "whole number of 0 or more; got 1.0"),
        (lambda: ob.Channel("late", True), "whole number of 0 or more; got True"),
        (lambda: ob.Channel("late", [True, False]), "whole number"),
        (lambda: ob.Channel("late", [3, -1]), "whole number"),
        (lambda: ob.Channel("late", []), "has no numbers"),
        (lambda: ob.Channel("late", None), "Channel.index must be a number .*; got None"),
        (lambda: ob.Channel("late", "3"), "Channel.index must be a number"),
        (lambda: ob.Channel("late", [[1], [2]]), "Channel.index must have rank 0, or 1"),
        (lambda: ob.Channel("late", [[1], [2, 3]]), "Channel.index must be a number"),
        (lambda: ob.Channel("late", A), "Channel.index must be a number"),
        (lambda: ob.Channel("late", 2**40), "must fit into 32 bits; got 1099511627776"),
        (lambda: ob.Channel("late", [2**40, 1]), "must fit into 32 bits"),
        (lambda: ob.Channel("late", 10**400), "Channel.index must be a number"),
        (lambda: ob.Channel("", 3), "a layer is a name in quotes"),
        (lambda: ob.Channel(7, 3), "a layer is a name in quotes"),
        (lambda: ob.Channel(None, 3), "a layer is a name in quotes"),
        (lambda: ob.Channel(ob.Layer("late"), 3), "a layer is a name in quotes"),
        (lambda: ob.Channel(["late"], 3), "must be hashable"),
        (lambda: ob.MinDistance(3), "a layer is a name in quotes"),
        (lambda: ob.Logit(-1), "whole number"),
        (lambda: ob.Probability(0.5), "whole number"),
        (lambda: ob.Neuron("late", 3, 7), "Neuron.position must have rank 1"),
        (lambda: ob.Channel("late", 3, skip=-1), "skip is a whole number of tokens"),
        (lambda: ob.Channel("late", 3, skip=1.0), "skip is a whole number of tokens"),
        (lambda: ob.Neuron("late", 3, (1, 2, 3)), r"a position is \(y, x\)"),
        (lambda: ob.Neuron("late", 3, (1, -2)), r"a position is \(y, x\)"),
        (lambda: ob.Neuron("late", 3, (1.5, 2.0)), r"a position is \(y, x\)"),
        (lambda: ob.DirectionNeuron("late", [1.0], (1, -2)), r"a position is \(y, x\)"),
        (lambda: ob.Direction("late", 3.0), "Direction.vector must have rank 1"),
        (lambda: ob.Direction("late", [np.nan]), "finite"),
        (lambda: ob.Tone([], []), r"Tone.mean has no numbers; got an array \(0,\)"),
        (lambda: ob.Direction("late", [1e300]), "finite"),
        (lambda: ob.Direction("late", ["a"]), "must be a number"),
        (lambda: ob.Direction("late", [1j]), "must be a number"),
        (lambda: ob.Direction("late", [1.0], power=-1), "power must be at least 0; got -1"),
        (lambda: ob.Direction("late", [1.0], power=True), "power must be a number"),
        (lambda: ob.Direction("late", [1.0], power=np.inf), "power must be at least 0"),
        (lambda: ob.TotalVariation(0), "beta must be above 0; got 0"),
        (lambda: ob.TotalVariation("a"), "beta must be a number; got 'a'"),
        (lambda: ob.TotalVariation(np.nan), "beta must be above 0; got nan"),
        (lambda: ob.AlphaNorm(0.5), "alpha must be at least 1"),
        (lambda: ob.AlphaNorm(center=np.nan), "center must be finite"),
        (lambda: ob.L1(center="grey"), "center must be a number"),
        (lambda: ob.L2(center=[0.5]), "must be hashable"),
        (lambda: ob.Blur(1e9), "sigma must be above 0 and at most 1000"),
        (lambda: ob.CenterBias(0), "sigma must be above 0"),
        (lambda: ob.Alignment(decay=0.5), "decay must be at least 1"),
        (lambda: ob.FeatureMatch("late", np.ones((1, 2)), metric="l3"), "'l2', 'log' or 'cosine'"),
        (lambda: ob.FeatureMatch("late", np.zeros((1, 2))), "not all zero"),
        (lambda: ob.FeatureMatch("late", 1.0), "images first"),
        (lambda: ob.Caricature("late", np.zeros((2, 3))), "not all zero"),
        (lambda: ob.Caricature("late", -np.ones((2, 3)), positive=True), "not all zero"),
        (lambda: ob.Caricature("late", np.ones((2, 3)), positive=1), "positive must be True or F"),
        (lambda: ob.AlphaNorm(joint=None), "joint must be True or False; got None"),
        (
            lambda: ob.FeatureMatch("late", ROWS, images=np.ones((2, 3))),
            "the images of FeatureMatc",
        ),
        (lambda: ob.Caricature("late", ROWS, images=np.ones((3, 1, 1, 1))), "different numbers of"),
        (lambda: ob.Change(A, PICTURE), r"measured by image priors; got Channel\('late', 3\)"),
        (lambda: ob.Change(ob.L2() - 0.1 * A, PICTURE), "measured by image priors; got Channel"),
        (lambda: ob.Change("tv", PICTURE), "measured by image priors; got 'tv'"),
        (lambda: ob.Tone([0.5], [-0.1]), "a deviation is at least 0; got -0.1"),
        (lambda: ob.Tone(np.ones((2, 3)), np.ones((3, 3))), "different numbers of images"),
        (lambda: ob.Tone(0.5, 0.1), "Tone.mean must have rank 1, or 2"),
        (lambda: ob.Style("late", np.zeros((1, 3, 3))), "not all zero"),
        (lambda: ob.BatchStatistics("late", [0.0], [-1.0]), "a variance is at least 0; got -1"),
        (lambda: ob.BatchStatistics("late", [0.0], [1.0, 2.0]), r"shapes \(1,\) and \(2,\)"),
        (lambda: ob.BatchStatistics("late", [[0.0]], [[1.0]]), r"for the whole batch; got shapes"),
        (
            lambda: ob.FeatureMatch("late", np.ones((1, 2, 2, 3)), np.zeros((1, 2, 2))),
            "not all zero",
        ),
        (
            lambda: ob.FeatureMatch("late", np.ones((3, 2, 2, 3)), np.ones((2, 2, 2))),
            "different numbers of images",
        ),
        (lambda: A / A, "not by each other"),
        (lambda: 2 / A, "nothing divides by an objective"),
        (lambda: A / 0, "cannot be divided by zero; got 0"),
        (lambda: A / np.array([1.0, 0.0]), "cannot be divided by zero"),
        (lambda: A / 1e-300, "finite"),
        (lambda: A * np.nan, "finite"),
        (lambda: A * 1e300, "finite"),
        (lambda: A * 10**400, "a weight must be"),
        (lambda: 1e30 * (1e30 * A), "finite"),
        (lambda: A + np.inf, "finite"),
        (lambda: A * np.ones((2, 2)), r"one weight an image, \(n,\); got shape \(2, 2\)"),
        (lambda: A * ["a"], "a weight must be a number"),
        (lambda: [1, 2] * ([1, 2, 3] * A), "weights for 2 and 3 images"),
        (lambda: ob.Scaled(2.0, 3.0), "a weight goes with an objective"),
        (lambda: ob.Sum((A, 3.0)), "a sum is of objectives; got 3.0"),
        (lambda: ob.Sum((A,)), "two or more"),
        (lambda: ob.OnImages(3.0, (1,)), "images are for an objective"),
        (lambda: A.on([]), "positions in the batch"),
        (lambda: A.on(-1), "positions in the batch"),
        (lambda: A.on(True), "positions in the batch"),
        (lambda: A.on(0.5), "positions in the batch"),
        (lambda: A.on("ab"), "positions in the batch"),
        (lambda: A.on([[0]]), "positions in the batch"),
        (lambda: A.on([0, [1, 2]]), "positions in the batch"),
        (lambda: A.on([1, 1]), "once each"),
        (lambda: ob.Channel("late", [1, 2, 3]).on([0, 1]), "made for 3 images; on"),
    ],
)
def test_refused_when_built(build, message: str) -> None:
    with pytest.raises(ob.ObjectiveError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "build",
    [
        lambda: A + "late",
        lambda: "late" + A,
        lambda: A - None,
        lambda: A * "2",
        lambda: A * True,
        lambda: A + True,
        lambda: False + A,
        lambda: A / "2",
        lambda: A**2,
        lambda: A * 1j,
        lambda: A @ A,
        lambda: A < A,
        lambda: A[0],
        lambda: list(A),
    ],
)
def test_not_an_operation(build) -> None:
    with pytest.raises(TypeError):
        build()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (ob.Channel("late", 8), "index 8 is out of range; late has units 0 to 7"),
        (ob.Channel("late", [3, 99]), "index 99 is out of range"),
        (ob.Logit(10), "logits has units 0 to 9"),
        (ob.Channel("late", [1, 2, 3]), "made for 3 images; the batch has 2"),
        (ob.Neuron("late", 3, (5, 0)), "out of range; late is 5 high and 7 wide"),
        (ob.Neuron("late", 3, (0, 7)), "out of range; late is 5 high and 7 wide"),
        (ob.DirectionNeuron("late", np.ones(8), (7, 5)), "5 high and 7 wide"),
        (ob.Neuron("logits", 3), "has no positions"),
        (ob.Neuron("tokens", 3), "36 tokens, which have no centre: give one, as @0"),
        (ob.Neuron("tokens", 3, (1, 2)), r"a position in layer 'tokens' is one token, as @7; got"),
        (ob.Neuron("late", 3, (1,)), r"a position in layer 'late' is \(y, x\), as @7,7; got"),
        (ob.Neuron("tokens", 3, (36,)), r"token \[36\] is out of range; tokens has tokens 0 to 35"),
        (ob.Channel("late", 3, skip=1), r"leaves out tokens of a layer \(n, t, c\)"),
        (ob.Channel("tokens", 3, skip=36), r"leaves out tokens of a layer \(n, t, c\)"),
        (ob.DirectionNeuron("logits", np.ones(10)), "has no positions"),
        (ob.Style("logits", np.ones((1, 10, 10))), "has no positions"),
        (ob.Diversity("logits"), "has no positions"),
        (ob.Logit(3, layer="late"), "does not hold one vector an image"),
        (ob.Direction("late", np.ones(7)), "vector has 7 entries; late has 8 channels"),
        (ob.DirectionNeuron("late", np.ones(9)), "vector has 9 entries"),
        (ob.FeatureMatch("late", np.ones((1, 4, 7, 8))), r"\(1, 4, 7, 8\).*\(2, 5, 7, 8\)"),
        (ob.Caricature("late", np.ones((1, 5, 7, 9))), "the target of Caricature"),
        (ob.Style("late", np.ones((1, 9, 9))), "the target of Style"),
        (ob.BatchStatistics("late", np.ones(9), np.ones(9)), "9 channels; layer 'late' has 8"),
        (
            ob.FeatureMatch("late", np.ones((1, 5, 7, 8)), np.ones((1, 4, 7))),
            "the mask has shape",
        ),
        (ob.Channel("late", 1).on([0, 2]), "names image 2; the batch has images 0 to 1"),
        (ob.MinDistance().on([1]), "needs at least 2; got 1"),
        ([1, 2, 3] * ob.L2(), "made for 3 images"),
        ([1, 2] * ob.L2() + [1, 2, 3] * ob.L1(), "different numbers of images"),
        (ob.Change(ob.L2(), PICTURE), r"original of Change has shape \(1, 4, 4, 3\)"),
        (A - ob.Tone([0.5, 0.5], [0.1, 0.1]), "the mean of Tone is of 2 channels; the images have"),
        ((ob.Channel("late", 1) + 2 * ob.Channel("late", 8)).on([0]), "index 8 is out of range"),
    ],
    ids=repr,
)
def test_refused_by_the_check(objective: ob.Objective, message: str) -> None:
    with pytest.raises(ob.ObjectiveError, match=message):
        objective.check(ACTS, SHAPE)


@pytest.mark.parametrize(
    "objective",
    [
        ob.Channel("lat", 3),
        ob.Layer("lat"),
        ob.MinDistance("lat"),
        ob.Direction("lat", [1.0]),
        ob.Channel("lat", 3).on([0]),
        (2 * ob.Diversity("lat")).on([0, 1]),
        A - 0.5 * ob.FeatureMatch("lat", np.ones((1, 3))),
    ],
    ids=repr,
)
def test_an_unknown_layer_names_the_nearest(objective: ob.Objective) -> None:
    with pytest.raises(ob.UnknownLayer, match="unknown layer 'lat'; nearest: late"):
        objective.check(ACTS, SHAPE)
    acts = ob.Activations({k: jnp.zeros(a.shape) for k, a in ACTS.items()})
    with pytest.raises(ob.UnknownLayer, match="nearest: late"):
        objective(acts, jnp.zeros(SHAPE))


def test_an_unknown_layer_far_from_all_names_all() -> None:
    with pytest.raises(KeyError, match="it has: late, logits"):
        ob.Activations(ACTS)["zzzzzzzz"]


def test_what_does_not_broadcast_is_an_objective_error() -> None:
    with pytest.raises(ob.ObjectiveError, match="made for 3 images"):
        ob.FeatureMatch("late", np.ones((3, 5, 7, 8))).check(ACTS, SHAPE)

    class Broken(ob.Objective):
        """Adds what cannot be added."""

        layer: str = ob.static()

        def __call__(self, acts, image):
            return acts[self.layer] + image

    with pytest.raises(ob.ObjectiveError, match=r"Broken\('late'\) does not fit"):
        Broken("late").check(ACTS, SHAPE)

    class Whole(ob.Objective):
        """One score for the whole batch."""

        def __call__(self, acts, image):
            return image.mean()

    with pytest.raises(ob.ObjectiveError, match=r"shape \(\); expected one score an image, \(2,\)"):
        Whole().check(ACTS, SHAPE)


def test_error_types() -> None:
    assert issubclass(ob.ObjectiveError, ValueError)
    assert issubclass(ob.UnknownLayer, ob.ObjectiveError)
    assert issubclass(ob.UnknownLayer, KeyError)
    assert issubclass(ob.ParseError, ob.ObjectiveError)
    assert str(ob.UnknownLayer("a sentence")) == "a sentence"
