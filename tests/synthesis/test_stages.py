"""Runs that go on from an earlier one, and making them all again."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from networks import TOY_SIZE
from PIL import Image

import featvis as fv
from featvis.results.format import runs_of
from featvis.results.reading import read_manifest

pytestmark = [
    pytest.mark.usefixtures("quick_to_compile"),
    pytest.mark.filterwarnings("ignore::featvis.NameTakenWarning"),
]
BOX = fv.BoundedPixels(TOY_SIZE)
SMALL = fv.BoundedPixels((8, 10), sd=0.1)
UNITS = "conv:[1, 3]"
STILL = {"steps": 1, "optimizer": "sgd(0.0)"}
NOISY = {"seed": 7, "transform": "Noise(0.1)"}


def run(model, objective=UNITS, parameterization=BOX, **options):
    options = {"steps": 4, "transform": "none", "optimizer": "sgd(2.0)", **options}
    return fv.synthesize(model, objective, parameterization, progress=False, **options)


def same(a, b):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.clean_scores, b.clean_scores)
    np.testing.assert_array_equal(a.transformed_scores, b.transformed_scores)
    np.testing.assert_array_equal(a.steps, b.steps)
    assert sorted(a.snapshots) == sorted(b.snapshots)
    for step, images in a.snapshots.items():
        np.testing.assert_array_equal(images, b.snapshots[step])
    assert a.manifest == b.manifest


@pytest.fixture(scope="module")
def small(toy, quick_to_compile):
    """Two small images, with noise."""
    return run(toy, UNITS, SMALL, snapshots=[2], **NOISY)


@pytest.fixture(scope="module")
def large(toy, small):
    """The same two, larger."""
    return run(toy, snapshots=2, init=small, **NOISY)


@pytest.fixture(scope="module")
def third(toy, large):
    """The second of them, under another objective."""
    return run(toy, "logits:2", init=large[1], **{**NOISY, "seed": 8, "steps": 3})


@pytest.fixture(scope="module")
def plain(toy, quick_to_compile):
    """Two images without noise."""
    return run(toy)


# ---- going on ------------------------------------------------------------------------------


@pytest.mark.thorough
def test_ten_steps_and_ten_are_twenty(toy):
    # Plain gradient steps remember nothing, and without transforms nothing is drawn.
    objective = "layer('linear') - 50*l2"
    options = {"optimizer": "sgd(1e-4)", "seed": [1, 2]}
    whole = run(toy, objective, steps=20, snapshots=[5, 10, 12, 20], **options)
    first = run(toy, objective, steps=10, snapshots=[5, 10], **options)
    both = run(toy, objective, steps=10, snapshots=[2, 10], init=first, **options)
    np.testing.assert_allclose(both.images, whole.images, atol=1e-6)
    np.testing.assert_allclose(both.scores, whole.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both.clean_scores, whole.clean_scores, rtol=1e-5)
    assert sorted(both.snapshots) == sorted(whole.snapshots) == [5, 10, 12, 20]
    for step, images in whole.snapshots.items():
        np.testing.assert_allclose(both.snapshots[step], images, atol=1e-6)
    assert both.steps.tolist() == [20, 20]
    assert both.seconds > first.seconds
    # The sensitivity, which may be of another size, is the later run's.
    assert np.all(both.sensitivity < whole.sensitivity)


@pytest.mark.thorough
def test_another_parameterization_has_the_images_and_the_same_one_the_very_parameters(toy, plain):
    fourier = run(toy, UNITS, fv.Fourier(TOY_SIZE), **STILL, init=plain)
    np.testing.assert_allclose(fourier.images, plain.images, atol=1e-5)
    again = run(toy, UNITS, fv.Fourier(TOY_SIZE), **STILL, init=fourier)
    assert sorted(again.params) == ["imag", "real"]
    for name, values in fourier.params.items():
        np.testing.assert_array_equal(again.params[name], values)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [(18, 20), (9, 8)], ids=["up", "down"])
def test_another_size_starts_from_the_resized_images(toy, plain, size):
    found = run(toy, UNITS, fv.BoundedPixels(size), **STILL, init=plain)
    wanted = jax.image.resize(plain.images, (2, *size, 3), "cubic")
    assert np.std(wanted) > 0.05
    np.testing.assert_allclose(found.images, np.clip(wanted, 0, 1), atol=1e-6)


def test_every_run_has_keys_of_its_own(toy):
    options = {**NOISY, **STILL}
    runs = [run(toy, **options)]
    for _ in range(2):
        runs.append(run(toy, **options, init=runs[-1]))
    for image in range(2):
        scores = runs[-1].scores[:, image]
        assert len(np.unique(scores)) == 3
        np.testing.assert_array_equal(scores[:2], runs[1].scores[:, image])
        # The final evaluation's too.
        assert len({float(one.transformed_scores[image]) for one in runs}) == 3


def test_images_that_stopped_early_go_on(toy):
    first = run(toy, steps=30, patience=3, optimizer="sgd(0.0)")
    assert first.stopped == ("plateau", "plateau")
    both = run(toy, init=first)
    assert both.stopped == ("steps", "steps")
    np.testing.assert_array_equal(both.steps, first.steps + 4)
    assert len(both.scores) == len(first.scores) + 4 < 30
    same(fv.replay(both.manifest, model=toy, progress=False), both)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameterization": fv.BoundedPixels(TOY_SIZE, 1)}, "has images of 3 channels"),
        ({"objective": "conv:[1, 2, 3]"}, "different numbers of images: the objective 3, init 2"),
        ({"batch": 1}, "different numbers of images: batch 1"),
        ({"seed": [1, 2, 3]}, "different numbers of images: .*seed 3"),
    ],
    ids=["channels", "units", "batch", "seeds"],
)
def test_a_result_that_does_not_fit_is_an_input_error(toy, small, options, message):
    with pytest.raises(fv.InputError, match=message) as caught:
        run(toy, init=small, **options)
    assert "\n" not in str(caught.value)


def test_several_objectives_do_not_go_on_from_a_result(toy, small):
    with pytest.raises(fv.InputError, match="init is an image or parameters here"):
        fv.synthesize_many(toy, ["conv:1", "conv:3"], BOX, init=small, progress=False)


# ---- the manifest --------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_manifest_keeps_of_an_earlier_run_what_differs(small, large, third):
    first, second, last = third.manifest["runs"]
    assert [first] == small.manifest["runs"]
    assert second == {
        "parameterization": repr(BOX),
        "snapshots": [2, 4],
        "member": 1,
    }
    same_member = {name: value for name, value in second.items() if name != "member"}
    assert large.manifest["runs"] == [first, same_member]
    assert "versions" not in last
    runs = runs_of(third.manifest)
    assert [run["member"] for run in runs] == [None, 1, None]
    assert all(set(run) == set(first) for run in runs)
    assert runs[1]["parameterization"] == repr(BOX)


def test_replay_makes_all_runs_to_the_bit(toy, large, third, tmp_path):
    assert third.steps.tolist() == [4 + 4 + 3]
    assert len(third.scores) == 11
    for result in (large, third):
        path = result.save(tmp_path / "picture")
        assert read_manifest(path) == result.manifest
        for source in (path, path.with_suffix(".json"), result.manifest):
            same(fv.replay(source, model=toy, progress=False), result)


def test_replay_of_one_image_of_a_run_that_went_on(toy, large):
    one = large[1]
    assert one.manifest["member"] == 1
    # The earlier run is of all the images.
    assert [run["member"] for run in runs_of(one.manifest)] == [None, None]
    same(fv.replay(one.manifest, model=toy, progress=False), one)


def test_a_replayed_run_goes_on_as_the_first_did(toy, small, large):
    replayed = fv.replay(small.manifest, model=toy, progress=False)
    same(run(toy, snapshots=2, init=replayed, **NOISY), large)


def test_an_optimizer_without_text_is_for_the_runs_that_had_none(toy, plain):
    given = optax.sgd(0.1)
    both = run(toy, optimizer=given, init=plain)
    with pytest.raises(fv.InputError, match="pass optimizer="):
        fv.replay(both.manifest, model=toy, progress=False)
    same(fv.replay(both.manifest, model=toy, optimizer=given, progress=False), both)


def test_a_leaky_run_after_a_plain_one(toy):
    first = run(toy, "relu:[1, 3]")
    both = run(fv.leaky(toy, "relu", 0.5), "relu:[1, 3]", init=first)
    assert [one["model"]["leak"] for one in runs_of(both.manifest)] == [None, 0.5]
    assert np.abs(both.images - run(toy, "relu:[1, 3]", init=first).images).max() > 1e-4
    same(fv.replay(both.manifest, model=toy, progress=False), both)


def test_an_earlier_run_of_another_network_is_not_made_with_this_one(toy, plain):
    (only,) = plain.runs
    other = dataclasses.replace(toy, name="other", digest="1")
    runs = (only._replace(run=dataclasses.replace(only.run, model=other)),)
    both = run(toy, init=dataclasses.replace(plain, runs=runs))
    with pytest.raises(fv.UnknownModel, match="a model called 'other'"):
        fv.replay(both.manifest, model=toy, progress=False)


def test_an_interrupt_of_an_earlier_run_is_the_end(toy, large, monkeypatch):
    made = []

    def interrupted(run):
        made.append(run.steps)
        return dataclasses.replace(large, stopped=("interrupt", "interrupt"))

    monkeypatch.setattr("featvis.synthesis.run.attempt", interrupted)
    assert fv.replay(large.manifest, model=toy, progress=False).stopped[0] == "interrupt"
    assert made == [4]


@pytest.mark.thorough
def test_what_failed_can_be_gone_on_from(toy):
    with pytest.raises(fv.NonFiniteError) as caught:
        run(toy, UNITS, fv.Pixels(TOY_SIZE), optimizer="chain(sgd(1e30), scale(1e30))")
    failed = caught.value.result
    assert failed.manifest["runs"][0]["steps"] == 0
    result = run(toy, UNITS, fv.Pixels(TOY_SIZE), init=failed)
    assert result.stopped == ("steps", "steps")
    same(fv.replay(result.manifest, model=toy, progress=False), result)


@pytest.mark.parametrize(
    "damage",
    [
        3,
        None,
        {},
        {"steps": "many"},
        {"member": 9},
        {"model": 3},
        {"model": {"name": "toy"}},
        {"targets": {"a": 1}},
        {"runs": {}},
        {"init": {"run": {}}},
    ],
    ids=str,
)
def test_a_damaged_earlier_run_is_one_line(toy, large, damage):
    first, last = large.manifest["runs"]
    changed = {**first, **damage} if isinstance(damage, dict) and damage else damage
    with pytest.raises(fv.InputError) as caught:
        fv.replay({**large.manifest, "runs": [changed, last]}, model=toy, progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
def test_hundreds_of_runs_are_saved_and_replayed(toy, tmp_path):
    """A run of one's own makes the keys of each other, and no picture is too deep for JSON."""
    options = {"progress": False, "transform": "none", "steps": 1}
    result = fv.synthesize(toy, "conv:1", fv.Pixels(TOY_SIZE), **options)
    one = result
    for _ in range(5):
        result = fv.synthesize(toy, "conv:1", fv.Pixels(TOY_SIZE), init=result, **options)
    same(fv.replay(result.save(tmp_path / "six"), model=toy, progress=False), result)
    # As many more without the time that compiled steps take.
    *runs, last = result.runs
    long = dataclasses.replace(one, runs=(*runs, *[last] * 3000))
    path = long.save(tmp_path / "thousands")
    assert read_manifest(path) == long.manifest
    with Image.open(path) as picture:
        assert len(picture.text["featvis"]) < 2**20
    assert len(runs_of(read_manifest(path.with_suffix(".json")))) == 3005


