import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

import featvis as fv
from featvis import optimizers
from featvis import text as components
from featvis.optimizers import preimage_adagrad, preimage_momentum, stepwise_schedule

pytestmark = pytest.mark.usefixtures("quick_to_compile")

#: A quadratic energy ½(x − c)'A(x − c) of a flat image x in the paper's units.
_rng = np.random.default_rng(0)
_ROOT = _rng.normal(size=(12, 12))
_CURVATURE = (_ROOT @ _ROOT.T + np.eye(12)) / 12
_CENTRE = _rng.uniform(-100, 100, 12)
_START = _rng.uniform(-100, 100, 12)
_SHAPE = (2, 2, 3)


def _gradient(x):
    return _CURVATURE @ (x - _CENTRE)


def _params(x, scale):
    """One image's parameters in two leaves, so that the trees count."""
    pixels = np.reshape(x / scale, _SHAPE)
    return {"left": jnp.asarray(pixels[:, :1], jnp.float32), "right": jnp.asarray(pixels[:, 1:])}


def _pixels(params, scale):
    return scale * np.concatenate([params["left"], params["right"]], axis=1).ravel()


@jax.jit
def _energy(params, scale):
    x = scale * jnp.concatenate([params["left"], params["right"]], axis=1).ravel() - _CENTRE
    return 0.5 * x @ jnp.asarray(_CURVATURE, jnp.float32) @ x


def _run(optimizer, scale, steps):
    """The images after each step, in the paper's units, by gradients in ours."""
    params = _params(_START.astype(np.float32), scale)
    state, path = optimizer.init(params), []
    step = jax.jit(lambda params, state: optimizer.update(jax.grad(_energy)(params, scale), state))
    for _ in range(steps):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
        path.append(_pixels(params, scale))
    return np.array(path)


def _paper_adagrad(rates):
    """IJCV 2016 in its own units, in double precision."""
    x, squares, m, before, path = _START, 0.0, 0.0, None, []
    for rate in rates:
        if rate != before:
            m = 0.0
        g = _gradient(x)
        squares = 0.9 * squares + g**2
        m = 0.9 * m - g / (1 / rate + np.sqrt(squares))
        x, before = x + m, rate
        path.append(x)
    return np.array(path)


def _paper_momentum(rates, sigma):
    """CVPR 2015 in its own units, in double precision."""
    x, m, before, path = _START, 0.0, None, []
    for rate in rates:
        if rate != before:
            m = 0.0
        m = 0.9 * m - rate * sigma**2 * _gradient(x)
        x, before = x + m, rate
        path.append(x)
    return np.array(path)


@pytest.mark.parametrize("rate", [0.02, 5.0])
def test_adagrad_is_the_papers_in_the_papers_units(rate):
    path = _run(preimage_adagrad(rate), 255.0, 25)
    expected = _paper_adagrad([rate] * 25)
    assert np.abs(path - expected).max() <= 1e-5 * np.abs(expected).max()
    # Another scale is another rule: the test above can fail.
    other = _run(preimage_adagrad(rate, scale=1.0), 255.0, 25)
    assert np.abs(other - expected).max() > 1e-3 * np.abs(expected).max()


def test_adagrad_forgets_its_momentum_and_not_its_squares_where_the_rate_changes():
    schedule = stepwise_schedule((0.5, 0.05, 0.5), (10, 5, 10))
    path = _run(preimage_adagrad(schedule), 255.0, 25)
    expected = _paper_adagrad([0.5] * 10 + [0.05] * 5 + [0.5] * 10)
    assert np.abs(path - expected).max() <= 1e-5 * np.abs(expected).max()


def test_momentum_is_the_papers_in_the_papers_units():
    sigma, rates = 27098.1, [4e-12] * 10 + [4e-11] * 10 + [4e-12] * 10
    schedule = stepwise_schedule((4e-12, 4e-11, 4e-12), (10, 10, 10))
    path = _run(preimage_momentum(schedule, sigma / 255), 255.0, 30)
    expected = _paper_momentum(rates, sigma)
    assert np.abs(path - expected).max() <= 1e-5 * np.abs(expected).max()
    still = _run(optax.sgd(lambda step: schedule(step) * (sigma / 255) ** 2, 0.9), 255.0, 30)
    assert np.abs(still - expected).max() > 1e-3 * np.abs(expected).max()


