"""What a run has where nothing is said: it is the run in which the same is said."""

import numpy as np
import pytest
from networks import TOY_SIZE

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")
WAY = fv.Pixels(TOY_SIZE)
#: Of a layer with positions, and of one without: the transform and the optimizer.
SAID = {
    "conv:1": {"transform": "affine", "optimizer": "nadam(0.05, b1=0.5)"},
    "logits:1": {"transform": "views", "optimizer": "nadam(0.02, b1=0.5)"},
    "logits:1 - 0.1*tv": {"transform": "views", "optimizer": "nadam(0.02, b1=0.5)"},
    "logits:1 + conv:1": {"transform": "affine", "optimizer": "nadam(0.05, b1=0.5)"},
    "-tv": {"transform": "affine", "optimizer": "nadam(0.05, b1=0.5)"},
}


@pytest.mark.thorough
@pytest.mark.parametrize("objective", SAID)
def test_what_is_not_said_is_what_the_layers_ask_for(toy, objective):
    options = {"steps": 3, "progress": False}
    unsaid = fv.synthesize(toy, objective, WAY, **options)
    said = fv.synthesize(toy, objective, WAY, **options, **SAID[objective])
    np.testing.assert_array_equal(unsaid.images, said.images)
    assert unsaid.manifest == said.manifest


@pytest.mark.thorough
def test_of_many_objectives_each_has_its_own(toy):
    objectives = ["conv:1", "logits:1", "conv:2"]
    options = {"steps": 3, "progress": False}
    seen = {}
    for places, result in fv.synthesize_many(toy, objectives, WAY, **options):
        seen |= dict(zip(places, result, strict=True))
    for place, objective in enumerate(objectives):
        alone = fv.synthesize(toy, objective, WAY, **options)
        np.testing.assert_allclose(seen[place].images, alone.images, atol=1e-5)
        (run,) = seen[place].manifest["runs"]
        (own,) = alone.manifest["runs"]
        assert [run[key] for key in ("transform", "optimizer")] == [
            own[key] for key in ("transform", "optimizer")
        ]
    assert seen[0].run.transform != seen[1].run.transform
