"""The recipes against their papers: in the papers' units, levels of 0 to 255 about a mean."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from scipy import optimize, stats
from skimage.data import astronaut

import featvis as fv
from featvis import methods, text
from featvis.evidence import metrics
from featvis.methods import Setting
from featvis.methods import recipe as recipes
from featvis.results.format import last_run
from featvis.transforms import ColorShift, Compose, Roll
from featvis.zoo.networks.vit import VisionTransformer

pytestmark = pytest.mark.usefixtures("quick_to_compile")

#: Mahendran & Vedaldi, CVPR 2015: σ, one for every size, and λ_α.
SIGMA, LAMBDA_ALPHA = 27098.1, 8e-10
#: IJCV 2016: B and C.
B, C = 80, 100


class _Linear:
    """Ten layers of linear features each, as CaffeNet has twenty."""

    def __call__(self, params, image):
        flat = (image - 0.5).reshape(len(image), -1)
        return {f"layer{i + 1}": flat @ params["w"][i] for i in range(10)}


def linear(size, channels, learned=True):
    """The network and its weights (10, numbers, 6), for images in [0, 1] about mid-grey."""
    w = np.random.default_rng(3).normal(size=(10, math.prod(size) * channels, 6))
    w = w.astype(np.float32) / math.sqrt(w.shape[1])
    if learned:
        model = fv.from_function(_Linear(), {"w": w}, input=fv.Input(size, channels))
    else:
        model = fv.from_function(lambda _, x: _Linear()({"w": w}, x), {}, input=fv.Input(size, 1))
    return model, w.astype(np.float64)


def levels(image):
    """An image in the papers' units."""
    return 255 * np.asarray(image, np.float64) - 127.5


def differences(x):
    """dx and dy, 0 out of the image."""
    dx, dy = np.zeros_like(x), np.zeros_like(x)
    dx[:, :-1] = x[:, 1:] - x[:, :-1]
    dy[:-1] = x[1:] - x[:-1]
    return dx, dy


def ijcv_energy(x, w, target):
    dx, dy = differences(x)
    pixels = x.shape[0] * x.shape[1]
    error = (x.ravel() / 255) @ w - target
    loss = C * (error @ error) / (target @ target)
    alpha = (1 / B) ** 6 * np.sum(np.sum(x**2, -1) ** 3) / pixels
    return loss + alpha + (6.5 / B) ** 2 * np.sum(dx**2 + dy**2) / pixels


def cvpr_energy(x, w, target, variation):
    dx, dy = differences(x)
    error = (x.ravel() / 255) @ w - target
    loss = (error @ error) / (target @ target)
    prior = variation / 2 * np.sum(dx**2 + dy**2) + LAMBDA_ALPHA / 2 * np.sum(x**6)
    return loss + prior / SIGMA**2


def adjoint(dx, dy):
    """Gradient of Σ(dx² + dy²)/2 by the image."""
    found = np.zeros_like(dx)
    found[:, :-1] -= dx[:, :-1]
    found[:, 1:] += dx[:, :-1]
    found[:-1] -= dy[:-1]
    found[1:] += dy[:-1]
    return found


def ijcv_gradient(x, w, target):
    pixels = x.shape[0] * x.shape[1]
    error = (x.ravel() / 255) @ w - target
    loss = 2 * C / (target @ target) / 255 * (w @ error).reshape(x.shape)
    alpha = 6 * (1 / B) ** 6 / pixels * np.sum(x**2, -1, keepdims=True) ** 2 * x
    return loss + alpha + 2 * (6.5 / B) ** 2 / pixels * adjoint(*differences(x))


def cvpr_gradient(x, w, target, variation):
    error = (x.ravel() / 255) @ w - target
    loss = 2 / (target @ target) / 255 * (w @ error).reshape(x.shape)
    prior = variation * adjoint(*differences(x)) + 3 * LAMBDA_ALPHA * x**5
    return loss + prior / SIGMA**2


def images(size, channels, spread=0.15):
    """Two images about mid-grey, (2, h, w, c)."""
    rng = np.random.default_rng(5)
    offsets = rng.uniform(-spread, spread, (2, *size, channels))
    return (0.5 + offsets).astype(np.float32)