def test_momentum_at_one_rate_is_that_of_sgd():
    ours, theirs = preimage_momentum(1e-6, 3.0, momentum=0.8), optax.sgd(9e-6, momentum=0.8)
    np.testing.assert_allclose(_run(ours, 255.0, 5), _run(theirs, 255.0, 5), rtol=1e-5)


def test_first_steps_in_closed_form():
    gradient = {"a": jnp.asarray([3.0, -0.5, 0.0])}
    zeros = {"a": jnp.zeros(3)}
    rule = preimage_adagrad(2.0, scale=1.0)
    updates, state = rule.update(gradient, rule.init(zeros))
    # -g / (1/2 + |g|): bounded by 1, and 0 where there is no gradient.
    np.testing.assert_allclose(updates["a"], [-3 / 3.5, 0.5, 0], rtol=1e-6)
    second, _ = rule.update(zeros, state)
    np.testing.assert_allclose(second["a"], 0.9 * updates["a"], rtol=1e-6)
    rule = preimage_momentum(0.5, sigma=4.0)
    updates, _ = rule.update(gradient, rule.init(zeros))
    np.testing.assert_allclose(updates["a"], [-24.0, 4.0, 0], rtol=1e-6)


def test_a_rate_that_changes_at_every_step_has_no_momentum():
    schedule = optax.linear_schedule(1e-4, 1e-5, 20)
    path = _run(preimage_momentum(schedule, 10.0), 255.0, 20)
    plain = _run(optax.sgd(lambda step: 100 * schedule(step)), 255.0, 20)
    np.testing.assert_allclose(path, plain, rtol=1e-5)


def test_both_rules_reach_the_minimum_of_a_quadratic():
    top = np.linalg.eigvalsh(_CURVATURE)[-1]
    path = _run(preimage_momentum(1 / top / 255**2, 1.0), 255.0, 400)
    np.testing.assert_allclose(path[-1], _CENTRE, atol=0.05)
    # √G follows |g|, and 1/rate takes over from it near the minimum.
    path = _run(preimage_adagrad(0.3 / top), 255.0, 400)
    np.testing.assert_allclose(path[-1], _CENTRE, atol=0.05)


@pytest.mark.parametrize(
    "rule",
    [
        preimage_adagrad(stepwise_schedule((0.5, 0.05), (2, 2))),
        preimage_momentum(stepwise_schedule((1e-6, 1e-7), (2, 2)), 10.0),
    ],
    ids=["adagrad", "momentum"],
)
def test_images_under_vmap_are_as_alone(rule):
    gradients = jnp.asarray(_rng.normal(size=(4, 3, 5)), jnp.float32)

    def alone(gradients):
        state, path = rule.init({"a": gradients[0]}), []
        for gradient in gradients:
            updates, state = rule.update({"a": gradient}, state)
            path.append(updates["a"])
        return jnp.stack(path)

    together = jax.jit(jax.vmap(alone, 1))(gradients)
    for i in range(3):
        np.testing.assert_allclose(together[i], alone(gradients[:, i]), rtol=5e-6)


def test_the_schedule_holds_each_rate_for_its_steps_and_the_last_for_ever():
    schedule = stepwise_schedule((0.4, 0.04, 0.004), (1, 3, 2))
    rates = [float(schedule(step)) for step in range(9)]
    np.testing.assert_allclose(rates, [0.4] + [0.04] * 3 + [0.004] * 5)
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(jnp.arange(9)), rates)
    assert float(stepwise_schedule([0.5], [3])(7)) == 0.5
    assert float(stepwise_schedule((0.5, 0.1), (10**12, 1))(2**31 - 2)) == 0.5


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("preimage_adagrad(0.5)", preimage_adagrad(0.5)),
        ("preimage_adagrad(0.5, scale=2 * 255.0)", preimage_adagrad(0.5, scale=510.0)),
        (
            "preimage_adagrad(stepwise_schedule((0.5, 0.05), (3, 50)))",
            preimage_adagrad(stepwise_schedule((0.5, 0.05), (3, 50))),
        ),
        ("preimage_momentum(1e-8, 27098.1 / 255)", preimage_momentum(1e-8, 27098.1 / 255)),
        (
            "chain(clip(1.0), adam(stepwise_schedule([0.1, 0.01], [3, 5])))",
            optax.chain(optax.clip(1.0), optax.adam(stepwise_schedule((0.1, 0.01), (3, 5)))),
        ),
    ],
)
@pytest.mark.usefixtures("usual_promotions")
def test_text_is_the_rule(text, rule):
    assert components.optimizer(text) is components.optimizer(text)
    np.testing.assert_array_equal(_run(components.optimizer(text), 255.0, 6), _run(rule, 255.0, 6))


