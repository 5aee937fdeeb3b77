"""What the study of recognition computes of pictures and of judges' marks."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def study(experiment):
    return experiment("recognition")


def test_standard_errors_are_over_classes(study):
    # Class 7 has a mean of 2 over its two seeds, class 9 one of 6; nan is of no class.
    values, classes = np.array([1.0, 6.0, 3.0, np.nan]), np.array([7, 9, 7, 8])
    assert study.over_classes(values, classes) == "4.00 ± 2.00"  # 4 / sqrt(2) / sqrt(2)
    assert study.over_classes(values[:1], classes[:1], "+") == "+1.00 ± unknown"


def test_methods_are_compared_picture_by_picture(study):
    ours, theirs = [(7, 0), (9, 0), (7, 1)], [(7, 1), (5, 0), (7, 0)]
    values, known = np.array([[1.0, 2.0, 3.0]]), np.array([[10.0, 20.0, 40.0]])
    classes, less = study.paired(ours, values, theirs, known)
    np.testing.assert_array_equal(classes, [7, 7])
    np.testing.assert_array_equal(less, [[1 - 40, 3 - 10]])


def test_power_is_in_the_octave_of_its_frequency(study):
    waves = np.sin(2 * np.pi * np.array([1, 3, 9])[:, None] * np.arange(32) / 32)
    images = np.broadcast_to(0.5 + 0.2 * waves[:, None, :, None], (3, 32, 32, 3))
    found = study.octaves(images)
    assert list(found) == ["1", "2", "4", "8", "16"]
    np.testing.assert_allclose(found["1"], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found["2"], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(found["8"], [0, 0, 1], atol=1e-6)
    tone = study.tone(images)
    np.testing.assert_allclose(tone["contrast"], 0.2 / np.sqrt(2), rtol=1e-5)
    np.testing.assert_allclose(tone["high frequencies"], [0, 0, 1], atol=1e-6)


def test_what_is_natural_lies_between_percentiles_in_all(study):
    natural = {"a": np.arange(101.0), "b": np.arange(101.0)}
    values = {"a": np.array([4.0, 5.0, 95.0, 50.0]), "b": np.array([50.0, 50.0, 95.0, 96.0])}
    np.testing.assert_array_equal(study.within(values, natural), [False, True, True, False])
