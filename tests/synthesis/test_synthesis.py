import functools
import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiles import Compiled
from networks import TOY_SIZE

import featvis as fv
from featvis.results.format import last_run
from featvis.synthesis import loop
from featvis.synthesis import run as synthesis_run
from featvis.transforms import Noise, RandomAffine

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def run(model, objective, parameterization=None, **options):
    options = {"steps": 8, "transform": "none", "progress": False, **options}
    options = {"parameterization": parameterization or fv.Fourier(TOY_SIZE), **options}
    return fv.synthesize(model, objective, **options)


def cosine(a, b):
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


# ---- ground truths -------------------------------------------------------------------------


@pytest.mark.thorough
def test_linear_unit_optimum_in_a_ball_is_its_weights(toy):
    # Erhan et al. 2009: the input of bounded norm that a linear unit likes most is w / |w|.
    ball = fv.BoundedPixels(TOY_SIZE, ball="l2", radius=2.0)
    result = run(toy, "channel('linear', 1)", ball, steps=300, optimizer="sgd(0.1)")
    w = np.asarray(toy.params["linear"][..., 1])
    found = result.images[0] - 0.5
    assert cosine(found, w) > 0.999
    np.testing.assert_allclose(np.linalg.norm(found), 2.0, rtol=1e-4)
    np.testing.assert_allclose(result.clean_scores[0], 2.0 * np.linalg.norm(w), rtol=1e-3)


def test_linear_score_less_l2_has_its_optimum_at_w_over_two_lambda(toy):
    # Simonyan et al. 2013, equation 1; our L2 is a mean, so lambda is weight / number of values.
    w = np.asarray(toy.params["linear"][..., 2])
    lam = 20.0
    objective = fv.Channel("linear", 2) - lam * w.size * fv.L2()
    result = run(toy, objective, fv.BoundedPixels(TOY_SIZE), steps=200, optimizer="sgd(0.02)")
    np.testing.assert_allclose(result.images[0] - 0.5, w / (2 * lam), atol=1e-4)


# ---- reproducibility -----------------------------------------------------------------------


@pytest.mark.thorough
def test_same_seed_same_picture_to_the_bit_and_another_seed_another(toy):
    a = run(toy, "conv:1", transform="affine", seed=3)
    b = run(toy, "conv:1", transform="affine", seed=3)
    c = run(toy, "conv:1", transform="affine", seed=4)
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.scores, b.scores)
    assert np.abs(a.images - c.images).max() > 0.01


@pytest.mark.thorough
def test_the_seed_covers_the_transforms(toy):
    params = run(toy, "conv:1", steps=1).params
    a, b = (run(toy, "conv:1", transform="affine", seed=s, init=params) for s in (0, 1))
    assert np.abs(a.scores[0] - b.scores[0]).max() > 1e-4


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_how_steps_are_cut_into_chunks_does_not_change_the_picture(toy, monkeypatch, seconds):
    whole = run(toy, "conv:1", transform="affine", steps=90)
    monkeypatch.setattr("featvis.synthesis.run._CHUNK_SECONDS", seconds)
    cut = run(toy, "conv:1", transform="affine", steps=90, snapshots=[1, 2, 40])
    np.testing.assert_array_equal(whole.images, cut.images)
    np.testing.assert_array_equal(whole.scores, cut.scores)


@pytest.mark.thorough
def test_an_image_does_not_depend_on_its_neighbours(toy):
    alone = run(toy, "conv:1", transform="affine")
    among = run(toy, "conv:[1, 2, 3]", transform="affine")
    np.testing.assert_allclose(among.images[0], alone.images[0], atol=1e-4)


@pytest.mark.thorough
def test_one_seed_an_image_gives_each_the_picture_of_its_seed(toy):
    together = run(toy, "conv:1", transform="affine", seed=[5, 9])
    alone = run(toy, "conv:1", transform="affine", seed=9)
    np.testing.assert_allclose(together.images[1], alone.images[0], atol=1e-4)


