"""Several networks as one."""

import jax
import numpy as np
import pytest

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SIZE = (10, 12)
NAMES = ("a", "b", "c")


def colours(params, image):
    return {"colours": image.mean((1, 2)), "logits": image.mean((1, 2)) @ params}


def made(seed, labels=NAMES, **options):
    weights = np.random.default_rng(seed).normal(size=(3, 3)).astype(np.float32)
    takes = fv.Input(size=SIZE, **options)
    return fv.from_function(colours, weights, input=takes, labels=labels, name=f"net{seed}")


@pytest.fixture(scope="module")
def two(quick_to_compile):
    return made(0), made(1, mean=0.5, std=0.25)


def images(count=2, size=SIZE):
    return np.random.default_rng(9).uniform(size=(count, *size, 3)).astype(np.float32)


def test_each_sees_the_picture_as_it_would_alone(two):
    joined = fv.join({"x": two[0], "y": two[1]})
    found = joined(images())
    assert list(found) == ["x/colours", "x/logits", "y/colours", "y/logits", "logits"]
    for key, model in zip("xy", two, strict=True):
        for layer in ("colours", "logits"):
            np.testing.assert_array_equal(found[f"{key}/{layer}"], model(images())[layer])
    mean = (np.asarray(found["x/logits"]) + np.asarray(found["y/logits"])) / 2
    np.testing.assert_allclose(found["logits"], mean, rtol=1e-6)
    assert joined.labels == NAMES
    assert (joined.name, joined.input.size) == ("x+y", SIZE)
    assert joined.digest != fv.join({"x": two[1], "y": two[0]}).digest


@pytest.mark.thorough
def test_an_objective_of_both_is_the_sum_of_theirs(two):
    joined = fv.join({"x": two[0], "y": two[1]})
    result = fv.synthesize(
        joined, "2*logit(1, layer='x/logits') - y/colours:0", fv.Pixels(SIZE), steps=2,
        transform="none", progress=False,
    )  # fmt: skip
    own = 2 * two[0](result.images)["logits"][:, 1] - two[1](result.images)["colours"][:, 0]
    np.testing.assert_allclose(result.clean_scores, own, rtol=1e-5)
    again = fv.replay(result.manifest, model=joined, progress=False)
    np.testing.assert_array_equal(again.images, result.images)


def test_a_network_of_another_size_sees_it_resized(two):
    other = made(2, fixed_size=True)
    small = fv.join({"x": two[0], "z": other})
    shown = images(size=(20, 24))
    resized = jax.image.resize(shown, (2, *SIZE, 3), "linear")
    np.testing.assert_allclose(
        small(shown)["z/logits"], other(np.asarray(resized))["logits"], rtol=1e-5
    )
    np.testing.assert_array_equal(small(shown)["x/logits"], two[0](shown)["logits"])


def test_networks_of_other_classes_have_no_scores_in_common(two):
    joined = fv.join({"x": two[0], "y": made(3, labels=("a", "b", "d"))})
    assert "logits" not in joined.layers()
    assert joined.labels is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "at least two"),
        ([1, 2], "at least two"),
        ({"x": None, "y": None}, "takes models; 'x' is NoneType"),
        ({"a/b": "x", "y": None}, "letters, digits and underscores"),
    ],
)
def test_what_does_not_join(given, message):
    with pytest.raises(fv.InputError, match=message):
        fv.join(given)


@pytest.mark.parametrize("name", ["", " ", 3])
def test_a_joined_networks_name_is_a_text(two, name):
    with pytest.raises(fv.InputError, match="name is a text that is not empty, or None; got"):
        fv.join({"x": two[0], "y": two[1]}, name)


def test_joined_networks_by_name():
    with pytest.raises(fv.InputError, match="different ones"):
        fv.load("hog+hog")
    with pytest.raises(fv.UnknownModel, match="hogx"):
        fv.load("hog+hogx")
    with pytest.raises(fv.InputError, match="load each with its weights"):
        fv.load("hog+hogb", weights="x.npz")
    joined = fv.load("hog+hogb")
    assert joined is fv.load("hog+hogb")
    assert {"hog/features", "hogb/features"} <= set(joined.layers())
