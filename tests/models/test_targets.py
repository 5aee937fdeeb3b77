"""Targets: what a layer gives for images, and what a manifest keeps of it."""

import base64
import json

import jax.numpy as jnp
import numpy as np
import pytest
from networks import TOY_SIZE
from PIL import Image

import featvis as fv
from featvis.models.targets import named_arrays
from featvis.results import format, packing

pytestmark = pytest.mark.usefixtures("quick_to_compile")
BOX = fv.BoundedPixels(TOY_SIZE)
SHAPE = (*TOY_SIZE, 3)


def run(model, objective, **options):
    options = {"steps": 3, "transform": "none", "optimizer": "sgd(1.0)", **options}
    return fv.synthesize(model, objective, BOX, progress=False, **options)


def replayed(source, model):
    return fv.replay(source, model=model, progress=False)


def photographs(count=1, seed=0):
    """As read from files of 8 bits."""
    levels = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return levels.astype(np.float32) / 255


@pytest.fixture(scope="module")
def seen(toy):
    return fv.target(toy, "conv", photographs())


@pytest.fixture(scope="module")
def matched(toy, seen, quick_to_compile):
    return run(toy, fv.FeatureMatch("conv", seen))


# ---- what a target is ----------------------------------------------------------------------


def test_a_target_is_what_the_layer_gives(toy, seen):
    np.testing.assert_array_equal(seen, toy(photographs())["conv"])
    assert (seen.dtype, seen.name, seen.layer) == (np.float32, "target", "conv")
    np.testing.assert_array_equal(seen.images, photographs())
    one = fv.target(toy, "relu", photographs()[0], "mine")
    assert (one.shape, one.name, one.images.shape) == ((1, *TOY_SIZE, 6), "mine", (1, *SHAPE))
    assert isinstance(one, fv.NamedArray)


def test_a_target_does_not_change_with_the_images_it_was_made_of(toy):
    images = photographs()
    target = fv.target(toy, "conv", images)
    images[:] = 0
    np.testing.assert_array_equal(target.images, photographs())


def test_what_is_computed_from_a_target_is_none(toy, seen):
    for computed in (2 * seen, seen[:, :1], seen.copy()):
        assert computed.name is None
        assert named_arrays(fv.FeatureMatch("conv", computed)) == {}