def test_metamer_steps_have_a_length_that_halves():
    text = "chain(normalize_by_update_norm(), sgd(exponential_decay(1.0, 3, 0.5, staircase=True)))"
    path = _run(components.optimizer(text), 255.0, 9)
    steps = np.diff(np.concatenate([[_START], path]), axis=0) / 255
    lengths = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(lengths, [1] * 3 + [0.5] * 3 + [0.25] * 3, rtol=1e-4)
    first = _gradient(_START)
    np.testing.assert_allclose(steps[0], -first / np.linalg.norm(first), atol=1e-5)


@pytest.mark.thorough
def test_a_rule_drives_the_loop():
    model = fv.from_function(lambda _, x: {"pixels": x}, {}, input=fv.Input((4, 5)))
    target = np.random.default_rng(1).uniform(0.3, 0.7, (1, 4, 5, 3)).astype(np.float32)
    # The energy is |x - t|² / |t|²: the text is first read under a trace here.
    rate = "stepwise_schedule((0.2, 0.1), (150, 50))"
    result = fv.synthesize(
        model,
        fv.FeatureMatch("pixels", target),
        "BoundedPixels(sd=0.1)",
        batch=2,
        steps=200,
        optimizer=f"preimage_momentum({rate}, {float(np.linalg.norm(target))})",
        transform="none",
        progress=False,
    )
    np.testing.assert_allclose(result.images, np.repeat(target, 2, 0), atol=1e-3)
    assert "preimage_momentum" in str(result.manifest)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: preimage_adagrad(0.0), "learning_rate must be a number above 0"),
        (lambda: preimage_adagrad("0.1"), "learning_rate"),
        (lambda: preimage_adagrad(True), "learning_rate"),
        (lambda: preimage_adagrad(float("nan")), "learning_rate"),
        (lambda: preimage_adagrad(0.1, momentum=1.0), "momentum must be .* below 1; got 1.0"),
        (lambda: preimage_adagrad(0.1, decay=1.1), "decay must be a number from 0 to 1"),
        (lambda: preimage_adagrad(0.1, scale=-255), "scale must be a number above 0; got -255"),
        (lambda: preimage_momentum(-0.1, 1.0), "learning_rate"),
        (lambda: preimage_momentum(0.1, 0.0), "sigma must be a number above 0"),
        (lambda: preimage_momentum(0.1, 1.0, momentum=-0.1), "momentum"),
        (lambda: stepwise_schedule((0.1, 0.2), (3,)), "as many rates as numbers of steps"),
        (lambda: stepwise_schedule((), ()), "as many rates"),
        (lambda: stepwise_schedule(0.1, 3), "as many rates"),
        (lambda: stepwise_schedule((0.1, -0.2), (3, 3)), "rates must be numbers of at least 0"),
        (lambda: stepwise_schedule((0.1, 0.2), (3, 0)), "steps must be integers above 0; got 0"),
        (lambda: stepwise_schedule((0.1, 0.2), (2.5, 3)), "steps must be integers"),
        (lambda: components.optimizer("preimage_momentum(0.1)"), "needs sigma"),
        (lambda: components.optimizer("preimage_adagrad(0.1, decay=2.0)"), "decay must be"),
        (lambda: components.optimizer("stepwise_schedule((0.1,), (3,))"), "is not an optax"),
    ],
)
def test_bad_arguments_are_input_errors(make, message):
    with pytest.raises(fv.InputError, match=message):
        make()


# ---- noise ---------------------------------------------------------------------------------