# ---- several draws of the transform --------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [1, 4])
def test_a_score_is_the_mean_over_the_draws_of_its_step(toy, draws):
    # A linear unit: its score under noise is the clean one and its weights times the noise.
    noise, ball = Noise(0.1), fv.BoundedPixels(TOY_SIZE)
    options = {"steps": 3, "optimizer": "sgd(1e-4)", "seed": [5, 9]}
    result = run(toy, "linear:1", ball, transform=noise, draws=draws, **options)
    plain = run(toy, "linear:1", ball, **options)
    np.testing.assert_allclose(result.images, plain.images, atol=1e-6)
    w = np.asarray(toy.params["linear"][..., 1])
    for image, key in enumerate(loop.image_keys([5, 9], 2)):
        for step in range(3):
            key_of_step = jax.random.fold_in(jax.random.fold_in(key, 1), step)
            keys = key_of_step[None] if draws == 1 else jax.random.split(key_of_step, draws)
            drawn = jax.vmap(noise, (0, None))(keys, jnp.zeros((*TOY_SIZE, 3)))
            wanted = plain.scores[step, image] + np.vdot(w, np.mean(drawn, axis=0))
            np.testing.assert_allclose(result.scores[step, image], wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.thorough
def test_the_gradient_is_the_mean_over_the_draws_too(toy):
    # Mean square of the four linear units: its gradient is linear in the noise.
    noise, ball = Noise(0.1), fv.BoundedPixels(TOY_SIZE)
    start = np.random.default_rng(0).uniform(0.4, 0.6, (*TOY_SIZE, 3)).astype(np.float32)
    options = {"steps": 1, "optimizer": "sgd(1e-4)", "init": start, "transform": noise}
    found = run(toy, "layer('linear')", ball, draws=4, seed=7, **options)
    (key,) = loop.image_keys(7, 1)
    keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 1), 0), 4)
    seen = np.asarray(jax.vmap(noise, (0, None))(keys, jnp.asarray(start - 0.5)))
    w = np.asarray(toy.params["linear"], np.float64).reshape(-1, 4)
    gradient = w @ (seen.mean(axis=0).ravel() @ w) / 2
    wanted = start.ravel() + 1e-4 * gradient
    np.testing.assert_allclose(found.images[0].ravel(), wanted, atol=1e-6)
    score = np.mean((seen.reshape(4, -1) @ w) ** 2)
    np.testing.assert_allclose(found.scores[0, 0], score, rtol=1e-4)


@pytest.mark.thorough
def test_one_draw_is_the_default_and_the_evaluation_is_of_eight(toy):
    options = {"transform": "Noise(0.3)", "optimizer": "sgd(0.0)", "steps": 2}
    plain, one, four = (
        run(toy, "conv:1", fv.BoundedPixels(TOY_SIZE), **options, **draws)
        for draws in ({}, {"draws": 1}, {"draws": 4})
    )
    np.testing.assert_array_equal(one.scores, plain.scores)
    assert (last_run(plain.manifest)["draws"], last_run(four.manifest)["draws"]) == (1, 4)
    assert np.abs(four.scores - plain.scores).min() > 1e-5
    np.testing.assert_allclose(four.transformed_scores, plain.transformed_scores, rtol=1e-6)


@pytest.mark.thorough
def test_a_dead_unit_comes_to_life_under_several_draws(toy):
    options = {"steps": 60, "optimizer": "adam(0.3)", "transform": "Noise(0.01)"}
    assert run(toy, "dead:1", fv.Pixels(TOY_SIZE), draws=2, **options).clean_scores[0] > 0.1


# ---- comparisons with images ---------------------------------------------------------------


def test_a_weighted_match_is_best_where_both_gradients_are_equal():
    # Of ⟨g, x⟩ − c·‖x−x₀‖²/‖x₀‖²: x₀ + g·‖x₀‖²/2c.
    g = np.random.default_rng(0).normal(size=(6, 8, 3)).astype(np.float32)

    def apply(params, image):
        return {"image": image - 0.5, "score": jnp.sum((image - 0.5) * params, (1, 2, 3))[:, None]}

    model = fv.from_function(apply, g, input=fv.Input((6, 8)))
    x = np.random.default_rng(1).uniform(0.3, 0.7, (3, 6, 8, 3)).astype(np.float32)
    kept = fv.FeatureMatch("image", fv.target(model, "image", x))
    weights, power = np.array([50.0, 200.0, 1000.0]), np.sum((x - 0.5) ** 2, (1, 2, 3))
    found = run(
        model, fv.Channel("score", 0) + weights * kept, fv.BoundedPixels((6, 8)), init=x,
        steps=300, optimizer="sgd(5e-4)",
    )  # fmt: skip
    best = x + g * (power / (2 * weights))[:, None, None, None]
    np.testing.assert_allclose(found.images, best, atol=1e-3)