# ---- evidence and films --------------------------------------------------------------------


def test_other_seeds_are_of_all_runs(toy):
    def both(first, second):
        small = run(toy, UNITS, SMALL, **{**NOISY, "seed": first})
        return run(toy, init=small, **{**NOISY, "seed": second})

    for first, second in ((3, 3), (3, 9)):
        result = both(first, second)
        found = fv.vary_seed(result, 3, progress=False).evidence
        scores = [result.clean_scores]
        scores += [both(first + k, second + k).clean_scores for k in (1, 2)]
        np.testing.assert_allclose(found["seed_mean"], np.mean(scores, axis=0), rtol=1e-6)
        np.testing.assert_allclose(found["seed_std"], np.std(scores, axis=0, ddof=1), rtol=1e-4)
        assert found["seed_std"].min() > 1e-3


def test_runs_begun_from_an_image_have_no_other_seeds(toy):
    first = run(toy, init=np.full((*TOY_SIZE, 3), 0.5, np.float32))
    for result in (first, run(toy, init=first)):
        with pytest.raises(fv.InputError, match="another seed is no other start"):
            fv.vary_seed(result, 2, progress=False)


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_film_of_several_sizes_has_the_last_one(large, tmp_path, suffix):
    assert [large.snapshots[step].shape[1:3] for step in (2, 6, 8)] == [(8, 10), TOY_SIZE, TOY_SIZE]
    path = large.save_animation(tmp_path / f"film{suffix}")
    with Image.open(path) as film:
        assert film.size == large.grid().size
        assert film.n_frames == 3
        film.seek(0)
        first = np.asarray(film.convert("RGB"), np.float32) / 255
    # The small picture fills its place in the grid.
    height, width = TOY_SIZE
    wanted = jax.image.resize(large.snapshots[2][0], (*TOY_SIZE, 3), "cubic")
    assert np.abs(first[4 : 4 + height, 4 : 4 + width] - wanted).mean() < 0.05