def recipe_of(name, model, layer="layer10", steps=None, kind="inversion"):
    at = methods.setting_of(model, layer, model.input.size, steps)
    return methods.chosen("a test", kind, name, {})(at)


def energy(recipe, model, layer, start, aim):
    """What is minimised, as the drivers put it together."""
    target = np.asarray(model(aim[None])[layer])
    objective = recipe.weight * fv.FeatureMatch(layer, target, None, recipe.metric)
    objective = objective - recipe.prior
    return -float(objective(model(start[None]), jnp.asarray(start[None]))[0])


# ---- Mahendran & Vedaldi -------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("size", "channels"), [((12, 16), 1), ((12, 16), 3), ((7, 5), 3), ((227, 227), 3)]
)
def test_energies_are_the_papers(size, channels):
    model, w = linear(size, channels)
    start, aim = images(size, channels, 0.45)
    x = levels(start)
    target = (levels(aim).ravel() / 255) @ w[9]
    # A sum of 10^5 numbers of float32 is a little worse.
    near = {"rtol": 1e-5 if x.size < 1000 else 3e-5}
    found = energy(recipe_of("ijcv2016", model), model, "layer10", start, aim)
    np.testing.assert_allclose(found, ijcv_energy(x, w[9], target), **near)
    # 1, 10 and 100 in the first 30 %, 60 % and the rest of CaffeNet's layers.
    layers = [(10, 100)] if x.size > 1000 else [(3, 1), (4, 10), (6, 10), (7, 100), (10, 100)]
    for layer, variation in layers:
        name, weights = f"layer{layer}", w[layer - 1]
        found = energy(recipe_of("cvpr2015", model, name), model, name, start, aim)
        wanted = cvpr_energy(x, weights, (levels(aim).ravel() / 255) @ weights, variation)
        np.testing.assert_allclose(found, wanted, **near)


def test_a_network_without_weights_has_the_variation_and_the_rates_of_hog():
    model, w = linear((12, 16), 1, learned=False)
    start, aim = images((12, 16), 1)
    target = (levels(aim).ravel() / 255) @ w[9]
    found = energy(recipe_of("cvpr2015", model), model, "layer10", start, aim)
    np.testing.assert_allclose(found, cvpr_energy(levels(start), w[9], target, 1), rtol=1e-5)
    assert recipe_of("cvpr2015", model).stages[0].steps == 800


def test_the_gradients_of_the_transcriptions_are_theirs():
    # By differences: the steps below are no better than these.
    _, w = linear((4, 5), 3)
    x, aim = levels(images((4, 5), 3))
    target = (aim.ravel() / 255) @ w[9]
    direction = np.random.default_rng(1).normal(size=x.shape)
    for value, gradient in [
        (lambda x: ijcv_energy(x, w[9], target), ijcv_gradient(x, w[9], target)),
        (lambda x: cvpr_energy(x, w[9], target, 10), cvpr_gradient(x, w[9], target, 10)),
    ]:
        rise = (value(x + 1e-4 * direction) - value(x - 1e-4 * direction)) / 2e-4
        np.testing.assert_allclose(rise, np.sum(gradient * direction), rtol=1e-6)


def follow_paper(start, gradient, rates, rule):
    """Images after each step in the paper's units; what a rule keeps begins anew with a rate."""
    x, path = levels(start), []
    momentum, squares, before = 0.0, 0.0, None
    for rate in rates:
        if rate != before:
            momentum, squares, before = 0.0, 0.0, rate
        g = gradient(x)
        squares = 0.9 * squares + g**2
        momentum = 0.9 * momentum - rule(g, rate, squares)
        x = x + momentum
        path.append(x)
    # Where something is clipped, ours goes another way.
    assert np.abs(path).max() < 127.5
    return np.array(path)