# Where the pictures are what they are compared with, there is nothing to gain.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::featvis.SilenceWarning")
def test_images_that_are_compared_go_through_the_pictures_transforms(toy):
    x = np.random.default_rng(3).uniform(0.2, 0.8, (2, *TOY_SIZE, 3)).astype(np.float32)
    seen = "Compose((RandomResizedCrop(0.1, 0.9, None), Noise(0.1)))"
    options = {"init": x, "steps": 3, "optimizer": "sgd(0.0)", "transform": seen, "draws": 2}
    ball = fv.BoundedPixels(TOY_SIZE)
    target = fv.target(toy, "conv", x)
    still = run(toy, fv.FeatureMatch("conv", target, metric="norm"), ball, **options)
    beside = fv.FeatureMatch("conv", target, metric="norm", images=x)
    found = run(toy, beside, ball, **options)
    assert np.all(still.scores < -0.1)
    np.testing.assert_allclose(found.scores, 0, atol=1e-5)
    np.testing.assert_allclose(found.transformed_scores, 0, atol=1e-5)
    # Of its own place in the batch, with its own draws.
    on = run(toy, fv.FeatureMatch("conv", target[1:], images=x[1:]).on([1]), ball, **options)
    np.testing.assert_allclose(on.scores, 0, atol=1e-6)
    # Another size, and one image for all.
    one = fv.FeatureMatch("conv", target[:1], metric="norm", images=x[:1])
    padded = run(toy, one, ball, **{**options, "transform": "Pad(2)"})
    np.testing.assert_allclose(padded.scores[:, 0], 0, atol=1e-5)
    assert np.all(padded.scores[:, 1] < -0.1)
    again = fv.replay(padded.manifest, model=toy, progress=False)
    np.testing.assert_array_equal(again.scores, padded.scores)
    with pytest.raises(fv.ObjectiveError, match=r"pictures are \(12, 16, 3\).*of \(4, 4, 3\)"):
        run(toy, fv.FeatureMatch("conv", target, images=np.ones((1, 4, 4, 3))), ball, **options)


@pytest.mark.thorough
def test_the_size_of_a_gradient_is_by_the_parameters_and_of_each_image_alone(toy):
    x = np.random.default_rng(3).uniform(0.3, 0.7, (2, *TOY_SIZE, 3)).astype(np.float32)
    options = {"images": x, "transform": "none", "seed": [3, 4]}
    sizes = functools.partial(synthesis_run.gradient_sizes, toy, **options)
    w = np.asarray(toy.params["linear"])[..., 1]
    pixels = sizes(fv.Channel("linear", 1), fv.BoundedPixels(TOY_SIZE))
    np.testing.assert_allclose(pixels, np.abs(w).sum(), rtol=1e-4)
    weighted = sizes([2.0, -3.0] * fv.Channel("linear", 1), "BoundedPixels()")
    np.testing.assert_allclose(weighted, np.abs(w).sum() * np.array([2, 3]), rtol=1e-4)
    # Priors count too, and Fourier coefficients have other gradients.
    objective, fourier = fv.Channel("linear", 1) - fv.L2(center=0.4), fv.Fourier(TOY_SIZE)

    def total(params):
        image = jax.vmap(fourier.decode)(params)
        return jnp.sum(objective(toy.apply(toy.params, image), image))

    gradient = jax.jit(jax.grad(total))(jax.vmap(fourier.encode)(x))
    wanted = sum(np.abs(leaf).sum((1, 2, 3)) for leaf in gradient.values())
    np.testing.assert_allclose(sizes(objective, fourier), wanted, rtol=1e-4)
    # A unit that is off has the gradient that the run would find.
    assert np.all(sizes(fv.Channel("dead", 1), fourier) > 0)
    assert np.all(sizes(fv.Constant(1.0), fourier) == 0)


