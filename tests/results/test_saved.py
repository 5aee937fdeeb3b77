"""Results read back, joined and sliced: each image keeps where it comes from."""

import json

import numpy as np
import pytest
from networks import TOY_SIZE
from PIL import Image

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")

BOX = fv.Pixels(TOY_SIZE)


def run(model, objective, way=BOX, **options):
    options = {"steps": 4, "transform": "Jitter(2)", "progress": False, **options}
    return fv.synthesize(model, objective, way, **options)


def replayed(source, model, **options):
    return fv.replay(source, model=model, progress=False, **options)


@pytest.fixture(scope="module")
def three(toy):
    return run(toy, "conv:[1, 2, 3] - 0.1*tv", snapshots=2).with_evidence(psnr=[1.0, 2.0, 3.0])


@pytest.fixture(scope="module")
def other(toy):
    return run(toy, "relu:0", fv.Pixels(TOY_SIZE, sd=0.2), steps=2, seed=5)


# ---- slices --------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_slice_is_of_its_own_units(three):
    some = three[1:]
    assert len(some) == 2
    np.testing.assert_array_equal(some.images, three.images[1:])
    np.testing.assert_array_equal(some.params["pixels"], three.params["pixels"][1:])
    assert some.evidence["psnr"].tolist() == [2, 3]
    assert str(some.objective) == "conv:[2, 3] - 0.1*total_variation()"
    assert some.manifest["objective"] == str(some.objective)
    assert some.manifest["member"] == [1, 2]
    one = some[1]
    assert str(one.objective) == "conv:3 - 0.1*total_variation()"
    assert "conv:3" in one._repr_html_()
    assert one.manifest == three[2].manifest == three[-1:].manifest
    assert three[[2, 0]].manifest["member"] == [2, 0]
    assert len(three[:]) == 3
    for bad in (3, slice(3, 3), [0, 7]):
        with pytest.raises(IndexError):
            three[bad]
    with pytest.raises(fv.InputError, match="chosen once"):
        three[[1, 1]]


def test_a_slice_and_a_member_replay_to_the_bit(toy, three):
    for some in (three[1:], three[[2, 0]], three[1]):
        again = replayed(some.manifest, toy)
        np.testing.assert_array_equal(again.images, some.images)
        assert again.manifest == some.manifest
        assert str(again.objective) == str(some.objective)


@pytest.mark.thorough
def test_a_run_goes_on_from_a_slice(toy, three):
    further = run(toy, "conv:[4, 5]", init=three[[0, 2]], steps=2)
    assert further.steps.tolist() == [6, 6]
    again = replayed(further[1].manifest, toy)
    np.testing.assert_array_equal(again.images, further.images[1:])


# ---- joined --------------------------------------------------------------------------------


@pytest.mark.thorough
def test_joined_results_keep_their_own(toy, three, other, tmp_path):
    both = fv.Result.join([three[1:], other])
    assert len(both) == 3
    assert both.scores.shape == (4, 3)
    assert np.isnan(both.scores[2:, 2]).all()
    assert (both.params is None, both.evidence) == (False, {})
    assert both[2].manifest == other[0].manifest
    assert both[0].manifest == three[1].manifest
    assert both[1:].joined[0].manifest == three[2].manifest
    page = both._repr_html_()
    assert "relu:0: clean score" in page
    assert "conv:2" in page
    with pytest.raises(fv.InputError, match=r"a run each: see \.joined"):
        _ = both.run
    path = both.save(tmp_path / "both", labels=["a", "b", "c"])
    again = replayed(path, toy)
    np.testing.assert_array_equal(again.images, both.images)
    np.testing.assert_array_equal(again.scores, both.scores)
    assert again.manifest == both.manifest
    with pytest.raises(fv.InputError, match="damaged"):
        replayed({**both.manifest, "joined": []}, toy)
    with pytest.raises(fv.InputError, match="damaged"):
        replayed({**both.manifest, "joined": [both.manifest]}, toy)


def test_members_of_one_batch_are_one_run_again(three, other):
    back = fv.Result.join(list(three))
    assert back.joined == ()
    assert back.manifest["member"] == [0, 1, 2]
    assert back.seconds == three.seconds
    assert len(fv.Result.join([three[2], other, three[0]]).joined) == 3


def test_a_joined_result_is_images_to_start_from(toy, three, other):
    both = fv.Result.join([three[0], other])
    further = run(toy, "conv:[4, 5]", init=both, steps=1)
    assert further.steps.tolist() == [1, 1]
    np.testing.assert_array_equal(replayed(further.manifest, toy).images, further.images)


def test_evidence_of_a_joined_result_is_that_of_its_parts(three, other):
    images = np.random.default_rng(0).uniform(size=(3, *TOY_SIZE, 3)).astype(np.float32)
    both = fv.compare_with_natural(fv.Result.join([three[1:], other]), images)
    alone = fv.compare_with_natural(other, images)
    assert both.evidence["percentile"][2] == alone.evidence["percentile"][0]
    assert both.evidence["unit_score"].shape == (3,)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "no result to join"),
        (["a.png"], "results are joined; got str"),
    ],
)
def test_what_cannot_be_joined(results, message):
    with pytest.raises(fv.InputError, match=message):
        fv.Result.join(results)


