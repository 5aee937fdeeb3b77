"""Images as anybody has them: each kind means the same everywhere, or is refused with the mend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import TOY_SIZE
from PIL import Image

import featvis as fv
from featvis.evidence import metrics
from featvis.images import as_images

pytestmark = pytest.mark.usefixtures("quick_to_compile")
LEVELS = np.random.default_rng(0).integers(0, 256, (2, *TOY_SIZE, 3), dtype=np.uint8)
#: What all kinds are to mean.
TRUTH = LEVELS.astype(np.float32) / 255


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{i}.png" for i in range(2)]
    for path, levels in zip(paths, LEVELS, strict=True):
        Image.fromarray(levels).save(path)
    return paths


@pytest.fixture(scope="module")
def kinds(files):
    return {
        "uint8": LEVELS,
        "float64": LEVELS / 255,
        "jax": jnp.asarray(TRUTH),
        "jax uint8": jnp.asarray(LEVELS),
        "rows of numbers": TRUTH.tolist(),
        "paths": files,
        "texts": [str(path) for path in files],
        "pictures": [Image.fromarray(levels) for levels in LEVELS],
        "arrays": list(LEVELS),
        "a mixture": [files[0], TRUTH[1]],
        "a tuple": tuple(jnp.asarray(TRUTH)),
    }


KINDS = [
    "uint8", "float64", "jax", "jax uint8", "rows of numbers", "paths", "texts", "pictures",
    "arrays", "a mixture", "a tuple",
]  # fmt: skip


@pytest.fixture(scope="module")
def seen(toy):
    return np.asarray(toy.apply(toy.params, TRUTH)["logits"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_means_the_same_everywhere(toy, kinds, seen, kind):
    images = kinds[kind]
    np.testing.assert_allclose(toy(images)["logits"], seen, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fv.target(toy, "logits", images), seen, rtol=1e-5, atol=1e-6)
    maps, truth = (fv.explain(toy, "logits:1", given, "saliency").maps for given in (images, TRUTH))
    np.testing.assert_allclose(maps, truth, rtol=1e-5)
    started = fv.synthesize(
        toy, "conv:1", fv.BoundedPixels(TOY_SIZE), init=images, steps=1, transform="none",
        optimizer="sgd(0.0)", progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(started.images, TRUTH, atol=1e-6)
    options = {"steps": 1, "progress": False}
    found = fv.invert(toy, "conv", images, **options)
    truth = fv.invert(toy, "conv", TRUTH, **options)
    np.testing.assert_allclose(found.evidence["psnr"], truth.evidence["psnr"], rtol=1e-4)


def test_one_alone_is_one(toy, files, seen):
    for one in (LEVELS[1], TRUTH[1], files[1], str(files[1]), Image.fromarray(LEVELS[1])):
        np.testing.assert_allclose(toy(one)["logits"], seen[1:], rtol=1e-5, atol=1e-6)
    started = fv.synthesize(
        toy, "conv:[0, 1]", fv.BoundedPixels(TOY_SIZE), init=files[1], steps=1, transform="none",
        optimizer="sgd(0.0)", progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(started.images, TRUTH[[1, 1]], atol=1e-6)


def test_files_are_scaled_and_arrays_are_not(toy, tmp_path):
    large = np.zeros((40, 60, 3), np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    assert toy(tmp_path / "large.png")["conv"].shape[1:3] == TOY_SIZE
    assert fv.target(toy, "conv", tmp_path / "large.png", size=(9, 11)).shape[1:3] == (9, 11)
    assert toy(large)["conv"].shape[1:3] == (40, 60)


def test_a_tensor_is_an_array(toy, seen):
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(toy(torch.tensor(LEVELS))["logits"], seen, rtol=1e-5, atol=1e-6)
    with pytest.raises(fv.InputError, match="detach"):
        toy(torch.tensor(TRUTH, requires_grad=True))
    with pytest.raises(fv.InputError, match=r"channels last.*moveaxis\(images, -3, -1\)"):
        toy(torch.tensor(TRUTH).permute(0, 3, 1, 2))


def test_under_transformations_values_are_not_looked_at(toy, seen):
    np.testing.assert_allclose(jax.jit(lambda x: toy(x)["logits"])(TRUTH), seen, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda x: toy(x)["logits"])(LEVELS), seen, rtol=1e-5)
    stacked = jax.vmap(lambda x: toy(x)["logits"])(jnp.stack([TRUTH, TRUTH]))
    np.testing.assert_allclose(stacked[1], seen, rtol=1e-5)
    gradient = jax.grad(lambda x: toy(x)["linear"][:, 1].sum())(jnp.asarray(TRUTH))
    np.testing.assert_allclose(gradient[0], toy.params["linear"][..., 1], rtol=1e-6)
    with pytest.raises(fv.InputError, match="of int32"):
        jax.jit(lambda x: toy(x)["logits"])(LEVELS.astype(np.int32))


BAD = {
    "levels": (255 * TRUTH, r"in \[0, 1\]; got values from 0 to 255: divide by 255"),
    "16 bits": (65535 * TRUTH, "divide by 65535"),
    "uint16": (LEVELS.astype(np.uint16), "of uint16: divide 16 bits by 65535"),
    "signed": (2 * TRUTH - 1, r"from -1 to 1: from \[-1, 1\] they are \(\w+ \+ 1\) / 2"),
    "normalised": ((TRUTH - 0.45) / 0.22, "mean and deviation undone"),
    "nan": (np.where(TRUTH > 0.9, np.nan, TRUTH), "got values from nan.* are not finite"),
    "infinite": (np.where(TRUTH > 0.9, np.inf, TRUTH), "are not finite"),
    "int32": (LEVELS.astype(np.int32), r"of int32: levels from 0 to 255 are .astype\(numpy.uint8"),
    "bool": (LEVELS > 99, "of bool: a mask"),
    "complex": (TRUTH.astype(np.complex64), "of complex64: take the real part"),
    "objects": (TRUTH.astype(object), "of object"),
    "texts": (np.array(["a.png"]), "the paths of pictures are a list"),
    "channels first": (np.moveaxis(TRUTH, -1, 1), "have their channels last"),
    "a plane": (TRUTH[0, ..., 0], r"got an array \(12, 16\): grey for 3 channels"),
    "ragged": ([TRUTH[0], TRUTH[1, :9]], r"of one size; got \(9, 16, 3\) and \(12, 16, 3\)"),
    "a list of batches": ([TRUTH, TRUTH], "in a list are"),
    "ragged rows": ([[1.0], [1.0, 0.5]], "must be an array of numbers"),
    "nothing": ([], r"got an array \(0,\)"),
    "no image": (TRUTH[:0], r"got an array \(0, 12, 16, 3\)"),
    "a number": (3, "of int64"),
    "None": (None, "must be an array of numbers .* got None"),
    "no file": ("cat.png", "there is no file cat.png"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_said_everywhere(toy, kind):
    images, message = BAD[kind]
    for take in (
        toy,
        lambda x: fv.target(toy, "conv", x),
        lambda x: fv.explain(toy, "conv:1", x, "saliency"),
        lambda x: fv.caricature(toy, "conv", x),
        lambda x: fv.accentuate(toy, "conv:1", x, layer="conv"),
        *([] if images is None else [lambda x: fv.synthesize(toy, "conv:1", init=x)]),
    ):
        with pytest.raises(fv.InputError, match=message) as caught:
            take(images)
        assert "\n" not in str(caught.value)


def test_metrics_take_levels_of_uint8(files):
    other = TRUTH**2
    assert np.allclose(metrics.psnr(LEVELS, other), metrics.psnr(TRUTH, other), rtol=1e-5)
    assert np.allclose(metrics.naturalness(LEVELS, other), metrics.naturalness(TRUTH, other))
    with pytest.raises(fv.InputError, match="got values from 0 to 255"):
        metrics.psnr(255 * TRUTH, TRUTH)
    with pytest.raises(fv.InputError, match="of int32"):
        metrics.gradient_histogram(LEVELS.astype(np.int32))


@pytest.mark.thorough
def test_natural_images_may_be_given_themselves(toy, files):
    result = fv.synthesize(toy, "conv:1", steps=1, progress=False)
    truth = fv.compare_with_natural(result, files[0].parent).evidence
    for images in (LEVELS, files, TRUTH):
        found = fv.compare_with_natural(result, images).evidence
        for name, values in truth.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-5)
    with pytest.raises(fv.InputError, match="the pictures are 12x16"):
        fv.compare_with_natural(result, LEVELS[:, :10])


def test_grey_and_other_channels():
    plane = np.full((4, 5), 0.5)
    with pytest.raises(fv.InputError, match=r"one grey image is images\[..., None\]"):
        as_images(plane, 1)
    assert as_images(plane[..., None], 1).shape == (1, 4, 5, 1)
    assert as_images(Image.fromarray(LEVELS[0]), 1).shape == (1, *TOY_SIZE, 1)
