import dataclasses

import networks
import numpy as np
import pytest

import featvis as fv
from featvis.results.run import as_objective
from featvis.zoo import labels

LABELS = ("tench, Tinca tinca", "Tabby, tabby cat", "tiger cat", "crane", "crane", "route 66", "7")


def named(*labels):
    return dataclasses.replace(networks.toy(), labels=labels or None)


MODEL = named(*LABELS)


@pytest.mark.parametrize("number", [3, np.int64(3), "3", " 3 "])
def test_a_number_is_itself(number):
    found = MODEL.class_index(number)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize("number", [-1, 8, "-1", "8", "+99", np.int32(100)])
def test_a_number_out_of_range(number):
    with pytest.raises(fv.InputError, match=rf"toy has classes 0 to 6, not {int(number)}$"):
        MODEL.class_index(number)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tench, Tinca tinca", 0),
        ("tinca TINCA", 0),
        ("Tench", 0),
        ("tabby", 1),
        (" tabby cat ", 1),
        ("tiger", 2),
        ("ger c", 2),
        ("route", 5),
        # A label that is a number goes before the number, a part of one does not.
        ("7", 6),
        ("6", 6),
    ],
)
def test_a_name_is_a_label_a_synonym_or_a_part(name, index):
    assert MODEL.class_index(name) == index


def test_the_label_as_it_is_written_goes_first():
    model = named("Crane", "crane", "crane, machine", "CRANE")
    assert [model.class_index(name) for name in ("Crane", "crane", "CRANE")] == [0, 1, 3]
    # A synonym goes before parts of other names.
    model = named("tomcat, cat", "catfish", "wildcat")
    assert model.class_index("cat") == 0


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("crane", r"2 classes of toy match 'crane'; .*: 3 'crane', 4 'crane'$"),
        ("CRANE", r"2 classes of toy match 'CRANE'; .*: 3 'crane', 4 'crane'$"),
        ("cat", r"2 classes of toy match 'cat'; .*: 1 'Tabby, tabby cat', 2 'tiger cat'$"),
    ],
)
def test_a_name_of_several_classes_lists_them(name, listed):
    with pytest.raises(fv.InputError, match=listed):
        MODEL.class_index(name)


def test_a_long_list_is_cut():
    model = named(*(f"dog {i}" for i in range(30)))
    with pytest.raises(fv.InputError, match=r"30 classes .* 11 'dog 11' and 18 more$"):
        model.class_index("dog")
    with pytest.raises(fv.InputError, match=r"no class 'xyz'; it has: 0 'dog 0', .* 18 more$"):
        model.class_index("xyz")
    with pytest.raises(fv.InputError, match=r"11 'dog 11'$"):
        named(*(f"dog {i}" for i in range(12))).class_index("dog")


def test_an_unknown_name_says_the_nearest():
    with pytest.raises(fv.InputError, match="toy has no class 'tincha'; nearest: 0 'tench, Tinca"):
        MODEL.class_index("tincha")
    with pytest.raises(fv.InputError, match="nearest: 1 'Tabby, tabby cat'"):
        MODEL.class_index("TABY")


@pytest.mark.parametrize("given", ["", "  ", 1.0, True, None, ("tench",), np.array([1, 2])])
def test_what_is_no_class_is_refused(given):
    with pytest.raises(fv.InputError, match="a class is a number or a name, not"):
        MODEL.class_index(given)


def test_without_labels_only_numbers():
    model = named()
    assert model.class_index("4") == 4
    with pytest.raises(fv.InputError, match="toy has classes 0 to 4, not 5"):
        model.class_index(5)
    with pytest.raises(
        fv.InputError, match=r"toy has no class names: give the number of 'tench', 0 to 4$"
    ):
        model.class_index("tench")


def test_without_logits_there_are_no_classes():
    model = fv.from_function(lambda p, x: {"conv": x * p}, np.float32(1), name="maps")
    for given in (0, "tench"):
        with pytest.raises(fv.InputError, match="maps has no classes: none of its layers is calle"):
            model.class_index(given)


def test_the_classes_of_imagenet(lite0):
    assert lite0.class_index("tabby") == 281
    assert lite0.class_index("Construction Crane") == 517
    assert all(lite0.class_index(label) == i for i, label in enumerate(lite0.labels))
    with pytest.raises(fv.InputError, match=r"134 'crane bird', 517 'construction crane'$"):
        lite0.class_index("crane")


def test_a_class_by_its_wordnet_id():
    model = named()
    model = dataclasses.replace(model, labels=labels.imagenet())
    assert model.class_index("n02123045") == model.class_index("tabby") == 281
    assert len(set(model.labels.ids)) == 1000
    with pytest.raises(fv.InputError, match=r"no class 'n02123046'; nearest: .*281 'tabby'"):
        model.class_index("n02123046")
    shifted = dataclasses.replace(model, labels=labels.imagenet_with_background())
    assert shifted.class_index("n02123045") == 282


def test_a_unit_is_written_with_a_class_name():
    model = named("tench", "tabby", "tiger cat", "crane", "ox")
    for text, index in [("logits:tabby", 1), ("logits:'tiger cat'", 2), ("logits:ench", 0)]:
        assert as_objective(text, model) == fv.Logit(index)
    assert str(as_objective("logits:[tabby, 3]", model)) == "logits:[1, 3]"
    with pytest.raises(fv.ParseError, match=r"2 classes of toy match 't'.*\n.*logits:t\n.*\^"):
        as_objective("logits:t", named("tench", "tabby"))
    with pytest.raises(fv.ParseError, match=r"no class 'crone'; nearest: 3 'crane'"):
        as_objective("conv:1 + logits:crone", model)
