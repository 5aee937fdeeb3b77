"""Methods of gradients against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import featvis as fv

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SIZE = (6, 8)
RANDOM = np.random.default_rng(0)
LINEAR = RANDOM.normal(size=(*SIZE, 3)).astype(np.float32)
SQUARE = RANDOM.normal(size=(*SIZE, 3)).astype(np.float32)
IMAGES = RANDOM.uniform(size=(2, *SIZE, 3)).astype(np.float32)


def _polynomial(weights, image):
    linear = jnp.einsum("nhwc,hwc->n", image, weights["linear"])
    square = jnp.einsum("nhwc,hwc->n", image**2, weights["square"]) / 2
    return {"score": jnp.stack([linear, square, jnp.zeros_like(linear)], axis=-1)}


@pytest.fixture(scope="module")
def model():
    weights = {"linear": jnp.asarray(LINEAR), "square": jnp.asarray(SQUARE)}
    return fv.from_function(_polynomial, weights, input=fv.Input(size=SIZE, fixed_size=True))


def explained(model, unit, method, **options):
    return fv.explain(model, f"score:{unit}", IMAGES, method, **options)


def test_of_a_linear_score_the_maps_are_weight_times_image(model):
    truth = (LINEAR * IMAGES).sum(-1)
    for method, options in (
        ("gradient_times_input", {}),
        ("integrated_gradients", {"steps": 2}),
        ("expected_gradients", {"samples": 2, "references": np.zeros((3, *SIZE, 3))}),
    ):
        found = explained(model, 0, method, **options)
        np.testing.assert_allclose(found.maps, truth, rtol=1e-4, atol=1e-5)
        if found.metrics:
            assert (found.metrics["completeness_error"] < 1e-4).all()


def test_integrated_gradients_start_where_they_are_told(model):
    other = RANDOM.uniform(size=(*SIZE, 3)).astype(np.float32)
    means = IMAGES.mean((1, 2), keepdims=True)
    middles = {"steps": 2, "rule": "midpoint"}
    found = explained(model, 1, "integrated_gradients", **middles, baseline=other)
    # Of x²/2 the gradient is linear along the path: its mean is that of the middle.
    truth = (SQUARE * (IMAGES - other) * (IMAGES + other) / 2).sum(-1)
    np.testing.assert_allclose(found.maps, truth, rtol=1e-4, atol=1e-5)
    both = explained(model, 1, "integrated_gradients", **middles, baseline="white+mean").maps
    truth = sum((SQUARE * (IMAGES**2 - start**2) / 2).sum(-1) / 2 for start in (1.0, means))
    np.testing.assert_allclose(both, truth, rtol=1e-4, atol=1e-5)


def _power(power):
    def network(weights, image):
        return {"score": jnp.sum(image**power, (1, 2, 3))[:, None]}

    return fv.from_function(network, {}, input=fv.Input(size=SIZE, fixed_size=True))


def test_steps_are_divided_until_the_maps_sum_to_the_score():
    # Of x⁴ the middles of n steps sum up to 1 - 1 / (2 n²) of what they should.
    def errors(**options):
        found = fv.explain(steep, "score:0", IMAGES, "integrated_gradients", **options)
        return found.metrics["completeness_error"], found.metrics["steps"]

    steep = _power(4)
    error, _ = errors(steps=3, rule="midpoint")
    np.testing.assert_allclose(error, 1 / 18, rtol=1e-3)
    error, steps = errors(steps=1, rule="midpoint", tolerance=0.01)
    np.testing.assert_allclose(error, 1 / 162, rtol=1e-2)
    assert (steps == 9).all()
    # n nodes of Gauss are exact up to the power of 2 n - 1; one in each third is its middle.
    error, steps = errors(steps=2, rule="gauss_legendre")
    assert (error < 1e-5).all()
    error, steps = errors(steps=1, rule="gauss_legendre", tolerance=0.1)
    np.testing.assert_allclose(error, 1 / 18, rtol=1e-3)
    assert (steps == 3).all()
    with pytest.raises(fv.InputError, match="1 to 1000 for the rule gauss_legendre, not 1001"):
        errors(steps=1001, rule="gauss_legendre")
    # Of x³ and the middles t of n steps: Σ 9 t⁸ / Σ 3 t².
    middles = (np.arange(9) + 0.5) / 9
    truth = np.abs(3 * (middles**8).sum() / (middles**2).sum() - 1)
    found = fv.explain(
        _power(3), "score:0", IMAGES, "integrated_gradients", steps=1, tolerance=0.05
    )
    np.testing.assert_allclose(found.metrics["completeness_error"], truth, rtol=1e-2)
    assert (found.metrics["steps"] == 9).all()


@pytest.mark.slow
def test_on_the_network_itself_the_maps_sum_to_the_score(lite0):
    from skimage import data

    pictures = [Image.fromarray(picture()) for picture in (data.chelsea, data.coffee, data.rocket)]
    images = lite0.as_images(pictures, (64, 64))
    tops = np.asarray(lite0(images)["logits"]).argmax(-1)
    found = fv.explain(
        lite0, fv.Logit(tops), images, "integrated_gradients", steps=100, tolerance=0.01
    )
    assert (found.metrics["completeness_error"] < 0.01).all()
    assert (found.metrics["steps"] <= 300).all()


def test_smooth_taylor_of_a_square_is_its_curvature(model):
    # (x - z) ∇f(z) of z = x + sε is -s ε a (x + s ε): its expectation is -s² a, and 0 of a line.
    found = explained(model, 1, "smooth_taylor", samples=4000, noise=0.5).maps
    error = np.sqrt(3 * (0.25 + 0.5 * 0.25**2) / 4000) * np.abs(SQUARE).max()
    np.testing.assert_allclose(found, -0.25 * np.stack([SQUARE.sum(-1)] * 2), atol=5 * error)
    line = explained(model, 0, "smooth_taylor", samples=4000, noise=0.5).maps
    np.testing.assert_allclose(line, 0, atol=5 * 0.5 * np.sqrt(3 / 4000) * np.abs(LINEAR).max())


def test_the_noise_is_searched_for(model):
    options = {"samples": 3, "adaptive": True, "iterations": 2}
    found = explained(model, 1, "smooth_taylor", **options)
    level = found.metrics["noise"]
    assert (level > 0).all()
    # One step of 0.1 up or down from the mean, then another, or the start itself.
    moves = (level - IMAGES.mean((1, 2, 3))) / 0.1
    np.testing.assert_allclose(moves, np.round(moves / 0.1) * 0.1, atol=1e-3)


def test_gradients_under_noise(model):
    # Of a square the gradient is a (x + s ε): its mean is a x, its variance a² s².
    spread = IMAGES.max((1, 2, 3), keepdims=True) - IMAGES.min((1, 2, 3), keepdims=True)
    smooth = explained(model, 1, "smooth_grad", samples=4000, noise=0.1).maps
    np.testing.assert_allclose(
        smooth, np.abs(SQUARE * IMAGES).max(-1), atol=5 * 0.1 * np.abs(SQUARE).max() / 4000**0.5
    )
    varied = explained(model, 1, "var_grad", samples=4000, noise=0.1).maps
    truth = ((0.1 * spread * SQUARE) ** 2).sum(-1)
    np.testing.assert_allclose(varied, truth, rtol=0.15)


@pytest.mark.thorough
def test_an_image_has_its_map_whatever_is_beside_it(model):
    options = {"samples": 3, "noise": 0.2, "seed": 5}
    together = explained(model, 1, "smooth_grad", **options).maps
    alone = fv.explain(model, "score:1", IMAGES[:1], "smooth_grad", **options).maps
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5)
    with pytest.warns(fv.SilenceWarning, match="for 2 of 2 images"):
        silent = explained(model, 2, "integrated_gradients", steps=2)
    assert None not in silent.silent
    assert not silent.maps.any()


def test_references_are_asked_for(model, tmp_path):
    with pytest.raises(fv.InputError, match="give some, or a folder"):
        explained(model, 0, "expected_gradients")
    for place, image in enumerate(IMAGES):
        fv.grid([image]).resize(SIZE[::-1]).save(tmp_path / f"{place}.png")
    found = explained(model, 0, "expected_gradients", references=str(tmp_path), samples=2)
    assert found.options["references"].shape == (2, *SIZE, 3)
    with pytest.raises(fv.InputError, match=r"references is images .*got \(2, 3, 8, 3\)"):
        explained(model, 0, "expected_gradients", references=IMAGES[:, :3])


@pytest.mark.filterwarnings("ignore::featvis.SilenceWarning")
def test_a_map_that_misses_nothing_of_nothing_is_complete(model):
    # The image is the baseline: there is nothing to share out.
    found = explained(model, 0, "integrated_gradients", steps=2, baseline=IMAGES)
    np.testing.assert_array_equal(found.metrics["completeness_error"], 0)
    with pytest.raises(fv.InputError, match="samples is an integer of at least 2, not 1"):
        explained(model, 0, "var_grad", samples=1)