# ---- loaded --------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [(), ("a", "a long label of several lines", "c")])
def test_a_loaded_result_is_what_was_saved(toy, three, labels, tmp_path):
    path = three.save(tmp_path / "three", labels=labels, columns=2)
    for source in (path, path.with_suffix(".json")):
        found = fv.Result.load(source, model=toy)
        np.testing.assert_array_equal(np.round(found.images * 255), np.round(three.images * 255))
        assert found.manifest == json.loads(json.dumps(three.manifest))
        np.testing.assert_array_equal(found.clean_scores, three.clean_scores)
        np.testing.assert_array_equal(found.transformed_scores, three.transformed_scores)
        np.testing.assert_array_equal(found.evidence["psnr"], three.evidence["psnr"])
        assert (found.stopped, found.silent) == (three.stopped, three.silent)
        assert str(found.objective) == str(three.objective)
        assert str(found[1].objective) == str(three[1].objective)
        assert repr(found[2]) == repr(three[2])
    # Saved again it is the same picture, and it is made again from that.
    second = found.save(tmp_path / "second", labels=labels, columns=2)
    assert np.array_equal(*(np.asarray(Image.open(one)) for one in (path, second)))
    again = replayed(found[1:].save(tmp_path / "some"), toy)
    np.testing.assert_array_equal(again.images, three.images[1:])


def test_loading_needs_no_network(three, tmp_path):
    found = fv.Result.load(three[1].save(tmp_path / "one"))
    assert repr(found) == repr(three[1])
    assert "conv:2" in found._repr_html_()
    with pytest.raises(fv.UnknownModel, match="pass model="):
        _ = found.run


def test_evidence_of_a_loaded_result(toy, three, tmp_path):
    found = fv.Result.load(three[1:].save(tmp_path / "some"), model=toy)
    images = np.random.default_rng(0).uniform(size=(3, *TOY_SIZE, 3)).astype(np.float32)
    seen = fv.compare_with_natural(found, images)
    wanted = fv.compare_with_natural(three[1:], images)
    np.testing.assert_allclose(seen.evidence["natural_max"], wanted.evidence["natural_max"])
    # Its images are of 8 bits.
    np.testing.assert_allclose(
        seen.evidence["unit_score"], wanted.evidence["unit_score"], atol=0.02
    )


def test_a_loaded_joined_result(toy, three, other, tmp_path):
    both = fv.Result.join([three[1:], other])
    found = fv.Result.load(both.save(tmp_path / "both"))
    assert [len(part) for part in found.joined] == [2, 1]
    assert found.manifest == json.loads(json.dumps(both.manifest))
    np.testing.assert_array_equal(found.clean_scores, both.clean_scores)
    assert found.joined[1].manifest == json.loads(json.dumps(other.manifest))


@pytest.mark.thorough
def test_targets_of_a_loaded_result_are_computed_when_asked_for(toy, tmp_path):
    image = np.full((*TOY_SIZE, 3), 0.25, np.float32)
    result = fv.invert(toy, "relu", image, steps=2, progress=False)
    found = fv.Result.load(result.save(tmp_path / "inverted"), model=toy)
    assert "feature_match('relu', target" in repr(found)
    assert found.objective == result.objective
    np.testing.assert_array_equal(found.evidence["psnr"], result.evidence["psnr"].astype("f4"))


def test_images_of_other_channels_come_back(tmp_path):
    grey = fv.from_function(
        lambda params, image: {"y": image.mean((1, 2)) * params}, np.ones(4, np.float32),
        input=fv.Input(size=(6, 5), channels=4),
    )  # fmt: skip
    result = run(grey, "y:[1, 2]", fv.Pixels((6, 5), 4), transform="none", steps=1)
    found = fv.Result.load(result.save(tmp_path / "panels"), model=grey)
    np.testing.assert_array_equal(np.round(found.images * 255), np.round(result.images * 255))


@pytest.mark.thorough
def test_what_was_not_saved_is_said(toy, three, tmp_path):
    path = three.save(tmp_path / "three")
    path.with_suffix(".json").unlink()
    found = fv.Result.load(path, model=toy)
    assert np.isnan(found.clean_scores).all()
    assert (found.scores.shape, found.params, found.snapshots) == ((0, 3), None, {})
    assert found.steps.tolist() == [4, 4, 4]
    with pytest.raises(fv.InputError, match="replay makes it"):
        found.picture(transparent=True)
    # It is a start like any images.
    further = run(toy, "conv:[4, 5, 1]", init=found, steps=1)
    np.testing.assert_array_equal(replayed(further.manifest, toy).images, further.images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"result": {"score": [1]}}, "figures of the picture are damaged"),
        ({"result": 3}, "figures of the picture are damaged"),
        ({"layout": None}, "layout is a shape and the corners of 3 images"),
        ({"layout": {"shape": [12, 16, 3], "corners": [[0, 0]]}}, "corners of 3 images"),
        ({"layout": {"shape": [12, 16, 3], "corners": [[0, 0], [9, 9], [99, 0]]}}, "smaller than"),
    ],
)
def test_damaged_files_are_errors_of_ours(three, tmp_path, change, message):
    path = three.save(tmp_path / "three").with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(fv.InputError, match=message):
        fv.Result.load(path)
    with pytest.raises(fv.InputError, match="cannot read"):
        fv.Result.load(tmp_path / "nothing.png")