@pytest.mark.thorough
def test_the_size_of_a_gradient_is_of_the_draws_of_the_first_step(toy):
    x = np.random.default_rng(3).uniform(0.3, 0.7, (2, *TOY_SIZE, 3)).astype(np.float32)
    options = {"transform": "RandomResizedCrop(0.1, 0.9)", "draws": 3}
    ball = fv.BoundedPixels(TOY_SIZE)
    sizes = synthesis_run.gradient_sizes(toy, fv.Channel("relu", 1), ball, x, **options)
    step = run(toy, "relu:1", ball, init=x, steps=1, optimizer="sgd(0.01)", **options)
    moved = np.abs(step.images - x).sum((1, 2, 3))
    np.testing.assert_allclose(moved, 0.01 * sizes, rtol=0.01)
    # Noise moves the images first.
    noisy = synthesis_run.gradient_sizes(toy, fv.Channel("relu", 1), ball, x, noise=0.3, **options)
    assert np.all(np.abs(noisy / sizes - 1) > 1e-3)


# ---- compiling -----------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_run_compiles_its_step_once_and_another_unit_weight_or_length_nothing(toy):
    # An optimizer of this test's own: no other has compiled its programs.
    options = {"optimizer": "adam(0.0123)", "transform": "affine"}
    with Compiled() as first:
        run(toy, fv.Channel("conv", 0) - 0.1 * fv.TotalVariation(), steps=150, **options)
    assert first.steps == 1
    assert first.count("evaluate_images") == 1
    with Compiled() as others:
        for index, weight, steps in [(1, 0.1, 8), (np.int64(5), 0.3, 1), (jnp.int32(2), 2.0, 150)]:
            run(
                toy,
                fv.Channel("conv", index) - weight * fv.TotalVariation(),
                steps=steps,
                **options,
            )
        run(toy, "conv:3 - 0.5*tv", patience=3, snapshots=2, **options)
    assert others.names == []
    with Compiled() as layer:
        run(toy, fv.Channel("relu", 0) - 0.1 * fv.TotalVariation(), **options)
    assert layer.steps == 1


@pytest.mark.thorough
def test_many_objectives_of_a_layer_are_one_program_and_keep_their_order(toy):
    options = {"steps": 4, "transform": "none", "progress": False, "optimizer": "adam(0.0124)"}
    texts = ["conv:0", "logits:1", "conv:1", "conv:2", "logits:0", "conv:3", "conv:4"]

    def many(texts):
        return dict(fv.synthesize_many(toy, texts, fv.Fourier(TOY_SIZE), batch_limit=2, **options))

    with Compiled() as compiled:
        found = many(texts)
    assert list(found) == [(0, 2), (3, 5), (6,), (1, 4)]
    # conv in pairs, conv alone (the odd one), logits in a pair.
    assert compiled.steps == 3
    with Compiled() as compiled:
        many(["conv:5", "conv:2", "conv:1"])
        run(toy, "conv:[3, 4]", seed=[0, 0], **options)
    assert compiled.names == []
    alone = run(toy, "conv:1", **options)
    first = found[(0, 2)]
    np.testing.assert_allclose(first.images[1:], alone.images, atol=1e-4)
    np.testing.assert_allclose(first.clean_scores[1:], alone.clean_scores, atol=1e-4)


@pytest.mark.parametrize(("frame", "networks"), [(0, 1), (2, 2)])
def test_clean_score_is_that_of_the_network_which_the_evaluation_traces_once(frame, networks):
    traced = []

    def network(params, image):
        traced.append(image.shape)
        return {"layer": jnp.tanh(image - params)}

    model = fv.from_function(network, jnp.float32(0.4), input=fv.Input(size=(12, 16)))
    transform = RandomAffine((0.9, 1.1), (-10.0, 10.0), 2.0, "constant", frame=frame)
    way, objective = fv.Pixels((12, 16)), fv.Channel("layer", 1)
    program = loop.Program(model.apply, way, transform, "sgd(0.1)")
    images = np.random.default_rng(0).random((2, 12, 16, 3), np.float32)
    given = program, model.params, objective, loop.image_keys(0, 2), jnp.int32(0), images
    before = len(traced)
    lowered = loop.evaluate_images.lower(*given)
    assert len(traced) - before == networks
    clean, transformed = lowered.compile()(*given)
    np.testing.assert_allclose(clean, np.tanh(images[..., 1] - 0.4).mean((1, 2)), rtol=1e-5)
    assert not np.allclose(clean, transformed)


