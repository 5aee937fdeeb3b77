import numpy as np
import optax
import pytest
from networks import TOY_SIZE
from PIL import Image

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("natural")
    rng = np.random.default_rng(0)
    for i in range(11):
        levels = rng.integers(0, 256, (*TOY_SIZE, 3), dtype=np.uint8)
        Image.fromarray(levels).save(path / f"{i}.png")
    (path / "notes.txt").write_text("not a picture")
    return path


def run(toy, objective, **options):
    options = {"steps": 5, "transform": "none", "progress": False, **options}
    return fv.synthesize(toy, objective, fv.Fourier(TOY_SIZE), **options)


def natural(folder):
    return np.stack([fv.read_image(p) for p in sorted(folder.glob("*.png"), key=str)])


@pytest.mark.thorough
def test_percentile_is_the_share_of_natural_images_below(toy, folder):
    result = run(toy, "conv:[0, 4] - 3*tv")
    found = fv.compare_with_natural(result, folder).evidence
    units = fv.Channel("conv", [0, 4])
    own = np.asarray(units(toy(result.images), result.images))
    images = natural(folder)
    scores = np.stack(
        [np.asarray(fv.Channel("conv", k)(toy(images), images)) for k in (0, 4)], axis=1
    )
    np.testing.assert_allclose(found["unit_score"], own, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["percentile"], 100 * (scores < own).mean(0))
    np.testing.assert_allclose(found["natural_max"], scores.max(0), rtol=1e-4)
    np.testing.assert_allclose(found["natural_mean"], scores.mean(0), rtol=1e-3, atol=1e-6)
    assert found["natural_images"].tolist() == [11, 11]


def test_a_natural_image_among_itself_is_in_the_middle_of_its_ties(toy, folder):
    image = natural(folder)[0]
    result = run(toy, "conv:2", steps=1, init=image, optimizer="sgd(0.0)")
    found = fv.compare_with_natural(result, folder).evidence
    ranks = np.asarray(fv.Channel("conv", 2)(toy(natural(folder)), natural(folder)))
    np.testing.assert_allclose(
        found["percentile"][0], 100 * (ranks < ranks[0]).mean(), atol=100 / 11 + 1e-6
    )


def test_one_member_of_a_batch_is_compared_with_its_own_unit(toy, folder):
    result = run(toy, "conv:[0, 4]")
    both = fv.compare_with_natural(result, folder)
    alone = fv.compare_with_natural(result[1], folder)
    np.testing.assert_allclose(alone.evidence["natural_max"], both.evidence["natural_max"][1:])
    both_scores = both.evidence["unit_score"][1:]
    np.testing.assert_allclose(alone.evidence["unit_score"], both_scores, rtol=1e-6)


@pytest.mark.thorough
def test_spread_over_seeds_is_that_of_the_runs(toy):
    result = run(toy, "conv:1", seed=3)
    found = fv.vary_seed(result, 3, progress=False).evidence
    scores = [run(toy, "conv:1", seed=s).clean_scores for s in (3, 4, 5)]
    np.testing.assert_allclose(found["seed_mean"], np.mean(scores, 0), rtol=1e-6)
    np.testing.assert_allclose(found["seed_std"], np.std(scores, 0, ddof=1), rtol=1e-4)
    pair = run(toy, "conv:[1, 2]")
    whole = fv.vary_seed(pair, 2, progress=False).evidence["seed_std"]
    part = fv.vary_seed(pair[1], 2, progress=False).evidence["seed_std"]
    np.testing.assert_allclose(part, whole[1:])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("conv:1", "conv:1"),
        ("conv:1 - 0.1*tv", "conv:1"),
        ("2*(conv:1 - tv) + conv:2 + constant(3)", "2*conv:1 + conv:2"),
        ("conv:1 + 5*diversity('conv')", "conv:1"),
        ("tv - 3*l2 + min_distance()", None),
        ("2*conv:1 - change(tv, [[[[0.5]]]]) - tone([0.5], [0.5])", "2*conv:1"),
        # What is kept like an image is not about the unit; a target that is wanted is.
        ("conv:1 + 3*feature_match('relu', [[1]], images=[[[[0.5]]]])", "conv:1"),
        ("conv:1 + 3*feature_match('relu', [[1]])", "conv:1 + 3*feature_match('relu', [[1]])"),
    ],
)
def test_units_of(text, wanted):
    assert fv.units_of(fv.parse(text)) == (fv.parse(wanted) if wanted else None)


def test_evidence_needs_no_text_of_the_optimizer(toy, folder):
    result = run(toy, "conv:1", optimizer=optax.sgd(0.1))
    assert fv.compare_with_natural(result, folder).evidence["percentile"].shape == (1,)
    varied = fv.vary_seed(result, 2, progress=False)
    assert varied.evidence["seed_std"][0] > 0


# The second image has no unit.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::featvis.SilenceWarning")
def test_bad_folders_and_objectives_are_input_errors(toy, folder, tmp_path):
    result = run(toy, "conv:1")
    with pytest.raises(fv.InputError, match="there is no folder"):
        fv.compare_with_natural(result, tmp_path / "none")
    with pytest.raises(fv.InputError, match="no picture in"):
        fv.compare_with_natural(result, tmp_path)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(fv.InputError, match="can be read"),
    ):
        fv.compare_with_natural(result, tmp_path)
    with pytest.raises(fv.InputError, match="reads no activation"):
        fv.compare_with_natural(run(toy, "-tv"), folder)
    with pytest.raises(fv.InputError, match="a natural image is alone"):
        fv.compare_with_natural(run(toy, "conv:1.on([0])", batch=2), folder)
    with pytest.raises(fv.InputError, match="at least 2; got 1"):
        fv.vary_seed(result, 1)
    started = run(toy, "conv:1", init=np.full((*TOY_SIZE, 3), 0.5, np.float32))
    with pytest.raises(fv.InputError, match="no other start"):
        fv.vary_seed(started, 2)


def test_pictures_of_featvis_are_no_natural_images(toy, folder, tmp_path):
    for file in sorted(folder.glob("*.png"))[:3]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    result = run(toy, "conv:2")
    alone = fv.compare_with_natural(result, tmp_path)
    result.save(tmp_path / "mine")
    (tmp_path / "more").mkdir()
    result.save(tmp_path / "more" / "again.png")
    with pytest.warns(fv.OwnPictureWarning, match=r"2 pictures of featvis's own in .* left out"):
        found = fv.compare_with_natural(result, tmp_path)
    assert found.evidence["natural_images"].tolist() == [3]
    assert found.evidence["percentile"] == alone.evidence["percentile"]
    with pytest.raises(fv.InputError, match=r"no picture in .* but 1 of featvis's own"):
        fv.compare_with_natural(result, tmp_path / "more")
    # One that is asked for by its name is what was asked for.
    named = fv.compare_with_natural(result, str(tmp_path / "mine.png"))
    assert named.evidence["natural_images"].tolist() == [1]
