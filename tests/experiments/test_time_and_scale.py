"""The studies of time to quality and of scale: what they conclude from what they measure."""

import numpy as np
import pytest

import featvis as fv


def test_a_mark_is_reached_at_the_first_step_that_has_it(experiment):
    study = experiment("time_to_quality")
    scores = np.array([[1.0, 5.0, 0.0], [3.0, 2.0, 1.0], [2.0, 6.0, 1.5]])
    found = study.Ran(np.array([8, 16, 32]), np.array([0.5, 1.0, 2.0]), scores, np.empty(0))
    steps, seconds = study.reached(found, np.array([2.0, 5.5, 1.6]))
    np.testing.assert_array_equal(steps, [16, 32, np.inf])
    np.testing.assert_array_equal(seconds, [1.0, 2.0, np.inf])
    assert study.median(steps) == "32"
    assert study.median(np.array([np.inf, np.inf, 1.0])) == "never"


def test_a_plan_takes_units_that_there_are_and_as_few_layers_as_have_them(experiment):
    study = experiment("scale")
    shapes = fv.load("efficientnet_lite0").layers(study.PICTURES["size"])
    widths = sorted((shape[-1] for shape in shapes.values() if len(shape) == 3), reverse=True)
    for count in (7, widths[0] + 1, 10_000):
        taken = study.widest(count)
        assert sum(taken.values()) == count
        assert all(0 < many <= shapes[layer][-1] for layer, many in taken.items())
        assert sum(widths[: len(taken) - 1]) < count
    with pytest.raises(fv.InputError, match="units with positions; 1000000 are asked for"):
        study.widest(1_000_000)


def test_a_file_is_made_once_and_is_whole(experiment, tmp_path):
    studies, asked = experiment("studies"), []

    def make():
        asked.append(1)
        return {"numbers": np.arange(3)}

    for _ in range(2):
        found = studies.kept(tmp_path / "some" / "of.npz", make)
        np.testing.assert_array_equal(found["numbers"], [0, 1, 2])
    assert asked == [1]
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["of.npz"]