@pytest.mark.parametrize(
    ("layer", "images", "name", "error", "message"),
    [
        ("cnv", photographs(), "a", fv.UnknownLayer, "nearest: conv"),
        ("conv", photographs()[0, 0], "a", fv.InputError, r"got an array \(16, 3\)"),
        ("conv", np.zeros((0, *SHAPE)), "a", fv.InputError, "or one of them; got an array"),
        ("conv", np.zeros((1, 4, 4, 3)), "a", fv.InputError, "at least 8x8"),
        ("conv", photographs()[..., :1], "a", fv.InputError, "3 channels"),
        (
            "conv",
            255 * photographs(),
            "a",
            fv.InputError,
            r"images must be in \[0, 1\]; got values",
        ),
        ("conv", np.full(SHAPE, np.nan), "a", fv.InputError, r"images must be in \[0, 1\]"),
        ("conv", "cat.png", "a", fv.InputError, "there is no file cat.png"),
        ("conv", photographs(), "A b", fv.ObjectiveError, "lower case letters"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_target_that_makes_no_sense(toy, layer, images, name, error, message):
    with pytest.raises(error, match=message) as caught:
        fv.target(toy, layer, images, name)
    assert "\n" not in str(caught.value)


# ---- the manifest --------------------------------------------------------------------------


def test_a_manifest_keeps_the_images_and_not_the_activations(matched, seen):
    assert format.last_run(matched.manifest)["objective"] == "feature_match('conv', target)"
    (packed,) = format.last_run(matched.manifest)["targets"].values()
    assert sorted(packed) == ["images", "layer"]
    # The activations have 4608 bytes, the images 576.
    assert len(json.dumps(matched.manifest["arrays"])) < 1.4 * seen.images.size + 150
    assert matched.scores[-1] > matched.scores[0]


def test_replay_of_a_target_is_the_same_to_the_bit(toy, matched, tmp_path):
    path = matched.save(tmp_path / "matched")
    for source in (path, path.with_suffix(".json"), matched.manifest):
        again = replayed(source, toy)
        np.testing.assert_array_equal(again.images, matched.images)
        np.testing.assert_array_equal(again.scores, matched.scores)
        assert again.manifest == matched.manifest
    assert again.save(tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.thorough
def test_replay_of_several_targets_one_an_image(toy):
    a = fv.target(toy, "conv", photographs(2, 1), "a")
    b = fv.target(toy, "conv", photographs(2, 2), "b")
    kept = fv.FeatureMatch("conv", b, metric="log")
    result = run(toy, fv.Caricature("conv", a, positive=True) + [0.5, 2] * kept)
    assert sorted(format.last_run(result.manifest)["targets"]) == ["a", "b"]
    for one in (result, result[1]):
        again = replayed(one.manifest, toy)
        np.testing.assert_array_equal(again.images, one.images)
        assert again.manifest == one.manifest


def test_replay_of_a_target_with_leaky_rectifiers(toy):
    net = fv.leaky(toy, "relu", 0.3)
    result = run(net, fv.FeatureMatch("relu", fv.target(net, "relu", photographs())))
    again = replayed(result.manifest, toy)
    np.testing.assert_array_equal(again.images, result.images)
    np.testing.assert_array_equal(again.scores, result.scores)


def test_values_by_name_are_kept_as_they_are(toy, tmp_path):
    values = np.random.default_rng(0).normal(size=(1, *TOY_SIZE, 6))
    # Names of objectives, and of the argument of parse.
    f = fv.FeatureMatch("conv", fv.NamedArray(values, "blur")) - fv.Blur()
    r = fv.Direction("conv", fv.NamedArray(np.arange(6), "text"))
    result = run(toy, f + 0.25 * r, batch=2)
    assert format.last_run(result.manifest)["objective"] == (
        "feature_match('conv', blur) - blur() + 0.25*direction('conv', text)"
    )
    packed = format.last_run(result.manifest)["targets"]
    assert sorted(packed) == ["blur", "text"]
    assert all(list(one) == ["values"] for one in packed.values())
    again = replayed(result.save(tmp_path / "values"), toy)
    np.testing.assert_array_equal(again.images, result.images)
    assert again.manifest == result.manifest


def test_two_arrays_of_one_name_are_refused_at_once(toy, seen, monkeypatch):
    other = fv.target(toy, "conv", photographs(1, 5))
    objective = fv.FeatureMatch("conv", seen) + fv.Caricature("conv", other)
    monkeypatch.setattr("featvis.synthesis.run.take_steps", None)
    with pytest.raises(fv.InputError, match="two arrays of the objective are called 'target'"):
        run(toy, objective)
    # One array in two places is one.
    both = fv.FeatureMatch("conv", seen) + fv.Caricature("conv", seen)
    assert list(named_arrays(both)) == ["target"]


def test_a_target_of_another_network_is_kept_as_values(toy, seen):
    other = fv.target(_renamed(toy), "conv", photographs())
    np.testing.assert_array_equal(other, seen)
    result = run(toy, fv.FeatureMatch("conv", other))
    assert list(format.last_run(result.manifest)["targets"]["target"]) == ["values"]
    again = replayed(result.manifest, toy)
    np.testing.assert_array_equal(again.images, result.images)


def _renamed(model):
    return fv.Model("other", model.apply, model.params, model.labels, "1" * 64, model.input)


# ---- arrays as text ------------------------------------------------------------------------


def test_pictures_of_8_bits_are_packed_as_such(tmp_path):
    levels = np.resize(np.arange(256, dtype=np.uint8), SHAPE)
    Image.fromarray(levels).save(tmp_path / "levels.png")
    Image.fromarray(np.kron(levels, np.ones((2, 2, 1), np.uint8))).save(tmp_path / "large.png")
    for image in (
        fv.read_image(tmp_path / "levels.png"),
        fv.read_image(tmp_path / "large.png", TOY_SIZE),
        fv.read_image(tmp_path / "levels.png", channels=1),
        np.zeros((1, 2, 3), np.float32),
    ):
        digest, packed = packing.pack_array(image)
        assert sorted(packed) == ["shape", "uint8"]
        again = packing.array_of({"arrays": {digest: json.loads(json.dumps(packed))}}, digest)
        assert again.dtype == np.float32
        np.testing.assert_array_equal(again, image)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).uniform(size=(2, 5, 3)),
        np.nextafter(np.float32(128 / 255), np.float32(1)),
        np.float32(1 + 1 / 255),
        np.float32(-1 / 255),
        np.array([0.0, 3e38, -3e38]),
        np.array([0.0, np.nan]),
    ],
    ids=["noise", "a bit off", "above", "below", "huge", "nan"],
)
def test_other_numbers_are_packed_to_the_bit(values):
    digest, packed = packing.pack_array(values)
    assert sorted(packed) == ["float32", "shape"]
    again = packing.array_of({"arrays": {digest: packed}}, digest)
    assert again.shape == np.shape(values)
    np.testing.assert_array_equal(again, np.float32(values))


ZEROS = np.zeros((1, *SHAPE), np.float32)


@pytest.mark.parametrize(
    "targets",
    [
        {},
        None,
        3,
        [],
        {"target": 3},
        {"target": {}},
        {"target": {"values": 3}},
        {"target": {"layer": "conv"}},
        {"target": {"images": ZEROS}},
        {"target": {"layer": "conv", "images": "0" * 64}},
        {"target": {"layer": "conv", "images": "../x"}},
        {"target": {"layer": "conv", "images": ZEROS[0, 0]}},
        {"target": {"layer": ["conv"], "images": ZEROS}},
        {"target": {"layer": 3, "images": ZEROS}},
        {"target": {"layer": "cnv", "images": ZEROS}},
        {"target": {"layer": "conv", "images": ZEROS - 1}},
        {"target": {"layer": "conv", "images": ZEROS * np.nan}},
        {"target": {"values": np.full((1, *TOY_SIZE, 6), np.nan)}},
        {"target": {"values": np.zeros((1, 1, 1, 6))}},
        {"a b": {"layer": "conv", "images": ZEROS}},
        {f"a{i}": {"layer": "conv", "images": ZEROS} for i in range(1000)},
    ],
)
def test_damaged_targets_are_one_line(toy, matched, targets):
    arrays = dict(matched.manifest["arrays"])

    def keep(value):
        if isinstance(value, dict):
            return {name: keep(one) for name, one in value.items()}
        if isinstance(value, np.ndarray):
            digest, arrays[digest] = packing.pack_array(value)
            return digest
        return value

    (run,) = matched.manifest["runs"]
    changed = {**matched.manifest, "runs": [{**run, "targets": keep(targets)}], "arrays": arrays}
    with pytest.raises((fv.FeatvisError, fv.ObjectiveError)) as caught:
        replayed(changed, toy)
    # A text that does not fit shows its place below.
    assert "\n" not in str(caught.value) or isinstance(caught.value, fv.ParseError)


@pytest.mark.parametrize(
    "packed",
    [
        None,
        3,
        {},
        {"uint8": "AAAA"},
        {"shape": [1, *SHAPE], "uint8": "!"},
        {"shape": [1, *SHAPE], "uint8": "AAAA"},
        {"shape": [10**9], "uint8": base64.b64encode(bytes(576)).decode()},
        {"shape": [-1], "uint8": base64.b64encode(bytes(576)).decode()},
        {"shape": [True, *SHAPE], "uint8": base64.b64encode(bytes(576)).decode()},
        {"shape": [1] * 100, "uint8": "AA=="},
        {"shape": [1, *SHAPE], "float32": base64.b64encode(bytes(576)).decode()},
        {"shape": [1, *SHAPE], "uint8": base64.b64encode(bytes(575)).decode()},
        {"shape": [1, *SHAPE], "uint8": base64.b64encode(bytes(576)).decode()},  # of zeros
    ],
)
def test_a_damaged_array_is_one_line(toy, matched, packed):
    (digest,) = matched.manifest["arrays"]
    with pytest.raises(fv.InputError, match="damaged array") as caught:
        replayed({**matched.manifest, "arrays": {digest: packed}}, toy)
    assert "\n" not in str(caught.value)


# ---- evidence ------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_match_of_a_target_is_compared_with_natural_images(toy, tmp_path):
    natural = photographs(5, 9)
    for i, image in enumerate(natural):
        Image.fromarray(np.round(image * 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
    targets = fv.target(toy, "conv", photographs(2, 3))
    result = run(toy, fv.FeatureMatch("conv", targets) - fv.TotalVariation())
    found = fv.compare_with_natural(result, tmp_path).evidence
    acts = np.asarray(toy(jnp.asarray(natural))["conv"])[:, None]
    squares = np.sum(np.square(targets), axis=(1, 2, 3))
    errors = np.sum((acts - np.asarray(targets)) ** 2, axis=(2, 3, 4)) / squares
    np.testing.assert_allclose(found["natural_max"], -errors.min(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found["natural_mean"], -errors.mean(axis=0), rtol=1e-4)
    own = fv.FeatureMatch("conv", targets)(toy(result.images), result.images)
    np.testing.assert_allclose(found["unit_score"], own, rtol=1e-4)
    alone = fv.compare_with_natural(result[1], tmp_path).evidence
    np.testing.assert_allclose(alone["natural_max"], found["natural_max"][1:], rtol=1e-5)
