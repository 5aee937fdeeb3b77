"""Methods that hide parts of an image, against closed forms and the authors' algorithms."""

import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis.attribution import Probed
from featvis.attribution.masking import blurred, enlarge, rise_masks
from featvis.attribution.perturbation import mfpp, occlusion, rise
from featvis.attribution.segments import kernel_shap, lime, segments_of
from featvis.models import Input, Model

pytestmark = pytest.mark.usefixtures("quick_to_compile")

needs_skimage = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="scikit-image is not here"
)
needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not here"
)
SIZE = (24, 20)
#: Sixteen rectangles, numbered with gaps.
LABELS = 10 * (np.arange(24)[:, None] // 6 * 4 + np.arange(20) // 5)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(size=(*SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(1).normal(size=(*SIZE, 3)).astype(np.float32)


def linear(image, weights, batch=64):
    """An image and a linear score with an offset of 3."""

    def score(images):
        assert len(images) <= batch
        return np.tensordot(np.asarray(images), weights, 3) + 3

    return Probed(image, score, batch, jax.random.key(0))


def of_segments(values):
    """The sum of values (h, w) over the segment of each pixel."""
    sums = {label: values[label == LABELS].sum() for label in np.unique(LABELS)}
    return np.vectorize(sums.get)(LABELS)


# ---- closed forms of a linear score --------------------------------------------------------


@needs_sklearn
def test_kernel_shap_is_weight_times_image_summed_over_segments(image, weights):
    given = linear(image, weights)
    wanted = of_segments((image * weights).sum(-1))
    found = kernel_shap(given, samples=64, labels=LABELS, baseline="black")
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    against = kernel_shap(given, samples=63, labels=LABELS, baseline=0.25 * image)
    np.testing.assert_allclose(against, 0.75 * wanted, atol=1e-4)


@needs_sklearn
def test_kernel_shap_has_the_shapley_values_of_a_product():
    # A score of three segments' product is shared by all three, and a fourth has nothing of it.
    labels = np.repeat([[0, 1, 2, 3]], 4, axis=0)
    image = np.ones((4, 4, 1), np.float32)
    given = Probed(image, lambda x: np.asarray(x)[:, 0, :3, 0].prod(1), 4096, jax.random.key(1))
    found = kernel_shap(given, samples=20000, labels=labels, baseline="black")
    np.testing.assert_allclose(found[0], [1 / 3, 1 / 3, 1 / 3, 0], atol=0.02)


@needs_sklearn
def test_limes_coefficient_is_what_a_segment_adds(image, weights):
    given = linear(image, weights)
    wanted = of_segments((image * weights).sum(-1))
    found = lime(given, samples=64, labels=LABELS, baseline="black", penalty=1e-6)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@needs_sklearn
def test_limes_weighting_is_its_authors(image):
    # scikit-learn's own ridge of their weighted samples, of a score that is not additive.
    def score(images):
        return np.asarray(images).mean((1, 2, 3)) ** 2

    given = Probed(image, score, 64, jax.random.key(2))
    found = lime(given, samples=50, labels=LABELS, baseline="black")
    numbers = np.unique(LABELS, return_inverse=True)[1].reshape(SIZE)
    seen = given.random.integers(0, 2, (50, 16))
    seen[0] = 1
    y = np.array([score((image * s[numbers][..., None])[None])[0] for s in seen], np.float64)
    cosines = seen.sum(1) / np.sqrt(np.maximum(seen.sum(1), 1) * 16)
    w = np.sqrt(np.exp(-((1 - cosines) ** 2) / 0.25**2))
    x = seen - np.average(seen, axis=0, weights=w)
    ridge = np.linalg.solve(x.T @ (w[:, None] * x) + np.eye(16), x.T @ (w * y))
    np.testing.assert_allclose(found, ridge[numbers], rtol=1e-3, atol=1e-7)


@pytest.mark.thorough
def test_rise_has_its_expectation_of_a_linear_score(image, weights):
    # E[f(x·m)·m] / p = f's mean over masks, and each pixel's share by the masks' covariance.
    grid, keep, size = 4, 0.3, (8, 8)
    x, w = image[:8, :8], weights[:8, :8]
    given = linear(x, w, batch=4096)
    found = rise(given, masks=60000, grid=grid, keep=keep, baseline="black")
    cells = jnp.eye(grid**2).reshape(-1, grid, grid)
    shares = np.zeros((64, 64))
    for shift in itertools.product(range(2), range(2)):
        response = rise_masks(cells, jnp.full((grid**2, 2), jnp.array(shift)), size)
        flat = np.asarray(response).reshape(grid**2, -1)
        shares += flat.T @ flat / 4
    terms = (x * w).sum(-1).ravel()
    wanted = keep * terms.sum() + 3 + (1 - keep) * shares @ terms
    np.testing.assert_allclose(found.ravel(), wanted, atol=0.12)
    assert np.corrcoef(found.ravel(), wanted)[0, 1] > 0.99


def test_occlusion_is_the_mean_fall_over_windows(image, weights):
    found = occlusion(linear(image, weights), window=7, stride=5, baseline=0.1 * image)
    terms = 0.9 * (image * weights).sum(-1)
    falls, times = np.zeros(SIZE), np.zeros(SIZE)
    for top in (0, 5, 10, 15, 20):
        for left in (0, 5, 10, 15):
            window = np.s_[top : top + 7, left : left + 7]
            falls[window] += terms[window].sum()
            times[window] += 1
    np.testing.assert_allclose(found, falls / times, atol=1e-4)


# ---- masks ---------------------------------------------------------------------------------


def test_rises_masks_are_the_authors():
    skimage = pytest.importorskip("skimage.transform")
    rng = np.random.default_rng(3)
    grids = (rng.random((5, 8, 8)) < 0.4).astype(np.float32)
    shifts = np.stack([rng.integers(0, 4, 5), rng.integers(0, 3, 5)], axis=1)
    found = rise_masks(jnp.asarray(grids), jnp.asarray(shifts), (29, 24))
    for mask, grid, (down, right) in zip(found, grids, shifts, strict=True):
        larger = skimage.resize(grid, (36, 27), order=1, mode="reflect", anti_aliasing=False)
        np.testing.assert_allclose(mask, larger[down : down + 29, right : right + 24], atol=1e-5)


def test_blurring_is_opencvs(image):
    cv2 = pytest.importorskip("cv2")
    found = blurred(jnp.asarray(image)[None], 11, 5.0)[0]
    np.testing.assert_allclose(found, cv2.GaussianBlur(image, (11, 11), 5), atol=1e-5)


def test_segments_cover_a_picture_without_gaps():
    picture = np.kron(np.random.default_rng(0).random((4, 4, 3)), np.ones((16, 16, 1)))
    found = segments_of(picture.astype(np.float32), 16)
    assert found.shape == (64, 64)
    assert sorted(np.unique(found)) == list(range(found.max() + 1))
    assert 8 <= found.max() + 1 <= 24


# ---- a unit that reads one patch -----------------------------------------------------------

INSIDE = np.zeros((32, 32), bool)
INSIDE[12:20, 6:14] = True


class _Patch:
    def __call__(self, params, x):
        read = jax.nn.relu(x[:, 12:20, 6:14] - 0.5)
        return {"logits": jnp.einsum("nhwc,hwck->nk", read, params)}


@pytest.fixture(scope="module")
def patch():
    """A network whose two units read one patch of 8 x 8 pixels, and images with something there."""
    rng = np.random.default_rng(0)
    images = 0.4 * rng.random((2, 32, 32, 3))
    images[:, 12:20, 6:14] = 0.7 + 0.3 * rng.random((2, 8, 8, 3))
    params = jnp.asarray(0.5 + rng.random((8, 8, 3, 2)), jnp.float32)
    network = Model("patch", _Patch(), params, None, "0" * 64, Input(size=(32, 32), min_size=8))
    return network, images.astype(np.float32)


def share_inside(explanation):
    """The share of each map's 64 highest pixels that lies in the patch, the least over images."""
    order = np.argsort(-explanation.maps.reshape(len(explanation), -1), axis=1)[:, :64]
    return INSIDE.ravel()[order].mean(axis=1).min()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("occlusion", {"window": 4, "stride": 2}),
        ("rise", {"grid": 16, "keep": 0.5, "masks": 8000}),
        ("mfpp", {"scales": 2, "coarsest": 32, "masks": 2000}),
        pytest.param(
            "lime",
            {"labels": np.arange(32)[:, None] // 4 * 9 + np.arange(2, 34) // 4},
            marks=needs_sklearn,
        ),
        pytest.param(
            "kernel_shap",
            {"labels": np.arange(32)[:, None] // 4 * 9 + np.arange(2, 34) // 4},
            marks=needs_sklearn,
        ),
        ("igos", {"iterations": 8, "steps": 8}),
        ("salient_mask", {"iterations": 60}),
    ],
)
def test_a_unit_that_reads_a_patch_has_its_map_there(patch, method, options):
    network, images = patch
    found = fv.explain(network, fv.Logit([0, 1]), images, method, **options)
    assert share_inside(found) >= 0.9
    assert found.maps.shape == (2, 32, 32)


@pytest.mark.thorough
def test_an_extremal_mask_covers_the_patch(patch):
    # In the plain game any mask that covers the patch is as good as the next.
    network, images = patch
    options = {"step": 2, "sigma": 2, "iterations": 120, "rate": 0.03, "mirror": False}
    found = fv.explain(
        network, "logits:0", images[:1], "extremal", areas="0.02+0.04", variant="dual", **options
    )
    assert share_inside(found) >= 0.9
    assert 0.05 < found.maps.mean() < 0.15


@pytest.mark.thorough
@pytest.mark.parametrize("prior", [{}, {"tv": 3e6, "l1": 1e-4}], ids=["moves", "stands"])
def test_igos_is_the_authors_algorithm(patch, prior):
    # Written anew as a loop, without noise: the step, its shortening and the lowered l1.
    network, images = patch
    image, given = jnp.asarray(images[0]), {"l1": 1.0, "tv": 20.0} | prior
    blur = blurred(image[None], 9, 50 * 32 / 224)[0]
    raw = jax.jit(lambda x: network.apply(network.params, x[None])["logits"][0, 0])
    low, high = raw(blur), raw(image)

    def p(masks, share=1.0):
        up = enlarge(masks, (32, 32))[..., None] * share
        return (raw(image * up + blur * (1 - up)) - low) / (high - low)

    def cost(masks, l1):
        down, across = jnp.diff(masks, axis=0), jnp.diff(masks, axis=1)
        return l1 * jnp.mean(1 - masks) + given["tv"] * (jnp.mean(down**2) + jnp.mean(across**2))

    of_p, of_cost, p = jax.jit(jax.grad(p)), jax.jit(jax.grad(cost)), jax.jit(p)
    masks, l1, curve = jnp.ones((8, 8)), given["l1"], []
    for i in range(6):
        slope = of_cost(masks, l1) + sum(of_p(masks, (k + 1) / 5) for k in range(5)) / 5
        before = p(masks) + cost(masks, l1)
        curve += [p(masks)] * (2 if i == 0 else 1)
        step = 200.0
        while True:
            new = jnp.clip(masks - step * slope, 0, 1)
            if p(new) + cost(new, l1) <= before - 1e-4 * step * (slope**2).sum() or step < 1e-5:
                break
            step *= 0.2
        masks = new
        if i == 3 and abs(curve[0] - curve[i]) <= 0.001:
            l1 /= 10
        elif i == 4 and abs(curve[0] - curve[i]) <= 0.01:
            l1 /= 5
    assert (l1 < given["l1"]) == bool(prior)
    options = {"iterations": 6, "steps": 5, "resolution": 8, "noise": 0.0, **given}
    found = fv.explain(network, "logits:0", images[:1], "igos", **options)
    np.testing.assert_allclose(found.maps[0], 1 - enlarge(masks, (32, 32)), atol=2e-3)


# ---- any function of images, seeds, bad input ----------------------------------------------


def test_any_function_of_images_can_be_explained():
    asked = []

    def black_box(images):
        assert type(images) is np.ndarray
        asked.append(len(images))
        return np.stack([images[:, :4].sum((1, 2, 3)), images[:, 4:].sum((1, 2, 3))], axis=1)

    image = np.full((8, 8, 3), 0.9, np.float32)
    found = fv.explain(black_box, 0, image, "occlusion", window=2, stride=2, baseline="black")
    np.testing.assert_allclose(found.maps[0, :4], 0.9 * 12, rtol=1e-5)
    np.testing.assert_allclose(found.maps[0, 4:], 0, atol=1e-5)
    assert max(asked) <= 32
    for wrong in (lambda images: ["a"] * len(images), lambda images: np.full(len(images), 1j)):
        with pytest.raises(fv.InputError, match="what the function gives must be an array of real"):
            fv.explain(wrong, None, image, "occlusion", window=2, stride=2)


@pytest.mark.thorough
def test_a_seed_is_a_map_and_memory_is_that_of_a_chunk(image, weights):
    # `linear` refuses more than a chunk at once.
    maps = [
        method(linear(image, weights, batch), masks=50, **options)
        for method, options in ((rise, {"grid": 4}), (mfpp, {"scales": 2, "coarsest": 4}))
        for batch in (7, 50)
    ]
    for i in (0, 2):
        np.testing.assert_allclose(maps[i], maps[i + 1], rtol=1e-3, atol=1e-3)
    other = Probed(image, linear(image, weights).score, 50, jax.random.key(1))
    assert np.abs(rise(other, masks=50, grid=4) - maps[0]).max() > 0.01


@needs_sklearn
def test_bad_arguments_are_said(patch, image, weights):
    network, images = patch
    for method in ("rise", "mfpp"):
        with pytest.raises(fv.InputError, match=r"masks is an integer of at least 1.*, not 0"):
            fv.explain(network, "logits:0", images, method, masks=0)
    with pytest.raises(fv.InputError, match="windows of 4 pixels every 5 leave pixels unseen"):
        fv.explain(network, "logits:0", images, "occlusion", window=4, stride=5)
    with pytest.raises(fv.InputError, match="window is an integer from 1 to 23, as 3"):
        occlusion(linear(image, weights), window=24)
    with pytest.raises(fv.InputError, match=r"areas are numbers above 0 and below 1.*'0.1\+2'"):
        fv.explain(network, "logits:0", images, "extremal", areas="0.1+2")
    with pytest.raises(fv.InputError, match="samples is an integer of at least 16"):
        kernel_shap(linear(image, weights), samples=15, labels=LABELS)
    with pytest.raises(fv.InputError, match=r"labels are \(24, 20\) integers"):
        lime(linear(image, weights), labels=LABELS[:5])
    with pytest.raises(fv.InputError, match="black, white, grey, mean, blur, noise"):
        fv.explain(network, "logits:0", images, "rise", baseline="gray")


@pytest.mark.parametrize(("package", "method"), [("skimage.segmentation", mfpp), ("sklearn", lime)])
def test_what_is_missing_is_said(monkeypatch, image, weights, package, method):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(fv.FeatvisError, match="pip install scikit-"):
        method(linear(image, weights))


@pytest.mark.filterwarnings("always::featvis.SilenceWarning")
def test_bumps_of_any_distance_make_a_mask_and_a_score_that_stays_makes_none(toy):
    options = {"step": 5, "sigma": 2, "iterations": 1, "areas": "0.1"}
    image = np.full((1, 12, 16, 3), 0.5, np.float32)
    image[0, 3:8, 4:9] = [1, 0, 0.2]
    found = fv.explain(toy, "relu:1", image, "extremal", **options)
    assert found.maps.shape == (1, 12, 16)
    assert found.maps.any()
    # What is bright enough for no position leaves the area alone to make the mask.
    with pytest.warns(fv.SilenceWarning, match="gives no gradient"):
        silent = fv.explain(
            toy, "relu:1 * 0 + dead:1", np.full_like(image, 0.5), "extremal", **options
        )
    assert not silent.maps.any()


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("extremal", {"step": 17}, "step is at most 16 pixels for images of 12x16; got 17"),
        ("extremal", {"sigma": 33}, "sigma is at most 32 pixels for images of 12x16; got 33"),
        ("salient_mask", {"jitter": 12}, "jitter is at most 11 pixels .*; got 12"),
        ("mfpp", {"masks": 3}, "3 masks are fewer than the 5 scales"),
        pytest.param(
            "lime",
            {"samples": 2**31 - 1},
            "lime: 2147483647 samples of .* segments: .* are needed",
            marks=[needs_sklearn, needs_skimage],
        ),
        ("rise", {"grid": 10**6}, r"ran out for rise\(masks=4000, grid=1000000\) of 1 images"),
    ],
)
def test_options_that_fit_no_image_or_memory_are_said(toy, method, options, message):
    with pytest.raises(fv.InputError, match=message):
        fv.explain(toy, "logits:1", np.full((1, 12, 16, 3), 0.5, np.float32), method, **options)