# ---- what the loop returns -----------------------------------------------------------------


@pytest.mark.thorough
def test_scores_rise_and_clean_scores_are_those_of_the_images(toy):
    result = run(toy, "conv:[0, 3]", steps=40, transform="affine")
    assert result.scores.shape == (40, 2)
    assert np.all(result.scores[-5:].mean(0) > result.scores[:5].mean(0))
    acts = toy(jnp.asarray(result.images))
    wanted = fv.Channel("conv", [0, 3])(acts, result.images)
    np.testing.assert_allclose(result.clean_scores, wanted, rtol=1e-5)
    assert result.images.dtype == np.float32
    assert result.images.min() >= 0
    assert result.images.max() <= 1


def test_without_transform_the_transformed_score_is_the_clean_one(toy):
    result = run(toy, "conv:1")
    np.testing.assert_allclose(result.transformed_scores, result.clean_scores, rtol=1e-6)


def test_sensitivity_is_the_sum_of_absolute_gradients(toy):
    # A linear unit has the same gradient, its weights, at every step.
    result = run(toy, "linear:1", fv.Pixels(TOY_SIZE), steps=4)
    weights = np.abs(np.asarray(toy.params["linear"][..., 1])).mean(-1)
    np.testing.assert_allclose(result.sensitivity[0], 4 * weights, rtol=1e-5)
    alpha = np.asarray(result.picture(transparent=True))[..., 3]
    wanted = np.clip(weights / np.percentile(weights, 80), 0, 1) * 255
    np.testing.assert_allclose(alpha, wanted, atol=1)


def test_snapshots_are_the_images_after_those_steps(toy):
    result = run(toy, "conv:1", steps=8, snapshots=[3, 8])
    assert sorted(result.snapshots) == [3, 8]
    np.testing.assert_array_equal(result.snapshots[3], run(toy, "conv:1", steps=3).images)
    np.testing.assert_array_equal(result.snapshots[8], result.images)
    assert sorted(run(toy, "conv:1", steps=8, snapshots=4).snapshots) == [2, 4, 6, 8]


@pytest.mark.thorough
def test_starts_from_an_image_or_from_params(toy):
    image = np.random.default_rng(1).uniform(0.1, 0.9, (*TOY_SIZE, 3)).astype(np.float32)
    still = run(toy, "conv:1", steps=1, init=image, optimizer="sgd(0.0)")
    np.testing.assert_allclose(still.images[0], image, atol=1e-5)
    same = run(toy, "conv:1", steps=1, init=still.params, optimizer="sgd(0.0)")
    np.testing.assert_array_equal(same.images, still.images)
    both = run(toy, "conv:1", steps=1, init=np.stack([image, image]), optimizer="sgd(0.0)")
    assert len(both) == 2


def test_plateau_stops_at_the_same_step_every_time(toy):
    options = {"steps": 500, "patience": 10, "optimizer": "sgd(1e-9)"}
    a = run(toy, "conv:1", **options)
    assert a.stopped == ("plateau",)
    assert 10 <= len(a.scores) < 500
    b = run(toy, "conv:1", **options, snapshots=[2])
    assert len(b.scores) == len(a.scores)
    np.testing.assert_array_equal(b.images, a.images)


@pytest.mark.thorough
def test_any_optax_transformation_and_each_image_its_own_state(toy):
    # A clip by the global norm would mix the images if they shared a state.
    optimizer = optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(1.0))
    one = run(toy, "conv:1", optimizer=optimizer)
    two = run(toy, "1e6*conv:1 + conv:2", seed=[0, 1], optimizer=optimizer)
    text = run(toy, "conv:1", optimizer="chain(clip_by_global_norm(0.01), sgd(1.0))")
    np.testing.assert_allclose(one.images, text.images, atol=1e-6)
    assert len(two) == 2
    assert last_run(one.manifest)["optimizer"] is None


@pytest.mark.thorough
def test_diversity_makes_images_differ(toy):
    plain = run(toy, "conv:1", batch=3, steps=30)
    diverse = run(toy, "conv:1 + 20*diversity('conv')", batch=3, steps=30)

    def likeness(result):
        acts = toy(jnp.asarray(result.images))
        return -float(fv.Diversity("conv")(acts, result.images).mean())

    assert likeness(diverse) < likeness(plain)


