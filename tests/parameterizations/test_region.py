"""Part of an image is optimised; the rest is what it was, to the bit."""

import numpy as np
import pytest
from networks import TOY_SIZE

import featvis as fv
from featvis import text

pytestmark = pytest.mark.usefixtures("quick_to_compile")

BOX = (3, 4, 9, 12)
INSIDE = (slice(None), slice(3, 9), slice(4, 12))
PHOTOGRAPHS = np.random.default_rng(0).uniform(0.2, 0.8, (2, *TOY_SIZE, 3)).astype(np.float32)


def run(toy, way, **options):
    options = {"steps": 3, "transform": "none", "progress": False, **options}
    return fv.synthesize(toy, "linear:1", way, **options)


@pytest.fixture(scope="module")
def changed(toy):
    way = fv.Region(TOY_SIZE, of=fv.BoundedPixels(TOY_SIZE), box=BOX)
    return run(toy, way, init=PHOTOGRAPHS, optimizer="sgd(0.01)")


@pytest.mark.thorough
def test_the_rest_is_the_image_and_the_part_climbs(toy, changed):
    # A linear unit: each step adds its weights, in the box alone.
    wanted = PHOTOGRAPHS.copy()
    wanted[INSIDE] += 0.03 * np.asarray(toy.params["linear"][..., 1])[INSIDE[1:]]
    np.testing.assert_allclose(changed.images, np.clip(wanted, 0, 1), atol=1e-6)
    outside = np.ones(PHOTOGRAPHS.shape, bool)
    outside[INSIDE] = False
    np.testing.assert_array_equal(changed.images[outside], PHOTOGRAPHS[outside])


def test_it_replays_and_reads_its_text(toy, changed, tmp_path):
    way = changed.run.parameterization
    assert text.parameterization(str(way), (1, 1)) == way
    written = text.parameterization("region(of=boundedpixels, box=(3, 4, 9, 12))", TOY_SIZE)
    assert written == way
    again = fv.replay(changed.save(tmp_path / "a"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, changed.images)


def test_a_mask_mixes_and_is_kept(toy, tmp_path):
    mask = np.zeros(TOY_SIZE, np.float32)
    mask[2:6], mask[6:8] = 1, 0.5
    way = fv.Region(TOY_SIZE, of=fv.BoundedPixels(TOY_SIZE, sd=0.2), mask=mask)
    found = run(toy, way, init=PHOTOGRAPHS, optimizer="sgd(0.01)")
    np.testing.assert_array_equal(found.images[:, :2], PHOTOGRAPHS[:, :2])
    np.testing.assert_array_equal(found.images[:, 8:], PHOTOGRAPHS[:, 8:])
    weights = np.asarray(toy.params["linear"][..., 1])
    whole = PHOTOGRAPHS[:, 2:6] + 0.03 * weights[2:6]
    np.testing.assert_allclose(found.images[:, 2:6], np.clip(whole, 0, 1), atol=1e-6)
    # Half of the gradient, of which half shows.
    half = PHOTOGRAPHS[:, 6:8] + 0.03 / 4 * weights[6:8]
    np.testing.assert_allclose(found.images[:, 6:8], half, atol=1e-5)
    again = fv.replay(found.save(tmp_path / "a"), model=toy, progress=False)
    np.testing.assert_array_equal(again.images, found.images)


@pytest.mark.thorough
def test_without_an_image_the_rest_is_of_one_value(toy):
    way = fv.Region(TOY_SIZE, of=fv.Pixels(TOY_SIZE), box=BOX, value=0.25)
    found = run(toy, way, steps=1).images
    assert (found[0, 0] == 0.25).all()
    assert (found[INSIDE] != 0.25).all()
    assert way.held == {"rest"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Region: of is a parameterization"),
        ({"of": fv.Pixels((4, 4))}, "Region: of is of size"),
        ({"of": fv.Pixels((8, 8))}, "box is given, or else a mask, not 'neither'"),
        ({"of": fv.Pixels((8, 8)), "box": (0, 0, 9, 4)}, "box is a part of the image"),
        ({"of": fv.Pixels((8, 8)), "box": (0, 4, 4, 4)}, "box is a part of the image"),
        ({"of": fv.Pixels((8, 8)), "box": 3}, r"box is \(top, left, bottom, right\)"),
        ({"of": fv.Pixels((8, 8)), "mask": np.zeros((8, 8))}, "not all 0; got an array"),
        ({"of": fv.Pixels((8, 8)), "mask": np.ones((4, 8))}, "mask is weights"),
        ({"of": fv.Pixels((8, 8)), "mask": 1.0}, r"mask is an array \(8, 8\)"),
        (
            {"of": fv.Region((8, 8), of=fv.Pixels((8, 8)), box=(0, 0, 1, 1)), "box": (0, 0, 2, 2)},
            "of is no region itself",
        ),
    ],
)
def test_what_is_no_region(fields, message):
    with pytest.raises(fv.InputError, match=message):
        fv.Region((8, 8), **fields)