@pytest.mark.thorough
def test_noise_is_of_each_image_and_step_and_of_the_seed(toy):
    """With a gradient of nothing an image walks at random: the steps are normal, and its own."""
    options = {"optimizer": "chain(scale(0.0), gaussian_noise(0.001))", "transform": "none"}
    options |= {"progress": False, "init": np.full((*networks.TOY_SIZE, 3), 0.5, np.float32)}
    walked = fv.synthesize(toy, "conv:1", fv.BoundedPixels(networks.TOY_SIZE), steps=4,
                           batch=2, snapshots=[1, 2, 3, 4], **options)  # fmt: skip
    path = np.stack([np.full_like(walked.images, 0.5), *walked.snapshots.values()])
    steps = np.diff(path, axis=0)
    assert np.abs(steps.std((2, 3, 4)) / 0.001 - 1).max() < 0.1
    flat = steps.reshape(8, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(8)).max() < 0.2
    again = fv.replay(walked.manifest, model=toy, progress=False)
    np.testing.assert_array_equal(again.images, walked.images)


@pytest.mark.parametrize("sd", [-1.0, float("nan"), True, "0.1"])
def test_noise_of_no_deviation_is_refused(sd):
    with pytest.raises(fv.InputError, match="sd must be a number of at least 0"):
        optimizers.gaussian_noise(sd)


# ---- images as images


@pytest.mark.parametrize(("shape", "name"), [((6, 6, 2), "pixels"), ((5, 8, 1), "code")])
def test_a_whitened_gradient_is_the_authors(shape, name):
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rule = optimizers.whiten_gradient()
    found, _ = rule.update({name: jnp.asarray(gradient)}, rule.init({name: gradient}))
    # Cadena et al.: F = 1 / max(1, (ky² + kx²)^(1/4)), divided by its mean, on the whole spectrum.
    t = [np.minimum(np.arange(n), np.arange(n, 0, -1)).astype(float) for n in shape[:2]]
    factor = 1 / np.maximum(1.0, (t[0][:, None] ** 2 + t[1] ** 2) ** 0.25)
    factor /= factor.mean()
    spectrum = np.fft.fft2(gradient, axes=(0, 1)) * factor[..., None]
    expected = np.fft.ifft2(spectrum, axes=(0, 1)).real
    np.testing.assert_allclose(found[name], expected, atol=1e-5)


@pytest.mark.thorough
def test_a_whole_batch_has_one_scale():
    rule = optimizers.normalize_over_batch()
    gradients = {"a": np.array([[3.0, 0.0], [0.0, 0.4], [np.nan, 1.0]]), "b": np.zeros((3, 2))}
    update = jax.vmap(lambda g: rule.update(g, rule.init(g))[0], axis_name=optimizers.IMAGES)
    found = update(jax.tree.map(jnp.asarray, gradients))
    scale = np.sqrt((9 + 0.16 + 1) / 12)
    np.testing.assert_allclose(found["a"], gradients["a"] / scale, rtol=1e-5)
    still = update({"a": jnp.zeros((2, 3))})
    assert not still["a"].any()


@pytest.mark.thorough
def test_what_images_share_and_the_scale_of_a_batch_in_a_run(toy):
    own = fv.Pixels(networks.TOY_SIZE)
    unit = fv.Channel("conv", [0, 3])
    options = {"steps": 3, "transform": "none", "progress": False}
    shared = fv.synthesize(
        toy, unit, fv.Shared(networks.TOY_SIZE, of=own), optimizer="sgd(1.0)", **options
    )
    grid = shared.params["shared"]
    np.testing.assert_array_equal(grid[0], grid[1])
    assert np.abs(grid).max() > 0
    rule = "chain(normalize_over_batch(), sgd(0.1))"
    both = fv.synthesize(toy, unit * np.array([1.0, 100.0]), own, optimizer=rule, **options)
    start = [
        own.init(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), i), 0)) for i in (0, 1)
    ]
    moved = [
        np.abs(both.params["pixels"][i] - start[i]["pixels"]).mean() for i in (0, 1)
    ]  # fmt: skip
    assert 30 < moved[1] / moved[0] < 300
    # One run each: another unit beside it would change the picture.
    many = fv.synthesize_many(toy, ["conv:0", "conv:3"], own, optimizer=rule, **options)
    assert [places for places, _ in many] == [(0,), (1,)]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("chain(whiten_gradient(-1.0), sgd(0.1))", "power must be a number of at least 0; got -1"),
        ("chain(whiten_gradient(), sgd(0.1))", r"is for `pixels` \(h, w, c\)"),
    ],
)
def test_whitening_that_there_is_not(toy, rule, message):
    with pytest.raises(fv.InputError, match=message):
        fv.synthesize(toy, "conv:0", fv.Fourier(networks.TOY_SIZE), optimizer=rule, steps=1)