# ---- dead units, failures, interrupts ------------------------------------------------------


@pytest.mark.thorough
def test_a_dead_unit_is_brought_to_life_by_redirected_gradients(toy, monkeypatch):
    # The prior has a gradient from the first step on: it must not hide that the unit has none.
    options = {"steps": 60, "optimizer": "adam(0.3)"}
    result = run(toy, "dead:1 - 0.01*tv", fv.Pixels(TOY_SIZE), **options)
    assert result.clean_scores[0] > 0.1
    assert len(result.scores) == 60
    monkeypatch.setattr("featvis.synthesis.run.REDIRECTED_STEPS", 0)
    with pytest.warns(fv.SilenceWarning, match=r"a rectifier \(relu\) is closed"):
        result = run(toy, "dead:1 - 0.01*tv", fv.Pixels(TOY_SIZE), **options)
    assert result.clean_scores[0] < 0


class Breaks(fv.Objective):
    """NaN once the image is bright."""

    def __call__(self, acts, image):
        room = 0.53 - image.mean((1, 2, 3))
        return -jnp.sqrt(room)


@pytest.mark.thorough
def test_a_nan_stops_with_its_step_and_term_and_the_picture_before_it(toy):
    objective = fv.Channel("conv", 1) + 3.0 * Breaks()
    with pytest.raises(fv.NonFiniteError, match=r"step \d+.*Breaks") as caught:
        run(toy, objective, fv.Pixels(TOY_SIZE), steps=50)
    result = caught.value.result
    assert np.all(np.isfinite(result.images))
    assert 0 < len(result.scores) < 50
    assert f"step {len(result.scores)} of image 0" in str(caught.value)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "parameterization",
    [
        *(kind(TOY_SIZE) for kind in (fv.Pixels, fv.BoundedPixels, fv.Fourier, fv.Pyramid)),
        fv.CPPN(TOY_SIZE, hidden=4, layers=2),
        fv.MaCo(TOY_SIZE),
    ],
    ids=lambda parameterization: type(parameterization).__name__,
)
def test_every_parameterization_starts_from_its_params(toy, parameterization):
    # Plain descent has no state: one step from the parameters after two is the third.
    options = {"parameterization": parameterization, "optimizer": "sgd(1.0)"}
    two, three = (run(toy, "conv:1", **options, steps=steps, seed=1) for steps in (2, 3))
    found = run(toy, "conv:1", **options, steps=1, init=two.params)
    np.testing.assert_allclose(found.images, three.images, atol=1e-6)
    assert np.abs(found.images - run(toy, "conv:1", **options, steps=1).images).max() > 1e-3


def test_a_diverging_optimizer_is_named(toy):
    with pytest.raises(fv.NonFiniteError, match="the optimizer's update"):
        run(toy, "conv:1", optimizer="chain(sgd(1e30), scale(1e30))", steps=5)


