"""The study of attributions: what it keeps between runs, and the measure of I-GOS's authors."""

import jax
import numpy as np
import pytest

from featvis.attribution import Probed
from featvis.attribution.faithfulness import area

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture(scope="module")
def study(experiment):
    return experiment("faithfulness")


def test_a_run_goes_on_from_what_was_measured(study, tmp_path):
    curves = {"deletion": np.array([1.0, 0.5]), "coarse deletion": np.array([0.9, 0.1])}
    row = study.Row(np.eye(3), curves, {"pointing": 1.0}, 0.25)
    path = tmp_path / "network" / "photograph" / "rise.npz"
    row.save(path)
    again = study.Row.read(path)
    np.testing.assert_array_equal(again.values, np.eye(3))
    assert again.curves.keys() == curves.keys()
    np.testing.assert_array_equal(again.curves["coarse deletion"], curves["coarse deletion"])
    assert (again.boxes, again.seconds) == ({"pointing": 1.0}, 0.25)
    # No half of a file is left where a run is broken off.
    assert [one.name for one in path.parent.iterdir()] == ["rise.npz"]


def test_cells_are_blurred_and_shown_by_their_means(study):
    image = np.zeros((56, 84, 3), np.float32)
    image[:, :42] = 1

    def score(images):
        # How much of the left is as it was.
        return 1 - np.abs(np.asarray(images)[:, :, :42] - 1).mean((1, 2, 3))

    given = Probed(image, score, 8, jax.random.key(0))
    left = np.broadcast_to(np.arange(84) < 42, (56, 84)).astype(np.float32)
    curves = study.coarse_curves(given, left, 4)
    lost, shown = curves["coarse deletion"], curves["coarse insertion"]
    assert lost[0] == pytest.approx(1) == shown[-1]
    # Half of the cells are the left: blurred they lower the score to the blur's, and no further.
    np.testing.assert_allclose(lost[2:], lost[-1], atol=0.005)
    np.testing.assert_allclose(shown[2:], 1, atol=0.005)
    other = study.coarse_curves(given, 1 - left, 4)
    # All that there is to lose is the blur of the edge, a twentieth.
    assert area(other["coarse deletion"]) > area(lost) + 0.01
    assert area(other["coarse insertion"]) < area(shown) - 0.01