@pytest.mark.thorough
def test_steps_of_ijcv2016_are_the_papers():
    size, channels = (12, 16), 3
    model, w = linear(size, channels)
    start, aim = images(size, channels)
    target = (levels(aim).ravel() / 255) @ w[9]
    rate = math.prod(size) * 0.05 * B**2 / 6
    # 20 steps in proportion to 300 and 50; a layer without positions has no jitter.
    rates = [rate] * 17 + [0.1 * rate] * 3
    path = follow_paper(
        start,
        lambda x: ijcv_gradient(x, w[9], target),
        rates,
        lambda g, rate, squares: g / (1 / rate + np.sqrt(squares)),
    )
    result = fv.invert(
        model, "layer10", aim, preset="ijcv2016", steps=20, init=start, snapshots=20,
        progress=False,
    )  # fmt: skip
    for step, image in result.snapshots.items():
        np.testing.assert_allclose(levels(image[0]), path[step - 1], atol=0.02)
    assert np.abs(path[-1] - levels(start)).max() > 20


@pytest.mark.thorough
def test_ijcv2016_ends_near_the_minimum_of_the_papers_energy():
    # An orthogonal mixture, which an image is known from, up to the prior.
    size = (6, 7)
    w = np.linalg.qr(np.random.default_rng(0).normal(size=(126, 126)))[0]

    def apply(params, image):
        return {"mixed": (image - 0.5).reshape(len(image), -1) @ params["w"]}

    model = fv.from_function(apply, {"w": w.astype(np.float32)}, input=fv.Input(size))
    y, x = np.mgrid[0:6, 0:7]
    aim = 0.5 + 0.3 * np.sin(y[..., None] / 3 + x[..., None] / 4 + np.arange(3))
    target = (levels(aim).ravel() / 255) @ w
    best = optimize.minimize(
        lambda x: ijcv_energy(x.reshape(aim.shape), w, target),
        levels(aim).ravel(),
        jac=lambda x: ijcv_gradient(x.reshape(aim.shape), w, target).ravel(),
    )
    assert np.abs(best.x).max() < 127
    result = fv.invert(model, "mixed", aim, preset="ijcv2016", progress=False)
    np.testing.assert_allclose(-result.clean_scores[0], best.fun, rtol=0.01)
    np.testing.assert_allclose(levels(result.images[0]).ravel(), best.x, atol=3)
    # Its noise is far from there, and the prior pulls it a little from the image.
    assert 0.05 < result.evidence["relative_error"][0] < 0.2


@pytest.mark.thorough
@pytest.mark.parametrize(("channels", "learned"), [(3, True), (1, False)])
def test_steps_of_cvpr2015_are_the_papers(channels, learned):
    size = (12, 16)
    model, w = linear(size, channels, learned)
    # So weak that images far smaller than the rates are made for stay in their bounds.
    start, aim = images(size, channels)[0], images(size, channels, 0.45)[1]
    target = (levels(aim).ravel() / 255) @ w[4]
    # 20 steps in proportion to 100, 200, 100 and to four times 200.
    rates = np.repeat([0.004, 0.0004, 0.00004], [5, 10, 5])
    if not learned:
        rates = np.repeat([0.004, 0.0004, 0.00004, 0.000004], 5)
    weak = 1e-3
    path = follow_paper(
        start,
        lambda x: cvpr_gradient(x, w[4], target, 10 if learned else 1),
        weak * rates,
        lambda g, rate, squares: rate * SIGMA**2 * g,
    )
    own = recipe_of("cvpr2015", model, "layer5", 20).stages[0].options["optimizer"]
    falling = tuple(0.004 / 10**fall for fall in range(3 if learned else 4))
    assert str(falling) in own
    result = fv.invert(
        model, "layer5", aim, preset="cvpr2015", steps=20, init=start, snapshots=20,
        optimizer=own.replace(str(falling), str(tuple(weak * one for one in falling))),
        progress=False,
    )  # fmt: skip
    assert len(result.snapshots) == 20
    for step, image in result.snapshots.items():
        np.testing.assert_allclose(levels(image[0]), path[step - 1], atol=2e-3)
    assert np.abs(path[-1] - levels(start)).max() > 2


def first_images(recipe, model, count=4):
    image = recipe.stages[0].parameterization
    keys = jax.random.split(jax.random.key(0), count)
    return image, levels(jax.vmap(lambda key: image.decode(image.init(key)))(keys))


