"""Judges: other networks, and which of their classes a picture's class is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis.cli.app import main
from featvis.evidence.recognition import classes_of, covering, places_of
from featvis.models.classes import ClassNames
from featvis.zoo import labels

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SIZE = (12, 16)
NAMES = ("red", "green, lime", "blue", "dark")


def scores(params, image):
    """Each class asks for a colour."""
    return {"logits": image.mean((1, 2)) @ params}


def network(order=(0, 1, 2, 3), name="judge", names=NAMES, size=SIZE, **options):
    """Classes in another order, with their names."""
    columns = np.array([[9, 0, 0, -1], [0, 9, 0, -1], [0, 0, 9, -1]], np.float32)[:, list(order)]
    given = None if names is None else tuple(names[i] for i in order)
    takes = fv.Input(size=size)
    return fv.from_function(scores, columns, input=takes, name=name, labels=given, **options)


@pytest.fixture(scope="module")
def explained(quick_to_compile):
    return network(name="explained")


@pytest.fixture(scope="module")
def result(explained):
    found = fv.synthesize(
        explained, "logits:[0, 2, 1]", fv.Pixels(SIZE), steps=1, transform="none", progress=False
    )
    colours = np.zeros((3, *SIZE, 3), np.float32)
    colours[0, ..., 0] = colours[1, ..., 1] = colours[2, ..., 1] = 1
    # Red for red; green for blue, which is wrong; green for green.
    return dataclasses.replace(found, images=colours)


@pytest.mark.thorough
def test_ranks_and_probabilities_are_those_of_the_classes_by_name(result):
    evidence = fv.recognition(result, network((3, 2, 0, 1))).evidence
    np.testing.assert_array_equal(evidence["rank_by_judge"], [1, 2, 1])
    np.testing.assert_array_equal(evidence["top1_by_judge"], [1, 0, 1])
    np.testing.assert_array_equal(evidence["top5_by_judge"], [1, 1, 1])
    whole = np.exp([9, 0, 0, -1])
    expected = [whole[0] / whole.sum(), whole[1] / whole.sum(), whole[0] / whole.sum()]
    np.testing.assert_allclose(evidence["probability_by_judge"], expected, rtol=1e-5)


def test_several_judges_and_two_of_one_name(result):
    judges = [network((1, 0, 2, 3)), network((3, 2, 1, 0)), network((2, 1, 0, 3), name="third")]
    evidence = fv.recognition(result, judges).evidence
    same = f"rank_by_judge_{judges[1].digest[:8]}"
    for name in ("rank_by_judge", same, "rank_by_third"):
        np.testing.assert_array_equal(evidence[name], [1, 2, 1])


def test_one_picture_and_a_class_that_is_said(result):
    judge = network((1, 0, 2, 3))
    np.testing.assert_array_equal(fv.recognition(result[1], judge).evidence["rank_by_judge"], [2])
    said = fv.recognition(result, judge, classes="lime").evidence["rank_by_judge"]
    np.testing.assert_array_equal(said, [2, 1, 1])
    each = fv.recognition(result, judge, classes=[0, "green, lime", 1]).evidence["rank_by_judge"]
    np.testing.assert_array_equal(each, [1, 1, 1])


def test_synonyms_and_word_net_ids_are_names(result):
    synonym = network((2, 1, 0, 3), names=("Red", "Lime", "blue", "dark"))
    np.testing.assert_array_equal(
        fv.recognition(result, synonym).evidence["rank_by_judge"], [1, 2, 1]
    )
    ids = labels.imagenet().ids
    assert (ids[0], ids[281], ids[999]) == ("n01440764", "n02123045", "n15075141")
    assert labels.imagenet_with_background().ids == ("", *ids)


def test_an_identifier_tells_classes_of_one_name_apart(result):
    ours = ClassNames(NAMES, ("n3", "n2", "n1", "n0"))
    of_ids = dataclasses.replace(result.run.parts.model, labels=ours)
    cranes = ClassNames(("crane",) * 4, ("n0", "n1", "n2", "n3"))
    cranes = dataclasses.replace(network((1, 0, 2, 3)), labels=cranes)
    assert places_of(of_ids, cranes, np.arange(4)).tolist() == [3, 2, 1, 0]


def test_a_network_that_is_joined_is_no_judge_of_its_picture(result):
    model, judge = result.run.parts.model, network((1, 0, 2, 3))
    with pytest.raises(fv.InputError, match="judge is one of the networks explained"):
        places_of(fv.join({"a": model, "b": judge}), judge, np.arange(1))


def test_a_judge_sees_the_picture_at_its_own_size():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 12, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(covering(images, (12, 16)), images)
    np.testing.assert_array_equal(covering(images, (12, 12)), images[:, :, 2:14])
    doubled = covering(images, (24, 24))
    whole = np.clip(jax.image.resize(jnp.asarray(images), (2, 24, 32, 3), "cubic"), 0, 1)
    np.testing.assert_allclose(doubled, whole[:, :, 4:28], atol=1e-6)
    flat = np.full((1, 30, 20, 3), 0.3, np.float32)
    np.testing.assert_allclose(covering(flat, (9, 9)), 0.3, atol=1e-6)
    assert covering(flat, (9, 9)).shape == (1, 9, 9, 3)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (lambda: network(name="explained"), "is the network explained"),
        (lambda: network(names=None), "has no class names"),
        (lambda: network(names=("redd", "greenn", "bluee", "d")), "no class 'red'.*nearest: redd"),
        (lambda: network(names=("Red", "RED", "blue", "x")), "2 classes of the name of 'red'"),
        (list, "at least one"),
        (lambda: "hogb", "no classes"),
    ],
)
def test_judges_that_cannot_judge(result, judge, message):
    with pytest.raises(fv.InputError, match=message):
        fv.recognition(result, judge())


@pytest.mark.thorough
def test_what_class_is_not_known(result, explained):
    grey = fv.from_function(
        lambda params, image: {"logits": image.mean((1, 2)) @ params},
        np.ones((1, 4), np.float32),
        input=fv.Input(size=SIZE, channels=1),
        labels=NAMES,
        name="grey",
    )
    with pytest.raises(fv.InputError, match="1 channels"):
        fv.recognition(result, grey)
    judge = network((1, 0, 2, 3))
    with pytest.raises(fv.InputError, match="3 pictures have one class each; got 2"):
        fv.recognition(result, judge, classes=[0, 1])
    options = {"steps": 1, "transform": "none", "progress": False}
    both = fv.synthesize(explained, "logits:0 + logits:1", fv.Pixels(SIZE), **options)
    with pytest.raises(fv.InputError, match="several classes"):
        fv.recognition(both, judge)
    for what in (None, 3, lambda x: x):
        with pytest.raises(fv.InputError, match=r"a judge is a featvis\.Model, or the name"):
            fv.recognition(result, what)
    for what in (None, result.images):
        with pytest.raises(fv.InputError, match="a result is what synthesize, replay or a method"):
            fv.recognition(what, judge)
    with pytest.raises(fv.InputError, match="joined of the network explained, which its own"):
        fv.recognition(result, fv.join({"x": explained, "y": judge}))
    for text in ("-logits:0", "0*logits:0 - 2*logits:1"):
        with pytest.raises(fv.InputError, match="maximises no class score"):
            classes_of(fv.parse(text), 1)
    assert classes_of(fv.parse("2*logits:0 - logits:1"), 1) == [0]
    priors = fv.synthesize(explained, "-tv", fv.Pixels(SIZE), **options)
    with pytest.raises(fv.InputError, match="no class score"):
        fv.recognition(priors, judge)


def test_joined_results_are_judged_one_by_one(result):
    judge = network((1, 0, 2, 3))
    both = fv.Result.join([result[2], result[1]])
    np.testing.assert_array_equal(fv.recognition(both, judge).evidence["rank_by_judge"], [1, 2])
    said = fv.recognition(both, judge, classes=[1, 1]).evidence["rank_by_judge"]
    np.testing.assert_array_equal(said, [1, 1])
    with pytest.raises(fv.InputError, match="2 pictures have one class each; got 3"):
        fv.recognition(both, judge, classes=[0, 1, 2])


def explained_network():
    return network(name="explained")


def judging_network():
    return network((1, 0, 2, 3))


@pytest.mark.thorough
def test_judges_on_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("featvis.cli.output.enable_cache", lambda: None)
    place = ["--model", f"{__name__}:explained_network", "--steps", "1", "--json"]
    judge = f"{__name__}:judging_network"
    for command in (["render", "logits:1"], ["class-model", "1"]):
        assert main([*command, *place, "--judge", judge, "-o", f"{tmp_path}/{command[0]}/"]) == 0
        record = json.loads(capsys.readouterr().out)
        picture = fv.read_images([record["image"]], SIZE, channels=3)
        red, lime, *others = np.asarray(judging_network()(picture)["logits"])[0, [1, 0, 2, 3]]
        assert record[f"rank_by_{judge}"] == 1 + sum(one > lime for one in (red, *others))
    # Before anything is computed.
    assert main(["render", "logits:1", *place, "--judge", place[1], "-o", str(tmp_path)]) == 2
    assert "is the network explained" in capsys.readouterr().err
    assert main(["render", "logits:1", *place, "--judge", f"{judge}=", "-o", str(tmp_path)]) == 2
    assert "--judge takes MODEL or MODEL=WEIGHTS" in capsys.readouterr().err
    assert main(["render", "2*tv", *place, "--judge", judge, "-o", str(tmp_path)]) == 2
    assert "no class score" in capsys.readouterr().err
