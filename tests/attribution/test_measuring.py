"""What an explanation's maps are worth, among its metrics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis.attribution import Probed, measured, sanity_check, sensitivity
from featvis.attribution.faithfulness import area, deletion, insertion
from featvis.attribution.localisation import Box

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).uniform(size=(2, 12, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def found(toy, images):
    unit = fv.Logit([1, 4])
    return fv.explain(toy, unit, images, "gradient_times_input", faithfulness=True)


@pytest.mark.thorough
def test_areas_are_those_of_each_images_probability(toy, images, found):
    for place, index in enumerate((1, 4)):

        def score(seen, index=index):
            logits = np.asarray(toy(np.asarray(seen, np.float32))["logits"])
            return np.asarray(jax.nn.softmax(jnp.asarray(logits)))[:, index]

        given = Probed(images[place], score, 64, jax.random.key(0))
        for name, curve in (("deletion", deletion), ("insertion", insertion)):
            wanted = area(curve(given, found.maps[place], steps=32))
            assert found.metrics[name][place] == pytest.approx(wanted, rel=1e-4)
    assert {"deletion_random", "insertion_centre"} <= {*found.metrics}


def test_a_unit_that_is_no_class_is_measured_by_itself(toy, images):
    plain = fv.explain(toy, "linear:2", images, "gradient_times_input")
    wanted = np.sort(((images - 0.5) * toy.params["linear"][..., 2]).sum(-1).reshape(2, -1))
    # Towards mid-grey a linear unit loses what each pixel adds; the map is of x, not of x - 0.5.
    best = plain.with_metrics()
    best = type(best)(
        **{**vars(best), "maps": ((images - 0.5) * toy.params["linear"][..., 2]).sum(-1)}
    )
    lost = np.concatenate([np.zeros((2, 1)), wanted[:, ::-1].cumsum(1)[:, 5::6]], axis=1)
    curve = lost[:, -1:] - lost
    areas = measured(best, steps=32).metrics["deletion"]
    np.testing.assert_allclose(areas, area(curve), rtol=1e-3, atol=1e-3)


def test_boxes_are_measured_beside_controls(found):
    boxes = [[Box(0, 0, 8, 12)], [Box(8, 0, 16, 12), Box(0, 0, 2, 2)]]
    with_boxes = measured(found, boxes, steps=2)
    for name in ("pointing", "box_iou", "mass_inside"):
        for ending in ("", "_random", "_centre"):
            values = with_boxes.metrics[name + ending]
            assert values.shape == (2,)
            assert ((values >= 0) & (values <= 1)).all()
    left = np.maximum(found.maps[0], 0)
    assert with_boxes.metrics["mass_inside"][0] == pytest.approx(left[:, :8].sum() / left.sum())
    assert "deletion random" not in with_boxes._repr_html_()
    assert with_boxes.summary()["metrics"]["box_iou_centre"][1] is not None
    with pytest.raises(fv.InputError, match="one list an image, 2; got 1"):
        measured(found, boxes[:1])
    with pytest.raises(fv.InputError, match=r"one list an image, 2; got \{'a': 1, 'b': 2\}"):
        measured(found, {"a": 1, "b": 2})


def test_what_is_no_explanation_is_said(found):
    for measure in (measured, sanity_check, sensitivity):
        with pytest.raises(fv.InputError, match="takes what explain gives; got 3"):
            measure(3)
    cut = dataclasses.replace(found, maps=found.maps[:1])
    with pytest.raises(fv.InputError, match=r"images are \(2, 12, 16\); got \(1, 12, 16\)"):
        measured(cut)
    with pytest.raises(fv.NonFiniteError, match="NaN or infinity in the map"):
        measured(dataclasses.replace(found, maps=found.maps * np.nan))


def test_sanity_and_sensitivity_are_of_its_own_method(found):
    curve = sanity_check(found, steps=2)
    assert curve.rank.shape == (2, 2)
    assert (curve.rank[-1] < 0.9).all()
    assert (sensitivity(found, samples=2) > 0).all()

    def function(seen):
        return seen.sum((1, 2, 3))

    of_function = fv.explain(function, None, found.images, "occlusion", window=8, stride=8)
    with pytest.raises(fv.InputError, match="this explains a function"):
        sanity_check(of_function)