@pytest.mark.thorough
@pytest.mark.parametrize("channels", [1, 3])
def test_first_images_have_the_papers_spread(channels):
    model, _ = linear((60, 70), channels)
    # IJCV 2016: uniform, and the 95th percentile is B/√3.
    _, x = first_images(recipe_of("ijcv2016", model), model)
    np.testing.assert_allclose(np.quantile(x, [0.5, 0.95]), [0, B / math.sqrt(3)], atol=1)
    np.testing.assert_allclose(
        np.quantile(x, [0.25, 0.75]), np.array([-0.5, 0.5]) * x.max(), atol=1
    )
    # CVPR 2015: normal of the norm σ at any size, as far as [0, 1] goes.
    _, x = first_images(recipe_of("cvpr2015", model), model)
    deviation = SIGMA / math.sqrt(60 * 70 * channels)
    inside = stats.norm.cdf([-0.25, 0, 0.25])
    np.testing.assert_allclose(
        np.quantile(x, inside), [-deviation / 4, 0, deviation / 4], rtol=0.05, atol=6
    )
    assert np.mean(np.abs(x) > 127.49) == pytest.approx(
        math.erfc(127.5 / deviation / math.sqrt(2)), abs=0.01
    )
    # Feather et al. 2023: normal of 1/20.
    _, x = first_images(recipe_of("metamer", model), model)
    assert np.std(x) == pytest.approx(255 / 20, rel=0.02)


@pytest.mark.thorough
def test_ijcv2016_keeps_the_norm_of_a_pixels_colours():
    model, _ = linear((6, 7), 3)
    image, _ = first_images(recipe_of("ijcv2016", model), model)
    drawn = 2.0 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    x = levels(image.decode(image.project({"pixels": drawn})))
    norms = np.linalg.norm(x, axis=-1)
    np.testing.assert_allclose(norms.max(), 2 * B, rtol=1e-5)
    assert np.mean(norms > 2 * B - 0.01) > 0.5
    small = image.decode(image.project({"pixels": 0.1 * drawn / np.abs(drawn).max()}))
    np.testing.assert_allclose(small, 0.5 + 0.1 * drawn / np.abs(drawn).max(), atol=1e-6)