@pytest.fixture
def ctrl_c():
    """Presses Ctrl-C as soon as the loop has taken it over: before that it would end the tests."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    over = threading.Event()

    def press():
        while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            if over.wait(0.01):
                return
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    yield
    over.set()
    thread.join()
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_returns_what_there_is(toy, monkeypatch, ctrl_c):
    monkeypatch.setattr("featvis.synthesis.run._CHUNK_SECONDS", 0.02)
    # As many steps as there can be: the loop is still on its way when the key is pressed.
    result = run(toy, "conv:1", transform="affine", steps=10**6)
    assert result.stopped == ("interrupt",)
    assert len(result.scores) == last_run(result.manifest)["steps"] > 0
    again = run(toy, "conv:1", transform="affine", steps=min(len(result.scores), 20_000))
    if len(result.scores) <= 20_000:
        np.testing.assert_array_equal(again.images, result.images)


def test_runs_in_a_thread(toy):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(toy, "conv:1")))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0].images, run(toy, "conv:1").images)


# ---- bad input -----------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_plateau_or_nan_of_one_image_leaves_the_others_alone(toy):
    # Image 0 meets a NaN; image 1 goes on as it does alone.
    objective = fv.Channel("conv", [1, 2]) + Breaks().on([0])
    alone = run(toy, "conv:2", fv.Pixels(TOY_SIZE), steps=50, seed=0)
    with pytest.raises(fv.NonFiniteError, match=r"of image 0: the term .*Breaks") as caught:
        run(toy, objective, fv.Pixels(TOY_SIZE), steps=50, seed=[0, 0])
    result = caught.value.result
    assert result.stopped == ("non-finite", "steps")
    assert result.steps[0] < result.steps[1] == 50
    assert np.all(np.isnan(result.scores[result.steps[0] :, 0]))
    np.testing.assert_allclose(result.images[1], alone.images[0], atol=1e-4)

    options = {"steps": 300, "patience": 5, "optimizer": "sgd(30.0)"}
    pair = run(toy, "conv:[1, 2]", seed=[0, 0], **options)
    for i, unit in enumerate(("conv:1", "conv:2")):
        single = run(toy, unit, **options)
        assert abs(int(pair.steps[i]) - int(single.steps[0])) <= 1
        np.testing.assert_allclose(pair.images[i], single.images[0], atol=0.02)


@pytest.mark.thorough
def test_a_dead_neighbour_does_not_redirect_a_living_image(toy):
    objective = fv.Neuron("dead", [1, 1]) + np.array([0.0, 1.0]) * fv.Channel("conv", 2)
    assert np.all(np.isfinite(run(toy, objective, seed=[0, 0]).images))
    living = run(toy, "conv:[1, 2]", seed=[0, 0])
    alone = run(toy, "conv:2", seed=0)
    np.testing.assert_allclose(living.images[1], alone.images[0], atol=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    ["polyak_sgd()", optax.contrib.reduce_on_plateau(patience=2)],
    ids=["polyak_sgd", "reduce_on_plateau"],
)
def test_optimizers_that_need_the_value_get_it(toy, optimizer):
    assert np.all(np.isfinite(run(toy, "conv:1", optimizer=optimizer).images))


def test_a_bool_leaf_stays_a_bool(toy):
    class Masked(fv.Objective):
        mask: object = fv.leaf(ndim=1)

        def __call__(self, acts, image):
            return jnp.where(~self.mask, acts["conv"].mean((1, 2)), 0.0).sum(-1)

    objective = Masked(np.array([True, False, True, False, True, False]))
    result = run(toy, objective)
    wanted = objective(toy(jnp.asarray(result.images)), result.images)
    np.testing.assert_allclose(result.clean_scores, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1; got 0"),
        ({"steps": -5}, "at least 1; got -5"),
        ({"steps": 2.5}, "got 2.5"),
        ({"seed": -1}, "seed must be an integer from 0 to"),
        ({"seed": 2**32}, "seed must be"),
        ({"parameterization": 3}, "parameterization must be one"),
        ({"optimizer": "lbfgs()"}, "cannot take a step"),
        ({"optimizer": "adam('x')"}, "cannot take a step|adam"),
        ({"seed": []}, "seed must be"),
        ({"batch": 0}, "batch must be"),
        ({"patience": 0}, "patience must be"),
        ({"draws": 0}, "draws must be an integer of at least 1; got 0"),
        ({"draws": 2.0}, "draws must be an integer of at least 1; got 2.0"),
        ({"snapshots": [9]}, "steps from 1 to 8; got 9"),
        ({"snapshots": 99}, "snapshots must be 0 to 8"),
        ({"optimizer": "adm(0.1)"}, "nearest: adam"),
        ({"optimizer": "adam"}, "needs its arguments"),
        ({"optimizer": 3}, "optimizer must be an optax transformation"),
        ({"optimizer": "cosine_decay_schedule(0.1, 5)"}, "is not an optax transformation"),
        ({"transform": "standrd"}, "nearest: standard"),
        ({"transform": [1]}, "Compose"),
        ({"init": np.zeros((3, 3, 3), np.float32)}, "init has shape"),
        ({"init": np.full((*TOY_SIZE, 3), 2.0, np.float32)}, r"init must be in \[0, 1\]"),
        ({"init": {"wrong": np.zeros(3)}}, "init does not hold parameters"),
        ({"batch": 2, "seed": [1, 2, 3]}, "different numbers of images: batch 2, seed 3"),
    ],
)
def test_bad_arguments_are_input_errors(toy, options, message):
    with pytest.raises(fv.InputError, match=message):
        run(toy, "conv:1", **options)


def test_objectives_are_checked_before_anything_runs(toy):
    started = time.perf_counter()
    with pytest.raises(fv.UnknownLayer, match="nearest: conv"):
        run(toy, "cnv:1")
    with pytest.raises(fv.ObjectiveError, match="units 0 to 5"):
        run(toy, "conv:6")
    with pytest.raises(fv.ObjectiveError, match="12 high and 16 wide"):
        run(toy, "conv:1@12,0")
    with pytest.raises(fv.InputError, match="at least 8x8"):
        run(toy, "conv:1", fv.Fourier((4, 4)))
    with pytest.raises(fv.InputError, match="3 channels"):
        run(toy, "conv:1", fv.Fourier(TOY_SIZE, channels=1))
    with pytest.raises(fv.UnknownModel, match="efficientnet_lite0"):
        run("efficientnet_lite", "conv:1")
    with pytest.raises(fv.InputError, match="must be an Objective"):
        run(toy, 3)
    assert time.perf_counter() - started < 10


# ---- whoever watches -----------------------------------------------------------------------


def test_who_watches_changes_nothing_and_sees_the_steps(toy):
    seen = []
    watched = run(toy, "conv:[1, 3]", steps=100, progress=seen.append)
    plain = run(toy, "conv:[1, 3]", steps=100)
    np.testing.assert_array_equal(watched.images, plain.images)
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert (steps[-1], seen[-1].steps) == (100, 100)
    for progress in seen:
        np.testing.assert_array_equal(progress.scores, plain.scores[progress.step - 1])
    np.testing.assert_array_equal(seen[-1].images(), plain.images)


@pytest.mark.thorough
def test_a_loop_that_is_left_has_what_a_shorter_run_gives(toy):
    options = {"transform": "affine", "seed": 3}
    loop = synthesis_run.Loop(fv.Run(toy, "conv:1", fv.Pixels(TOY_SIZE), steps=500, **options))
    reached = next(iter(loop))
    left = loop.result(interrupted=True)
    assert left.stopped == ("interrupt",)
    shorter = run(toy, "conv:1", fv.Pixels(TOY_SIZE), steps=reached.step, **options)
    np.testing.assert_array_equal(left.images, shorter.images)
    np.testing.assert_array_equal(left.scores, shorter.scores)


@pytest.mark.thorough
def test_many_are_watched_in_their_own_steps(toy):
    seen = []
    texts = ["conv:1", "logits:0", "conv:2"]
    found = fv.synthesize_many(
        toy, texts, fv.Pixels(TOY_SIZE), steps=5, batch_limit=1, progress=seen.append
    )
    assert len(list(found)) == 3
    assert [progress.step for progress in seen if progress.step == 5] == [5, 5, 5]


def test_an_option_that_there_is_not_is_refused_with_the_nearest(toy):
    image = np.full((*TOY_SIZE, 3), 0.5, np.float32)
    calls = {
        "synthesize": lambda **o: fv.synthesize(toy, "conv:1", **o),
        "synthesize_many": lambda **o: fv.synthesize_many(toy, ["conv:1"], **o),
        "invert": lambda **o: fv.invert(toy, "conv", image, **o),
        "caricature": lambda **o: fv.caricature(toy, "conv", image, **o),
        "class_model": lambda **o: fv.class_model(toy, 1, **o),
        "accentuate": lambda **o: fv.accentuate(toy, "conv:1", image, layer="conv", **o),
    }
    for name, call in calls.items():
        with pytest.raises(fv.InputError, match=rf"{name} .*no option 'stpes'; nearest: steps;"):
            call(stpes=3)


@pytest.mark.thorough
def test_a_member_of_a_batch_is_called_by_its_own_unit(toy, tmp_path):
    batch = run(toy, "conv:[1, 3]", steps=2)
    assert [str(one.objective) for one in batch] == ["conv:1", "conv:3"]
    assert "conv:3" in repr(batch[1])
    assert str(batch.objective) == "conv:[1, 3]"
    again = fv.replay(batch[1].save(tmp_path / "one"), model=toy, progress=False)
    assert str(again.objective) == "conv:3"
    np.testing.assert_array_equal(again.images, batch[1].images)