@pytest.mark.parametrize("stride", [1.0, 2.0, 4.0, 8.0, 15.5, 16.0, 24.0, 32.0])
def test_jitter_has_a_quarter_of_the_strides_places(stride):
    size = (45, 61)
    stage, still = methods.ijcv2016(Setting(size, 1, stride, 0.5, True, None)).stages
    transform = stage.options["transform"]
    # A picture of its own places.
    places = jnp.stack(jnp.meshgrid(jnp.arange(45.0), jnp.arange(61.0), indexing="ij"), -1)
    keys = jax.random.split(jax.random.key(1), 300)
    moved = np.asarray(jax.jit(jax.vmap(lambda key: transform(key, places)))(keys))
    assert moved.shape == (300, *places.shape)
    # Theirs cuts a window at the places 0 to T - 1, and shows the picture at (T - 1) // 2.
    count = max(round(stride / 4), 1)
    expected = set(range(-((count - 1) // 2), count - (count - 1) // 2))
    for axis in (0, 1):
        assert set(moved[:, 22, 30, axis] - [22, 30][axis]) == expected
    assert (count == 1) == (transform == Compose())
    assert still.options["transform"] == Compose()


def test_ijcv2016_on_a_network_without_weights_is_one_stage_without_jitter():
    # exp_inversion_hog.m: `learningRate = fastLR`, jitter of 1.
    model, w = linear((12, 16), 1, learned=False)
    (stage,) = methods.ijcv2016(Setting((12, 16), 1, 8.0, 1.0, False, None)).stages
    assert (stage.options["transform"], stage.steps) == (Compose(), 300)
    start, aim = images((12, 16), 1)
    target = (levels(aim).ravel() / 255) @ w[9]
    rate = 12 * 16 * 0.05 * B**2 / 6
    path = follow_paper(
        start,
        lambda x: ijcv_gradient(x, w[9], target),
        [rate] * 12,
        lambda g, rate, squares: g / (1 / rate + np.sqrt(squares)),
    )
    result = fv.invert(
        model, "layer10", aim, preset="ijcv2016", steps=12, init=start, snapshots=12,
        progress=False,
    )  # fmt: skip
    for step, image in result.snapshots.items():
        np.testing.assert_allclose(levels(image[0]), path[step - 1], atol=0.02)


# ---- other recipes -------------------------------------------------------------------------


def test_metamer_steps_have_a_length_that_halves_seven_times():
    size = (12, 16)
    model, w = linear(size, 3)
    start, aim = images(size, 3, 0.02)
    result = fv.invert(
        model, "layer10", aim, preset="metamer", steps=20, init=start, snapshots=20,
        progress=False,
    )  # fmt: skip
    path = np.stack([start, *(result.snapshots[step][0] for step in range(1, 21))])
    steps = np.diff(path.astype(np.float64), axis=0)
    # Of the length 1 at any size, and 20 steps in eight parts: three each at most.
    wanted = 1 / 2.0 ** (np.arange(20) // 3)
    np.testing.assert_allclose(np.linalg.norm(steps.reshape(20, -1), axis=1), wanted, rtol=1e-3)
    error = (start - 0.5).ravel() @ w[9] - (aim - 0.5).ravel() @ w[9]
    descent = -(w[9] @ error).reshape(start.shape)
    cosine = np.sum(steps[0] * descent) / np.linalg.norm(steps[0]) / np.linalg.norm(descent)
    assert cosine > 0.99999
    lengths = recipe_of("metamer", model).stages[0].options["optimizer"]
    assert "exponential_decay(1.0, 3000, 0.5" in lengths


@pytest.mark.thorough
def test_metamer_passes_the_gradient_whole_at_the_layers_own_rectifier():
    # Off at the start, and on in the target: the true gradient is 0.
    def apply(_, image):
        return {"on": jax.nn.relu(image.mean((1, 2)) - 0.6), "mean": image.mean((1, 2))}

    model = fv.from_function(apply, {}, input=fv.Input((4, 5), 1))
    start, aim = np.full((4, 5, 1), 0.4, np.float32), np.full((4, 5, 1), 0.9, np.float32)
    options = {"preset": "metamer", "init": start, "steps": 8, "progress": False}
    result = fv.invert(model, "on", aim, **options)
    assert last_run(result.manifest)["model"]["leak"] == [1.0, "on"]
    moved = start + sum(1 / 2**step for step in range(8)) / math.sqrt(20)
    np.testing.assert_allclose(result.images[0], moved, rtol=1e-4)
    other = fv.invert(model, "mean", aim, **options)
    assert last_run(other.manifest)["model"]["leak"] is None
    again = fv.replay(result.manifest, model=model, progress=False)
    np.testing.assert_array_equal(again.images, result.images)


@pytest.mark.usefixtures("usual_promotions")
@pytest.mark.parametrize("small", [False, True], ids=["magnified", "small"])
def test_plug_in_has_the_papers_stages(small):
    at = Setting((224, 160), 3, 1.0, 1.0, True, None, lambda size: small)
    stages = methods.plug_in(at).stages
    parts = [stage.parameterization for stage in stages]
    sizes = [(28 * k, 20 * k) for k in range(2, 9)]
    assert [p.size for p in parts] == (sizes if small else [(224, 160)] * 7)
    written = parts if small else [*(p.of for p in parts[:-1]), parts[-1]]
    assert [p.size for p in written] == sizes
    # step // 2, above and below together.
    assert [p.frame for p in written[1:]] == [(14, 10)] * 6
    # They start, and frame, with uniform noise.
    for part in written[:2]:
        noise = np.asarray(part.decode(part.init(jax.random.key(0)))).ravel()
        assert stats.kstest(noise, "uniform").statistic < 0.02
    gradients = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)

    def path(rule):
        params, state = jnp.zeros(3), rule.init(jnp.zeros(3))
        for gradient in gradients:
            updates, state = rule.update(jnp.asarray(gradient), state, params)
            params = optax.apply_updates(params, updates)
        return np.asarray(params)

    rate = optax.cosine_decay_schedule(0.01, 400)
    theirs = path(optax.adam(rate, b1=0.5, b2=0.99))
    for stage in stages:
        assert (stage.steps, stage.options["draws"]) == (400, 8)
        assert stage.options["transform"] == Compose((Roll(32), ColorShift(1.0)))
    np.testing.assert_allclose(
        path(text.optimizer(stages[0].options["optimizer"])), theirs, rtol=1e-6
    )


def test_plug_in_shows_small_images_to_a_network_that_takes_them(grey, tokens):
    def sizes(model, layer):
        stages = recipe_of("plug_in", model, layer).stages
        return [stage.parameterization.size for stage in stages]

    whole = [grey.input.size] * 7
    assert sizes(grey, "logits")[0] == (3, 4)
    # A map has its positions at the whole size, and a transformer's size is fixed.
    assert sizes(grey, "half") == whole
    assert sizes(tokens, "logits") == [(12, 12)] * 7
    # Nor does a layer of so many numbers say at another size what it says at its own.
    assert sizes(linear((12, 16), 1)[0], "layer1") == [(12, 16)] * 7


@pytest.mark.thorough
def test_a_stage_of_plug_in_pastes_the_picture_before_into_noise(grey, short_plug_in):
    result = fv.class_model(
        grey, [1, 2], preset="plug_in", steps=14, snapshots=[2, 3], optimizer="sgd(0.0)",
        progress=False,
    )  # fmt: skip
    before, after = result.snapshots[2], result.snapshots[3]
    assert before.shape == (2, 3, 4, 1)
    assert after.shape == (2, *GREY_SIZE, 1)
    inner = jax.image.resize(before, (2, GREY_SIZE[0] - 1, GREY_SIZE[1] - 1, 1), "linear")
    np.testing.assert_allclose(after[:, :-1, :-1], inner, atol=1e-6)
    frame = np.concatenate([after[:, -1].ravel(), after[:, :-1, -1].ravel()])
    assert 0.2 < frame.std() < 0.4
    assert len(np.unique(frame)) == len(frame)
    again = fv.replay(result.manifest, model=grey, progress=False)
    np.testing.assert_array_equal(again.images, result.images)
    start = np.full((*GREY_SIZE, 1), 0.25, np.float32)
    given = fv.class_model(
        grey, 1, preset="plug_in", steps=7, init=start, optimizer="sgd(0.0)", progress=False
    )
    np.testing.assert_allclose(given.images[0, 1:-2, 1:-2], 0.25, atol=1e-6)


#: Steps, stage by stage, that the papers and we have.
STEPS = {
    methods.modern: [400],
    methods.ijcv2016: [300, 50],
    methods.cvpr2015: [400],
    methods.plug_in: [400] * 7,
    methods.metamer: [24_000],
    methods.visualization: [256],
    methods.maco: [256],
    methods.exaggeration: [200],
    methods.ijcv2016_caricature: [300],
    methods.accentuation: [100],
}


@pytest.mark.parametrize("preset", STEPS, ids=lambda preset: preset.__name__)
def test_steps_are_in_proportion(preset):
    def counts(steps):
        recipe = preset(Setting((12, 16), 3, 4.0, 0.5, True, steps))
        return [stage.steps for stage in recipe.stages]

    whole = STEPS[preset]
    assert counts(None) == counts(sum(whole)) == whole
    for steps in (7, 10, 35, 100, 1001):
        found = counts(steps)
        assert sum(found) == steps
        np.testing.assert_allclose(found, np.array(whole) * steps / sum(whole), atol=1)
    # Each stage, and each rate of CVPR 2015, has a step.
    parts = {methods.cvpr2015: 3}.get(preset, len(whole))
    assert sum(counts(parts)) == parts
    if parts > 1:
        with pytest.raises(fv.InputError, match=f"{parts} stages and needs a step for each; got 1"):
            counts(1)


@pytest.mark.thorough
def test_caricature_of_ijcv2016_is_the_plain_inner_product():
    # exp_enhance.m of the authors' code: max(Φ₀, 0) / ‖max(Φ₀, 0)‖², and C = 1.
    model, w = linear((12, 16), 3)
    start, aim = images((12, 16), 3)
    recipe = recipe_of("ijcv2016", model, kind="caricature")
    result = fv.caricature(
        model, "layer10", aim, preset="ijcv2016", strength=2.0, steps=1, init=start,
        optimizer="sgd(0.0)", progress=False,
    )  # fmt: skip
    x, target = levels(start), (levels(aim).ravel() / 255) @ w[9]
    positive = np.maximum(target, 0)
    inner = (x.ravel() / 255) @ w[9] @ positive / (positive @ positive)
    # The rest of the energy, without what it says of the likeness.
    prior = ijcv_energy(x, np.zeros_like(w[9]), target) - C
    np.testing.assert_allclose(result.clean_scores[0], 2 * inner - prior, rtol=1e-4)
    assert len(recipe.stages) == 1


def test_an_unknown_preset_says_the_nearest_and_all():
    with pytest.raises(fv.InputError, match="unknown preset 'ijcv'; nearest: ijcv2016; known: mod"):
        methods.chosen("invert", "inversion", "ijcv", {})
    with pytest.raises(fv.InputError, match=r"preset 'zzz'; known: modern, ijcv2016$"):
        methods.chosen("caricature", "caricature", "zzz", {})
    with pytest.raises(fv.InputError, match="nearest: simonyan2013"):
        methods.chosen("class_model", "class model", "simonyan", {})


# ---- every recipe on every kind of network -------------------------------------------------

GREY_SIZE = (13, 18)


class _Grey:
    def __call__(self, params, image):
        out = {"map": jnp.tanh(image - 0.5) * params["gain"]}
        seen = out["map"][:, ::2, ::2]
        return {**out, "half": seen, "logits": seen.mean((1, 2)) @ params["logits"]}


@pytest.fixture(scope="module")
def grey():
    params = {"gain": np.array([1.0, -2.0], np.float32), "logits": np.eye(2, 4, dtype=np.float32)}
    return fv.from_function(_Grey(), params, input=fv.Input(GREY_SIZE, 1), labels=list("abcd"))


@pytest.fixture(scope="module")
def tokens():
    network = VisionTransformer(patch=4, width=4, depth=1, heads=1, hidden=4, grid=3, outputs=5)
    given = fv.Input(size=(12, 12), fixed_size=True)
    return fv.from_function(network, network.random_params(), input=given, name="tiny_vit")


@pytest.fixture
def short_plug_in(monkeypatch):
    """Two stages of plug_in and of octaves: each is a program of its own to compile."""

    def short(at):
        recipe = methods.plug_in(at)
        return dataclasses.replace(recipe, stages=recipe.stages[::6])

    def two(at):
        return methods.octaves(at, number=2)

    for kind in ("inversion", "class model"):
        monkeypatch.setitem(recipes._PRESETS[kind], "plug_in", short)
    monkeypatch.setitem(recipes._PRESETS["class model"], "octaves", two)


def check(result, model):
    assert result.images.shape == (1, *model.input.size, model.input.channels)
    assert np.all(np.isfinite(result.images))
    assert 0 <= result.images.min() <= result.images.max() <= 1
    assert np.ptp(result.images) > 0
    again = fv.replay(result.manifest, model=model, progress=False)
    np.testing.assert_array_equal(again.images, result.images)


#: A map of an odd size and tokens; the steps above are at a vector.
MAP, TOKENS = ("grey", "half"), ("tokens", "block0")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("preset", "network", "layer"),
    [
        *(
            (preset, *where)
            for preset in methods.presets("inversion")
            for where in (MAP, TOKENS)
            if (preset, where) != ("plug_in", MAP)
        ),
        ("modern", "grey", "logits"),
    ],
)
def test_every_inversion_works_everywhere(preset, network, layer, request, short_plug_in):
    model = request.getfixturevalue(network)
    aim = images(model.input.size, model.input.channels)[0]
    result = fv.invert(model, layer, aim, preset=preset, steps=7, progress=False)
    check(result, model)
    assert result.evidence["relative_error"].shape == (1,)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "preset", sorted(methods.presets("class model").keys() - {"maco", "exp_maximization"})
)
def test_every_class_model_works_on_a_grey_network(preset, grey, short_plug_in):
    check(fv.class_model(grey, 1, preset=preset, steps=7, progress=False), grey)


def test_maco_has_no_magnitudes_of_grey_images(grey):
    with pytest.raises(fv.InputError, match=r"MaCo\.from_images makes one"):
        fv.class_model(grey, 1, preset="maco", progress=False)


@pytest.mark.thorough
@pytest.mark.parametrize(("preset", "network", "layer"), [("ijcv2016", *MAP), ("modern", *TOKENS)])
def test_caricatures_work_on_maps_and_tokens(preset, network, layer, request):
    model = request.getfixturevalue(network)
    aim = images(model.input.size, model.input.channels)[0]
    check(fv.caricature(model, layer, aim, preset=preset, steps=2, progress=False), model)


@pytest.mark.thorough
def test_accentuation_works_on_tokens(tokens):
    aim = images(tokens.input.size, 3)[0]
    options = {"layer": "block0", "steps": 2, "transform": "none", "progress": False}
    check(fv.accentuate(tokens, "logits:1", aim, **options), tokens)


def test_scene_of_a_layer(grey, tokens):
    at = methods.setting_of(grey, "half", GREY_SIZE, 5)
    expected = Setting(GREY_SIZE, 1, 13 / 7, 2 / 3, True, 5, layer="half", digest=grey.digest)
    assert at == expected
    # A vector has the stride of the map that it is made from.
    assert methods.setting_of(grey, "logits", GREY_SIZE, None).stride == 13 / 7
    assert methods.setting_of(tokens, "block0/map", (12, 12), None).stride == 4
    assert not methods.setting_of(
        linear((4, 4), 1, learned=False)[0], "layer1", (4, 4), None
    ).learned
    for steps in (0, -3, 2.5, True):
        with pytest.raises(fv.InputError, match="steps must be an integer of at least 1"):
            methods.setting_of(grey, "half", GREY_SIZE, steps)
    with pytest.raises(fv.UnknownLayer, match="nearest: half"):
        methods.setting_of(grey, "haf", GREY_SIZE, None)


# ---- what is seen in the pictures ----------------------------------------------------------


@pytest.mark.thorough
def test_maco_keeps_the_magnitudes_of_natural_images(toy):
    result = fv.class_model(toy, [1, 3], preset="maco", steps=12, progress=False)
    run = last_run(result.manifest)
    assert "side=LinearSchedule(start=0.5, end=0.05, steps=12)" in run["transform"]
    # Crops of half the size are below what the network takes.
    assert "size=None" in run["transform"]
    height, width = result.images.shape[1:3]
    vertical, horizontal = np.fft.fftfreq(height), np.fft.fftfreq(width)[: width // 2 + 1]
    frequency = np.hypot(vertical[:, None], np.abs(horizontal)[None])
    # lucid's decorrelation of colours.
    root = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    root /= np.linalg.norm(root, axis=0).max()
    x = result.images.astype(np.float64)
    colours = (np.log(x) - np.log1p(-x)) @ np.linalg.inv(root).T
    for channel, (mean, c0, c1, c2) in enumerate(fv.MaCo(toy.input.size).template):
        found = np.abs(np.fft.rfft2(colours[..., channel]))
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.log(frequency)
            wanted = math.sqrt(height * width) * np.exp(c0 + c1 * level + c2 * level**2)
        wanted[0, 0] = abs(mean) * height * width
        np.testing.assert_allclose(found, np.stack([wanted, wanted]), rtol=2e-3, atol=2e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("layer", ["block1", "block3"])
def test_modern_inversions_leave_what_a_layer_does_not_see_smooth(lite0, layer):
    # At block1 a checkerboard of 3.4 and 4.0 levels, were all coefficients moved alike.
    picture = Image.fromarray(astronaut()[:300, 100:400]).resize((64, 64))
    original = np.asarray(picture, np.float32)[None] / 255
    twice = np.repeat(original, 2, axis=0)
    result = fv.invert(lite0, layer, twice, steps=150, seed=[0, 1], progress=False)
    assert metrics.checkerboard(result.images, twice).max() < 0.5
    # Each seed has a pre-image of its own.
    assert metrics.psnr(result.images[:1], result.images[1:])[0] < 40
